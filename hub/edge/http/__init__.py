"""The HTTP door: one router per noun under ``/api/v1``, problem+json errors, events as SSE, health, metrics and docs.

It translates: bodies into commands and record operations, records into documents. Rules live in ``hub.core``.
"""

from hub.edge.http.app import create_http
from hub.edge.http.doors import Doors

__all__ = ["Doors", "create_http"]
