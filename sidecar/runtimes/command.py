"""Any program as an agent: an argv template, and a rule that says when the program succeeded.

The template's placeholders are replaced inside single argv elements, once; nothing ever passes through a shell and a
placeholder inside a task's text stays text. With ``events = "jsonl"`` the program may print JSON objects, one a line:
``{"question": {"qid", "text", "options"}}`` (the answer arrives on stdin as ``{"answer": {"qid", "text"}}``),
``{"text": …}``, ``{"usage": {"input", "cached", "output", "cost", "model"}}`` and ``{"outcome": "succeeded"|"failed",
"code", "message", "retryable"}``.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from hub.wire.spec import Usage
from sidecar.runtimes.base import TEXT_BYTES, Asked, Event, Launch, RunEnd, RunSpec, RuntimeFault, Said

PLACEHOLDERS = ("prompt", "prompt_file", "cwd", "task_id", "model")
ARGUMENT_BYTES = 100 * 1024
"""Linux refuses an argument of 128 KiB; below this there is room for what surrounds the prompt."""

USAGE_LIMIT = 2**53
"""Largest sum of anything a program says it used: beyond, a number is no whole number any more for readers of JSON."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_usage: TypeAdapter[Usage] = TypeAdapter(Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRule:
    """When a program that ended has succeeded.

    ``exit_zero`` – its exit code is 0. ``outcome`` – exit code 0 and its last ``{"outcome": …}`` line says so. ``marker``
    – exit code 0 and a line of its output equals ``marker``. ``marker_file`` – exit code 0 and that file, relative to the
    workspace, exists.
    """

    kind: Literal["exit_zero", "outcome", "marker", "marker_file"] = "exit_zero"
    marker: str = ""


def template_faults(argv: Sequence[str]) -> list[str]:
    """What is wrong with an argv template, in words for whoever wrote it."""
    if not argv or not argv[0]:
        return ["argv needs a program as its first element"]
    unknown = {name for element in argv for name in _PLACEHOLDER.findall(element)} - set(PLACEHOLDERS)
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    return [f"unknown placeholder {{{name}}} in argv; there are {allowed}" for name in sorted(unknown)]


class CommandRuntime:
    """A program, started once per run."""

    name = "command"
    passes: tuple[str, ...] = ()

    def __init__(
        self,
        argv: Sequence[str],
        *,
        success: SuccessRule | None = None,
        events: Literal["none", "jsonl"] = "none",
        stdin: Literal["none", "prompt"] = "none",
    ) -> None:
        if faults := template_faults(argv):
            raise ValueError("; ".join(faults))
        self._argv = tuple(argv)
        self._success = success or SuccessRule()
        self._events = events
        self._stdin = stdin
        # A plain program knows no read-only mode; AGENTCOM_ACCESS tells it what is wanted, nothing enforces it.
        self.caps: tuple[str, ...] = ("questions",) if events == "jsonl" else ()

    def launch(self, run: RunSpec) -> Launch:
        """Fill in the template. Codes: ``prompt_too_long``, ``bad_prompt``."""
        values = {
            "prompt": run.prompt,
            "prompt_file": str(run.prompt_file),
            "cwd": str(run.cwd),
            "task_id": f"t-{run.spec.task}",
            "model": run.spec.model or "",
        }
        argv = tuple(_PLACEHOLDER.sub(lambda found: values[found[1]], element) for element in self._argv)
        for element in argv:
            if len(element.encode()) > ARGUMENT_BYTES:
                raise RuntimeFault(
                    "prompt_too_long",
                    f"an argument of {len(element.encode())} bytes is too long for a command line; "
                    'use {prompt_file} instead of {prompt}, or stdin = "prompt"',
                )
            if "\0" in element:
                raise RuntimeFault("bad_prompt", "the task's text contains a NUL byte, which no argument can hold")
        stdin = run.prompt if self._stdin == "prompt" else ""
        return Launch(argv=argv, env=run.env, stdin=stdin, keep_stdin=self._events == "jsonl" and not stdin)

    def reader(self) -> CommandReader:
        """A reader for one run."""
        return CommandReader(self._success, jsonl=self._events == "jsonl" or self._success.kind == "outcome")

    def answer(self, qid: str, text: str) -> str:
        """One JSON line."""
        return orjson.dumps({"answer": {"qid": qid, "text": text}}).decode() + "\n"


