"""Health and metrics at the root, for supervisors and Prometheus; public, bounded, without names or ids."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from hub.edge.http.access import Hub

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, bool]:
    """The process answers."""
    return {"ok": True}


@router.get(
    "/readyz",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {}}, "description": "Ready"},
        503: {"content": {"application/json": {}}, "description": "Not ready"},
    },
)
async def readyz(hub: Hub) -> Response:
    """200 when every check holds, otherwise 503; the body names each, and the codes with which people are refused just now."""
    checks = hub.readiness()
    ready = all(checks.values())
    return Response(
        orjson.dumps({"ready": ready, "checks": dict(checks), "degraded": list(hub.degraded())}),
        200 if ready else 503,
        media_type="application/json",
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"application/openmetrics-text": {}}, "description": "Figures"}},
)
async def metrics(hub: Hub) -> Response:
    """Figures as OpenMetrics text."""
    body, content_type = hub.metrics()
    return Response(body, headers={"Content-Type": content_type})
