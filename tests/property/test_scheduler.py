"""The scheduler against hostile and honest sidecars, people, the gatekeeper, clocks and crashes, over the real journal.

Every rule is one command or one happening; after each of them all invariants of :mod:`tests.property.model` are counted anew.
Commands go one by one or in groups of one transaction; a crash loses what was not committed.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub.core import commands as c
from hub.core.decision import AckResult, Decision
from hub.core.errors import Refused
from hub.core.lease import Terms
from hub.ids import SECOND, Access, Lane, LeaseEpoch, Outcome, Phase, SessionEpoch, TaskId, TaskState, TaskType, Verdict
from tests.property import model
from tests.support.clock import WALL
from tests.support.cluster import PROJECTS, REPOS, SHA, Hub, held, lease, new, outgoing

LONG = os.environ.get("HYPOTHESIS") == "long"
PROFILE = settings(
    max_examples=3000 if LONG else 70,
    stateful_step_count=80 if LONG else 45,
    derandomize=not LONG,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

AGENTS = ("a1", "a2", "a3")
CAPABILITIES = ((), ("x",), ("x", "y"))
ENDS = ("change", "change", "done", "failed", "broken", "abrupt", "ask", "ask", "park", "lost", "silent", "drain", "cut")
STEERING = ("assign", "assign", "cancel", "cancel", "hold", "release", "complete", "dispatch", "pause", "resume", "resume")
SAYINGS = ("accept", "decline", "decline", "beat", "beat", "progress", "ask", "give_back", "noted", "gone")
GATEKEEPER = (c.IntendMerge, c.AbandonMerge, c.Merged, c.Rework, c.Rework, c.Bury)
agents = st.sampled_from(AGENTS)
numbers = st.integers(1, 40)
# mostly the truth: the present session, the fence that is held, a task that exists
sessions = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
fences = st.sampled_from(["mine", "mine", "mine", "mine", "older", "newer", "other", "wild"])
outcomes = st.sampled_from([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.SUCCEEDED, *Outcome])
drafts = st.fixed_dictionaries(
    {"lane": st.sampled_from(Lane), "max_tries": st.sampled_from([1, 2, 3])},
    optional={
        "project": st.sampled_from(["default", "other", "slow"]),
        "repo": st.sampled_from(["app", "lib"]),
        "capabilities": st.sampled_from([("x",), ("y",), ("x", "y"), ("z",)]),
        "assign_to": st.sampled_from([*AGENTS, "nobody"]),
        "not_before": st.integers(-100, 400).map(lambda s: WALL + s * SECOND),
        "deadline": st.integers(1, 900).map(lambda s: WALL + s * SECOND),
        "queue_ttl_us": st.integers(1, 300).map(lambda s: s * SECOND),
        "hold": st.just(True),
        "idempotency_key": st.sampled_from(["k1", "k2", "k3"]),
        "body_hash": st.sampled_from(["h1", "h1", "h2"]),
        "unique_key": st.sampled_from(["u1", "u2"]),
        "type": st.sampled_from([TaskType.TASK, TaskType.RESEARCH, TaskType.CHECK]),
        "access": st.sampled_from(Access),
    },
)
edges = st.lists(
    st.tuples(st.integers(-8, 3), st.sampled_from(["skip", "skip", "run", "fail"])), max_size=2, unique_by=lambda edge: edge[0]
)


SALVAGING = ["adopt", "adopt", "adopt", "drop", "release", "remove"]


class Everybody(RuleBasedStateMachine):
    """``self.do`` is the only way in: it checks that a refusal changed nothing."""

    @initialize()
    def start(self) -> None:
        self.hub = Hub(Terms(lease_us=60 * SECOND, beat_us=10 * SECOND, accept_us=12 * SECOND, tombstone_us=40 * SECOND))
        self.history = model.History(self.hub)
        self.installs = dict.fromkeys(AGENTS, 0)
        self.qid = 0
        for agent in AGENTS:
            self.hub.hello(agent, install=f"{agent}-0", boot="b1")
        self.hub.submit(*(new(f"early {i}", lane=lane, max_tries=2) for i, lane in enumerate(Lane)))

    def do(self, command: c.Command) -> Decision | None:
        before = model.fingerprint(self.hub)
        try:
            return self.hub.do(command)
        except Refused as refused:
            if currently_in_test_context():
                note(f"refused: {refused.code}")
            assert model.fingerprint(self.hub) == before, f"{refused.code} changed something"
            return None

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def task(self, pick: int) -> TaskId:
        """A task that exists if there is one, live ones first."""
        tasks = sorted(self.hub.cluster.tasks.values(), key=lambda task: (task.terminal, -task.n))
        return TaskId(tasks[pick % len(tasks)].n if tasks else pick)

    def fence(self, agent: str, kind: str, pick: int) -> dict[str, Any]:
        cluster = self.hub.cluster
        mine = cluster.agents[agent].task if agent in cluster.agents else None
        n = mine if mine is not None and kind != "other" else self.task(pick)
        epoch = cluster.tasks[n].lease_epoch if n in cluster.tasks else 1
        shift = {"older": -1, "newer": 1, "wild": pick}.get(kind, 0)
        return {"n": TaskId(n), "lease_epoch": LeaseEpoch(max(0, epoch + shift))}

    def session(self, agent: str, shift: int) -> dict[str, Any]:
        known = self.hub.cluster.agents.get(agent)
        return {
            "actor": agent,
            "agent": agent,
            "session_epoch": SessionEpoch((known.epoch if known is not None else 0) + shift),
        }

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(batch=st.lists(st.tuples(drafts, edges), min_size=1, max_size=4))
    def submit(self, batch: list[tuple[dict[str, Any], list[tuple[int, str]]]]) -> None:
        highest = self.hub.cluster.next_n - 1
        tasks = []
        for i, (draft, wanted) in enumerate(batch):
            # 0…3 names an item of the batch, a negative number a task that far back, live or long finished
            refs = [(f"r{to}" if to >= 0 else TaskId(highest + 1 + to), policy) for to, policy in wanted]
            depends = tuple(c.Dependency(needs=to, policy=policy) for to, policy in refs if to not in (f"r{i}", 0, -1, -2))
            fields = {"title": f"{highest}.{i}", "ref": f"r{i}", "depends_on": depends, **draft}
            tasks.append(new(**fields))
        self.do(c.Submit(actor="ann", tasks=tuple(tasks)))

    @rule(
        pick=numbers,
        what=st.sampled_from(
            ["assign", "assign", "cancel", "cancel", "hold", "release", "complete", "dispatch", "pause", "resume"]
        ),
        agent=st.one_of(st.none(), agents),
        force=st.booleans(),
    )
    def steer(self, pick: int, what: str, agent: Any, force: bool) -> None:
        n = self.task(pick)
        held = [task.n for task in self.hub.cluster.tasks.values() if task.held]
        match what:
            case "assign":
                self.do(c.Assign(n=n, agent=agent, force=force))
            case "cancel":
                self.do(c.Cancel(n=n))
            case "hold":
                self.do(c.Hold(n=n))
            case "release":
                self.do(c.Release(n=TaskId(held[pick % len(held)] if held else n)))
            case "complete":
                self.do(c.Complete(n=n, force=force))
            case "dispatch":
                self.do(c.Dispatch(project=[None, "slow"][force], lane=[None, *Lane][pick % 5]))
            case "pause" if agent is not None:
                self.do(c.PauseAgent(agent=agent))
            case "resume" if agent is not None:
                self.do(c.ResumeAgent(agent=agent))

    @rule(pick=numbers, forgotten=st.booleans())
    def requeue(self, pick: int, forgotten: bool) -> None:
        cluster = self.hub.cluster
        gone = [n for n in range(1, cluster.next_n) if (n not in cluster.tasks) == forgotten]
        ended = [n for n in gone if forgotten or cluster.tasks[n].terminal]
        self.do(c.Requeue(n=TaskId(ended[pick % len(ended)] if ended else pick)))

    @rule(pick=numbers, what=st.sampled_from(SALVAGING), agent=agents, change=st.booleans(), force=st.booleans())
    def salvage(self, pick: int, what: str, agent: Any, change: bool, force: bool) -> None:
        """People decide about what was kept, and part with agents."""
        kept = self.hub.store.rows("SELECT task, lease_epoch FROM salvage ORDER BY task, lease_epoch")
        at = kept[pick % len(kept)] if kept else {"task": pick, "lease_epoch": 1}
        n, epoch = TaskId(at["task"]), LeaseEpoch(at["lease_epoch"])
        match what:
            case "adopt":
                work = c.Work(branch="b", base_sha="a" * 40, head_sha="b" * 40) if change else None
                self.do(c.AdoptSalvage(actor="ann", n=n, lease_epoch=epoch, work=work, force=force))
            case "drop":
                self.do(c.DropSalvage(actor="ann", n=n, lease_epoch=epoch, reason="no"))
            case "release":
                self.do(c.ReleaseAgent(actor="ann", agent=agent))
            case "remove":
                self.do(c.RemoveAgent(actor="ann", agent=agent))

    @rule(pick=numbers)
    def answer(self, pick: int) -> None:
        asked = [task.n for task in self.hub.cluster.tasks.values() if task.question is not None]
        self.do(c.Answer(n=TaskId(asked[pick % len(asked)] if asked else pick), text="yes"))

    @rule(project=st.sampled_from([None, "default", "other"]), repo=st.sampled_from([None, "app"]))
    def registry(self, project: str | None, repo: str | None) -> None:
        projects = {name: (name == project, dispatch) for name, (_, dispatch) in PROJECTS.items()}
        repos = {name: name == repo for name in REPOS}
        if not self.hub.group:
            self.hub.store.registry(projects, repos)
            self.do(c.Registry(projects=projects, repos=repos))

    @rule(pick=numbers, kind=st.sampled_from(GATEKEEPER), shift=sessions)
    def gatekeeper(self, pick: int, kind: Any, shift: int) -> None:
        reviewed = [task for task in self.hub.cluster.tasks.values() if task.state is TaskState.IN_REVIEW]
        task = reviewed[pick % len(reviewed)] if reviewed else None
        n, epoch = (task.n, task.lease_epoch) if task is not None else (self.task(pick), 1)
        more = {c.Merged: {"sha": "c" * 40}, c.Rework: {"feedback": "no"}, c.Bury: {"cause": "rejected"}}.get(kind, {})
        self.do(kind(n=n, lease_epoch=LeaseEpoch(max(0, epoch + shift)), **more))

    # ── sidecars ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        agent=agents,
        claims=st.lists(st.tuples(st.sampled_from(["held", "outbox"]), fences, numbers, st.sampled_from(Phase)), max_size=2),
        boot=st.integers(1, 3),
        other_install=st.sampled_from([False, False, False, False, True]),
        capabilities=st.sampled_from([CAPABILITIES[-1], *CAPABILITIES]),
        projects=st.sampled_from([(), (), (), ("other",)]),
        quiet=st.sampled_from([False, False, False, True]),
    )
    def hello(self, agent: Any, claims: Any, boot: int, other_install: bool, **fields: Any) -> None:
        self.installs[agent] += other_install
        known = [(kind, self.fence(agent, fence, pick), phase) for kind, fence, pick, phase in claims]
        self.do(
            c.Hello(
                actor=agent,
                agent=agent,
                install_id=f"{agent}-{self.installs[agent]}",
                boot_id=f"b{boot}",
                held=tuple(held(at["n"], at["lease_epoch"], phase) for kind, at, phase in known if kind == "held"),
                outbox=tuple(outgoing(at["n"], at["lease_epoch"]) for kind, at, _ in known if kind == "outbox"),
                admitted_at=2**62,
                **fields,
            )
        )

    @rule(
        agent=agents,
        ends=st.sampled_from(ENDS),
        beats=st.booleans(),
    )
    def work(self, agent: str, ends: str, beats: bool) -> None:
        """What an honest sidecar does next with what it holds; everybody beats."""
        cluster = self.hub.cluster
        for name in AGENTS if beats else ():
            if cluster.agents[name].connected:
                at = self.fence(name, "mine", 1)
                leases = (lease(at["n"], at["lease_epoch"]),) if cluster.agents[name].task is not None else ()
                self.do(c.Beat(**self.session(name, 0), leases=leases))
        n = cluster.agents[agent].task
        if n is None:
            return
        who, at = self.session(agent, 0), self.fence(agent, "mine", 1)
        if cluster.tasks[n].state is TaskState.ASSIGNED and ends not in ("silent", "drain"):
            self.do(c.Accept(**who, **at))
        blocked = n in cluster.tasks and cluster.tasks[n].state is TaskState.BLOCKED
        changed = {"has_change": ends == "change", "passed": True}
        match ends:
            case "change" | "done":
                self.do(c.Report(**who, **at, outcome=Outcome.SUCCEEDED, sha256=SHA, **changed))
            case "broken" | "abrupt":
                code = "cannot_start" if ends == "broken" else "agent_failed"
                failed = {"outcome": Outcome.FAILED, "error_class": "retryable", "error_code": code}
                self.do(c.Report(**who, **at, sha256=SHA, **failed))
            case "failed" | "lost":
                self.do(c.Report(**who, **at, outcome=Outcome(ends), sha256=SHA, error_class="retryable", error_code="boom"))
            case "ask":
                self.qid += 1
                self.do(c.Ask(**who, **at, qid=f"q{self.qid}", text="?", re=1))
            case "park" | "drain":
                reason = "parked" if ends == "park" and blocked else "drain"
                self.do(c.GiveBack(**who, **at, reason=reason, conversation_id="c", re=1))
            case "cut":
                self.do(c.Disconnected(**who))

    @rule(
        agent=agents,
        shift=sessions,
        fence=fences,
        pick=numbers,
        what=st.sampled_from(SAYINGS),
        flag=st.sampled_from([False, False, True]),
    )
    def say(self, agent: str, shift: int, fence: str, pick: int, what: str, flag: bool) -> None:
        """Anything, true or not."""
        who, at = self.session(agent, shift), self.fence(agent, fence, pick)
        match what:
            case "accept":
                self.do(c.Accept(**who, **at))
            case "decline":
                code = "busy" if flag else "no_runtime"
                self.do(c.Decline(**who, **at, code=code, retry_after_ms=pick * 1000 * flag, re=1))
            case "beat":
                decision = self.do(c.Beat(**who, leases=(lease(at["n"], at["lease_epoch"]),), quiet=flag))
                if decision is not None and decision.early is not None:
                    assert not decision.rows and not decision.events
            case "progress":
                self.do(c.Progress(**who, **at, seq=pick))
            case "ask":
                self.do(c.Ask(**who, **at, qid=f"q{self.qid}", text="?", re=1))
            case "give_back":
                self.do(c.GiveBack(**who, **at, reason="parked" if flag else "unstarted", conversation_id="c", re=1))
            case "noted":
                self.do(c.ControlNoted(**who, cid=pick))
            case "gone":
                self.do(c.Disconnected(**who, bye=flag))

    @rule(
        agent=agents,
        shift=sessions,
        fence=fences,
        pick=numbers,
        outcome=outcomes,
        has_change=st.booleans(),
        passed=st.sampled_from([None, True, True, False]),
        error=st.sampled_from([None, "retryable", "permanent", "rate_limited", "lost"]),
        code=st.sampled_from([None, "boom", "malformed_result", "cannot_start", "agent_failed"]),
        delay=st.sampled_from([None, 0, 5000]),
        digest=st.sampled_from([SHA, SHA, "cd" * 32]),
    )
    def report(self, agent: str, shift: int, fence: str, pick: int, outcome: Outcome, digest: str, **said: Any) -> None:
        at = self.fence(agent, fence, pick)
        decision = self.do(
            c.Report(
                **self.session(agent, shift),
                **at,
                outcome=outcome,
                sha256=digest,
                has_change=said["has_change"],
                passed=said["passed"],
                error_class=said["error"],
                error_code=said["code"],
                retry_after_ms=said["delay"],
            )
        )
        if decision is not None:
            [verdict] = [effect.verdict for _, _, effect in decision.effects if isinstance(effect, AckResult)]
            stopped = any(event.cause in ("cancel", "complete", "assign", "deadline") for event in decision.events)
            if verdict is not Verdict.APPLIED and not stopped:
                model.changes_nothing_but_salvage(decision, at["n"])

    # ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.1, 3, 9, 13, 35, 70, 90, 700]))
    def time_passes(self, seconds: float) -> None:
        if seconds > 30:
            self.hub.commit()  # the steady clock stands still for a commit that hangs: no tombstone is forgotten meanwhile
        self.hub.later(seconds)

    @rule(seconds=st.sampled_from([-3600, -30, 30, 3600]))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        """I17: neither expires nor extends a lease."""
        leases = {task.n: task.lease_until for task in self.hub.cluster.tasks.values() if task.leased}
        self.hub.clock.jump(seconds)
        self.hub.tick()
        for n, until in leases.items():
            task = self.hub.cluster.tasks[n]
            assert task.cause != "lease_expired" and (not task.leased or task.lease_until == until)

    @precondition(lambda self: not self.hub.grouping)
    @rule()
    def a_group_begins(self) -> None:
        self.hub.grouping = True

    @precondition(lambda self: self.hub.grouping)
    @rule()
    def the_group_is_committed(self) -> None:
        self.hub.grouping = False
        self.hub.commit()

    @rule()
    def the_hub_crashes(self) -> None:
        self.hub.restart()

    @rule(claims=st.integers(1, 2))
    def the_hub_drains_and_starts_again(self, claims: int) -> None:
        self.do(c.Drain())
        for _ in range(claims):
            decision = self.do(c.Submit(tasks=(new("while draining"),)))
            assert decision is None or decision.claims == 0
        self.hub.grouping = False
        self.hub.commit()
        self.hub.restart()

    # ── always ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_live_scheduler_is_sound(self) -> None:
        self.hub.tick()
        cluster = self.hub.cluster
        model.one_lease_each(cluster)
        model.within_budgets(cluster)
        model.dependencies_counted(cluster)
        model.counters_recounted(cluster)
        model.deadlines_armed(cluster)
        model.nobody_idles_beside_work(self.hub)

    @invariant()
    def the_rows_tell_the_same(self) -> None:
        if not self.hub.group:
            model.rebuild_equals_live(self.hub)
            self.history.follow()


TestEverybody = Everybody.TestCase
TestEverybody.settings = PROFILE


# ── long walks: what short examples seldom reach (parking, rework, late results, worn-out budgets) ──────────────────────────────


def _draft(rng: random.Random) -> dict[str, Any]:
    wall = WALL + rng.randrange(-100, 4000) * SECOND
    optional = {
        "project": rng.choice(["default", "other", "slow"]),
        "repo": rng.choice(list(REPOS)),
        "capabilities": rng.choice([("x",), ("y",), ("x", "y")]),
        "assign_to": rng.choice(AGENTS),
        "not_before": wall,
        "deadline": wall,
        "queue_ttl_us": rng.randrange(1, 300) * SECOND,
        "hold": True,
        "idempotency_key": f"k{rng.randrange(6)}",
        "unique_key": f"u{rng.randrange(3)}",
        "type": rng.choice([TaskType.TASK, TaskType.RESEARCH]),
    }
    return {"lane": rng.choice(list(Lane)), "max_tries": rng.randrange(1, 4), "body_hash": "h"} | {
        key: value for key, value in optional.items() if rng.random() < (0.5 if key == "repo" else 0.12)
    }


def _anything(machine: Everybody, rng: random.Random) -> None:
    """One step of a walk: mostly honest work, some people, few accidents."""
    agent, pick = rng.choice(AGENTS), rng.randrange(1, 40)
    shift, fence = rng.choice([0, 0, 0, 0, -1]), rng.choice(["mine", "mine", "mine", "older", "newer", "other"])
    idle = [name for name in AGENTS if not machine.hub.cluster.agents[name].connected]
    actions: list[tuple[int, Any]] = [
        (30, lambda: machine.work(agent, rng.choice(ENDS), beats=rng.random() < 0.8)),
        (10, lambda: machine.gatekeeper(pick, rng.choice(GATEKEEPER), shift)),
        (
            8,
            lambda: machine.submit(
                [
                    (_draft(rng), [(rng.randrange(-8, 3), rng.choice(["skip", "run", "fail"]))] * (rng.random() < 0.3))
                    for _ in range(rng.randrange(1, 4))
                ]
            ),
        ),
        (5, lambda: machine.answer(pick)),
        (6, lambda: machine.steer(pick, rng.choice(STEERING), rng.choice([None, *AGENTS]), force=rng.random() < 0.5)),
        (3, lambda: machine.requeue(pick, forgotten=rng.random() < 0.5)),
        (
            5,
            lambda: machine.salvage(pick, rng.choice(SALVAGING), agent, change=rng.random() < 0.7, force=rng.random() < 0.5),
        ),
        (6, lambda: machine.say(agent, shift, fence, pick, rng.choice(SAYINGS), flag=rng.random() < 0.3)),
        (
            5,
            lambda: machine.report(
                agent,
                shift,
                fence,
                pick,
                rng.choice(list(Outcome)),
                rng.choice([SHA, "cd" * 32]),
                has_change=rng.random() < 0.5,
                passed=rng.choice([None, True, False]),
                error=rng.choice([None, "retryable", "permanent", "rate_limited", "lost"]),
                code=rng.choice([None, "boom", "malformed_result"]),
                delay=rng.choice([None, 0, 5000]),
            ),
        ),
        (
            20 if idle else 2,
            lambda: machine.hello(
                rng.choice(idle or AGENTS),
                [
                    (
                        rng.choice(["held", "outbox"]),
                        rng.choice(["mine", "mine", "older", "newer", "other"]),
                        pick,
                        rng.choice([*Phase]),
                    )
                    for _ in range(rng.choice([0, 1, 1, 2]))
                ],
                boot=pick,
                other_install=rng.random() < 0.1,
                capabilities=rng.choice([CAPABILITIES[-1], *CAPABILITIES]),
                projects=rng.choice([(), (), ("other",)]),
                quiet=rng.random() < 0.05,
            ),
        ),
        (12, lambda: machine.time_passes(rng.choice([0.1, 1, 3, 9, 13, 35, 90, 700]))),
        (1, lambda: machine.somebody_sets_the_clock(rng.choice([-600, 600]))),
        (2, lambda: machine.registry(rng.choice([None, None, "default"]), rng.choice([None, None, "app"]))),
        (2, machine.a_group_begins),
        (6, machine.the_group_is_committed),
        (1, machine.the_hub_crashes),
    ]
    rng.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()


@pytest.mark.parametrize("seed", range(400 if LONG else 10))
def test_a_long_walk_breaks_nothing(seed: int) -> None:
    rng, machine = random.Random(seed), Everybody()
    machine.start()
    for step in range(350):
        if machine.hub.cluster.live > 60:
            machine.time_passes(700)
        try:
            _anything(machine, rng)
            machine.the_live_scheduler_is_sound()
            machine.the_rows_tell_the_same()
        except Exception as fault:
            fault.add_note(f"seed {seed}, step {step}")
            raise
