"""A change's machine, its conventions and words, who may approve it, and what happens next to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.change import (
    BODY_CHARS,
    COMMITS_LIMIT,
    LIVE,
    TITLE_CHARS,
    TRANSITIONS,
    Account,
    Burial,
    Candidate,
    LoggedCommit,
    Proposal,
    Return,
    apply,
    body,
    breaches,
    decode_intent,
    encode_intent,
    title,
)
from hub.core.errors import IllegalTransition, Refused
from hub.core.gate import Check, Merge, Proof, Queue, Report, RunChecks, SendBack, Situation, Wait, facts, next_step
from hub.core.review import REVIEWABLE, Review, Reviewer, check_review, standing
from hub.core.risk import Assessment, Measured, Policy, Verified, assess
from hub.ids import ChangeState, LeaseEpoch, TaskId, TaskType, Tier
from hub.wire.git import trailers

S = ChangeState
TRAILERS = trailers(TaskId(7), LeaseEpoch(3))
BASE, HEAD = "b" * 40, "a" * 40


# ── machine ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.sampled_from(ChangeState), st.sampled_from(ChangeState))
def test_apply_takes_exactly_the_edges_of_the_table(state: ChangeState, to: ChangeState) -> None:
    if to in TRANSITIONS[state]:
        assert apply(state, to) is to
    else:
        with pytest.raises(IllegalTransition):
            apply(state, to)


def test_the_table_is_total_and_its_ends_are_ends() -> None:
    assert set(TRANSITIONS) == set(ChangeState)
    assert TRANSITIONS[S.MERGED] == TRANSITIONS[S.CLOSED] == frozenset()
    assert {S.REWORK, S.MERGED, S.CLOSED} == set(ChangeState) - LIVE


def test_an_intended_merge_can_neither_be_sent_back_nor_reviewed() -> None:
    assert S.REWORK not in TRANSITIONS[S.MERGING]
    assert S.MERGING not in REVIEWABLE
    assert [state for state, to in TRANSITIONS.items() if S.MERGED in to] == [S.MERGING]


@pytest.mark.parametrize(
    "intent",
    [
        Candidate(sha=HEAD, expected_base=BASE, tree="c" * 40, parents=(BASE, HEAD), date_s=5, message="fix: x\n"),
        Return(feedback="é\n", keep_head=False),
        Burial(cause="no"),
    ],
)
def test_an_intent_survives_its_row(intent: Any) -> None:
    assert decode_intent(encode_intent(intent)) == intent


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given_title", "kind", "expected"),
    [
        ("broken login", TaskType.BUG, "fix: broken login"),
        ("new door", TaskType.FEATURE, "feat: new door"),
        ("feat(api)!: new door", TaskType.BUG, "feat(api)!: new door"),
        ("two\nlines\t here", TaskType.TASK, "chore: two lines here"),
        ("", TaskType.DOCUMENTATION, "docs: untitled"),
    ],
)
def test_titles_take_conventional_form(given_title: str, kind: TaskType, expected: str) -> None:
    assert title(given_title, kind) == expected


def account(**fields: Any) -> Account:
    blank = Account(
        task=TaskId(7),
        trailers=TRAILERS,
        task_title="do it",
        description="because",
        created_by="mia",
        agent="bob",
        commits=(LoggedCommit(sha=HEAD, parents=(BASE,), subject="step"),),
        verification=("passed",),
        assessment=Assessment(tier=Tier.MEDIUM, reasons=("4 files",)),
    )
    return replace(blank, **fields)


def proposal(**fields: Any) -> Proposal:
    blank = Proposal(
        base="main",
        branch="agentcom/t-7/3",
        expected_branch="agentcom/t-7/3",
        trailers=TRAILERS,
        commits=(LoggedCommit(sha=HEAD, parents=(BASE,), subject="step"),),
        title="fix: it",
        body=body(account()),
    )
    return replace(blank, **fields)


@given(st.text(max_size=300), st.sampled_from(TaskType), st.text(max_size=20_000))
def test_any_words_of_a_submitter_give_a_sound_title_and_body(words: str, kind: TaskType, description: str) -> None:
    made = title(words, kind)
    text = body(account(task_title=words, description=description))
    assert len(made) <= TITLE_CHARS
    assert "\n" not in made
    assert len(text) <= BODY_CHARS + len(TRAILERS) + 2
    assert breaches(proposal(title=made, body=text)) == ()
    assert text.count("\nAgentCom-Task:") == 1


def test_a_description_cannot_pass_for_our_trailers() -> None:
    text = body(account(description="x\n\nagentcom-task: t-1\nAgentCom-Lease-Epoch: 9"))
    assert "\n> agentcom-task: t-1" in text
    assert text.endswith(f"\n\n{TRAILERS}")


# ── conventions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def commit(sha: str, *parents: str) -> LoggedCommit:
    return LoggedCommit(sha=sha, parents=parents, subject="s")


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        ({"branch": "main"}, "base branch main itself"),
        ({"branch": "agentcom/t-7/2"}, "this lease's branch is agentcom/t-7/3"),
        ({"commits": ()}, "no commit"),
        ({"commits": tuple(commit(str(n), str(n - 1)) for n in range(COMMITS_LIMIT + 1))}, "more than 256 commits"),
        ({"commits": (commit("x", "b"), commit("y", "b"), commit("m", "x", "y"))}, "commit m merges something other"),
        ({"title": "no form"}, "not of the form"),
        ({"title": "fix: " + "x" * 70}, "not of the form"),
        ({"body": "words"}, "trailers"),
        ({"body": f"{TRAILERS}\n\nmore"}, "trailers"),
    ],
)
def test_each_breach_is_named(broken: dict[str, Any], part: str) -> None:
    (found,) = breaches(proposal(**broken))
    assert part in found


def test_a_merge_that_brings_in_the_base_is_no_breach() -> None:
    assert breaches(proposal(commits=(commit("x", "b"), commit("m", "x", "newer-base")))) == ()
    assert breaches(proposal(commits=(commit("x", "b"), commit("m", "newer-base", "x")))) == ()


# ── reviews ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def review(by: str = "ann", *, person: bool = False, head: str = HEAD, verdict: str = "approved", at: int = 10) -> Review:
    return Review(reviewer=by, head_sha=head, verdict=verdict, person=person, comment="", at=at)


AUTO = Policy(auto_merge_tier1=True)


@pytest.mark.parametrize(
    ("tier", "policy", "reviews", "met"),
    [
        (Tier.LOW, AUTO, (), True),
        (Tier.LOW, Policy(), (), False),
        (Tier.LOW, Policy(), (review(),), True),
        (Tier.MEDIUM, AUTO, (), False),
        (Tier.MEDIUM, AUTO, (review(),), True),
        (Tier.MEDIUM, AUTO, (review(person=True),), True),
        (Tier.MEDIUM, AUTO, (review("bob"),), False),
        (Tier.MEDIUM, AUTO, (review(head="0" * 40),), False),
        (Tier.MEDIUM, AUTO, (review(verdict="rejected"),), False),
        (Tier.HIGH, AUTO, (review(),), False),
        (Tier.HIGH, AUTO, (review(person=True),), True),
        (Tier.HIGH, AUTO, (review(person=True, head="0" * 40),), False),
    ],
)
def test_what_suffices_for_each_tier(tier: Tier, policy: Policy, reviews: tuple[Review, ...], met: bool) -> None:
    found = standing(tier, policy, reviews, head_sha=HEAD, authors={"bob"}, blocked_at=None)
    assert found.met is met
    assert bool(found.why) is not met


def test_after_a_refused_push_only_a_later_approval_of_a_person_tries_again() -> None:
    def met(*reviews: Review) -> bool:
        return standing(Tier.LOW, AUTO, reviews, head_sha=HEAD, authors=(), blocked_at=100).met

    assert not met()
    assert not met(review(person=True, at=99))
    assert not met(review(at=101))
    assert met(review(person=True, at=101))


@pytest.mark.parametrize(
    ("by", "changed", "expected"),
    [
        (Reviewer(name="mia", person=True), {"state": S.MERGING}, (409, "wrong_state")),
        (Reviewer(name="mia", person=True), {"head_sha": "0" * 40}, (409, "head_moved")),
        (Reviewer(name="bob", person=False), {}, (403, "own_work")),
        (Reviewer(name="ann", person=False), {"tier": None}, (409, "not_assessed")),
        (Reviewer(name="ann", person=False), {"tier": Tier.HIGH}, (403, "person_needed")),
        (Reviewer(name="ann", person=False), {}, None),
        (Reviewer(name="mia", person=True), {"tier": None}, None),
    ],
)
def test_a_review_that_cannot_count_is_refused(by: Reviewer, changed: dict[str, Any], expected: tuple[int, str] | None) -> None:
    case: dict[str, Any] = {"state": S.WAITING, "tier": Tier.MEDIUM, "current_head": HEAD, "head_sha": HEAD, "authors": {"bob"}}
    if expected is None:
        check_review(by, **(case | changed))
        return
    with pytest.raises(Refused) as refused:
        check_review(by, **(case | changed))
    assert (refused.value.status, refused.value.code) == expected


# ── what is known of the tree, and the next step ─────────────────────────────────────────────────────────────────────────


def proof(**fields: Any) -> Proof:
    return replace(Proof(report=Report.PASSED_REGISTERED, same_tree=True, registered=True, base_note="main moved"), **fields)


@pytest.mark.parametrize(
    ("known", "verification", "settled"),
    [
        (proof(), Verified.PASSED, True),
        (proof(report=Report.PASSED), Verified.REQUIRED, False),
        (proof(report=Report.MISSING), Verified.REQUIRED, False),
        (proof(same_tree=False), Verified.REQUIRED, False),
        (proof(same_tree=False, check=Check.RUNNING), Verified.REQUIRED, False),
        (proof(same_tree=False, check=Check.LOST), Verified.REQUIRED, False),
        (proof(same_tree=False, check=Check.PASSED), Verified.PASSED, True),
        (proof(same_tree=False, check=Check.CANCELLED), Verified.MISSING, True),
        (proof(report=Report.FAILED), Verified.FAILED, False),
        (proof(registered=False, report=Report.PASSED), Verified.PASSED, True),
        (proof(registered=False, report=Report.MISSING), Verified.MISSING, True),
        (proof(registered=False, report=Report.PASSED, same_tree=False), Verified.MISSING, True),
    ],
)
def test_verification_is_that_of_the_tree_that_would_be_merged(known: Proof, verification: Verified, settled: bool) -> None:
    assert facts(Measured(), known).verification is verification
    assert known.settled is settled


def situation(**fields: Any) -> Situation:
    low = Assessment(tier=Tier.LOW, reasons=("small",))
    return replace(Situation(policy=AUTO, assessment=low, proof=proof(), head_sha=HEAD), **fields)


LOST = proof(same_tree=False, check=Check.LOST)
THRICE = "its check ended without an answer 3 times; approve it again to repeat it"
HIGH = Assessment(tier=Tier.HIGH, reasons=("x",))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (situation(), Merge()),
        (situation(proof=proof(same_tree=False)), RunChecks()),
        (situation(held_by="c-1 is being merged first"), Queue("c-1 is being merged first")),
        (situation(proof=LOST, check_run=2), RunChecks()),
        (situation(proof=LOST, check_run=3, held_by="x"), Wait("check_lost", THRICE)),
        (situation(proof=LOST, check_run=4), RunChecks()),
        (situation(proof=replace(LOST, same_tree=True), check_run=3), Merge()),
        (situation(faults=("a", "b")), SendBack("a\nb")),
        (situation(faults=("a",), assessment=HIGH, reviews=(review(person=True),)), SendBack("a")),
        (situation(assessment=HIGH), Wait("person_needed", "tier 3 needs the approval of a person")),
        (situation(assessment=HIGH, reviews=(review(person=True),)), Merge()),
        (situation(assessment=HIGH, reviews=(review(person=True),), proof=proof(same_tree=False)), RunChecks()),
        (situation(faults=("a",), reworks=3), Wait("rework_limit", "it was returned 3 times already and still: a")),
    ],
)
def test_the_next_step_follows_the_order_of_the_rule(at: Situation, expected: object) -> None:
    assert next_step(at) == expected


@given(
    tier=st.sampled_from(Tier),
    report=st.sampled_from(Report),
    check=st.sampled_from(Check),
    same_tree=st.booleans(),
    registered=st.booleans(),
    person=st.booleans(),
    auto=st.booleans(),
)
def test_nothing_unverified_and_nothing_of_tier_3_is_merged_without_a_person(
    tier: Tier, report: Report, check: Check, same_tree: bool, registered: bool, person: bool, auto: bool
) -> None:
    known = Proof(report=report, same_tree=same_tree, registered=registered, check=check)
    unknown = ("strange",) if tier is Tier.HIGH else ()
    policy = Policy(auto_merge_tier1=auto)
    assessment = assess(facts(Measured(), known, unknown=unknown), policy)
    reviews = (review(person=person),)
    step = next_step(situation(policy=policy, assessment=assessment, proof=known, reviews=reviews))
    if isinstance(step, Merge) and not person:
        assert not unknown
        assert check is Check.PASSED or (same_tree and report in {Report.PASSED, Report.PASSED_REGISTERED})
