"""The table of seams: every commit, fsync and send of the product, and the steps between which a crash must do no harm."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Fault = Callable[[], BaseException]
MOMENTS = ("before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """A function of the product, ``module:qualified.name``, and how its two points are called.

    ``label`` tells from the arguments of a call which of ``labels`` it is (None: none of them, no point is there). ``argument`` is the
    index of a callable among the function's arguments that is the seam in its place. ``fault`` is what may go wrong before the function
    did anything, ``late_fault`` what may be said though it did everything; without one the point cannot be made to fail.
    """

    name: str
    target: str
    label: Callable[..., str | None] | None = None
    labels: tuple[str, ...] = ()
    argument: int | None = None
    fault: Fault | None = None
    late_fault: Fault | None = None

    @property
    def side(self) -> str:
        """``hub``, ``sidecar`` or ``shim``."""
        return self.name.partition(".")[0]

    def faults(self) -> Mapping[str, Fault | None]:
        """Every point of this seam, with what may go wrong there."""
        stems = [f"{self.name}.{label}" for label in self.labels] or [self.name]
        return {
            f"{stem}.{at}": fault for stem in stems for at, fault in zip(MOMENTS, (self.fault, self.late_fault), strict=True)
        }

    def name_at(self, args: tuple[Any, ...], moment: str) -> str | None:
        """The point that a call with these arguments reaches, if any."""
        if self.label is None:
            return f"{self.name}.{moment}"
        label = self.label(*args)
        if label not in self.labels:
            return None
        return f"{self.name}.{label}.{moment}"


# ── what naturally goes wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def _disk_full() -> BaseException:
    return OSError(errno.ENOSPC, "No space left on device")


def _io_error() -> BaseException:
    return OSError(errno.EIO, "Input/output error")


def _sqlite(code: int, words: str) -> Fault:
    def fault() -> BaseException:
        made = sqlite3.OperationalError(words)
        made.sqlite_errorcode = code
        return made

    return fault


def _remote_away() -> BaseException:
    from hub.forge.base import RemoteUnavailable

    return RemoteUnavailable("the remote does not answer (failpoint)")


def _workspace_fails() -> BaseException:
    from sidecar.workspace.git import WorkspaceError

    return WorkspaceError("remote_unreachable", "the remote does not answer (failpoint)", retryable=True)


_store_full = _sqlite(sqlite3.SQLITE_FULL, "database or disk is full")
_store_broken = _sqlite(sqlite3.SQLITE_IOERR, "disk I/O error")


# ── which of several a call is ───────────────────────────────────────────────────────────────────────────────────────────────


def _frame_type(_owner: Any, data: bytes) -> str | None:
    return str(json.loads(data)["t"])


def _record_kind(_journal: Any, record: Any) -> str | None:
    return type(record).__name__.lower()


def _answer_part(_app: Any, scope: Mapping[str, Any], _receive: Any, _send: Any, message: Mapping[str, Any]) -> str | None:
    """Answers to what changes something; a stream or a read is of no interest here."""
    if scope["type"] != "http" or scope["method"] == "GET":
        return None
    return {"http.response.start": "head", "http.response.body": "body"}.get(message["type"])


def _command(_shim: Any, command: Mapping[str, Any], *_: Any) -> str | None:
    return str(command["cmd"])


def _why(_shim: Any, why: str, _grace_us: int) -> str | None:
    return why


TO_SIDECAR = ("welcome", "assign", "accepted", "revoke", "beaten", "result_ack", "control", "goaway", "ok", "error")
TO_HUB = ("hello", "accept", "decline", "beat", "progress", "question", "result", "give_back", "bye", "ok", "error")
RECORDS = (*("assigned", "accepted", "woken", "exited", "verified", "pushed", "concluded", "commanded", "parked", "removed"),)

SEAMS: tuple[Seam, ...] = (
    # the hub's memory
    Seam(name="hub.commit", target="hub.store.writer:commit_group", fault=_store_full, late_fault=_store_broken),
    Seam(name="hub.epoch", target="hub.store.sqlite:SqliteStore.begin_epoch"),
    Seam(name="hub.migrate", target="hub.store.migrations:migrate"),
    Seam(name="hub.checkpoint", target="hub.store.sqlite:SqliteStore.checkpoint"),
    Seam(name="hub.give_back", target="hub.store.sqlite:SqliteStore.give_back"),
    Seam(name="hub.audit.export", target="hub.store.audit:export", fault=_disk_full, late_fault=_io_error),
    Seam(name="hub.close", target="hub.store.sqlite:SqliteStore.close"),
    Seam(name="hub.secret", target="hub.edge.credentials:_write", fault=_disk_full),
    Seam(name="hub.sync_clone", target="hub.forge.durable:_sync", fault=_io_error, late_fault=_io_error),
    Seam(name="hub.sync_directory", target="hub.store.files:sync_directory", fault=_io_error, late_fault=_io_error),
    # what leaves the hub
    Seam(name="hub.publish", target="hub.services.conductor:Conductor._publish_group"),
    Seam(name="hub.send", target="hub.edge.ws:Socket.write", label=_frame_type, labels=TO_SIDECAR),
    Seam(name="hub.flush", target="hub.edge.ws:Socket._flush"),
    Seam(name="hub.hang_up", target="hub.edge.ws:Socket.close_with"),
    Seam(
        name="hub.answer",
        target="hub.edge.http.middleware:Envelope.__call__",
        argument=3,
        label=_answer_part,
        labels=("head", "body"),
    ),
    Seam(name="hub.drain", target="hub.app:Rooms._drain"),
    # a change on its way to the base
    Seam(name="hub.forge.fetch", target="hub.forge.local:LocalForge.fetch", fault=_remote_away),
    Seam(name="hub.forge.publish", target="hub.forge.local:LocalForge.publish", fault=_remote_away, late_fault=_remote_away),
    Seam(name="hub.forge.push", target="hub.forge.local:LocalForge.push_base", fault=_remote_away, late_fault=_remote_away),
    Seam(name="hub.forge.delete", target="hub.forge.local:LocalForge.delete", fault=_remote_away, late_fault=_remote_away),
    Seam(name="hub.forge.commit", target="hub.forge.local:LocalForge.commit"),
    Seam(name="hub.merge.intend", target="hub.services.merging:Merging.merge"),
    Seam(name="hub.merge.record", target="hub.services.merging:Merging._save"),
    Seam(name="hub.merge.settle", target="hub.services.merging:Merging.settle"),
    Seam(name="hub.merge.finish", target="hub.services.merging:Merging._finish"),
    Seam(name="hub.merge.tell", target="hub.services.merging:Merging._tell_merged"),
    # the sidecar's memory
    Seam(name="sidecar.append", target="sidecar.journal:Journal.append", label=_record_kind, labels=RECORDS),
    Seam(name="sidecar.fsync", target="sidecar.journal:RealDisk.sync", fault=_disk_full, late_fault=_io_error),
    Seam(name="sidecar.rewrite", target="sidecar.journal:Journal._compact", fault=_disk_full),
    Seam(name="sidecar.rename", target="sidecar.journal:RealDisk.replace", fault=_io_error),
    Seam(name="sidecar.sync", target="sidecar.files:_sync", fault=_io_error, late_fault=_io_error),
    Seam(name="sidecar.file", target="sidecar.files:write_durably", fault=_disk_full),
    # what leaves the sidecar
    Seam(name="sidecar.send", target="sidecar.link:_transmit", label=_frame_type, labels=TO_HUB),
    Seam(name="sidecar.drain", target="sidecar.agent:Agent.drain"),
    # runs
    Seam(name="sidecar.run.start", target="sidecar.runs.runner:Runner.start"),
    Seam(name="sidecar.run.spawn", target="sidecar.runs.runner:Runner._spawn", fault=_disk_full),
    Seam(name="sidecar.run.command", target="sidecar.runs.run:Run._command"),
    Seam(name="sidecar.run.lost", target="sidecar.runs.run:_append_lost"),
    Seam(name="sidecar.run.erase", target="sidecar.runs.run:_erase", fault=_io_error),
    Seam(name="sidecar.strangers", target="sidecar.runs.runner:Runner.stop_strangers"),
    Seam(name="sidecar.sweep", target="sidecar.runs.process:owned_by"),
    # workspaces and checks
    Seam(name="sidecar.workspace.prepare", target="sidecar.workspace.workspaces:Workspaces.prepare", fault=_workspace_fails),
    Seam(name="sidecar.workspace.checkout", target="sidecar.workspace.checkout:check_out", fault=_workspace_fails),
    Seam(name="sidecar.workspace.record", target="sidecar.workspace.workdir:write_record", fault=_disk_full),
    Seam(name="sidecar.workspace.inspect", target="sidecar.workspace.workspaces:Workspaces.inspect"),
    Seam(name="sidecar.workspace.salvage", target="sidecar.workspace.workspaces:Workspaces.salvage", fault=_workspace_fails),
    Seam(name="sidecar.workspace.release", target="sidecar.workspace.workspaces:Workspaces.release", fault=_workspace_fails),
    Seam(name="sidecar.git.fetch", target="sidecar.workspace.gitcache:GitCache.fetch", fault=_workspace_fails),
    Seam(name="sidecar.git.absorb", target="sidecar.workspace.gitcache:GitCache.absorb"),
    Seam(
        name="sidecar.git.push",
        target="sidecar.workspace.gitcache:GitCache.push",
        fault=_workspace_fails,
        late_fault=_workspace_fails,
    ),
    Seam(name="sidecar.verify", target="sidecar.checks.verify:verify"),
    # the shim
    Seam(name="shim.announce", target="sidecar.runs.shim:_announce"),
    Seam(name="shim.spawn", target="sidecar.runs.shim:Shim._spawn", fault=_disk_full),
    Seam(name="shim.write", target="sidecar.runs.spool:Spool._write"),
    Seam(name="shim.close", target="sidecar.runs.spool:Spool.close"),
    Seam(name="shim.sweep", target="sidecar.runs.shim:Shim._kill_everything"),
    Seam(name="shim.obey", target="sidecar.runs.shim:Shim._obey", label=_command, labels=("extend", "stop", "send", "status")),
    Seam(name="shim.stop", target="sidecar.runs.shim:Shim._stop", label=_why, labels=("deadline", "wall", "stop", "signal")),
    Seam(name="shim.follow", target="sidecar.runs.shim:Shim._follow"),
    Seam(name="shim.input", target="sidecar.runs.shim:Shim._send"),
)


def of(side: str) -> tuple[Seam, ...]:
    """The seams of one side."""
    return tuple(seam for seam in SEAMS if seam.side == side)


def names(side: str) -> list[str]:
    """Every point of one side."""
    return [name for seam in of(side) for name in seam.faults()]
