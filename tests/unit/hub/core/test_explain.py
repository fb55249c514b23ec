"""``explain`` says in one line what keeps a task from running, for each state and each cause."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import commands as c
from hub.ids import SECOND, Outcome
from tests.support.cluster import Hub, needs, new


def at(hub: Hub, n: int, *words: str) -> None:
    line = hub.explain(n)
    assert line is not None and "\n" not in line
    for word in words:
        assert word in line, line


def test_nobody_ever_connected() -> None:
    hub = Hub()
    at(hub, *hub.submit(), "queued", "no agent has ever connected")


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ([("y",)], "no agent has capability x"),
        ([("x",), ("z",)], "no agent offers x, z together"),
    ],
)
def test_nobody_can(agents: list[tuple[str, ...]], words: str) -> None:
    hub = Hub()
    for i, capabilities in enumerate(agents):
        hub.hello(f"w{i}", capabilities=capabilities)
    at(hub, *hub.submit(capabilities=("x", "z")), words)


def test_everybody_is_busy() -> None:
    hub = Hub()
    hub.working()
    n, _ = hub.submit(new("a"), new("b"))
    at(hub, n, "w1, the only eligible agent, is busy; 1 other task is ready, too")
    hub.hello("w2")
    hub.accept(n)
    m, last = hub.submit(new("c"), new("d"))
    at(hub, last, "all 2 eligible agents are busy; 2 other tasks are ready, too")
    assert m != last


@pytest.mark.parametrize(
    ("happens", "word"),
    [
        (lambda hub: hub.said(c.Disconnected), "offline"),
        (lambda hub: hub.do(c.PauseAgent(agent="w1")), "paused"),
        (lambda hub: hub.said(c.Beat, quiet=True), "quiet"),
        (lambda hub: hub.clock.advance(31), "silent"),
    ],
)
def test_who_could_is_barred(happens: Any, word: str) -> None:
    hub = Hub()
    hub.hello()
    happens(hub)
    at(hub, *hub.submit(), "no eligible agent: w1 is " + word)


def test_pinned_to_somebody_unknown() -> None:
    hub = Hub()
    at(hub, *hub.submit(assign_to="nobody"), "pinned to nobody, which never connected")


def test_paused_project_and_repository() -> None:
    hub = Hub()
    hub.do(c.Registry(projects={"default": (True, "auto"), "other": (False, "auto")}, repos={"app": True}))
    at(hub, *hub.submit(), "project default is paused")
    at(hub, *hub.submit(project="other", repo="app"), "repository app is paused")


def test_waiting_for_dependencies() -> None:
    hub = Hub()
    a, b = hub.submit(new("a"), new("b"))
    [n] = hub.submit(depends_on=(needs(a), needs(b)))
    at(hub, n, f"waiting: dependency t-{a} is queued", "and 1 more")


def test_scheduled_and_retrying() -> None:
    hub = Hub()
    at(hub, *hub.submit(not_before=hub.clock.wall + 60 * SECOND), "scheduled: not before 2027-01-15 08:01:00Z")
    n = hub.working()
    hub.result(n, Outcome.FAILED, error_code="boom")
    at(hub, n, "scheduled: tries again after 2027-", "because of boom")


def test_running_blocked_in_review_and_over() -> None:
    hub = Hub()
    hub.hello()
    [n] = hub.submit(repo="app")
    at(hub, n, "assigned to w1")
    hub.accept(n)
    at(hub, n, "running on w1 (attempt 1)")
    hub.about(c.Ask, n, qid="q7", text="?")
    at(hub, n, "question q7", "on w1")
    hub.result(n, has_change=True)
    at(hub, n, "with the gatekeeper")
    hub.do(c.IntendMerge(n=n, lease_epoch=1))
    at(hub, n, "being merged")
    hub.do(c.Merged(n=n, lease_epoch=1, sha="c" * 40))
    at(hub, n, "done: merged")
    hub.later(301)
    assert hub.explain(n) is None
