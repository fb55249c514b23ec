"""Errors as RFC 9457 ``application/problem+json``: a stable code, every field fault at once, and what to do next.

Nothing of an unexpected error reaches the caller but the request id under which the log has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from hub.core.errors import Fault, HubError, Refused
from hub.store.versions import StaleVersion

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 100
TOO_LARGE = "body_too_large"
SPLIT = "send it in parts: fewer tasks in a batch, or text that points to a file"


class FieldFault(BaseModel):
    """One fault: where (dotted path), stable type, words."""

    loc: str
    type: str
    msg: str


class Problem(BaseModel):
    """Any error answer. ``code`` is stable and machine-readable; ``hint`` says what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldFault] = []
    hint: str | None = None
    request_id: str | None = None
    current: dict[str, Any] | None = Field(default=None, description="412: the record as it is now")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    hint: str = "",
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extension: Any,
) -> Response:
    """Build the answer. ``extension`` members are added to the document (RFC 9457 §3.2)."""
    body: dict[str, Any] = {
        "type": f"urn:agentcom:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"loc": fault.loc, "type": fault.type, "msg": fault.msg} for fault in faults[:MAX_FAULTS]],
    }
    if hint:
        body["hint"] = hint
    if request_id is not None:
        body["request_id"] = request_id
    return Response(orjson.dumps(body | extension), status, dict(headers or {}), MEDIA_TYPE)


def of_error(error: HubError, request_id: str | None = None) -> Response:
    """The answer for an error of ours. A defect (500) shows no words of its own."""
    if not isinstance(error, Refused):
        detail = "the hub failed; its log has the cause" if error.status == 500 else str(error)
        headers = {"Retry-After": "1"} if error.retryable else None
        return problem(error.status, error.code, detail, hint=error.hint, request_id=request_id, headers=headers)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    extension = {"current": jsonable_encoder(error.current)} if isinstance(error, StaleVersion) else {}
    return problem(
        error.status,
        error.code,
        error.message,
        faults=error.faults,
        hint=error.hint,
        request_id=request_id,
        headers=headers,
        **extension,
    )


def install(app: FastAPI) -> None:
    """Answer every expected kind of error as a problem; the unexpected is caught by the outermost middleware."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)
        return of_error(error, _request_id(request))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [_fault(entry) for entry in error.errors()]
        more = f": {len(faults)} faults, the first {MAX_FAULTS} are listed" if len(faults) > MAX_FAULTS else ""
        return problem(422, "invalid", f"the request is not valid{more}", faults=faults, request_id=_request_id(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = TOO_LARGE if error.status_code == 413 else HTTPStatus(error.status_code).name.lower()
        detail, hint = _explain(request, error)
        return problem(error.status_code, code, detail, request_id=_request_id(request), headers=error.headers, hint=hint)

    app.add_exception_handler(HubError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _explain(request: Request, error: HTTPException) -> tuple[str, str]:
    """What the framework refused by itself, in words, and what to do."""
    path = request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        shorter = path.rstrip("/")
        return (
            f"there is nothing at {path[:64]!r}",
            f"without the slash at the end: {shorter[:64]!r}" if shorter != path else "see /docs",
        )
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return (
            f"{request.method} is not possible at {path[:64]!r}",
            f"possible is {(error.headers or {}).get('Allow', 'nothing')}",
        )
    return str(error.detail), SPLIT if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else "see /docs"


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _fault(entry: Mapping[str, Any]) -> Fault:
    """pydantic's entry in our words; the input itself is not repeated, but for the names of its fields, made visible."""
    kind = str(entry["type"])
    where = [visible(str(part)) for part in entry["loc"]]
    if kind == "json_invalid":
        return Fault("body", kind, f"not valid JSON: {entry['ctx']['error']}"[:1024])
    if where[0] == "body":
        where = where[1:] or where
    message = _WORDS.get(kind) or str(entry["msg"]).removeprefix("Value error, ")
    return Fault(".".join(where)[:256], kind[:64], message[:1024])


_WORDS = {
    "extra_forbidden": "there is no such field",
    "unexpected_keyword_argument": "there is no such field",
    "missing": "it is needed",
    "model_attributes_type": "a JSON object is needed",
    "dict_type": "a JSON object is needed",
    "list_type": "a JSON list is needed",
}
"""Where pydantic speaks of Python, or of less than is known."""


def visible(text: str) -> str:
    """Foreign text with every character that is not seen as its escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
