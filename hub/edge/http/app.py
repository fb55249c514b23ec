"""The application: routers, middleware and the schema, put together once. Refuses to exist with a route that demands no scope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from hub.edge.http import (
    agents,
    backups,
    blobs,
    changes,
    db,
    docs,
    doctor,
    enrolments,
    events,
    health,
    probes,
    problem,
    projects,
    repos,
    salvage,
    status,
    task_commands,
    tasks,
    tokens,
)
from hub.edge.http.access import Needs
from hub.edge.http.doors import Doors
from hub.edge.http.middleware import PUBLIC, Authenticate, BodyLimit, Envelope
from hub.edge.http.reading import JsonRoute
from hub.edge.http.registry import Registrar

API = "/api/v1"
NOUNS: tuple[APIRouter, ...] = (
    task_commands.router,
    tasks.router,
    agents.router,
    probes.router,
    changes.router,
    salvage.router,
    projects.router,
    repos.router,
    events.router,
    status.router,
    blobs.router,
    tokens.router,
    enrolments.router,
    doctor.router,
    backups.router,
    db.router,
)


def create_http(doors: Doors) -> FastAPI:
    """The HTTP door as an ASGI application. Raises RuntimeError for a route that is neither public nor guarded."""
    app = FastAPI(
        title="AgentCom",
        version=doors.version,
        summary="The hub for AI coding agents: ideas enter a queue and come out as reviewed, merged changes.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        middleware=[
            Middleware(Envelope),
            Middleware(Authenticate, auth=doors.auth, limiter=doors.limiter),
            Middleware(BodyLimit),
        ],
    )
    app.state.doors = doors
    app.state.registrar = Registrar(doors.conductor, doors.reader)
    problem.install(app)
    for router in NOUNS:
        _refuse_unguarded(API, router)
        app.include_router(router, prefix=API)
    for router in (health.router, docs.router):
        _refuse_unguarded("", router)
        app.include_router(router)
    _describe_errors(app)
    return app


def _refuse_unguarded(prefix: str, router: APIRouter) -> None:
    for route in router.routes:
        path = prefix + getattr(route, "path", "")
        guarded = isinstance(route, APIRoute) and any(isinstance(call, Needs) for call in _calls(route.dependant))
        if not guarded and path not in PUBLIC:
            raise RuntimeError(f"route {path} demands no scope and is not public")
        if guarded and not isinstance(route, JsonRoute):
            raise RuntimeError(f"route {path} does not read its body strictly: give its router route_class=JsonRoute")


def _calls(dependant: Dependant) -> Iterator[object]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _describe_errors(app: FastAPI) -> None:
    """Say in the schema what FastAPI cannot know: bearer tokens, and problem+json for every error."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = generate()
        parts = schema.setdefault("components", {})
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "ac_<id>_<secret>"}}
        shapes = parts.setdefault("schemas", {})
        problem_schema = problem.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        shapes.update(problem_schema.pop("$defs"))
        shapes["Problem"] = problem_schema
        for unused in ("HTTPValidationError", "ValidationError"):
            shapes.pop(unused, None)
        answer = {
            "description": "Refused",
            "content": {problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = answer
                if path not in PUBLIC:
                    operation["security"] = [{"token": []}]
        app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
