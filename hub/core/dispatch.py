"""Bringing ready tasks and idle agents together. Deterministic, with the recorded reason of every claim.

Two directions, one rule: a task that becomes ready looks for an idle agent, an agent that becomes free looks for a task. After every
command both have been tried, so an idle eligible agent and a ready task it could do never coexist; the safety pass proves it.
"""

from __future__ import annotations

from hub.core.agent import Agent
from hub.core.cluster import Cluster, Step
from hub.core.decision import PushAssign
from hub.core.lanes import LANES, LanePicker
from hub.core.matching import Requirement, class_of, has_checks
from hub.core.rows import AttemptRow
from hub.core.task import Task, raise_fence
from hub.core.timers import Timer
from hub.ids import AgentId, AgentState, Lane, TaskState


def settle(step: Step) -> int:
    """Match everything this step made ready or free; the number of claims. Ends because every claim takes an agent off the list."""
    claims = 0
    if step.cluster.volatile.draining or step.stamp.mono < step.cluster.volatile.settling_until:
        return claims
    for agent in step.freed:
        claims += offer_agent(step, agent)
    if step.anybody:
        claims += _offer_everybody(step)
    for task in step.queued:
        if task.state is TaskState.QUEUED:
            claims += offer_task(step, task)
    return claims


def _offer_everybody(step: Step) -> int:
    """Try every idle agent. Of a class of equals one that finds nothing speaks for the rest, unless retries avoid single agents."""
    cluster, idle, claims = step.cluster, step.cluster.volatile.idle, 0
    for agent in cluster.agents.values():
        if agent.id not in idle.listed or agent.id in cluster.ready.shelves:
            claims += offer_agent(step, agent)
    for members in list(idle.by_class.values()):
        for agent_id in list(members):
            if offer_agent(step, cluster.agents[agent_id]):
                claims += 1
            elif agent_id in idle.listed and not cluster.volatile.avoiding:
                break  # it could have worked (else it were off the list), and there was nothing for its like
    return claims


def offer_agent(step: Step, agent: Agent) -> bool:
    """Give an idle agent its next task, or list it as idle."""
    if agent.state is not AgentState.IDLE or agent.task is not None or _barred(step, agent) is not None:
        step.cluster.volatile.idle.remove(agent.id)
        return False
    step.cluster.volatile.idle.add(agent)
    found = _next_task(step, agent)
    if found is None:
        return False
    claim(step, found[0], agent, found[1])
    return True


def offer_task(step: Step, task: Task) -> bool:
    """Give a ready task to the best idle agent, if there is one."""
    if suspension(step.cluster, step.cluster.ready.needs[task.requirement]) is not None:
        return False
    found = _next_agent(step, task)
    if found is None:
        return False
    claim(step, task, found[0], found[1])
    return True


def claim(step: Step, task: Task, agent: Agent, reason: str) -> None:
    """queued → assigned: raise the fence, open the attempt, push after the commit (protocol §4.1)."""
    cluster, terms, now = step.cluster, step.cluster.terms, step.stamp.mono
    cluster.volatile.fair.served(task.lane, task.seq)
    raise_fence(task, cluster.fence_base)
    task.tries += 1
    task.holder, task.holder_epoch = agent.id, agent.epoch
    task.accept_by, task.resent = now + terms.accept_us, False
    task.attempt = AttemptRow(task.n, task.lease_epoch, agent.id, agent.install_id, agent.epoch, step.stamp.wall, *(None,) * 8)
    step.decision.rows.append(task.attempt)
    agent.task, agent.warm_repo = task.n, task.repo or agent.warm_repo
    step.move_agent(agent, AgentState.ASSIGNED, f"assigned t-{task.n}")
    step.move(task, TaskState.ASSIGNED, "task.assigned", cause=reason)
    step.arm(Timer.ACCEPT, task.n, now + terms.resend_us)
    push(step, task, agent)


def push(step: Step, task: Task, agent: Agent) -> None:
    """Offer the assignment to its holder (again); not one of before a restore, for it may have been carried out since."""
    if task.lease_epoch <= step.cluster.fence_base:
        return
    need = step.cluster.ready.needs[task.requirement]
    step.tell(
        agent,
        PushAssign(
            n=task.n,
            lease_epoch=task.lease_epoch,
            lane=task.lane,
            repo=task.repo,
            access=task.access,
            needs=tuple(sorted(need.capabilities)),
        ),
    )


