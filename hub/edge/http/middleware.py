"""What surrounds every request, as plain ASGI: a request id and the last resort, authentication, the bound of the body.

Plain ASGI because wrapping responses (as Starlette's BaseHTTPMiddleware does) breaks streaming and cancellation.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.core.errors import Refused
from hub.edge.auth import Authenticator, Identity
from hub.edge.http.problem import SPLIT, TOO_LARGE, of_error, problem
from hub.edge.ratelimit import Limiter, Tier

PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/docs", "/docs/docs.css", "/docs/docs.js"})
"""Paths served without a token: health, bounded figures and the documentation. Every other path needs one."""
BODY_BYTES = 1_048_576
BLOB_BYTES = 8_388_608
BLOBS = "/api/v1/blobs/"
REMOTE = ("/api/v1/repos", "/api/v1/backups", "/api/v1/db")
EXAMINES = ("/api/v1/doctor", "/api/v1/db/health", "/api/v1/db/pruning/preview")
"""Where a request makes the hub ask remotes or walk its disk: whatever is asked of examinations, and of the others what changes something:
repositories and copies of the store as they are made, and the store as it is made smaller."""
BODY_S = 60.0
"""For all of a body, whatever its size."""

_log = structlog.get_logger("hub.edge.http")


class Envelope:
    """Outermost: gives the request an id, and answers what nobody expected with a 500 that shows nothing but that id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; an error after the response began can only end the connection, so it goes on to the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except asyncio.CancelledError:
            # the hub stops and does not wait any longer: its server would call that a defect
            if not started:
                words = "the hub is stopping; whether this was done is not known"
                unknown = problem(503, "stopping", words, request_id=request_id, headers={"Retry-After": "2"})
                await unknown(scope, receive, stamped)
            raise
        except ClientDisconnect:
            # cut off or too slow: one who is still there is told
            if not started:
                late = problem(408, "request_timeout", f"the body was not here within {BODY_S:g} s", request_id=request_id)
                await late(scope, receive, stamped)
        except Exception:
            # the plain traceback: one that shows locals would show the caller's token
            where = {"method": scope["method"], "path": scope["path"], "traceback": traceback.format_exc()}
            _log.error("request_failed", request_id=request_id, **where)
            if started:
                raise
            answer = problem(500, "internal", "the hub failed; its log has the cause", request_id=request_id)
            await answer(scope, receive, stamped)


class Authenticate:
    """No path but the public ones is reached without a known token, nor too often; the identity travels in the request's state."""

    def __init__(self, app: ASGIApp, auth: Authenticator, limiter: Limiter) -> None:
        self._app = app
        self._auth = auth
        self._limiter = limiter

    def _admit(self, scope: Scope) -> Identity:
        try:
            identity = self._auth.authenticate(Headers(scope=scope).get("authorization"))
        except Refused:
            self._limiter.denied((scope.get("client") or ("unknown",))[0])
            raise
        self._limiter.admit(identity, tier_of(scope["method"], scope["path"]))
        return identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or refuse it with 401 or 429."""
        if scope["type"] == "http" and scope["path"] not in PUBLIC:
            try:
                scope["state"]["identity"] = self._admit(scope)
            except Refused as refused:
                await of_error(refused, scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def tier_of(method: str, path: str) -> Tier:
    """What a request costs the hub."""
    reads = method in ("GET", "HEAD", "OPTIONS")
    if path.startswith(EXAMINES) or (path.startswith(REMOTE) and not reads):
        return Tier.HEAVY
    return Tier.LIGHT if reads else Tier.NORMAL


class BodyLimit:
    """Bounds what a request may make the hub hold: by the declared length, and by the bytes that really arrive."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or refuse it with 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BLOB_BYTES if scope["path"].startswith(BLOBS) else BODY_BYTES
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > limit:
            refused = problem(413, TOO_LARGE, _too_large(limit), hint=SPLIT, request_id=scope["state"]["request_id"])
            await refused(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, limit), send)


def _bounded(receive: Receive, limit: int) -> Receive:
    got, whole = 0, False
    until = asyncio.get_running_loop().time() + BODY_S

    async def read() -> Message:
        nonlocal got, whole
        if whole:  # what is awaited from now on is the end of the connection
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}  # whoever waits for the rest gives up, and Envelope says why
        whole = not message.get("more_body", False)
        got += len(message.get("body", b""))
        if got > limit:
            # the one class that FastAPI lets through while it reads a body
            raise HTTPException(413, _too_large(limit))
        return message

    return read


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"
