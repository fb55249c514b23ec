"""What a service asks of the conductor: the two ways in which anything is decided and made durable."""

from __future__ import annotations

from typing import Protocol, TypeVar

from hub.core.commands import Command
from hub.core.decision import Reply
from hub.store.base import Operation

T = TypeVar("T")


class Conductor(Protocol):
    """Both return after the commit, and raise :class:`hub.core.errors.Refused` when nothing was changed."""

    async def do(self, command: Command, /) -> Reply:
        """Apply a command to the scheduler."""

    async def record(self, operation: Operation[T], /) -> T:
        """Run a record operation through the writer."""
