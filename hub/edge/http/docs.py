"""The documentation page: rendered in the browser from ``/openapi.json`` by our own script; nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from starlette.responses import RedirectResponse

router = APIRouter(include_in_schema=False)

_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"


@cache
def _static(name: str) -> bytes:
    return files("hub.edge.http").joinpath("static", name).read_bytes()


def _serve(name: str, media_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return Response(_static(name), media_type=media_type, headers=headers)


@router.get("/")
async def root() -> RedirectResponse:
    """Whoever types the address into a browser."""
    return RedirectResponse("/docs")


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return _serve("docs.html", "text/html; charset=utf-8")


@router.get("/docs/docs.css")
async def style() -> Response:
    """Its style sheet."""
    return _serve("docs.css", "text/css; charset=utf-8")


@router.get("/docs/docs.js")
async def script() -> Response:
    """Its script."""
    return _serve("docs.js", "text/javascript; charset=utf-8")
