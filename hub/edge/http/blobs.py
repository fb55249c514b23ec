"""Blobs: bodies too large for a frame, stored before the frame that names them. Storing one twice is nothing."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Depends, Request, Response

from hub.core.errors import Refused
from hub.edge.http.access import Hub, Needs
from hub.edge.http.fields import Digest
from hub.edge.http.reading import JsonRoute
from hub.ids import Scope
from hub.store import blobs

OCTETS = "application/octet-stream"

router = APIRouter(prefix="/blobs", tags=["blobs"], route_class=JsonRoute)


@router.put(
    "/{sha256}",
    status_code=201,
    response_class=Response,
    responses={204: {"description": "It was there"}},
    dependencies=[Depends(Needs(Scope.AGENT))],
    openapi_extra={"requestBody": {"required": True, "content": {OCTETS: {}}}},
)
async def put(sha256: Digest, request: Request, hub: Hub) -> Response:
    """Store a body of at most 8 MiB under its SHA-256. 201, or 204 when it was there."""
    body = await request.body()
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        raise Refused(422, "digest_mismatch", f"the body's SHA-256 is {found}", hint="store it under that, or send it again")
    hub.admit_body(len(body))
    created = await hub.conductor.record(blobs.put(sha256, body), size_bytes=len(body))
    return Response(status_code=201 if created else 204)


@router.get(
    "/{sha256}",
    response_class=Response,
    responses={200: {"content": {OCTETS: {}}, "description": "The body"}},
    dependencies=[Depends(Needs(Scope.AGENT, Scope.OBSERVER))],
)
async def get(sha256: Digest, hub: Hub) -> Response:
    """The body, as bytes."""
    body = await blobs.get(hub.reader, sha256)
    if body is None:
        raise Refused(404, "unknown_blob", "there is no such blob", hint="a blob is stored by PUT before anything names it")
    headers = {"ETag": f'"{sha256}"', "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return Response(body, media_type=OCTETS, headers=headers)