def suspension(cluster: Cluster, need: Requirement) -> str | None:
    """Why tasks of a requirement set may not be claimed by anyone now, or None. Checks of a merge are never held up."""
    if has_checks(need):
        return None
    if cluster.projects.get(need.project, (False, ""))[0]:
        return "project_paused"
    return "repo_paused" if need.repo is not None and cluster.repos.get(need.repo, False) else None


def _barred(step: Step, agent: Agent) -> str | None:
    return agent.barred(step.stamp.mono, step.stamp.wall, step.cluster.terms.fresh_us)


def _next_agent(step: Step, task: Task) -> tuple[Agent, str] | None:
    cluster, idle = step.cluster, step.cluster.volatile.idle
    need = cluster.ready.needs[task.requirement]
    if task.assign_to is not None:
        pinned = cluster.agents.get(task.assign_to)
        if pinned is None or pinned.id not in idle.listed or not class_of(pinned).serves(need):
            return None
        if _barred(step, pinned) is None:
            return pinned, "pinned"
        idle.remove(pinned.id)
        return None
    if step.stamp.mono < task.rests_until:
        return None
    hinted = cluster.agents.get(task.agent_hint) if task.agent_hint is not None else None
    if hinted is not None and hinted.id in idle.listed and class_of(hinted).serves(need) and _barred(step, hinted) is None:
        return hinted, "returning"
    stale: list[AgentId] = []
    chosen: tuple[Agent, str] | None = None
    for agent_id, reason in idle.candidates(need):
        agent = cluster.agents[agent_id]
        if _barred(step, agent) is not None:
            stale.append(agent_id)
        elif not _avoids(step, task, agent):
            chosen = agent, reason
            break
    for agent_id in stale:
        idle.remove(agent_id)  # listed again by its next frame or by the timer of what bars it
    return chosen


def _avoids(step: Step, task: Task, agent: Agent) -> bool:
    """A retry waits a little for another agent than the one that failed, if another that is here could do it at all.

    Whatever ends that (the other leaves, changes, is paused or quarantined) must call :func:`reconsider`: nothing else would offer the
    task again.
    """
    if step.stamp.mono < task.rests_until:
        return True
    if task.avoid != agent.id or step.stamp.mono >= task.avoid_until:
        return False
    need = step.cluster.ready.needs[task.requirement]
    return any(
        other.id != agent.id
        and other.connected
        and not other.paused
        and not other.quarantined_until
        and class_of(other).serves(need)
        for other in step.cluster.agents.values()
    )


def reconsider(step: Step) -> None:
    """An agent that others' retries may be waiting for is not to be had any more."""
    avoiding = step.cluster.volatile.avoiding
    for n in list(avoiding):
        task = step.cluster.tasks.get(n)
        if task is None or task.avoid_until <= step.stamp.mono:
            del avoiding[n]
        elif task.state is TaskState.QUEUED:
            step.queued.append(task)


def _next_task(step: Step, agent: Agent) -> tuple[Task, str] | None:
    ready, kind = step.cluster.ready, class_of(agent)
    rids = [rid for rid in ready.served_by(kind) if suspension(step.cluster, ready.needs[rid]) is None]
    pinned = ready.first_pinned(agent.id, rids)
    if pinned is not None:
        return pinned, "pinned"

    def passes(task: Task) -> bool:
        return not _avoids(step, task, agent)

    heads: dict[Lane, Task] = {}
    for lane in LANES:
        if not ready.depth[lane]:
            continue
        found = [task for rid in rids if (task := ready.first(rid, lane, passes)) is not None]
        if found:
            heads[lane] = min(found, key=lambda task: (task.seq, task.n))
    if not heads:
        return None
    overdue = ready.overdue(rids, step.stamp.wall, passes) if len(heads) > 1 else {}
    oldest = min(overdue.values(), key=lambda task: (task.queued_at or 0, task.n), default=None)
    picker = step.cluster.volatile.pickers.setdefault(kind, LanePicker())
    lane, rule = picker.pick(heads, oldest.lane if oldest is not None else None)
    return (overdue[lane] if rule == "age" else heads[lane]), f"lane_{rule}"
