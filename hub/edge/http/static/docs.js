// Renders /openapi.json. Every text is set with textContent: the schema is data, never markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEPTH = 4; // levels of nested objects shown inside one another

/** Make an element with a class and children (strings become text). */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** The schema behind a $ref. */
function resolve(api, schema) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? { title: name, ...api.components.schemas[name] } : schema || {};
}

/** What a schema allows, in a few words. */
function describe(api, raw) {
  const schema = resolve(api, raw);
  if (schema.anyOf || schema.oneOf) return (schema.anyOf || schema.oneOf).map((one) => describe(api, one)).join(" or ");
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${describe(api, schema.items)}`;
  if (schema.properties) return schema.title || "object";
  const bounds = [];
  if (schema.minimum !== undefined) bounds.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined) bounds.push(`≤ ${schema.maximum}`);
  if (schema.maxLength !== undefined) bounds.push(`≤ ${schema.maxLength} characters`);
  return [schema.type || "any", ...bounds].join(" ");
}

/** The objects inside a schema: itself, the members of a choice, the items of a list. */
function objects(api, raw) {
  const schema = resolve(api, raw);
  if (schema.properties) return [schema];
  if (schema.anyOf || schema.oneOf) return (schema.anyOf || schema.oneOf).flatMap((one) => objects(api, one));
  return schema.type === "array" ? objects(api, schema.items) : [];
}

function row(name, required, type, note) {
  const label = make("span", required ? "required" : "", name);
  return make("tr", "", make("td", "", label), make("td", "", type), make("td", "", ...[note].flat()));
}

/** A table of an object's fields, nested objects folded. */
function fields(api, schema, depth) {
  const required = new Set(schema.required || []);
  const table = make("table", "");
  for (const [name, raw] of Object.entries(schema.properties)) {
    const note = [raw.description || ""];
    if (raw.default !== undefined && raw.default !== null && raw.default !== "") note.push(` default ${JSON.stringify(raw.default)}`);
    for (const inner of depth < DEPTH ? objects(api, raw) : []) {
      const fold = make("details", "", make("summary", "", inner.title || "fields"));
      fold.addEventListener("toggle", () => fold.children.length > 1 || fold.append(fields(api, inner, depth + 1)), { once: true });
      note.push(fold);
    }
    table.append(row(name, required.has(name), describe(api, raw), note));
  }
  return table;
}

function operationId(method, path) {
  return `${method}${path}`.replace(/[^A-Za-z0-9]+/g, "-");
}

/** One operation: what it does, its parameters, its body and its answers. */
function section(api, path, method, operation) {
  const heading = make("h3", "", make("span", `method ${method}`, method), path);
  const box = make("section", "", heading, make("p", "", operation.description || operation.summary || ""));
  box.id = operationId(method, path);
  const parameters = operation.parameters || [];
  if (parameters.length) {
    const table = make("table", "");
    for (const one of parameters) {
      table.append(row(one.name, one.required, describe(api, one.schema), `${one.in}${one.description ? `: ${one.description}` : ""}`));
    }
    box.append(make("h4", "", "Parameters"), table);
  }
  const body = operation.requestBody && Object.values(operation.requestBody.content)[0].schema;
  for (const schema of body ? objects(api, body) : []) box.append(make("h4", "", `Body: ${schema.title}`), fields(api, schema, 1));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const schema = answer.content && (Object.values(answer.content)[0] || {}).schema;
    const shown = schema ? objects(api, schema)[0] : null;
    if (!shown) {
      box.append(make("h4", "", `Answer ${status}`));
      continue;
    }
    const fold = make("details", "", make("summary", "", status === "default" ? "Errors (problem+json)" : `Answer ${status}: ${shown.title}`));
    fold.append(fields(api, shown, 1));
    box.append(fold);
  }
  return box;
}

function render(api) {
  document.getElementById("title").replaceChildren(api.info.title, " ", make("small", "", api.info.version));
  document.getElementById("summary").textContent = api.info.summary || "";
  const contents = document.getElementById("contents");
  const main = document.getElementById("operations");
  main.replaceChildren();
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const tag = (item[method].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method, item[method]]);
    }
  }
  for (const [tag, operations] of groups) {
    contents.append(make("h2", "", tag));
    for (const [path, method, operation] of operations) {
      const link = make("a", "", make("span", `method ${method}`, method), path.replace("/api/v1", ""));
      link.href = `#${operationId(method, path)}`;
      const box = section(api, path, method, operation);
      const words = `${method} ${path} ${operation.description || ""}`.toLowerCase();
      box.dataset.words = link.dataset.words = words;
      contents.append(link);
      main.append(box);
    }
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const element of document.querySelectorAll("[data-words]")) element.hidden = !element.dataset.words.includes(wanted);
});

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(render)
  .catch((fault) => { document.getElementById("operations").textContent = `The schema could not be read: ${fault}`; });
