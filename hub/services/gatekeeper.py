"""The gatekeeper: every reviewed result becomes a merge on its base branch, goes back to its author, or waits for a person.

It owns the changes' states and nothing else. What is outstanding is derived from rows at every wake-up, so a start, a rebuild of the
scheduler and a crash anywhere are the same thing: look again. Repositories are worked on side by side, the changes of one repository in
turn. A change is *parked* when nothing can be done about it, and looked at again as soon as anything about it differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from hub.core.change import LIVE, title
from hub.core.commands import Bury
from hub.core.errors import HubError, IllegalTransition, Refused
from hub.core.gate import Merge, Queue, RunChecks, SendBack, Wait, next_step
from hub.core.review import APPROVED, REJECTED, Reviewer
from hub.core.rows import EventRow
from hub.forge.base import Forge, ForgeError, Remote, RemoteUnavailable
from hub.ids import ChangeState, LeaseEpoch, TaskId, TaskState, TaskType, change_ref
from hub.services.case import Case, load_case, ripple
from hub.services.evidence import Evidence, Judgement, gather, judge
from hub.services.merging import ACTOR, Merging
from hub.services.ports import Conductor
from hub.store.base import Reader, Record
from hub.store.changes import ChangeMoved, ChangeRecord, Opening, get_change, open_change, review_change, save_change

DIFF_BYTES = 1024 * 1024
"""Most diff text shown to a reviewer."""
RETRY_S = 1.0
RETRY_MAX_S = 60.0

log = structlog.get_logger("gatekeeper")


def concerns(event: EventRow) -> bool:
    """Whether a committed event can give the gatekeeper something to do."""
    if event.kind.startswith(("change.", "repository.")):
        return True
    return event.to_state in {TaskState.IN_REVIEW, TaskState.DONE, TaskState.DEAD, TaskState.CANCELLED}


@dataclass(slots=True)
class _Work:
    """What is due in one repository: tasks to open a change for, outstanding commands, changes to step."""

    unopened: list[Record] = field(default_factory=list)
    undelivered: list[int] = field(default_factory=list)
    due: dict[int, tuple[Any, ...]] = field(default_factory=dict)


class Gatekeeper:
    """One service. ``forges`` by the repository's ``forge``; ``now_s`` gives seconds UTC; retries back off from ``retry_s``."""

    def __init__(
        self,
        conductor: Conductor,
        reader: Reader,
        forges: Mapping[str, Forge],
        *,
        now_s: Callable[[], int],
        retry_s: float = RETRY_S,
    ) -> None:
        self._conductor = conductor
        self._reader = reader
        self._forges = forges
        self._merging = Merging(conductor, reader, now_s)
        self._retry_s = retry_s
        self._poked = asyncio.Event()
        self._quiet = asyncio.Event()
        self._busy: set[str] = set()
        self._parked: dict[int, tuple[Any, ...]] = {}
        self._merges: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def poke(self) -> None:
        """Something happened (see :func:`concerns`): look again. Cheap, and safe to call too often."""
        self._quiet.clear()
        self._poked.set()

    async def quiet(self) -> None:
        """Wait until nothing is being worked on and nothing is due before a retry."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Work until cancelled. An error that is no remote's and no refusal ends it, loudly."""
        self.poke()
        async with asyncio.TaskGroup() as group:
            while True:
                self._poked.clear()
                for repo, work in (await self._outstanding()).items():
                    if repo not in self._busy:
                        self._busy.add(repo)
                        group.create_task(self._work(repo, work), name=f"gatekeeper-{repo}")
                if not self._busy and not self._poked.is_set():
                    self._quiet.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._poked.wait(), self._until_retry())

    def _until_retry(self) -> float | None:
        now = asyncio.get_running_loop().time()
        waits = [max(0.0, at - now) for repo, at in self._retry_at.items() if repo not in self._busy]
        return min(waits, default=None)

    async def _outstanding(self) -> dict[str, _Work]:
        """Everything the rows say is to be done, by repository, without what is parked or waits for its retry."""
        found: dict[str, _Work] = {}
        for row in await self._reader.all("change_unopened"):
            found.setdefault(row["repo"] or "", _Work()).unopened.append(row)
        for row in await self._reader.all("change_undelivered"):
            found.setdefault(row["repo"], _Work()).undelivered.append(row["id"])
        live = await self._reader.all("change_live")
        slots = {row["repo"]: row["id"] for row in live if row["state"] in {ChangeState.CHECKING, ChangeState.MERGING}}
        self._parked = {row["id"]: self._parked[row["id"]] for row in live if row["id"] in self._parked}
        for row in live:
            signature = (*row.values(), slots.get(row["repo"]), self._merges.get(row["repo"], 0))
            if self._parked.get(row["id"]) != signature:
                found.setdefault(row["repo"], _Work()).due[row["id"]] = signature
        now = asyncio.get_running_loop().time()
        return {repo: work for repo, work in found.items() if self._retry_at.get(repo, 0.0) <= now}

    async def _work(self, repo: str, work: _Work) -> None:
        try:
            await self._do(work)
            self._failures.pop(repo, None)
            self._retry_at.pop(repo, None)
        except IllegalTransition:
            raise
        except HubError as fault:
            failures = self._failures[repo] = self._failures.get(repo, 0) + 1
            wait_s = min(RETRY_MAX_S, self._retry_s * 2 ** min(failures - 1, 16))
            self._retry_at[repo] = asyncio.get_running_loop().time() + wait_s
            log.warning("gatekeeper_retries", repo=repo, code=fault.code, said=str(fault)[:500], in_s=wait_s)
        finally:
            self._busy.discard(repo)
            self.poke()

    async def _do(self, work: _Work) -> None:
        for row in work.unopened:
            await self._open(row["n"], row["lease_epoch"])
        for change_id in work.undelivered:
            case = await load_case(self._reader, change_id)
            if case is not None and case.in_review and case.change.state not in LIVE:
                await self._merging.deliver(case)
        failed: HubError | None = None
        for change_id, signature in work.due.items():
            try:
                await self._step(change_id)
                self._parked[change_id] = signature
            except ChangeMoved:
                log.debug("decided_in_between", change=change_id)  # not parked: it is looked at again at once
            except (RemoteUnavailable, IllegalTransition):
                raise
            except HubError as fault:  # one change in trouble does not keep the others
                failed = fault
        if failed is not None:
            raise failed

    # ── one change ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _open(self, n: int, lease_epoch: int) -> None:
        task = await self._reader.one("change_task", task=n, lease_epoch=lease_epoch)
        if task is None or task["state"] != TaskState.IN_REVIEW or task["lease_epoch"] != lease_epoch:
            return
        if task["url"] is None:
            cause = "no_repository: a change needs a registered repository to be merged into"
            await self._conductor.do(Bury(actor=ACTOR, n=TaskId(n), lease_epoch=LeaseEpoch(lease_epoch), cause=cause))
            return
        opening = Opening(
            task=TaskId(n),
            lease_epoch=LeaseEpoch(lease_epoch),
            repo=task["repo"],
            title=title(task["title"], TaskType(task["type"])),
            labels=(f"agent:{task['agent']}", f"lane:{task['lane']}"),
            base=task["base"],
            branch=task["branch"] or "",
            base_sha=task["base_sha"] or "",
            head_sha=task["head_sha"] or "",
            commits=task["commits"] or "[]",
        )
        await self._conductor.record(open_change(opening))

    async def _step(self, change_id: int) -> None:
        case = await load_case(self._reader, change_id)
        if case is None or case.change.state not in LIVE:  # what was due is decided anew: the scan may be a moment old
            return
        forge = self._forges[case.task["forge"]]
        if case.change.state is ChangeState.MERGING:
            await self._merging.settle(forge, case)
            self._merges[case.change.repo] = self._merges.get(case.change.repo, 0) + 1
        elif not case.in_review:
            await self._merging.close(case)
        else:
            await self._advance(forge, case)

    async def _advance(self, forge: Forge, case: Case) -> None:
        if case.task["merging"]:  # the hub stopped between the two halves of an intent
            await self._merging.release(case.change)
        try:
            evidence = await gather(forge, case)
            ripples = await ripple(self._reader, case, evidence.measured)
        except RemoteUnavailable:
            raise
        except ForgeError as fault:
            await self._wait(case, case.change, Wait(fault.code, fault.message))
            return
        await self._carry_out(forge, case, evidence, judge(case, evidence, ripples))

    async def _carry_out(self, forge: Forge, case: Case, evidence: Evidence, judged: Judgement) -> None:
        change = judged.measured_change
        match next_step(judged.situation):
            case Wait() as wait:
                await self._wait(case, change, wait)
            case Queue(why):
                queued = replace(change, state=ChangeState.OPEN, cause=f"queued: {why}")
                await self._conductor.record(save_change(case.change, queued))
            case SendBack(feedback):
                await self._merging.send_back(case, change, feedback, keep_head=not evidence.head_lost)
            case RunChecks():
                await self._merging.run_checks(forge, case, change, evidence)
            case Merge():
                await self._merging.merge(forge, case, change, evidence)
                self._merges[change.repo] = self._merges.get(change.repo, 0) + 1

    async def _wait(self, case: Case, change: ChangeRecord, wait: Wait) -> None:
        if wait.cause == "blocked":
            return  # the cause that blocked it stays on show; a write here could outdate an approval given meanwhile
        waiting = replace(change, state=ChangeState.WAITING, cause=f"{wait.cause}: {wait.why}"[:2000])
        await self._conductor.record(save_change(case.change, waiting))

    # ── the doors ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def approve(self, change: int, *, by: str, person: bool, head_sha: str, comment: str = "") -> None:
        """Record an approval of exactly ``head_sha``.

        Raises :class:`Refused`: 404 ``unknown_change``, 409 ``wrong_state``, ``head_moved`` and ``not_assessed``, 403
        ``own_work`` and ``person_needed``.
        """
        reviewer = Reviewer(name=by, person=person)
        await self._conductor.record(review_change(change, reviewer, verdict=APPROVED, comment=comment, head_sha=head_sha))
        self.poke()

    async def reject(self, change: int, *, by: str, person: bool, reason: str, final: bool = False) -> None:
        """Send the change back with ``reason``, or, ``final``, end its task for good (a person's decision).

        Raises as :meth:`approve`, without ``head_moved``, and 403 ``final_needs_person``.
        """
        reviewer = Reviewer(name=by, person=person)
        await self._conductor.record(
            review_change(change, reviewer, verdict=REJECTED, comment=reason, head_sha=None, final=final)
        )
        self.poke()

    async def diff(self, change_id: int) -> str:
        """What the change does, as a unified diff of at most 1 MiB. Raises Refused 404 ``unknown_change`` and ForgeError."""
        change = await get_change(self._reader, change_id)
        if change is None:
            raise Refused(404, "unknown_change", f"there is no change {change_ref(change_id)}", hint="agentcom change list")
        task = await self._reader.one("change_task", task=change.task, lease_epoch=change.lease_epoch)
        assert task is not None, "a change references its task"
        forge, remote = self._forges[task["forge"]], Remote(change.repo, task["url"])
        if not await forge.has(remote, change.head_sha):
            await forge.fetch(remote, change.branch)
        # from where the two lines parted: newer work of others on the base is not this change's
        base = change.candidate_base or change.base_sha
        bases = await forge.merge_bases(remote, base, change.head_sha)
        return await forge.diff(remote, bases[0] if bases else base, change.head_sha, limit_bytes=DIFF_BYTES)
