"""Every target by its name. A target takes any bytes and returns, or an assertion of it fails; whatever else escapes is a defect, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import holder, hub, link, sidecar, wire

CORPUS = Path(__file__).with_name("corpus")
"""Inputs that once led somewhere new, or to a defect: a directory for each target."""
Check = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """``largest`` bounds what is tried, in bytes; ``share`` is how much of a large run it gets; a ``slow`` one takes a hub for each."""

    check: Check
    largest: int = 4096
    share: int = 1
    slow: bool = False


TARGETS: Mapping[str, Target] = {
    "wire.frame": Target(wire.frame, share=4),
    "wire.spec": Target(wire.spec),
    "wire.document": Target(wire.document),
    "wire.name": Target(wire.name, largest=512),
    "wire.text": Target(wire.text, largest=512),
    "sidecar.journal": Target(sidecar.journal, share=2),
    "sidecar.record": Target(sidecar.record, share=2),
    "sidecar.spool": Target(sidecar.spool),
    "sidecar.shim": Target(sidecar.shim),
    "sidecar.output": Target(sidecar.output),
    "sidecar.head": Target(sidecar.head, largest=1024),
    "sidecar.settings": Target(sidecar.settings),
    "sidecar.holder": Target(holder.holder, largest=400),
    "hub.settings": Target(hub.settings),
    "hub.compared": Target(hub.compared),
    "hub.logged": Target(hub.logged),
    "hub.patch": Target(hub.patch),
    "hub.link": Target(link.link, largest=600, slow=True),
    "hub.refused": Target(link.refused, largest=600, slow=True),
}


def known(name: str) -> Sequence[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
