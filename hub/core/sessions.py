"""Agents come, beat, go and are paused: sessions, presence, and what a reconnecting sidecar is told about what it holds.

One live session per agent; everything a session says carries its epoch and changes nothing once a newer one exists (invariant I8).
"""

from __future__ import annotations

from collections.abc import Iterator

from hub.core import dispatch, quarantine
from hub.core.agent import Agent
from hub.core.assignments import back_to_queue, grant, held_by, lose, renew, session_of
from hub.core.cluster import Step, control_effect
from hub.core.commands import Beat, Disconnected, Hello, PauseAgent, Registry, ResumeAgent
from hub.core.decision import Beaten, GrantLease, HeldAnswer, LeaseRenewed, Session, Welcome
from hub.core.errors import Refused
from hub.core.reconcile import RULES, HubHas, Rule, Says, hub_has
from hub.core.restored import CAUSE, forgotten, take_back
from hub.core.rows import SessionRow
from hub.core.task import Task
from hub.core.timers import Timer
from hub.ids import AgentState, HeldVerdict, LeaseEpoch, Phase, SessionEpoch, TaskId, TaskState

SUPERSEDED = 4409
"""Close code for a session replaced by a newer one (the wire's ``Close.SUPERSEDED``; the rules do not import the wire)."""
_STATE_OF = {
    TaskState.ASSIGNED: AgentState.ASSIGNED,
    TaskState.WORKING: AgentState.WORKING,
    TaskState.BLOCKED: AgentState.BLOCKED,
}


def hello(step: Step, command: Hello) -> Session:
    """Open a session and reconcile.

    Refused while the session there is lives or holds a lease: 409 ``name_in_use`` for another installation, 409 ``stale_hello`` for a
    hello that was sent before that session's and held up on a connection its sidecar has given up. 410 ``agent_removed`` for one that
    was removed since its token was given out.
    """
    cluster = step.cluster
    agent = cluster.agents.get(command.agent)
    if agent is None:
        agent = cluster.agents[command.agent] = Agent(command.agent, step.stamp.wall)
        agent.epoch = SessionEpoch(cluster.session_base)
    same_install = agent.install_id in ("", command.install_id)
    if same_install and _overtaken(agent, command) and (agent.connected or agent.task is not None):
        raise Refused(409, "stale_hello", f"a later hello of agent {agent.id} was heard already")
    if agent.removed_at is not None and command.admitted_at <= agent.removed_at:
        raise Refused(410, "agent_removed", f"agent {agent.id} was removed", hint="agentcom leave, then join with a new code")
    if not same_install and (agent.connected or agent.task is not None):
        hint = f"wait until its lease ends, or, if its machine is gone for good: agentcom agent release {agent.id}"
        raise Refused(409, "name_in_use", f"agent {agent.id} belongs to another installation", hint=hint)
    cluster.volatile.idle.remove(agent.id)
    if agent.connected:
        step.close(agent.id, agent.epoch, SUPERSEDED, "superseded by a newer session")
    _open(step, agent, command)
    first = len(step.decision.effects)
    verdicts = tuple(_reconcile(step, agent, command))
    step.decision.effects.insert(first, (agent.id, agent.epoch, Welcome(greeting=command.greeting, verdicts=verdicts)))
    task = cluster.tasks[agent.task] if agent.task is not None else None
    step.move_agent(agent, _STATE_OF[task.state] if task is not None else AgentState.IDLE, "connected")
    step.presence(agent, "agent.joined", session_epoch=agent.epoch)
    for _, row in sorted(cluster.controls.items()):
        if row.agent == agent.id and task is not None and task.n == row.task:
            step.tell(agent, control_effect(row))
    step.freed.append(agent)
    dispatch.reconsider(step)
    return Session(agent=agent.id, epoch=agent.epoch)


def _overtaken(agent: Agent, command: Hello) -> bool:
    """Whether what it says is older than what this installation said last, as far as one clock can tell."""
    boot, sent_mono = agent.heard
    return boot == command.host_boot and 0 < command.sent_mono < sent_mono


def _open(step: Step, agent: Agent, command: Hello) -> None:
    agent.epoch, agent.removed_at = SessionEpoch(agent.epoch + 1), None
    agent.install_id, agent.boot_id = command.install_id, command.boot_id
    agent.name = command.name or agent.name or command.agent
    agent.capabilities, agent.projects = frozenset(command.capabilities), frozenset(command.projects)
    agent.runtimes, agent.host = command.runtimes, command.host
    agent.quiet = command.quiet
    agent.heard = (command.host_boot, command.sent_mono)
    agent.connected, agent.silent = True, False
    agent.last_seen_mono, agent.last_seen_at = step.stamp.mono, step.stamp.wall
    step.cluster.volatile.timers.disarm(Timer.OFFLINE, agent.id)
    step.touch_agent(agent)
    step.decision.rows.append(
        SessionRow(agent.id, agent.epoch, agent.install_id, agent.boot_id, step.cluster.hub_epoch, step.stamp.wall)
    )


