"""What follows a run: the order of reasons, corrective rounds, and the frame that reports the end."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pytest

from hub.ids import Access, CheckStatus, LeaseEpoch, Outcome, TaskId, TaskType, VerificationKind
from hub.wire.codec import FRAME_BYTES, decode_from_sidecar, encode, result_digest
from hub.wire.frames import Result
from hub.wire.spec import Answered, CheckReport, Commit, Spec, Verification, VerificationReport
from sidecar.core.effects import StopReason
from sidecar.core.environment import agent_environment
from sidecar.core.holding import Holding
from sidecar.core.prompt import FEEDBACK_TOTAL_CHARS, wake_message
from sidecar.core.records import Cause, Exited, Key, Verified, Woken
from sidecar.core.results import Delivered, compose
from sidecar.core.rounds import Conclude, Correct, Verify, after_checks, fix_rounds, next_step
from sidecar.runtimes.base import RunEnd

KEY = Key(TaskId(1), LeaseEpoch(1))
IDS = {"task": KEY.task, "lease_epoch": KEY.lease_epoch}
CHECKED = (Verification(kind=VerificationKind.FILE_EXISTS, target="x"),)
GOOD = RunEnd(ok=True)


@dataclass(frozen=True)
class Tree:
    advanced: bool = True
    dirty: tuple[str, ...] = ()

    @property
    def dirty_count(self) -> int:
        return len(self.dirty)


def spec(**more) -> Spec:
    return Spec(**{**IDS, "title": "t", **more})


def holding(*causes: Cause, end: RunEnd = GOOD, stopped: str | None = None, passed: bool | None = None) -> Holding:
    held = Holding(KEY)
    for number, cause in enumerate(causes or ("first",)):
        held.replay(Woken(**IDS, run_id=f"1-1-{number}", round=number, cause=cause))
    held.replay(Exited(**IDS, run_id="r", stopped=stopped, end=end))
    if passed is not None:
        held.replay(Verified(**IDS, report=VerificationReport(passed=passed)))
    return held


def conclusion(step: object) -> tuple[Outcome, str | None]:
    assert isinstance(step, Conclude)
    return step.outcome, step.error.code if step.error else None


def test_a_good_run_without_checks_succeeds() -> None:
    assert conclusion(next_step(spec(), holding(), Tree(), "")) == (Outcome.SUCCEEDED, None)


def test_checks_run_before_success() -> None:
    task = spec(verification=CHECKED)
    assert next_step(task, holding(), Tree(), "") == Verify()
    assert conclusion(next_step(task, holding(passed=True), Tree(), "")) == (Outcome.SUCCEEDED, None)


def test_failed_checks_are_corrected_as_often_as_the_task_allows() -> None:
    task = spec(verification=CHECKED, max_fix_rounds=1)
    assert next_step(task, holding(passed=False), Tree(), "red") == Correct("checks", "red")
    held = holding("first", "checks", passed=False)
    assert conclusion(next_step(task, held, Tree(), "red")) == (Outcome.FAILED, "verification_failed")
    assert fix_rounds(held) == 1


def test_a_missing_commit_gets_one_corrective_round() -> None:
    step = next_step(spec(), holding(), Tree(advanced=False), "")
    assert isinstance(step, Correct)
    assert step.cause == "no_change"
    held = holding("first", "no_change")
    assert conclusion(next_step(spec(), held, Tree(advanced=False), "")) == (Outcome.FAILED, "no_change")


@pytest.mark.parametrize("state", [Tree(advanced=False), None])
def test_research_needs_no_commit(state: Tree | None) -> None:
    task = spec(type=TaskType.RESEARCH, needs_change=False)
    assert conclusion(next_step(task, holding(), state, "")) == (Outcome.SUCCEEDED, None)


def test_a_dirty_tree_gets_one_corrective_round_and_then_the_committed_part_counts() -> None:
    step = next_step(spec(), holding(), Tree(dirty=("left.txt",)), "")
    assert isinstance(step, Correct)
    assert "left.txt" in step.correction
    assert conclusion(next_step(spec(), holding("first", "dirty"), Tree(dirty=("l",)), "")) == (Outcome.SUCCEEDED, None)


def test_an_agent_that_failed_is_not_verified() -> None:
    end = RunEnd(ok=False, code="agent_failed", retryable=False)
    step = next_step(spec(verification=CHECKED), holding(end=end), Tree(), "")
    assert conclusion(step) == (Outcome.FAILED, "agent_failed")
    assert isinstance(step, Conclude)
    assert step.error is not None
    assert step.error.cls == "permanent"


@pytest.mark.parametrize(
    ("stopped", "expected"),
    [
        ("wall", (Outcome.FAILED, "wall_budget")),
        ("deadline", (Outcome.LOST, "deadline")),
        ("lost", (Outcome.LOST, "shim_lost")),
        ("signal", (Outcome.LOST, "stopped")),
    ],
)
def test_a_run_cut_short_says_by_what(stopped: str, expected: tuple) -> None:
    assert conclusion(next_step(spec(), holding(stopped=stopped), Tree(), "")) == expected


@pytest.mark.parametrize(
    ("reason", "stopped", "outcome"),
    [
        (StopReason.CANCEL, "stop", Outcome.CANCELLED),
        (StopReason.CANCEL, None, Outcome.CANCELLED),
        (StopReason.INTERRUPT, "stop", Outcome.INTERRUPTED),
        (StopReason.LOST, "stop", Outcome.LOST),
        (StopReason.LOST, None, Outcome.SUCCEEDED),
        (StopReason.DRAIN, "stop", Outcome.LOST),
    ],
)
def test_being_stopped_counts_unless_a_success_came_before_the_lease_was_lost(reason, stopped, outcome) -> None:
    held = holding(stopped=stopped)
    held.stop = reason
    assert conclusion(next_step(spec(), held, Tree(), ""))[0] is outcome


def test_no_corrective_round_begins_without_a_lease() -> None:
    held = holding(passed=False)
    held.stop = StopReason.LOST
    assert conclusion(next_step(spec(verification=CHECKED), held, Tree(), "red")) == (Outcome.LOST, "lease_lost")


def test_an_internal_check_fails_for_good() -> None:
    step = after_checks(VerificationReport(passed=False), "red")
    assert (conclusion(step), step.error.cls) == ((Outcome.FAILED, "checks_failed"), "permanent")


# --- the result


def big_result() -> Result:
    files = tuple("d/" * 500 + f"{n}.txt" for n in range(256))
    commits = tuple(Commit(sha=f"{n:040x}", subject="s" * 500, files=files) for n in range(256))
    checks = tuple(
        CheckReport(kind=VerificationKind.COMMAND_SUCCEEDS, status=CheckStatus.FAIL, target="t" * 4096, output="ü" * 4096)
        for _ in range(128)
    )
    delivered = Delivered(branch="b", base_sha="a" * 40, head_sha="b" * 40, commits=commits)
    report = VerificationReport(passed=False, checks=checks)
    return compose(KEY, Outcome.SUCCEEDED, None, delivered=delivered, report=report, output="o" * 100_000)


def test_a_huge_result_fits_a_frame_and_keeps_what_names_the_code() -> None:
    result = big_result()
    assert len(encode(result)) < FRAME_BYTES
    assert (result.head_sha, result.branch) == ("b" * 40, "b")
    assert result.verification is not None
    assert len(result.verification.checks) == 128


def test_the_seal_survives_the_wire() -> None:
    result = decode_from_sidecar(encode(big_result()))
    assert isinstance(result, Result)
    assert result_digest(result) == result.sha256


def test_a_small_result_is_left_alone() -> None:
    commit = Commit(sha="a" * 40, subject="s", files=("x",))
    result = compose(KEY, Outcome.SUCCEEDED, None, delivered=Delivered(commits=(commit,)), output="all of it")
    assert (result.commits, result.output) == ((commit,), "all of it")


# --- the wake message


def test_the_wake_message_is_complete() -> None:
    task = spec(
        description="Do this.",
        success_criteria=("It works.",),
        verification=CHECKED,
        answers=(Answered(qid="q", text="Which?", answer="That."),),
        feedback=("It broke.",),
    )
    text = wake_message(task, branch="agentcom/t-1/1", conflict=True, correction="Fix it.")
    for part in ("t-1: t", "Do this.", "It works.", "file_exists x", "Which?", "That.", "It broke.", "Fix it.", "conflict"):
        assert part in text
    assert text.index("agentcom/t-1/1") < text.index("Do this."), "the rules stand before what submitters wrote"


def test_the_wake_message_is_bounded_and_keeps_the_newest_feedback() -> None:
    task = spec(description="d" * 10_000, feedback=("old" * 20_000, *["x" * 60_000] * 14, "y" * 60_000 + "newest"))
    text = wake_message(task, branch=None)
    assert len(text) < FEEDBACK_TOTAL_CHARS + 20_000
    assert "newest" in text
    assert "old" not in text


def test_a_read_only_task_says_so() -> None:
    assert "read-only" in wake_message(spec(access=Access.READ_ONLY), branch="b")


# --- the environment


def test_an_agent_gets_an_allowlist_and_never_the_sidecars_token() -> None:
    own = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "AGENTCOM_TOKEN": "secret", "AWS_KEY": "k", "WANTED": "w"}
    got = agent_environment(
        own, allow=["WANTED", "AGENTCOM_TOKEN"], add={"MORE": "m"}, workspace={"AGENTCOM_TASK": "t-1"}, access=Access.WRITE
    )
    assert got == {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "WANTED": "w", "MORE": "m", "TERM": "dumb",
        "AGENTCOM_TASK": "t-1", "AGENTCOM_ACCESS": "write",
    }  # fmt: skip
    assert "secret" not in orjson.dumps(got).decode()
