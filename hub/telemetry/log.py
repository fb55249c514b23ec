"""Structured logs: JSON for machines, colours on a terminal, and no secret in either."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_TOKEN = re.compile(r"ac_[0-9a-f]{8}_[A-Za-z0-9_-]{16,}")
_LINES = frozenset({"exception", "traceback"})
_CREDENTIALS = re.compile(r"(?i)(://[^/\s:@]*:)[^@/\s]+@|(bearer\s+)\S+")


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that removes tokens, URL passwords and bearer credentials from every string value."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _CREDENTIALS.sub(r"\1\2[redacted]", _TOKEN.sub("ac_[redacted]", value))
    return event


def harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor for terminals: words of agents and submitters are shown without power over it, and forge no lines.

    Tracebacks keep their lines. JSON needs none of this: it escapes by itself.
    """
    for key, value in event.items():
        if isinstance(value, str):
            kept = "\n" if key in _LINES else ""
            event[key] = "".join(
                char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in value
            )
    return event


def configure(*, as_json: bool | None = None, level: str = "info") -> None:
    """Send all logs of the process to standard error; JSON unless that is a terminal."""
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
        *([] if as_json else [harmless]),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