def _reconcile(step: Step, agent: Agent, command: Hello) -> Iterator[HeldAnswer]:
    tasks = step.cluster.tasks
    held = {(item.task, item.lease_epoch): item.phase or Phase.ASSIGNED for item in command.held}
    outbox = {(item.task, item.lease_epoch) for item in command.outbox}
    # silence about the one assignment the hub has for this agent is a statement, too
    mine = tasks[agent.task] if agent.task is not None else None
    said = dict.fromkeys([*outbox, *held], Says.HELD) | dict.fromkeys(outbox, Says.OUTBOX)
    if mine is not None and (mine.n, mine.lease_epoch) not in said:
        # only the installation that was given it can say by silence that nothing of it runs any more
        given_to = mine.attempt.install_id if mine.attempt is not None else command.install_id
        said[mine.n, mine.lease_epoch] = (
            Says.SILENT_SAME_INSTALL if given_to == command.install_id else Says.SILENT_OTHER_INSTALL
        )
    for (n, epoch), says in said.items():
        if says is Says.HELD and (lost := forgotten(step, agent, TaskId(n), epoch)) is not None:
            take_back(step, lost, agent, epoch)
        has = hub_has(tasks.get(n), agent.id, epoch)
        task = tasks[n] if has is not HubHas.OTHER else None  # whatever is said of another fence touches nothing
        verdict = _follow(step, agent, task, RULES[has, says], held.get((n, epoch), Phase.ASSIGNED))
        if verdict is not None:
            yield HeldAnswer(n=TaskId(n), lease_epoch=LeaseEpoch(epoch), verdict=verdict)


def _follow(step: Step, agent: Agent, task: Task | None, rule: Rule, phase: Phase) -> HeldVerdict | None:
    """Carry out one rule of the table; the verdict told, if any."""
    if task is None or rule in (Rule.STOP, Rule.NOTHING, Rule.WAIT_FOR_EXPIRY):
        return {Rule.STOP: HeldVerdict.STOP, Rule.SEND_RESULT: HeldVerdict.SEND_RESULT}.get(rule)
    if rule is Rule.LOST:
        lose(step, task, "agent_restarted")
        return None
    task.holder_epoch = agent.epoch
    step.touch(task)
    match rule:
        case Rule.ACCEPT:
            grant(step, task, agent)
            return HeldVerdict.ACCEPTED
        case Rule.ASSIGN_AGAIN if task.lease_epoch <= step.cluster.fence_base:
            back_to_queue(step, task, "lost", CAUSE, refund=True)  # it may have been carried out, and forgotten here
            return None
        case Rule.ASSIGN_AGAIN:
            dispatch.push(step, task, agent)
            return None
        case Rule.KEEP:
            renew(step, task)
            task.progress = None  # a restarted sidecar counts its notes from the beginning
            if phase.rank < Phase.WOKEN.rank:
                step.tell(agent, GrantLease(n=task.n, lease_epoch=task.lease_epoch))
            return HeldVerdict.KEEP
        case _:
            if task.state is not TaskState.ASSIGNED:
                renew(step, task)
            return HeldVerdict.SEND_RESULT


def disconnected(step: Step, command: Disconnected) -> None:
    """The socket is gone: a grace begins, leases run on, nothing is reclaimed."""
    agent = step.cluster.agents.get(command.agent)
    if agent is None or agent.epoch != command.session_epoch or not agent.connected:
        return
    agent.connected, agent.last_seen_at = False, step.stamp.wall
    step.touch_agent(agent)
    step.cluster.volatile.idle.remove(agent.id)
    dispatch.reconsider(step)
    if command.bye:
        gone(step, agent, "bye")
    else:
        agent.offline_at_mono = step.stamp.mono + step.cluster.terms.grace_us
        step.arm(Timer.OFFLINE, agent.id, agent.offline_at_mono)


def gone(step: Step, agent: Agent, why: str) -> None:
    """The grace is over (or waived): the agent is offline; what it holds stays its own until the lease ends."""
    if not agent.connected and agent.state is not AgentState.OFFLINE:
        step.move_agent(agent, AgentState.OFFLINE, why)
        step.presence(agent, "agent.left", why=why)


def beat(step: Step, command: Beat) -> None:
    """Extend every lease named; says lost about any other. May leave early when it only confirms (protocol §4.7)."""
    agent = session_of(step, command)
    if agent.quiet != command.quiet:
        agent.quiet = command.quiet
        step.touch_agent(agent)
        if not agent.quiet:
            step.freed.append(agent)
        else:
            step.cluster.volatile.idle.remove(agent.id)
    agent.note = command.note
    answers = []
    for lease in command.leases:
        task = held_by(step, agent, lease.task, lease.lease_epoch)
        if task is not None and task.state is not TaskState.ASSIGNED:
            renew(step, task)
            task.checkpoint = lease.checkpoint or task.checkpoint
        answers.append(LeaseRenewed(n=lease.task, lease_epoch=lease.lease_epoch, ok=task is not None))
    step.tell(agent, Beaten(leases=tuple(answers), sent_mono=command.sent_mono, re=command.re))
    if all(answer.ok for answer in answers):
        step.decision.early = tuple(lease.task for lease in command.leases)


def pause(step: Step, command: PauseAgent) -> None:
    """Nothing new for this agent; what it does goes on."""
    agent = step.agent(command.agent)
    if not agent.paused:
        agent.paused = True
        step.cluster.volatile.idle.remove(agent.id)
        dispatch.reconsider(step)
        step.touch_agent(agent)
        step.presence(agent, "agent.paused")


def resume(step: Step, command: ResumeAgent) -> None:
    """Ends a pause and a quarantine."""
    agent = step.agent(command.agent)
    if agent.paused or agent.strikes or agent.quarantine_level:
        agent.paused = False
        agent.decline_step = agent.declined_until_mono = 0
        quarantine.clear(step, agent)
        step.touch_agent(agent)
        step.presence(agent, "agent.resumed")
    step.freed.append(agent)


def registry(step: Step, command: Registry) -> None:
    """Projects or repositories changed: what was paused may run now."""
    cluster = step.cluster
    cluster.projects, cluster.repos = dict(command.projects), dict(command.repos)
    step.anybody = True
