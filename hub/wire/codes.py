"""WebSocket close codes. A client acts on ranges only: 4000–4499 reconnect, 4500–4999 give up (protocol §9)."""

from __future__ import annotations

from enum import IntEnum


class Close(IntEnum):
    """Application close codes of ``agentcom.v1``."""

    SHUTDOWN = 4000
    GOAWAY = 4001
    IDLE = 4003
    TOKEN_EXPIRED = 4005
    SLOW = 4008
    RATE = 4009
    RESYNC = 4010
    NO_HELLO = 4408
    SUPERSEDED = 4409
    NAME_IN_USE = 4410
    UNAUTHENTICATED = 4500
    VIOLATIONS = 4501
    VERSION = 4502
    FORBIDDEN = 4503
    REVOKED = 4504
    AGENT_DELETED = 4505
    FLAPPING = 4506


def is_terminal(code: int | None) -> bool:
    """Whether a sidecar must stop reconnecting. A proxy's 5xx and 1006/1011/1012 never are."""
    return code is not None and 4500 <= code <= 4999
