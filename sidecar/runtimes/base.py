"""What the sidecar needs of any agent: how to start it, what its output means, and how its run ended.

A runtime is a pure translator. It never starts a process (the runner does, through a shim) and keeps no state between
runs; the state of one run's output is in the reader it makes. The exit code alone never is the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hub.ids import Access
from hub.wire.spec import Spec, Usage

TEXT_BYTES = 32_768
"""How much of the newest output a run's end keeps."""


class RuntimeFault(Exception):
    """The runtime cannot start this run. ``code`` is stable; trying again elsewhere may help if ``retryable``."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run to start. ``env`` is complete: nothing of the sidecar's own environment is added."""

    spec: Spec
    round: int
    cwd: Path
    prompt: str
    prompt_file: Path
    env: Mapping[str, str]
    access: Access = Access.WRITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the shim executes. ``keep_stdin`` leaves the agent's stdin open for answers."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: str = ""
    keep_stdin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The agent asks something and waits. ``qid`` names the question within its task."""

    qid: str
    text: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A line for people to follow the work by."""

    text: str


Event = Asked | Said


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How the agent itself says, or shows, that its run ended. ``code`` is stable and set when not ``ok``."""

    ok: bool
    code: str = ""
    message: str = ""
    retryable: bool = True
    text: str = ""
    usage: Usage | None = None
    conversation_id: str | None = None


class Reader(Protocol):
    """The meaning of one run's output, line by line."""

    def feed(self, event: Mapping[str, Any]) -> tuple[Event, ...]:
        """Take one event of the spool; returns what it means, often nothing."""
        ...

    def end(self, terminal: Mapping[str, Any], cwd: Path) -> RunEnd:
        """The outcome, once the terminal event is there."""
        ...


class Runtime(Protocol):
    """One kind of agent."""

    name: str
    caps: tuple[str, ...]
    """What it can do: ``questions`` (it asks and waits for the answer), ``read_only`` (it enforces that access) …"""
    passes: tuple[str, ...]
    """Variables of the sidecar's environment this kind needs, beside the allowlist every agent gets."""

    def launch(self, run: RunSpec) -> Launch:
        """How to start it; raises :class:`RuntimeFault`."""
        ...

    def reader(self) -> Reader:
        """A reader for one run."""
        ...

    def answer(self, qid: str, text: str) -> str:
        """What to write to the agent's stdin to answer a question."""
        ...
