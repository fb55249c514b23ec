"""What the hub tells anybody, against what is committed at that moment (I6), and what people were told, against what is kept (I1, I10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.core import commands as c
from hub.ids import Outcome, Verdict
from hub.wire import frames
from sidecar.core.records import Key
from tests.simulation.violation import must

if TYPE_CHECKING:
    from tests.simulation.door import HubLink
    from tests.simulation.world import World


class Told:
    """Reads committed rows, as another connection to the database would see them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.granted: set[tuple[str, Key]] = set()
        """Leases that an agent was told to be accepted."""
        self.acknowledged: set[tuple[str, Key]] = set()
        """Results that an agent was given a verdict on."""
        self.applied: dict[Key, str] = {}
        self.said: dict[tuple[str, Key], frames.Result] = {}
        self.submitted: dict[int, str | None] = {}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}

    # ── sidecars ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def leaves(self, link: HubLink, frame: Any) -> None:
        """A frame leaves the hub: what it rests on is committed."""
        match frame:
            case frames.Welcome(session_epoch=epoch):
                row = self._rows("SELECT epoch FROM agent_session WHERE agent = ?", link.agent)
                must(row and row[0]["epoch"] >= epoch, "I6", f"welcome to session {epoch}, which is not committed")
            case frames.Assign():
                self._claimed(link, frame)
            case frames.Accepted():
                must(self._claimed(link, frame)["accepted_at"], "I6", f"t-{frame.task} accepted before its commit")
                self.granted.add((str(link.agent), Key(frame.task, frame.lease_epoch)))
            case frames.Revoke():
                must(not self._is_open(link, frame), "I6", f"t-{frame.task}/{frame.lease_epoch} revoked before it is committed")
            case frames.Beaten(leases=leases):
                for item in leases:
                    if item.ok:
                        self._claimed(link, item)
                    else:
                        must(not self._is_open(link, item), "I6", f"t-{item.task}/{item.lease_epoch} called lost before it is")
            case frames.ResultAck():
                self._verdict(link, frame)
            case frames.Control(cid=cid):
                must(self._rows("SELECT 1 FROM control WHERE cid = ?", cid), "I6", f"control {cid} is not committed")
            case _:
                pass

    def _verdict(self, link: HubLink, frame: frames.ResultAck) -> None:
        key, row = Key(frame.task, frame.lease_epoch), self._attempt(frame)
        what = f"{frame.verdict} for t-{key.task}/{key.lease_epoch}"
        kept = self._rows("SELECT 1 FROM salvage WHERE task = ? AND lease_epoch = ?", *key)
        match frame.verdict:
            case Verdict.APPLIED:
                assert row is not None
                must(row["sha256"] is not None and row["ended_at"], "I6", f"{what} before its commit")
                must(key not in self.applied, "I4", f"{what}, again")
                self.applied[key] = row["sha256"]
            case Verdict.SALVAGED:
                must(kept, "I6", f"{what}, and nothing is kept")
            case Verdict.DUPLICATE:
                must(kept or (row and row["sha256"]), "I6", f"{what}, and nothing is committed that it repeats")
            case Verdict.STALE:
                said = self.said.get((str(link.agent), key))
                success = said is not None and said.outcome is Outcome.SUCCEEDED
                must(not success or row is None or row["agent"] != link.agent, "L3", f"{what}, a success: it is thrown away")
        self.acknowledged.add((str(link.agent), key))

    def _claimed(self, link: HubLink, item: Any) -> dict[str, Any]:
        row = self._attempt(item)
        must(
            row and row["agent"] == link.agent, "I6", f"t-{item.task}/{item.lease_epoch} is no committed claim of {link.agent}"
        )
        assert row is not None
        return row

    def _is_open(self, link: HubLink, item: Any) -> bool:
        row = self._attempt(item)
        return row is not None and row["agent"] == link.agent and row["ended_at"] is None

    def _attempt(self, item: Any) -> dict[str, Any] | None:
        columns = "SELECT agent, accepted_at, ended_at, sha256 FROM attempt WHERE task = ? AND lease_epoch = ?"
        return next(iter(self._rows(columns, item.task, item.lease_epoch)), None)

    def _rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        return self.world.hub.store.rows(sql, *params)

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def answers(self, answer: Any) -> None:
        """An answer leaves the hub for a person."""
        for task in getattr(answer, "tasks", ()):
            must(self._rows("SELECT 1 FROM task WHERE n = ?", task.n), "I6", f"t-{task.n} is acknowledged before its commit")

    def is_heard(self, command: c.Submit, answer: Any) -> None:
        """A person has the hub's word on a batch; the same key stands for the same task for ever."""
        for new, task in zip(command.tasks, answer.tasks, strict=True):
            self.submitted[task.n] = new.idempotency_key
            if new.idempotency_key is not None:
                key, means = (command.actor, new.idempotency_key), (task.n, new.body_hash)
                known = self.keys.setdefault(key, means)
                must(known == means, "I10", f"key {key} stands for t-{known[0]} and for t-{task.n}")

    def is_kept(self) -> None:
        """I1: whatever a person was told to be submitted is there."""
        keys = {row["n"]: row["idem_key"] for row in self._rows("SELECT n, idem_key FROM task")}
        for n, key in self.submitted.items():
            must(n in keys and keys[n] == key, "I1", f"t-{n} was acknowledged and is gone")
