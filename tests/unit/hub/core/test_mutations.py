"""Checks of the checks: take a fence away and the scenario that stands on it must fail.

Each scenario is a small story that raises AssertionError when its invariant is broken. It holds as the code is, and it must not hold
without the rule it is named for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from hub.core import assignments, reconcile, results, sessions
from hub.core import commands as c
from hub.core.agent import Agent
from hub.core.cluster import Step
from hub.core.errors import Refused
from hub.core.reconcile import HubHas, Rule, Says
from hub.core.task import Task
from hub.ids import Outcome, TaskState, Verdict
from hub.services.conductor import Conductor
from hub.store import journal
from tests.property import model
from tests.support.cluster import SHA, Hub, held
from tests.support.conductor import nothing_leaves_before_its_commit

Mutate = Callable[[pytest.MonkeyPatch], None]


def a_stale_result_is_never_applied() -> None:
    """I4."""
    hub = Hub()
    n = hub.working()
    hub.later(241)
    hub.beat()
    assert hub.task(n).lease_epoch == 2
    decision = hub.said(c.Report, n=n, lease_epoch=1, outcome=Outcome.SUCCEEDED, sha256=SHA)
    assert decision.effects[-1][2].verdict is Verdict.SALVAGED  # type: ignore[union-attr]
    assert hub.state(n) is TaskState.ASSIGNED


def another_agents_word_never_counts() -> None:
    """I2."""
    hub = Hub()
    n = hub.working()
    hub.hello("w2")
    hub.said(c.GiveBack, "w2", n=n, lease_epoch=1, reason="drain")
    assert (hub.task(n).holder, hub.task(n).lease_epoch) == ("w1", 1)


def an_old_session_never_mutates() -> None:
    """I8."""
    hub = Hub()
    hub.hello()
    [n] = hub.submit()
    hub.hello()
    with contextlib.suppress(Refused):
        hub.said(c.Decline, epoch=1, n=n, lease_epoch=1, code="busy")
    assert hub.state(n) is TaskState.ASSIGNED


def a_silent_restarted_sidecar_loses_its_run() -> None:
    """Protocol §6: nothing is kept that nobody runs."""
    hub = Hub()
    n = hub.working()
    hub.hello()
    assert hub.task(n).lost == 1


def a_held_run_is_kept_over_a_reconnection() -> None:
    hub = Hub()
    n = hub.working()
    hub.hello(held=(held(n, 1),))
    assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.WORKING, 1)
    assert hub.result(n) is Verdict.APPLIED


def an_older_row_is_never_written() -> None:
    """I3, in the store."""
    hub = Hub()
    n = hub.working()
    older = hub.task(n).row()
    hub.later(241)
    hub.beat()
    with contextlib.suppress(journal.FenceBroken):
        hub.store.write([older], [])
    assert hub.store.rows("SELECT lease_epoch FROM task") == [{"lease_epoch": 2}]


def every_fence_is_new() -> None:
    """I3."""
    hub = Hub()
    history = model.History(hub)
    n = hub.working()
    history.follow()
    hub.later(241)
    hub.beat()
    history.follow()
    assert hub.task(n).lease_epoch == 2


def _held_without_fence(step: Step, agent: Agent, n: Any, _epoch: Any) -> Task | None:
    task = step.cluster.tasks.get(n)
    return task if task is not None and task.leased else None


def without_the_fence(patch: pytest.MonkeyPatch) -> None:
    for module in (assignments, results, sessions):
        patch.setattr(module, "held_by", _held_without_fence)


def without_the_session_check(patch: pytest.MonkeyPatch) -> None:
    for module in (assignments, results, sessions):
        patch.setattr(module, "session_of", lambda step, command: step.cluster.agents[command.agent])


def with_another_rule(row: tuple[HubHas, Says], rule: Rule) -> Mutate:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        rules = dict(reconcile.RULES) | {row: rule}
        patch.setattr(reconcile, "RULES", rules)
        patch.setattr(sessions, "RULES", rules)

    return mutate


def without_the_upsert_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal, "_UPDATE_TASK", journal._UPDATE_TASK.replace("lease_epoch <= ?", "lease_epoch <> -1 - ?"))


def without_a_rising_epoch(patch: pytest.MonkeyPatch) -> None:
    from hub.core import dispatch

    patch.setattr(dispatch, "raise_fence", lambda task, _base: setattr(task, "lease_epoch", 1))


STORIES: dict[str, tuple[Callable[[], None], Mutate]] = {
    "fence/stale result": (a_stale_result_is_never_applied, without_the_fence),
    "fence/other agent": (another_agents_word_never_counts, without_the_fence),
    "session epoch": (an_old_session_never_mutates, without_the_session_check),
    "reconcile/lost": (
        a_silent_restarted_sidecar_loses_its_run,
        with_another_rule((HubHas.WORKING, Says.SILENT_SAME_INSTALL), Rule.WAIT_FOR_EXPIRY),
    ),
    "reconcile/keep": (a_held_run_is_kept_over_a_reconnection, with_another_rule((HubHas.WORKING, Says.HELD), Rule.LOST)),
    "journal fence": (an_older_row_is_never_written, without_the_upsert_fence),
    "rising epoch": (every_fence_is_new, without_a_rising_epoch),
}


@pytest.mark.parametrize("name", STORIES)
def test_the_story_holds(name: str) -> None:
    STORIES[name][0]()


@pytest.mark.parametrize("name", STORIES)
def test_the_story_fails_without_its_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    story, mutate = STORIES[name]
    mutate(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        story()


async def test_publishing_before_the_commit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Conductor._commit

    async def swapped(self: Conductor, group: Any) -> Any:
        for waiting in self._writing:
            self._publish(waiting)
        return await commit(self, group)

    monkeypatch.setattr(Conductor, "_commit", swapped)
    with pytest.raises(AssertionError, match="before its commit"):
        await nothing_leaves_before_its_commit()


async def test_publishing_without_waiting_for_the_commit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Conductor._settle

    def at_once(self: Conductor, waiting: Any, refusal: Any = None) -> None:
        settle(self, waiting, refusal)
        self._publish(waiting)

    monkeypatch.setattr(Conductor, "_settle", at_once)
    with pytest.raises(AssertionError, match="before its commit"):
        await nothing_leaves_before_its_commit()
    await asyncio.sleep(0)


def _walks(seeds: range) -> None:
    from tests.property.test_scheduler import test_a_long_walk_breaks_nothing

    for seed in seeds:
        test_a_long_walk_breaks_nothing(seed)


@pytest.mark.parametrize(
    "mutate",
    [
        without_the_fence,
        without_the_session_check,
        without_a_rising_epoch,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_the_long_walk_notices(mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property tests themselves can fail: some walk breaks an invariant (or the code) without the rule."""
    mutate(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017  whichever invariant goes first
        _walks(range(10))
