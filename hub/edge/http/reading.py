"""How request bodies are read: as plain JSON (:mod:`hub.wire.plain_json`), and only if they are sent as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams

from hub.core.errors import Fault, Refused
from hub.edge.http.problem import MAX_FAULTS, visible
from hub.wire.plain_json import read_json


class JsonRoute(APIRoute):
    """A route whose body, if it takes one, is read by :func:`read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that reads strictly. Refused 415 for a body that is not sent as JSON."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            _check_once(request.query_params)
            strict = _StrictRequest(request.scope, request.receive)
            if takes_body and await strict.body():
                _check_media_type(request.headers.get("content-type", ""))
            return await handle(strict)

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def _check_once(asked: QueryParams) -> None:
    """Of two values one would be dropped, and nobody told which: no parameter here takes a list."""
    twice = sorted(name for name, count in Counter(name for name, _ in asked.multi_items()).items() if count > 1)
    if twice:
        faults = tuple(
            Fault(visible(f"query.{name}"[:256]), "twice", "it is there more than once") for name in twice[:MAX_FAULTS]
        )
        raise Refused(422, "invalid", "the request is not valid", faults=faults)


def _check_media_type(given: str) -> None:
    kind = given.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    sent = f"the body is sent as {kind[:64]!r}" if kind else "the body is sent without saying what it is"
    raise Refused(415, "unsupported_media_type", sent, hint="send JSON, with the header Content-Type: application/json")
