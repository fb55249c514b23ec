"""The gate on real git and real rows: what merges, what waits, what goes back, and that a crash anywhere changes none of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.core import commands as c
from hub.core.errors import Refused
from hub.forge.base import ForgeError, Remote, RemoteUnavailable
from hub.ids import ChangeState, TaskState, Tier
from hub.services.agenda import Work
from hub.store.changes import get_change, list_changes
from hub.store.repositories import RepositoryEdit, pause, update
from tests.support import repos
from tests.support.changes import PASSED_REGISTERED, REPO, Crash, Gate, local_forge, open_gate, passed

AUTO = {"auto_merge_tier1": True}
SMALL: dict[str, str | None] = {"a.txt": "one\n2\n3\n"}
MERGED = (ChangeState.MERGED, TaskState.DONE)


class Ailing:
    """A forge that fails for one branch or at one method for as long as it is ill."""

    def __init__(self, forge: Any, error: ForgeError, *, branch: str | None = None, method: str = "fetch") -> None:
        self._forge = forge
        self.error, self.branch, self.method = error, branch, method
        self.ill = True
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._forge, name)

        async def method(remote: Remote, *args: Any, **kwargs: Any) -> Any:
            if self.ill and name == self.method and self.branch in (None, *args[:1]):
                self.failed += 1
                raise self.error
            return await inner(remote, *args, **kwargs)

        return method


class Tripwire:
    """A forge that fails once at a named method, before or after it did its work."""

    def __init__(self, forge: Any) -> None:
        self._forge = forge
        self.at: str | None = None
        self.error: BaseException = Crash("forge")
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._forge, name)

        async def method(*args: Any, **kwargs: Any) -> Any:
            self._trip(f"before:{name}")
            value = await inner(*args, **kwargs)
            self.calls.append(name)
            self._trip(f"after:{name}")
            return value

        return method

    def _trip(self, name: str) -> None:
        if self.at == name:
            self.at = None
            raise self.error


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    async with open_gate(tmp_path, policy=AUTO, forge=Tripwire(local_forge(tmp_path / "clones"))) as made:
        yield made


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Gate]:
    """The default policy: nothing merges without an approval."""
    async with open_gate(tmp_path) as made:
        yield made


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Gate]:
    """A repository without registered checks."""
    async with open_gate(tmp_path, policy=AUTO, checks=[]) as made:
        yield made


def did(gate: Gate, kind: type[c.Command]) -> list[Any]:
    return [command for command in gate.conductor.did if isinstance(command, kind)]


# ── what merges by itself ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_verified_tier_1_change_is_merged_with_proof(gate: Gate) -> None:
    base = gate.remote.sha("main")
    head = await gate.review(1, SMALL, title="tidy up", verification=PASSED_REGISTERED, spec={"description": "why not"})
    await gate.settle()
    change = await gate.change()
    assert await gate.states() == MERGED
    assert change.tier is Tier.LOW
    assert change.labels == ("agent:bob", "lane:normal", "tier:1")
    assert change.merged_sha == gate.remote.sha("main")
    assert repos.git("log", "-1", "--format=%P", "main", cwd=gate.remote.path).split() == [base, head]
    message = repos.git("log", "-1", "--format=%B", "main", cwd=gate.remote.path)
    assert message.startswith("chore: tidy up\n\nwhy not")
    trailers = repos.git("log", "-1", "--format=%(trailers:only)", "main", cwd=gate.remote.path)
    assert trailers.strip() == "AgentCom-Task: t-1\nAgentCom-Lease-Epoch: 1"
    assert gate.remote.branches() == ["main"], "the agent's branch is tidied up: the base holds its commits"
    assert await gate.checks() == [], "the merged tree is the verified tree"


async def test_a_squash_policy_makes_one_commit(tmp_path: Path) -> None:
    async with open_gate(tmp_path, policy=AUTO | {"merge": "squash"}) as gate:
        base = gate.remote.sha("main")
        await gate.review(1, [SMALL, {"c.txt": "c\n"}], verification=PASSED_REGISTERED)
        await gate.settle()
        assert repos.git("log", "-1", "--format=%P", "main", cwd=gate.remote.path).split() == [base]
        assert gate.remote.show("main:c.txt") == "c"
        assert "agentcom/t-1/1" in gate.remote.branches(), "the base does not hold its commits"


async def test_the_second_of_two_changes_is_checked_on_what_the_first_left(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.review(2, {"b.txt": "bb\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    assert (await gate.change(1)).state is ChangeState.MERGED
    assert (await gate.change(2)).state is ChangeState.CHECKING
    (check,) = await gate.checks()
    await gate.conductor.move(check["n"], TaskState.DONE)
    await gate.settle()
    assert (await gate.change(2)).state is ChangeState.MERGED
    assert len(gate.merges()) == 3


# ── checks of a candidate ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_moved_base_has_the_registered_checks_run_on_exactly_the_candidate(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    change = await gate.change()
    assert change.state is ChangeState.CHECKING
    (check,) = await gate.checks()
    spec = orjson.loads(check["spec"])["check"]
    assert spec["sha"] == change.candidate_sha == gate.remote.sha("agentcom/candidate/1")
    assert spec["ref"] == "agentcom/candidate/1"
    assert [(job["kind"], job["argv"]) for job in spec["checks"]] == [("command_succeeds", ["make", "test"])]
    (submit,) = did(gate, c.Submit)
    (new,) = submit.tasks
    assert (new.type, new.capabilities, new.needs_change, new.max_tries) == ("check", ("checks",), False, 1)
    assert new.idempotency_key == f"check-1-0-{new.body_hash}"
    await gate.conductor.move(check["n"], TaskState.DONE)
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.remote.sha("main") == spec["sha"], "what was checked is what was merged"
    assert gate.remote.branches() == ["main"]
    assert (await gate.change()).labels[-1] == "tier:1"


async def test_registered_checks_the_agent_did_not_run_are_run_before_the_merge(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=passed("something else"))
    await gate.settle()
    assert (await gate.change()).state is ChangeState.CHECKING


async def test_a_base_that_moves_during_the_check_gets_a_new_candidate_and_a_new_check(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    newest = gate.remote.commit({"b.txt": "moved again\n"})
    await gate.conductor.move((await gate.checks())[0]["n"], TaskState.DONE)
    await gate.settle()
    assert gate.remote.sha("main") == newest, "a pass on another base merges nothing"
    first, second = await gate.checks()
    assert (first["state"], second["state"]) == ("done", "queued")
    await gate.conductor.move(second["n"], TaskState.DONE)
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.remote.show("main:b.txt") == "moved again"


async def test_failed_checks_go_back_with_their_logs(gate: Gate) -> None:
    head = await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    await gate.check_failed((await gate.checks())[0]["n"], "assert 1 == 2")
    await gate.settle()
    assert await gate.states() == (ChangeState.REWORK, TaskState.QUEUED)
    (rework,) = did(gate, c.Rework)
    assert "assert 1 == 2" in rework.feedback
    assert (rework.branch, rework.head_sha) == ("agentcom/t-1/1", head)


async def test_a_check_that_gave_no_answer_is_run_again_and_then_left_to_a_person(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    for cause in ("lease_expired", "no_workspace", "queue_ttl"):
        await gate.settle()
        assert (await gate.change()).state is ChangeState.CHECKING
        await gate.conductor.move((await gate.checks())[-1]["n"], TaskState.DEAD, cause=cause)
    await gate.settle()
    assert await gate.states() == (ChangeState.WAITING, TaskState.IN_REVIEW), "no fault of the author"
    assert ((await gate.change()).cause or "").startswith("check_lost: ")
    gate.restart()
    await gate.settle()
    assert len(await gate.checks()) == 3
    await gate.approve()
    await gate.settle()
    again = (await gate.checks())[3:]
    assert [check["state"] for check in again] == ["queued"]
    await gate.conductor.move(again[0]["n"], TaskState.DONE)
    await gate.settle()
    assert await gate.states() == MERGED


async def test_checks_edited_while_a_check_runs_have_to_pass_themselves(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    (first,) = await gate.checks()
    await gate.conductor.move(first["n"], TaskState.DONE)
    await edit_checks(gate)
    await gate.settle()
    assert (await gate.change()).state is ChangeState.CHECKING, "the pass of the checks before says nothing"
    second = (await gate.checks())[-1]
    assert orjson.loads(second["spec"])["check"]["checks"][0]["argv"] == ["make", "all"]
    await gate.conductor.move(second["n"], TaskState.DONE)
    await gate.settle()
    assert await gate.states() == MERGED


async def test_checks_edited_after_a_crash_between_submit_and_save_are_submitted_anew(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.crash("after:Submit")
    await edit_checks(gate)
    await gate.settle()
    first, second = [task for command in did(gate, c.Submit) for task in command.tasks]
    assert first.idempotency_key != second.idempotency_key
    await edit_checks(gate, "test", version=2)
    await gate.settle()
    checks = await gate.checks()
    assert [check["state"] for check in checks[1:]] == ["cancelled", "queued"], "edited back, they run once more"
    assert (await gate.change()).check_task == (await gate.checks())[-1]["n"]


async def edit_checks(gate: Gate, target: str = "all", *, version: int = 1) -> None:
    checks = [{"kind": "command_succeeds", "argv": ["make", target]}]
    edit = RepositoryEdit(url=gate.remote.url, base="main", policy=AUTO, checks=checks)
    await gate.conductor.record(update("admin", REPO, edit, version=version))


async def test_a_cancelled_check_leaves_the_decision_to_a_person(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    await gate.conductor.move((await gate.checks())[0]["n"], TaskState.CANCELLED)
    await gate.settle()
    change = await gate.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.HIGH)
    assert "cancelled" in change.reasons[0]
    await gate.approve()
    await gate.settle()
    assert await gate.states() == MERGED


async def test_without_registered_checks_a_moved_base_makes_the_merge_unverified(bare: Gate) -> None:
    await bare.review(1, SMALL, verification=passed())
    bare.remote.commit({"b.txt": "moved\n"})
    await bare.settle()
    change = await bare.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.HIGH)
    assert "main moved from" in change.reasons[0]
    assert "no registered checks" in change.reasons[0]


@pytest.mark.parametrize(("report", "tier"), [(passed(), Tier.MEDIUM), (None, Tier.HIGH), ('{"passed":true}', Tier.HIGH)])
async def test_only_registered_checks_count_for_tier_1(bare: Gate, report: str | None, tier: Tier) -> None:
    await bare.review(1, SMALL, verification=report)
    await bare.settle()
    change = await bare.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, tier)


# ── approvals ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_another_agents_approval_merges_tier_2_and_the_authors_does_not(strict: Gate) -> None:
    await strict.review(1, {"a.txt": "".join(f"{n}\n" for n in range(30))}, verification=PASSED_REGISTERED)
    await strict.settle()
    assert (await strict.change()).cause == "review_needed: tier 2 needs the approval of another agent or a person"
    with pytest.raises(Refused) as own:
        await strict.approve(by="bob", person=False)
    assert (own.value.status, own.value.code) == (403, "own_work")
    await strict.approve(by="ann", person=False)
    await strict.settle()
    assert await strict.states() == MERGED


async def test_an_author_of_an_earlier_attempt_is_an_author_too(strict: Gate) -> None:
    first = await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    await strict.keeper.reject(1, by="mia", person=True, reason="more")
    await strict.settle()
    await strict.review(1, {"c.txt": "c\n"}, epoch=2, start=first, agent="ann", verification=PASSED_REGISTERED)
    await strict.settle()
    with pytest.raises(Refused, match="own work"):
        await strict.approve(2, by="bob", person=False)


async def test_tier_1_needs_an_approval_unless_the_policy_says_otherwise(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    change = await strict.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.LOW)
    await strict.approve(by="ann", person=False)
    await strict.settle()
    assert await strict.states() == MERGED


async def test_tier_3_is_a_persons_decision(gate: Gate) -> None:
    await gate.review(1, {".github/workflows/ci.yml": "on: push\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.HIGH)
    assert change.reasons == ("touches .github/workflows/ci.yml (continuous integration)",)
    with pytest.raises(Refused) as refused:
        await gate.approve(by="ann", person=False)
    assert (refused.value.status, refused.value.code) == (403, "person_needed")
    await gate.approve()
    await gate.settle()
    assert await gate.states() == MERGED
    assert [review.reviewer for review in (await gate.change()).reviews] == ["mia"]


async def test_an_approval_names_the_head_it_saw(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    with pytest.raises(Refused) as moved:
        await strict.keeper.approve(1, by="mia", person=True, head_sha="0" * 40)
    assert (moved.value.status, moved.value.code) == (409, "head_moved")
    with pytest.raises(Refused) as unknown:
        await strict.keeper.approve(9, by="mia", person=True, head_sha="0" * 40)
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_change")


async def test_a_merged_change_can_no_longer_be_reviewed(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    for late in (gate.approve(), gate.keeper.reject(1, by="mia", person=True, reason="late")):
        with pytest.raises(Refused) as refused:
            await late
        assert (refused.value.status, refused.value.code) == (409, "wrong_state")


async def test_a_rejection_sends_the_task_back_with_the_reason(strict: Gate) -> None:
    head = await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    await strict.keeper.reject(1, by="ann", person=False, reason="rename it")
    await strict.settle()
    assert await strict.states() == (ChangeState.REWORK, TaskState.QUEUED)
    (rework,) = did(strict, c.Rework)
    assert rework.feedback == "Rejected by ann:\nrename it"
    assert rework.head_sha == head


async def test_a_final_rejection_is_a_persons_and_buries_the_task(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    with pytest.raises(Refused) as refused:
        await strict.keeper.reject(1, by="ann", person=False, reason="no", final=True)
    assert refused.value.code == "final_needs_person"
    await strict.keeper.reject(1, by="mia", person=True, reason="no", final=True)
    await strict.settle()
    assert await strict.states() == (ChangeState.CLOSED, TaskState.DEAD)
    assert (await strict.change()).cause == "rejected for good by mia: no"


async def test_a_rejection_between_the_decision_and_the_intent_wins(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    await strict.approve()
    inner = strict.conductor.do

    async def reject_first(command: c.Command, /) -> Any:
        if isinstance(command, c.IntendMerge):
            strict.conductor.do = inner  # type: ignore[method-assign]
            await inner(command)
            await strict.keeper.reject(1, by="eva", person=True, reason="stop")
            return None
        return await inner(command)

    strict.conductor.do = reject_first  # type: ignore[method-assign]
    await strict.settle()
    assert await strict.states() == (ChangeState.REWORK, TaskState.QUEUED)
    assert strict.merges() == ["first"]


# ── what goes back ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_conflict_goes_back_naming_the_files(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"a.txt": "uno\n2\n3\n"})
    await gate.settle()
    assert await gate.states() == (ChangeState.REWORK, TaskState.QUEUED)
    assert "conflicts with main" in did(gate, c.Rework)[0].feedback
    assert "a.txt" in did(gate, c.Rework)[0].feedback


async def test_after_three_reworks_a_person_decides_and_nothing_spins(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED, rework=3)
    gate.remote.commit({"a.txt": "uno\n2\n3\n"})
    await gate.settle()
    change = await gate.change()
    assert change.state is ChangeState.WAITING
    assert change.cause is not None
    assert change.cause.startswith("rework_limit: it was returned 3 times")
    await gate.approve()
    await gate.settle()
    again = await gate.change()
    assert (again.state, again.updated_at) == (ChangeState.WAITING, change.updated_at)
    await gate.keeper.reject(1, by="mia", person=True, reason="no", final=True)
    await gate.settle()
    assert await gate.states() == (ChangeState.CLOSED, TaskState.DEAD)


async def test_work_from_before_its_recorded_base_cannot_revert_newer_work(gate: Gate) -> None:
    old = gate.remote.sha("main")
    assert old is not None
    newer = gate.remote.commit({"b.txt": "newer\n"})
    head = await gate.review(1, SMALL, start=old, verification=PASSED_REGISTERED)
    await gate.put(1, "agentcom/t-1/1", newer, head, verification=PASSED_REGISTERED)
    await gate.settle()
    assert (await gate.change()).state is ChangeState.REWORK
    assert "before the base it was made from" in did(gate, c.Rework)[0].feedback


async def test_unrelated_history_goes_back(gate: Gate) -> None:
    other = repos.make_remote(gate.root, {"x": "x\n"}, name="other")
    repos.git("fetch", "-q", str(other.path), "main:refs/heads/agentcom/t-1/1", cwd=gate.remote.path)
    base = gate.remote.sha("main")
    assert base is not None
    await gate.put(1, "agentcom/t-1/1", base, other.sha("main") or "", verification=PASSED_REGISTERED)
    await gate.settle()
    assert "shares no history with main" in did(gate, c.Rework)[0].feedback


@pytest.mark.parametrize("branch", ["main", "agentcom/t-1/9", "--upload-pack=touch /tmp/x"])
async def test_only_the_applied_leases_branch_is_merged(gate: Gate, branch: str) -> None:
    head = await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    base = gate.remote.sha("main") or ""
    await gate.forge.fetch(Remote("demo", gate.remote.url), "agentcom/t-1/1")  # its objects are here already
    await gate.put(1, branch, base, head, verification=PASSED_REGISTERED)
    await gate.settle()
    assert (await gate.change()).state is ChangeState.REWORK
    assert gate.remote.sha("main") == base


async def test_a_branch_that_moved_on_is_merged_at_the_recorded_head(gate: Gate) -> None:
    head = await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    repos.commit(gate.root / "agent-1-1", {"evil.txt": "later\n"})
    repos.git("push", "-q", "origin", "HEAD:refs/heads/agentcom/t-1/1", cwd=gate.root / "agent-1-1")
    await gate.settle()
    assert await gate.states() == MERGED
    assert repos.git("log", "-1", "--format=%P", "main", cwd=gate.remote.path).split()[1] == head
    assert "agentcom/t-1/1" in gate.remote.branches(), "newer work on it is left alone"


async def test_a_lost_head_goes_back_without_a_start(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    base = gate.remote.sha("main")
    repos.git("update-ref", "refs/heads/agentcom/t-1/1", base or "", cwd=gate.remote.path)
    await gate.settle()
    (rework,) = did(gate, c.Rework)
    assert (rework.branch, rework.head_sha) == (None, None)
    assert "not on agentcom/t-1/1 any more" in rework.feedback


async def test_a_merge_of_anything_but_the_base_goes_back(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    tree = gate.root / "agent-1-1"
    repos.git("checkout", "-q", "-b", "other", "origin/main", cwd=tree)
    repos.commit(tree, {"o.txt": "o\n"})
    repos.git("checkout", "-q", "agentcom/t-1/1", cwd=tree)
    repos.git("merge", "-q", "--no-ff", "other", cwd=tree)
    repos.git("push", "-q", "origin", "HEAD:refs/heads/agentcom/t-1/1", cwd=tree)
    base, head = gate.remote.sha("main") or "", repos.git("rev-parse", "HEAD", cwd=tree)
    await gate.put(1, "agentcom/t-1/1", base, head, verification=PASSED_REGISTERED)
    await gate.settle()
    assert "merges something other than the base" in did(gate, c.Rework)[0].feedback


async def test_a_merge_that_brings_in_the_base_is_fine(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    newer = gate.remote.commit({"b.txt": "newer\n"})
    tree = gate.root / "agent-1-1"
    repos.git("fetch", "-q", "origin", cwd=tree)
    repos.git("merge", "-q", "--no-ff", "origin/main", cwd=tree)
    repos.git("push", "-q", "origin", "HEAD:refs/heads/agentcom/t-1/1", cwd=tree)
    head = repos.git("rev-parse", "HEAD", cwd=tree)
    await gate.put(1, "agentcom/t-1/1", newer, head, verification=PASSED_REGISTERED)
    await gate.settle()
    assert await gate.states() == MERGED
    assert await gate.checks() == []


# ── the ways out ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_task_closes_its_change_and_its_check(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    await gate.conductor.move(1, TaskState.CANCELLED)
    await gate.settle()
    assert await gate.states() == (ChangeState.CLOSED, TaskState.CANCELLED)
    assert (await gate.checks())[0]["state"] == "cancelled"


async def test_a_change_merged_by_hand_is_recorded_when_a_person_says_so(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    repos.git("update-ref", "refs/heads/main", "refs/heads/agentcom/t-1/1", cwd=gate.remote.path)
    await gate.settle()
    assert "already" in (await gate.change()).reasons[0]
    tip = gate.remote.sha("main")
    await gate.approve()
    await gate.settle()
    if (await gate.change()).state is ChangeState.CHECKING:
        await gate.conductor.move((await gate.checks())[0]["n"], TaskState.DONE)
        await gate.settle()
    assert await gate.states() == MERGED
    assert gate.remote.sha("main") == tip, "nothing is pushed"


async def test_a_task_without_repository_cannot_stay_in_review(gate: Gate) -> None:
    await gate.put(1, "agentcom/t-1/1", "", "", repo=None)
    await gate.settle()
    assert (await gate.conductor.task(1)).state == "dead"


async def test_a_paused_repository_merges_nothing_until_it_is_resumed(gate: Gate) -> None:
    await gate.conductor.record(pause("admin", "demo", paused=True))
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    assert ((await gate.change()).state, (await gate.change()).cause) == (ChangeState.OPEN, "queued: repository demo is paused")
    await gate.conductor.record(pause("admin", "demo", paused=False))
    await gate.settle()
    assert await gate.states() == MERGED


async def test_work_others_touch_or_name_waits_for_a_person(gate: Gate) -> None:
    await gate.running_task(7, {"file_hints": [{"path": "./a.txt"}]})
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert (change.tier, change.reasons) == (Tier.HIGH, ("t-7 also touches or names a.txt",))


async def test_a_waiting_change_is_judged_anew_after_its_neighbour_merged(gate: Gate) -> None:
    await gate.review(1, {"docs/x.md": "x\n", ".github/w.yml": "on: push\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    await gate.review(2, {"docs/x.md": "x\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    assert (await gate.change(2)).reasons == ("c-1 also touches or names docs/x.md",)
    await gate.approve(1)
    await gate.settle()
    assert "change nothing" in (await gate.change(2)).reasons[0]


async def test_a_policy_that_changes_is_applied_to_what_waits(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    await strict.settle()
    assert (await strict.change()).state is ChangeState.WAITING
    await strict.conductor.record(update("admin", "demo", RepositoryEdit(policy=AUTO), version=1))
    await strict.settle()
    assert await strict.states() == MERGED


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

ON_THE_WAY = [
    "before:IntendMerge",
    "after:IntendMerge",
    "after:change.merging",
    "before:Merged",
    "after:Merged",
    "after:change.merged",
]


@pytest.mark.parametrize("point", ON_THE_WAY)
async def test_a_crash_between_steps_merges_exactly_once(gate: Gate, point: str) -> None:
    await gate.review(1, SMALL, title="once", verification=PASSED_REGISTERED)
    await gate.crash(point)
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.merges() == ["chore: once", "first"]
    assert (await gate.change()).merged_sha == gate.remote.sha("main")
    assert (await gate.conductor.task(1)).merging == 0


@pytest.mark.parametrize("point", ["before:push_base", "after:push_base", "before:delete", "before:commit", "after:commit"])
async def test_a_crash_around_the_push_merges_exactly_once(gate: Gate, point: str) -> None:
    await gate.review(1, SMALL, title="once", verification=PASSED_REGISTERED)
    gate.forge.at = point
    await gate.until_crash()
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.merges() == ["chore: once", "first"]
    assert gate.forge.calls.count("push_base") == 1


@pytest.mark.parametrize("point", ["before:publish", "after:publish", "before:Submit", "after:Submit", "after:change.checking"])
async def test_a_crash_around_a_check_submits_it_once(gate: Gate, point: str) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    if "publish" in point:
        gate.forge.at = point
        await gate.until_crash()
    else:
        await gate.crash(point)
    await gate.settle()
    (check,) = await gate.checks()
    assert (await gate.change()).check_task == check["n"]
    await gate.conductor.move(check["n"], TaskState.DONE)
    await gate.settle()
    assert await gate.states() == MERGED


@pytest.mark.parametrize("point", ["after:change.rework", "before:Rework", "after:Rework"])
async def test_a_crash_around_a_return_returns_once(gate: Gate, point: str) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"a.txt": "uno\n2\n3\n"})
    await gate.crash(point)
    await gate.settle()
    assert await gate.states() == (ChangeState.REWORK, TaskState.QUEUED)
    assert [rework.n for rework in did(gate, c.Rework)] == [1]
    assert (await gate.conductor.task(1)).rework == 1


async def test_the_very_same_commit_is_rebuilt_when_the_clone_is_gone(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.forge.at = "before:push_base"
    await gate.until_crash()
    intended = (await gate.change()).candidate_sha
    shutil.rmtree(gate.root / "clones")
    gate.forge._forge = local_forge(gate.root / "clones")
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.remote.sha("main") == intended


async def test_a_base_that_moved_during_the_crash_abandons_the_intent(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.forge.at = "before:push_base"
    await gate.until_crash()
    intended = (await gate.change()).candidate_sha
    newer = gate.remote.commit({"b.txt": "newer\n"})
    await gate.settle()
    change = await gate.change()
    assert (change.state, (await gate.conductor.task(1)).merging) == (ChangeState.CHECKING, 0)
    assert change.candidate_sha != intended
    assert gate.remote.sha("main") == newer


async def test_a_push_that_arrived_before_the_base_moved_on_counts(gate: Gate) -> None:
    await gate.review(1, SMALL, title="once", verification=PASSED_REGISTERED)
    gate.forge.at = "after:push_base"
    await gate.until_crash()
    repos.git("fetch", "-q", "origin", cwd=gate.remote.colleague)
    repos.git("reset", "-q", "--hard", "origin/main", cwd=gate.remote.colleague)
    gate.remote.commit({"b.txt": "on top\n"}, "on top")
    await gate.settle()
    assert await gate.states() == MERGED
    assert gate.merges() == ["on top", "chore: once", "first"]


async def test_an_unreachable_remote_is_waited_for_while_merging(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.forge.at = "before:push_base"
    await gate.until_crash()
    hidden = gate.remote.path.with_suffix(".hidden")
    gate.remote.path.rename(hidden)
    async with gate.running():
        while not gate.keeper._agenda._failures:
            await asyncio.sleep(0.01)
        assert (await gate.change()).state is ChangeState.MERGING
        hidden.rename(gate.remote.path)
        while await gate.states() != MERGED:  # the task hears of it just after the change is recorded
            await asyncio.sleep(0.01)
    assert await gate.states() == MERGED


async def test_a_push_whose_answer_is_lost_is_settled_by_looking(gate: Gate) -> None:
    await gate.review(1, SMALL, title="once", verification=PASSED_REGISTERED)
    gate.forge.at, gate.forge.error = "after:push_base", RemoteUnavailable("the line dropped")
    async with gate.running():
        while (await gate.store.reader.one("change_last_id"))["id"] == 0 or (
            await gate.change()
        ).state is not ChangeState.MERGED:
            await asyncio.sleep(0.01)
    assert gate.merges() == ["chore: once", "first"]


async def test_a_push_the_remote_rejects_waits_for_a_person_and_is_not_repeated(gate: Gate) -> None:
    hook = gate.remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho x >> {gate.root}/asked\necho frozen >&2\nexit 1\n")
    head = await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    hook.chmod(0o755)
    await gate.settle()
    change = await gate.change()
    assert change.state is ChangeState.WAITING
    assert change.cause is not None
    assert "frozen" in change.cause
    assert (await gate.conductor.task(1)).merging == 0
    gate.restart()
    await gate.settle()
    assert (gate.root / "asked").read_text() == "x\n", "no second attempt without a new approval"
    hook.chmod(0o644)
    await gate.keeper.approve(1, by="mia", person=True, head_sha=head)
    await gate.settle()
    assert await gate.states() == MERGED


# ── trouble stays with whom it belongs to ────────────────────────────────────────────────────────────────────────────────

SLOW = RemoteUnavailable("no answer to git fetch within 120 s")
TIMEOUT = ForgeError("git diff took longer than 60 s", code="git_timeout")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def state_of(gate: Gate, change: int) -> ChangeState | None:
    found = await get_change(gate.store.reader, change)
    return None if found is None else found.state


async def test_a_branch_that_cannot_be_fetched_stops_nobody_else_and_ends_with_a_person(tmp_path: Path) -> None:
    forge = Ailing(local_forge(tmp_path / "clones"), SLOW, branch="agentcom/t-1/1")
    async with open_gate(tmp_path, policy=AUTO, forge=forge) as gate:
        await gate.review(1, SMALL, verification=PASSED_REGISTERED)
        await gate.review(2, {"b.txt": "c\n"}, verification=PASSED_REGISTERED)
        async with gate.running():

            async def over() -> bool:
                return [await state_of(gate, n) for n in (1, 2)] == [ChangeState.WAITING, ChangeState.MERGED]

            await until(over)
        assert ((await gate.change(1)).cause or "").startswith("head_unfetchable: ")
        forge.ill = False
        await gate.approve(1)
        await gate.settle()
        assert (await gate.change(1)).state is ChangeState.CHECKING, "an approval tries again"


async def test_a_base_that_cannot_be_fetched_is_asked_for_once_a_pass(tmp_path: Path) -> None:
    forge = Ailing(local_forge(tmp_path / "clones"), SLOW, branch="main")
    async with open_gate(tmp_path, policy=AUTO, forge=forge) as gate:
        gate.keeper._agenda._retry_s = 60.0
        for n in (1, 2, 3):
            await gate.review(n, SMALL, verification=PASSED_REGISTERED)
        await gate.settle()
        assert forge.failed == 1
        assert await state_of(gate, 1) is ChangeState.OPEN


async def test_a_moment_of_trouble_on_this_machine_parks_nothing(tmp_path: Path) -> None:
    forge = Ailing(local_forge(tmp_path / "clones"), TIMEOUT, method="measure")
    async with open_gate(tmp_path, policy=AUTO, forge=forge) as gate:
        await gate.review(1, SMALL, verification=PASSED_REGISTERED)
        async with gate.running():

            async def failed() -> bool:
                return forge.failed >= 2

            await until(failed)
            assert await state_of(gate, 1) is ChangeState.OPEN
            forge.ill = False

            async def merged() -> bool:
                return await state_of(gate, 1) is ChangeState.MERGED

            await until(merged)


async def test_lasting_trouble_with_one_change_gives_the_merge_slot_back(tmp_path: Path) -> None:
    forge = Ailing(local_forge(tmp_path / "clones"), TIMEOUT, method="measure")
    forge.ill = False
    async with open_gate(tmp_path, policy=AUTO, forge=forge) as gate:
        await gate.review(1, SMALL, verification=PASSED_REGISTERED)
        gate.remote.commit({"b.txt": "moved\n"})
        await gate.settle()
        forge.ill = True
        async with gate.running():
            await gate.conductor.move((await gate.checks())[0]["n"], TaskState.DONE)

            async def open_again() -> bool:
                return await state_of(gate, 1) is ChangeState.OPEN

            await until(open_again)
            assert "git_timeout" in ((await gate.change(1)).cause or "")
            forge.ill = False

            async def merged() -> bool:
                return await state_of(gate, 1) is ChangeState.MERGED

            await until(merged)
        assert len(await gate.checks()) == 1, "the check that passed still counts"


async def test_a_queued_change_costs_no_git_until_the_slot_is_free(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    gate.remote.commit({"b.txt": "moved\n"})
    await gate.settle()
    for n in (12, 13, 14):  # c-2 to c-4; the check is a task too
        await gate.review(n, {f"{n}.txt": "x\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    assert [await state_of(gate, n) for n in (1, 2, 3, 4)] == [ChangeState.CHECKING, *[ChangeState.OPEN] * 3]
    looked = gate.forge.calls.count("log")
    await gate.conductor.move((await gate.checks())[0]["n"], TaskState.DONE)
    await gate.settle()
    now = [await state_of(gate, n) for n in (1, 2, 3, 4)]
    assert now == [ChangeState.MERGED, ChangeState.CHECKING, ChangeState.OPEN, ChangeState.OPEN]
    assert gate.forge.calls.count("log") - looked == 3, (
        "c-1 is merged, c-2 looked at when its check begins and again, those behind it not at all"
    )


async def test_changes_beyond_a_page_are_found(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.services.agenda.PAGE_ROWS", 2)
    for n in range(1, 5):
        await gate.review(n, {f"{n}.lock": "x\n"}, verification=PASSED_REGISTERED)
    await gate.review(5, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    assert [await state_of(gate, n) for n in range(1, 6)] == [ChangeState.WAITING] * 4 + [ChangeState.MERGED]


async def test_a_change_of_a_task_that_may_only_read_is_never_merged(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED, access="read_only")
    await gate.settle()
    for _ in range(2):
        change = await gate.change()
        assert change.state is ChangeState.WAITING
        assert (change.cause or "").startswith("read_only: ")
        await gate.approve()
        await gate.settle()
    assert gate.merges() == ["first"]
    await gate.keeper.reject(1, by="mia", person=True, reason="no", final=True)
    await gate.settle()
    assert await gate.states() == (ChangeState.CLOSED, TaskState.DEAD)


# ── what the doors show ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_diff_shows_the_change_and_not_what_others_did(strict: Gate) -> None:
    await strict.review(1, SMALL, verification=PASSED_REGISTERED)
    strict.remote.commit({"b.txt": "others\n"})
    await strict.settle()
    diff = await strict.keeper.diff(1)
    assert "-1\n+one\n" in diff
    assert "b.txt" not in diff
    await strict.approve()
    await strict.settle()
    await strict.conductor.move((await strict.checks())[0]["n"], TaskState.DONE)
    await strict.settle()
    assert await strict.keeper.diff(1) == diff, "also after the merge"
    with pytest.raises(Refused, match="no change c-9"):
        await strict.keeper.diff(9)


async def test_changes_are_listed_newest_first_with_filters_and_a_cursor(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    for n in (2, 3):
        await gate.review(n, {f"{n}.lock": "x\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    reader = gate.store.reader

    async def ids(**wanted: Any) -> tuple[list[int], int | None]:
        found, following = await list_changes(reader, **wanted)
        return [change.id for change in found], following

    assert await ids(limit=10) == ([3, 2, 1], None)
    assert await ids(state=ChangeState.WAITING, limit=1) == ([3], 3)
    assert await ids(before=3, limit=1) == ([2], 2)
    assert await ids(repo="other", limit=10) == ([], None)


async def test_the_gate_is_quiet_when_there_is_nothing_to_do(gate: Gate) -> None:
    await gate.review(1, {"x.lock": "x\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    async with gate.running() as keeper:
        await keeper.quiet()
        looked = len(gate.forge.calls)
        for _ in range(3):
            keeper.poke()
            await keeper.quiet()
        assert len(gate.forge.calls) == looked, "a parked change costs no git until something about it differs"


async def test_a_look_at_rows_that_is_a_moment_old_changes_nothing(gate: Gate) -> None:
    await gate.review(1, SMALL, verification=PASSED_REGISTERED)
    await gate.settle()
    await gate.keeper._step(1)
    assert await gate.states() == MERGED
    await gate.review(2, {"a.txt": "clash\n"}, verification=PASSED_REGISTERED)
    gate.remote.commit({"a.txt": "x\n"})
    await gate.settle()
    stale = Work(undelivered=[1, 2])
    stale.due["main"] = {1: (), 2: ()}
    await gate.keeper._do(REPO, stale)
    assert len(did(gate, c.Rework)) == 1
