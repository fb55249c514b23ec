"""What is said about each assignment when a sidecar reconnects: protocol §6 as a table.

Both sides state what they hold; no history is replayed. ``HubHas`` is what the hub believes of (task, lease_epoch) held by this agent,
``Says`` what the sidecar said about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from hub.core.task import Task
from hub.ids import AgentId, TaskState


class HubHas(Enum):
    """The hub's side. ``OTHER``: another epoch, another holder, another state, or nothing at all."""

    ASSIGNED = auto()
    WORKING = auto()
    OTHER = auto()


class Says(Enum):
    """The sidecar's side; silence means different things for the same and for another installation."""

    HELD = auto()
    OUTBOX = auto()
    SILENT_SAME_INSTALL = auto()
    SILENT_OTHER_INSTALL = auto()


class Rule(Enum):
    """What follows."""

    ACCEPT = auto()
    ASSIGN_AGAIN = auto()
    KEEP = auto()
    SEND_RESULT = auto()
    LOST = auto()
    WAIT_FOR_EXPIRY = auto()
    STOP = auto()
    NOTHING = auto()


RULES: Mapping[tuple[HubHas, Says], Rule] = {
    (HubHas.ASSIGNED, Says.HELD): Rule.ACCEPT,
    (HubHas.ASSIGNED, Says.OUTBOX): Rule.SEND_RESULT,
    (HubHas.ASSIGNED, Says.SILENT_SAME_INSTALL): Rule.ASSIGN_AGAIN,
    (HubHas.ASSIGNED, Says.SILENT_OTHER_INSTALL): Rule.ASSIGN_AGAIN,
    (HubHas.WORKING, Says.HELD): Rule.KEEP,
    (HubHas.WORKING, Says.OUTBOX): Rule.SEND_RESULT,
    (HubHas.WORKING, Says.SILENT_SAME_INSTALL): Rule.LOST,
    (HubHas.WORKING, Says.SILENT_OTHER_INSTALL): Rule.WAIT_FOR_EXPIRY,
    (HubHas.OTHER, Says.HELD): Rule.STOP,
    (HubHas.OTHER, Says.OUTBOX): Rule.SEND_RESULT,
    (HubHas.OTHER, Says.SILENT_SAME_INSTALL): Rule.NOTHING,
    (HubHas.OTHER, Says.SILENT_OTHER_INSTALL): Rule.NOTHING,
}


def hub_has(task: Task | None, agent: AgentId, lease_epoch: int) -> HubHas:
    """What the hub has for (task, lease_epoch) with respect to this agent."""
    if task is None or task.holder != agent or task.lease_epoch != lease_epoch:
        return HubHas.OTHER
    return HubHas.ASSIGNED if task.state is TaskState.ASSIGNED else HubHas.WORKING
