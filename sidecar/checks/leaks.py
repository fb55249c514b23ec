"""Secrets in text: the shapes of common tokens and private keys.

Only shapes with a prefix of their own, so that a finding is worth stopping for. A finding names the kind, never the secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

KINDS: Final[Mapping[str, bytes]] = {
    "private key": rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    "AWS access key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50})",
    "GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20}",
    "Slack token": rb"\bxox[abeoprs]-[A-Za-z0-9-]{20}",
    "Slack webhook": rb"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{20}",
    "Stripe key": rb"\b[rs]k_live_[A-Za-z0-9]{20}",
    "Anthropic key": rb"\bsk-ant-[a-z0-9]{2,10}-[A-Za-z0-9_-]{20}",
    "OpenAI key": rb"\bsk-(?:proj-|svcacct-)[A-Za-z0-9_-]{30}|\bsk-[A-Za-z0-9]{48}\b",
    "Google API key": rb"\bAIza[A-Za-z0-9_-]{35}",
    "npm token": rb"\bnpm_[A-Za-z0-9]{36}",
    "PyPI token": rb"\bpypi-AgEI[A-Za-z0-9_-]{50}",
    "SendGrid key": rb"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "AgentCom token": rb"\bac_[A-Za-z0-9]{6,32}_[A-Za-z0-9_-]{32}",
}

WINDOW_BYTES: Final = 256 * 1024
"""How much is searched at a time: a search holds the interpreter, and with it the beats, for a millisecond, not for seconds."""
OVERLAP_BYTES: Final = 512
"""By how much a window reaches into the next: more than the longest secret of any kind."""
HEADER_BYTES: Final = 8192

_HEADER: Final = re.compile(rb"diff --git .* b/(.*)|diff --cc (.*)|commit [0-9a-f]{40}")
_COMPILED: Final = tuple((kind, re.compile(pattern)) for kind, pattern in KINDS.items())


def leaks_in(data: bytes) -> Iterator[str]:
    """The kinds of secret that ``data`` holds."""
    return (kind for kind, pattern in _COMPILED if any(_found(pattern, data, at) for at in range(0, len(data), WINDOW_BYTES)))


def _found(pattern: re.Pattern[bytes], data: bytes, at: int) -> bool:
    end = at + WINDOW_BYTES + OVERLAP_BYTES
    found = pattern.search(data, at, end)
    # What touches the end of the window may go on behind it, and be no secret: the next window holds all of it.
    return found is not None and (found.end() < end or end >= len(data))


def leaks_in_patch(patch: bytes) -> Iterator[tuple[str, str]]:
    """(path, kind) for each secret that the commits of a patch add, also those a later commit removes: history is pushed.

    ``patch`` is the output of ``git log -p --cc -U0 --text``, each commit introduced by a line ``commit <id>``. Removed lines
    start with a minus in the first or, in merges, the second column.
    """
    path, added = "", bytearray()
    for line in patch.split(b"\n"):
        header = _HEADER.match(line[:HEADER_BYTES])
        if header is not None:
            yield from ((path, kind) for kind in leaks_in(bytes(added)))
            added.clear()
            path = (header[1] or header[2] or b"(commit message)").decode(errors="replace")
        elif not line.startswith((b"-", b" -")):
            added += line + b"\n"
    yield from ((path, kind) for kind in leaks_in(bytes(added)))
