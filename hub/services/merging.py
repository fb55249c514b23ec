"""Carrying out what was decided about a change, in steps that a crash may separate anywhere.

The order of a merge is the contract: the task refuses to be cancelled (``IntendMerge``) → the intent, with all it takes to build the
very same commit again, is committed → push → proof (the candidate is on the base) → ``Merged`` → the change is merged. ``settle`` is both
the second half of a merge and what a restart does: it never assumes that a push happened or did not, it looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import orjson
import structlog

from hub.core.change import Candidate, Return, decode_intent, encode_intent
from hub.core.commands import AbandonMerge, Bury, Cancel, IntendMerge, Merged, NewTask, Rework, Submit
from hub.core.decision import Submitted
from hub.core.errors import Refused
from hub.core.gate import CHECK_RUNS, Check
from hub.forge.base import BaseMoved, Forge, PushRejected, RemoteUnavailable, Unusable
from hub.ids import CHECKS, Access, ChangeState, Lane, TaskId, TaskType, change_ref
from hub.services.case import Case, candidate_of
from hub.services.evidence import PUSH_REJECTED, Evidence, HeadUnreachable, fetch_base, fetch_head
from hub.services.ports import Conductor
from hub.store.base import Reader
from hub.store.changes import ChangeRecord, get_change, save_change

ACTOR = "gatekeeper"
LOOKS = 3
"""How often a merge looks at the base before it leaves the rest to a later retry."""

log = structlog.get_logger("gatekeeper")


def candidate_branch(change: int) -> str:
    """Where a candidate is put for its checks: ``agentcom/candidate/4``."""
    return f"agentcom/candidate/{change}"


class Merging:
    """Acts on one repository's changes at a time; the gatekeeper sees to that. ``now_s`` gives seconds UTC for commit dates."""

    def __init__(self, conductor: Conductor, reader: Reader, now_s: Callable[[], int]) -> None:
        self._conductor = conductor
        self._reader = reader
        self._now_s = now_s

    # ── the merge ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def merge(self, forge: Forge, case: Case, change: ChangeRecord, evidence: Evidence) -> None:
        """Intend, then settle. ``change`` is the measured record to be saved with the intent."""
        candidate = await self._candidate(forge, case, change, evidence)
        await self._conductor.do(IntendMerge(actor=ACTOR, n=change.task, lease_epoch=change.lease_epoch))
        merging = replace(
            change,
            state=ChangeState.MERGING,
            cause=None,
            intent=encode_intent(candidate),
            candidate_sha=candidate.sha,
            candidate_base=candidate.expected_base,
        )
        await self._save(case.change, merging)
        await self.settle(forge, replace(case, change=await self._seen(change)))

    async def settle(self, forge: Forge, case: Case) -> None:
        """Find out whether the intended commit is on the base, and make it so if nothing else came first."""
        candidate, change = case.candidate, case.change
        assert candidate is not None, "a merging change has its candidate"
        for _ in range(LOOKS):
            base_now = await fetch_base(forge, case)
            if base_now is not None and await forge.contains(case.remote, base_now, candidate.sha):
                return await self._finish(forge, case, candidate)
            if not case.in_review:
                gone = f"its task is {case.task['state']} and the merge never reached {change.base}"
                return await self._save(change, replace(change, state=ChangeState.CLOSED, cause=gone))
            if base_now != candidate.expected_base or not await self._rebuild(forge, case, candidate):
                moved = f"{change.base} moved to {(base_now or 'nothing')[:12]} before it could be merged"
                return await self._abandon(change, ChangeState.OPEN, f"base_moved: {moved}")
            try:
                await forge.push_base(case.remote, change.base, expected=candidate.expected_base, sha=candidate.sha)
            except BaseMoved as moved:
                log.info("push_lost_the_race", change=change.id, said=moved.message)
            except PushRejected as rejected:
                return await self._abandon(change, ChangeState.WAITING, f"{PUSH_REJECTED}: {rejected.message}")
            except Unusable as unusable:  # nothing was sent, and nothing ever will be
                return await self._abandon(change, ChangeState.WAITING, f"{unusable.code}: {unusable.message}")
        raise RemoteUnavailable(f"the push of {candidate.sha[:12]} does not show on {change.base}")

    async def _rebuild(self, forge: Forge, case: Case, candidate: Candidate) -> bool:
        """Have the very commit of the intent here; False if it cannot be built again."""
        if await forge.has(case.remote, candidate.sha):
            return True
        change = case.change
        try:
            if not await forge.has(case.remote, change.head_sha) and not await fetch_head(forge, case):
                return False
        except (HeadUnreachable, Unusable):  # the base is without it, so its branch's trouble must not hold the slot
            return False
        merged = await forge.merge(case.remote, candidate.expected_base, change.head_sha)
        return merged.tree == candidate.tree and await forge.commit(case.remote, candidate) == candidate.sha

    async def _finish(self, forge: Forge, case: Case, candidate: Candidate) -> None:
        """The proof is there: tidy up, close the book, tell the task: "done" is never said before "merged". Repeatable."""
        change = case.change
        branches = [(candidate_branch(change.id), candidate.sha)]
        if change.head_sha in candidate.parents:  # nothing is deleted that the base does not hold
            branches.append((change.branch, change.head_sha))
        await forge.delete(case.remote, branches)
        await self._save(change, replace(change, state=ChangeState.MERGED, cause=None, merged_sha=candidate.sha))
        if case.in_review:
            await self._tell_merged(change, candidate.sha)
        log.info("merged", change=change.id, task=change.task, sha=candidate.sha)

    async def _tell_merged(self, change: ChangeRecord, sha: str) -> None:
        await self._conductor.do(Merged(actor=ACTOR, n=change.task, lease_epoch=change.lease_epoch, sha=sha))

    async def _abandon(self, change: ChangeRecord, to: ChangeState, cause: str) -> None:
        await self._save(change, replace(change, state=to, cause=cause[:2000], intent=None, candidate_sha=None))
        await self.release(change)

    async def release(self, change: ChangeRecord) -> None:
        """The task may be cancelled again."""
        await self._conductor.do(AbandonMerge(actor=ACTOR, n=change.task, lease_epoch=change.lease_epoch))

    async def _candidate(self, forge: Forge, case: Case, change: ChangeRecord, evidence: Evidence) -> Candidate:
        """The recorded candidate if it is of this base and tree (its check speaks of that very commit), else a new one."""
        known, checks = candidate_of(change), case.checks_digest
        if known is not None and known.expected_base == evidence.base_now and known.tree == evidence.tree:
            if known.checks == checks:
                return known
            # never a number used before: checks that are edited and edited back must not find their cancelled task again
            return replace(known, checks=checks, check_run=(known.check_run // CHECK_RUNS + 1) * CHECK_RUNS)
        assert evidence.tree is not None, "only what merges cleanly becomes a candidate"
        squash = case.policy.merge == "squash"
        plan = Candidate(
            sha="",
            expected_base=evidence.base_now,
            tree=evidence.tree,
            parents=(evidence.base_now,) if squash else (evidence.base_now, change.head_sha),
            date_s=self._now_s(),
            message=f"{change.title}\n\n{change.body}\n",
            checks=checks,
        )
        if evidence.merged_already:
            return replace(plan, sha=change.head_sha, parents=())
        return replace(plan, sha=await forge.commit(case.remote, plan))

    # ── the checks of a candidate ────────────────────────────────────────────────────────────────────────────────────────

    async def run_checks(self, forge: Forge, case: Case, change: ChangeRecord, evidence: Evidence) -> None:
        """Record the candidate, publish it, submit its check: each step finds what the one before left behind."""
        candidate = await self._candidate(forge, case, change, evidence)
        running = change.check_task is not None and candidate_of(change) == candidate
        if running and case.change.state is ChangeState.CHECKING:
            return
        if not running and case.check is Check.RUNNING:
            await self.drop_check(case.change)
        checking = replace(
            change,
            state=ChangeState.CHECKING,
            cause=f"checking the merge with {change.base} at {evidence.base_now[:12]}",
            intent=encode_intent(candidate),
            candidate_sha=candidate.sha,
            check_task=change.check_task if running else None,
        )
        await self._save(case.change, checking)
        if running:
            return
        try:
            await forge.publish(case.remote, candidate_branch(change.id), candidate.sha)
        except PushRejected as rejected:
            seen = await self._seen(change)
            cause = f"{PUSH_REJECTED}: {rejected.message}"[:2000]
            await self._save(seen, replace(seen, state=ChangeState.WAITING, cause=cause))
            return
        reply = await self._conductor.do(Submit(actor=ACTOR, tasks=(_check_task(case, candidate),)))
        assert isinstance(reply, Submitted)
        seen = await self._seen(change)
        await self._save(seen, replace(seen, check_task=reply.tasks[0].n))

    async def drop_check(self, change: ChangeRecord) -> None:
        """Nobody needs this check any more. One that has ended already is no error."""
        if change.check_task is not None:
            try:
                await self._conductor.do(Cancel(actor=ACTOR, n=TaskId(change.check_task), reason="its change went on"))
            except Refused as refused:
                log.debug("check_not_cancelled", change=change.id, code=refused.code)

    # ── the ways back ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send_back(self, case: Case, change: ChangeRecord, feedback: str, *, keep_head: bool) -> None:
        """Record the return, then deliver it."""
        intent = encode_intent(Return(feedback=feedback, keep_head=keep_head))
        back = replace(change, state=ChangeState.REWORK, cause=feedback[:2000], intent=intent)
        await self._save(case.change, back)
        await self.deliver(replace(case, change=back))

    async def deliver(self, case: Case) -> None:
        """Tell the task what was recorded about its change: merged, back to the queue, or dead."""
        change = case.change
        if change.state is ChangeState.MERGED and change.merged_sha is not None:
            await self._tell_merged(change, change.merged_sha)
            return
        await self.drop_check(change)
        intent = decode_intent(change.intent) if change.intent is not None else None
        if not isinstance(intent, Return):
            cause = change.cause or "rejected"
            await self._conductor.do(Bury(actor=ACTOR, n=change.task, lease_epoch=change.lease_epoch, cause=cause))
            return
        try:
            await self._conductor.do(
                Rework(
                    actor=ACTOR,
                    n=change.task,
                    lease_epoch=change.lease_epoch,
                    feedback=intent.feedback,
                    branch=change.branch if intent.keep_head else None,
                    head_sha=change.head_sha if intent.keep_head else None,
                )
            )
        except Refused as refused:
            if refused.code != "rework_limit":
                raise
            seen = await self._seen(change)
            cause = f"rework_limit: {refused.message}: {intent.feedback}"[:2000]
            await self._save(seen, replace(seen, state=ChangeState.WAITING, cause=cause, intent=None))

    async def close(self, case: Case) -> None:
        """The task went another way."""
        await self.drop_check(case.change)
        cause = f"its task is {case.task['state']} at epoch {case.task['lease_epoch']}"
        await self._save(case.change, replace(case.change, state=ChangeState.CLOSED, cause=cause))

    async def _seen(self, change: ChangeRecord) -> ChangeRecord:
        seen = await get_change(self._reader, change.id)
        assert seen is not None, "changes are never deleted while they are live"
        return seen

    async def _save(self, seen: ChangeRecord, new: ChangeRecord) -> None:
        await self._conductor.record(save_change(seen, new))


def _check_task(case: Case, candidate: Candidate) -> NewTask:
    change, task = case.change, case.task
    ref = candidate_branch(change.id)
    spec = orjson.dumps(
        {
            "description": f"Run the registered checks on {candidate.sha}, the merge of {change_ref(change.id)}.",
            "check": {"sha": candidate.sha, "ref": ref, "checks": case.checks},
        }
    ).decode()
    digest = hashlib.sha256(spec.encode()).hexdigest()
    return NewTask(
        title=f"check {change_ref(change.id)}: {change.title}"[:200],
        spec=spec,
        body_hash=digest,
        type=TaskType.CHECK,
        lane=Lane(task["lane"]),
        project=task["project"],
        repo=change.repo,
        base=change.base,
        access=Access.READ_ONLY,
        needs_change=False,
        capabilities=(CHECKS,),
        max_tries=1,  # a failed check is an answer; only one that gave none is run again
        idempotency_key=f"check-{change.id}-{candidate.check_run}-{digest}",
    )
