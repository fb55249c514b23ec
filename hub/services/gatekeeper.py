"""The gatekeeper: every reviewed result becomes a merge on its base branch, goes back to its author, or waits for a person.

It owns the changes' states and nothing else. What is outstanding is derived from rows at every wake-up, so a start, a rebuild of the
scheduler and a crash anywhere are the same thing: look again. Repositories are worked on side by side, the changes of one repository in
turn. A change is *parked* when nothing can be done about it, and looked at again as soon as anything about it differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from hub.core.change import LIVE, title
from hub.core.commands import Bury
from hub.core.errors import HubError, IllegalTransition, Refused
from hub.core.gate import Merge, Queue, RunChecks, SendBack, Wait, next_step
from hub.core.review import APPROVED, REJECTED, Reviewer
from hub.core.rows import EventRow
from hub.forge.base import Forge, ForgeError, Remote, Unusable
from hub.ids import ChangeState, LeaseEpoch, TaskId, TaskState, TaskType, change_ref
from hub.services.agenda import Agenda, Key, Work
from hub.services.case import Case, load_case, ripple
from hub.services.evidence import BaseUnreachable, Evidence, HeadUnreachable, Judgement, gather, judge
from hub.services.merging import ACTOR, Merging
from hub.services.ports import Conductor
from hub.store.base import Reader
from hub.store.changes import ChangeMoved, ChangeRecord, Opening, get_change, open_change, review_change, save_change

DIFF_BYTES = 1024 * 1024
"""Most diff text shown to a reviewer."""
RETRY_S = 1.0
REST_S = 0.02
"""Between two looks: a hub that ends thousands of tasks a second is not asked after each what that means for its changes."""
PATIENCE = 5
"""Failures in a row after which a change no longer holds the merge slot, and a branch counts as one that cannot be fetched."""

log = structlog.get_logger("gatekeeper")


def concerns(event: EventRow) -> bool:
    """Whether a committed event can give the gatekeeper something to do."""
    if event.kind.startswith(("change.", "repository.")):
        return True
    return event.to_state in {TaskState.IN_REVIEW, TaskState.DONE, TaskState.DEAD, TaskState.CANCELLED}


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
        self._agenda = Agenda(reader, retry_s)
        self._poked = asyncio.Event()
        self._quiet = asyncio.Event()
        self._busy: set[str] = set()

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
                for repo, work in (await self._agenda.look()).items():
                    if repo not in self._busy:
                        self._busy.add(repo)
                        group.create_task(self._work(repo, work), name=f"gatekeeper-{repo}")
                if not self._busy and not self._poked.is_set():
                    self._quiet.set()
                await asyncio.sleep(REST_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._agenda.retry_in_s()):
                        await self._poked.wait()

    async def _work(self, repo: str, work: Work) -> None:
        try:
            await self._do(repo, work)
        finally:
            self._busy.discard(repo)
            self.poke()

    async def _do(self, repo: str, work: Work) -> None:
        """One pass. What fails is tried again later by itself; only a base that cannot be fetched keeps others waiting: its own."""
        for n, lease_epoch in work.unopened:
            await self._try((repo, "task", n), self._open(n, lease_epoch))
        for change_id in work.undelivered:
            await self._try((repo, "change", change_id), self._deliver(change_id))
        for base, due in work.due.items():
            # what failed before comes last: it may take its time to fail again
            order = sorted(due, key=lambda change_id: self._agenda.failures((repo, "change", change_id)))
            try:
                for change_id in order:
                    if await self._try((repo, "change", change_id), self._step(change_id)):
                        self._agenda.park(change_id, due[change_id])
                self._agenda.succeeded((repo, "base", base))
            except BaseUnreachable as fault:
                self._failed((repo, "base", base), fault)

    async def _try(self, key: Key, doing: Awaitable[None]) -> bool:
        """Whether it was done. One change in trouble does not keep the others."""
        try:
            await doing
        except (BaseUnreachable, IllegalTransition):
            raise
        except ChangeMoved:
            log.debug("decided_in_between", what=key)  # not parked: it is looked at again at once
            return False
        except HubError as fault:
            self._failed(key, fault)
            return False
        self._agenda.succeeded(key)
        return True

    def _failed(self, key: Key, fault: HubError) -> None:
        wait_s = self._agenda.failed(key)
        log.warning("gatekeeper_retries", what=key, code=fault.code, said=str(fault)[:500], in_s=wait_s)

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
            origin_epoch=task["origin_epoch"],
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

    async def _deliver(self, change_id: int) -> None:
        case = await load_case(self._reader, change_id)
        if case is not None and case.in_review and case.change.state not in LIVE:
            await self._merging.deliver(case)

    async def _step(self, change_id: int) -> None:
        case = await load_case(self._reader, change_id)
        if case is None or case.change.state not in LIVE:  # what was due is decided anew: the scan may be a moment old
            return
        forge = self._forges[case.task["forge"]]
        if case.change.state is ChangeState.MERGING:
            await self._merging.settle(forge, case)
            self._agenda.merged(case.change.repo)
        elif not case.in_review:
            await self._merging.close(case)
        else:
            await self._advance(forge, case)

    async def _advance(self, forge: Forge, case: Case) -> None:
        if case.task["merging"]:  # the hub stopped between the two halves of an intent
            await self._merging.release(case.change)
        if case.slot is not None and self._agenda.in_line(case.change.id):
            return  # judged once, it is not judged again before its turn
        self._agenda.leave_line(case.change.id)
        try:
            evidence = await gather(forge, case)
        except BaseUnreachable:
            raise
        except ForgeError as fault:
            await self._cannot_judge(case, fault)
            return
        ripples = await ripple(self._reader, case, evidence.measured)
        await self._carry_out(forge, case, evidence, judge(case, evidence, ripples))

    async def _cannot_judge(self, case: Case, fault: ForgeError) -> None:
        """Wait for a person if trying again is no use, else raise ``fault``; whoever fails for long gives the merge slot back."""
        change = case.change
        patient = self._agenda.failures((change.repo, "change", change.id)) + 1 < PATIENCE
        if isinstance(fault, Unusable):
            await self._wait(case, change, Wait(fault.code, fault.message))
            return
        if isinstance(fault, HeadUnreachable) and not patient:
            await self._wait(case, change, Wait("head_unfetchable", f"{change.branch} cannot be fetched: {fault.message}"))
            return
        if change.state is ChangeState.CHECKING and not patient:
            trouble = f"in trouble, tried again: {fault.code}: {fault.message}"[:2000]
            await self._conductor.record(save_change(change, replace(change, state=ChangeState.OPEN, cause=trouble)))
        raise fault

    async def _carry_out(self, forge: Forge, case: Case, evidence: Evidence, judged: Judgement) -> None:
        change = judged.measured_change
        match next_step(judged.situation):
            case Wait() as wait:
                await self._wait(case, change, wait)
            case Queue(why):
                queued = replace(change, state=ChangeState.OPEN, cause=f"queued: {why}")
                await self._conductor.record(save_change(case.change, queued))
                if case.slot is not None:
                    self._agenda.queue(change.id)
            case SendBack(feedback):
                await self._merging.send_back(case, change, feedback, keep_head=not evidence.head_lost)
            case RunChecks():
                await self._merging.run_checks(forge, case, change, evidence)
            case Merge():
                await self._merging.merge(forge, case, change, evidence)
                self._agenda.merged(change.repo)

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
