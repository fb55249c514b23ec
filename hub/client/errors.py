"""How a request fails: the hub refused it (a problem), or it was never answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import httpx2


class FieldFault(TypedDict):
    """One fault of what was sent."""

    loc: str
    type: str
    msg: str


class HubProblem(Exception):
    """The hub refused. ``code`` is stable; ``errors`` lists every field fault; ``retry_after_s`` is set when waiting helps.

    ``current`` is the record as it is now, when an edit was made on an older version (412).
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(str(body.get("detail") or f"the hub answered {status}"))
        self.status = status
        self.code = str(body.get("code") or f"http_{status}")
        self.detail = str(self)
        self.hint = str(body.get("hint") or "")
        self.errors: list[FieldFault] = list(body.get("errors") or [])
        self.request_id: str | None = body.get("request_id")
        self.current: dict[str, Any] | None = body.get("current")
        self.retry_after_s = retry_after_s


class HubUnreachable(Exception):
    """No answer: the hub is not there, or the connection broke. Whether the request took effect is not known.

    ``hint`` is set when the cause says what to do.
    """

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"no answer from {url}: {_why(cause)}")
        self.url = url
        self.hint = _cure(cause)


def _why(cause: Exception) -> str:
    """In words, also for what the library says none about."""
    silent = isinstance(cause, (TimeoutError, httpx2.TimeoutException))
    return str(cause) or ("nothing was heard in time" if silent else "the connection broke off")


def _cure(cause: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(cause):
        return "if its certificate is of an authority of yours, name that in SSL_CERT_FILE"
    if isinstance(cause, (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout)):
        return (
            "something there takes connections and does not answer: a hub that hangs (its log says why), a network that loses "
            "what is sent, or no hub at all; whether the request took effect is not known"
        )
    return ""