class CommandReader:
    """Reads one program's output; keeps its tail and the last word it said about its own outcome."""

    def __init__(self, success: SuccessRule, *, jsonl: bool) -> None:
        self._success = success
        self._jsonl = jsonl
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._outcome: dict[str, Any] | None = None
        self._marked = False
        self._usage: Usage | None = None

    def feed(self, event: Mapping[str, Any]) -> tuple[Event, ...]:
        """Remember the line; a question or a text in it is an event."""
        line = event.get("out", event.get("err"))
        if not isinstance(line, str):
            return ()
        self._marked = self._marked or bool(self._success.marker and line.strip() == self._success.marker)
        said = _object(line) if self._jsonl and "out" in event else None
        if said is None:
            self._remember(line)
            return ()
        return self._meaning(said)

    def end(self, terminal: Mapping[str, Any], cwd: Path) -> RunEnd:
        """Success only if the exit code is 0, the program did not say otherwise, and the success rule holds."""
        text = b"".join(self._tail)[-TEXT_BYTES:].decode(errors="replace")
        if (problem := self._problem(terminal, cwd)) is None:
            return RunEnd(ok=True, text=text, usage=self._usage)
        code, message, retryable = problem
        return RunEnd(ok=False, code=code, message=message, retryable=retryable, text=text, usage=self._usage)

    def _problem(self, terminal: Mapping[str, Any], cwd: Path) -> tuple[str, str, bool] | None:
        if terminal.get("unrun") and terminal.get("error"):
            # this machine's fault and not the task's: another agent may have the program, and this one may be given it back
            return "cannot_start", f"{terminal['error']}; correct [agents.command] argv, or who may run it", True
        if terminal.get("signal"):
            return "agent_killed", f"the agent was killed by signal {terminal['signal']}", True
        said = self._outcome
        if said is not None and said.get("outcome") != "succeeded":
            code = str(said.get("code") or "agent_failed")[:64]
            return code, str(said.get("message") or "the agent reports failure")[:4000], said.get("retryable") is not False
        if terminal.get("exit") != 0:
            return "agent_failed", f"the agent ended with exit code {terminal.get('exit')}", True
        match self._success.kind:
            case "outcome" if said is None:
                return "no_outcome", 'the agent ended without a line {"outcome": "succeeded"}', True
            case "marker" if not self._marked:
                return "no_marker", f"the agent never printed the line {self._success.marker!r}", True
            case "marker_file" if not (cwd / self._success.marker).exists():
                return "no_marker", f"the agent did not leave the file {self._success.marker!r}", True
        return None

    def _remember(self, text: str) -> None:
        """Keep it; what is not needed any more to fill the tail goes, so a line costs its own length and no more."""
        line = (text[-TEXT_BYTES:] + "\n").encode(errors="replace")[-TEXT_BYTES:]
        self._tail.append(line)
        self._tail_bytes += len(line)
        while self._tail_bytes - len(self._tail[0]) >= TEXT_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def _meaning(self, said: dict[str, Any]) -> tuple[Event, ...]:
        if "outcome" in said:
            self._outcome = said
        if isinstance(said.get("usage"), dict):
            self._add_usage(said["usage"])
        if isinstance(said.get("question"), dict):
            return _question(said["question"])
        if isinstance(said.get("text"), str):
            self._remember(said["text"])
            return (Said(text=said["text"][:1024]),)
        return ()

    def _add_usage(self, said: dict[str, Any]) -> None:
        try:
            new = _usage.validate_python(said)
        except ValidationError:
            return
        if not math.isfinite(new.cost):
            return
        old = self._usage or Usage()
        # Every addend is in its range, their sum need not be: a result that says so would be malformed.
        self._usage = Usage(
            input=min(old.input + new.input, USAGE_LIMIT),
            cached=min(old.cached + new.cached, USAGE_LIMIT),
            output=min(old.output + new.output, USAGE_LIMIT),
            cost=min(old.cost + new.cost, float(USAGE_LIMIT)),
            model=new.model or old.model,
        )


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object of a line, if it is one."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


def _question(said: dict[str, Any]) -> tuple[Event, ...]:
    qid, text, options = said.get("qid"), said.get("text"), said.get("options") or []
    if not (isinstance(qid, str) and 0 < len(qid) <= 64 and isinstance(text, str) and text and isinstance(options, list)):
        return ()
    return (Asked(qid=qid, text=text[:4096], options=tuple(str(option)[:256] for option in options[:16])),)
