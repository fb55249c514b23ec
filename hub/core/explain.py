"""Why is this task not running? One line: the first condition that is not met, in the order in which the scheduler meets them."""

from __future__ import annotations

from datetime import UTC, datetime

from hub.core.agent import Agent
from hub.core.blame import FOREVER
from hub.core.cluster import Cluster
from hub.core.commands import Stamp
from hub.core.matching import Requirement, class_of
from hub.core.task import Task
from hub.ids import SECOND, TaskState, task_ref


def explain(cluster: Cluster, task: Task, stamp: Stamp) -> str:
    """One sentence about a task in memory."""
    match task.state:
        case TaskState.WAITING:
            return "waiting: " + _waiting(cluster, task)
        case TaskState.SCHEDULED:
            due = _when(task.not_before)
            return (
                f"scheduled: tries again after {due}, because of {task.cause}" if task.tries else f"scheduled: not before {due}"
            )
        case TaskState.QUEUED:
            return "queued: " + _queued(cluster, task, stamp)
        case TaskState.ASSIGNED:
            return f"assigned to {task.holder}, which has not accepted yet"
        case TaskState.WORKING:
            stop = f"; stopping, then {task.stopping}" if task.stopping is not None else ""
            return f"running on {task.holder} (attempt {task.lease_epoch}){stop}"
        case TaskState.BLOCKED:
            where = "parked" if task.parked else f"on {task.holder}"
            return f"blocked ({where}): question {task.question.qid if task.question else '?'} waits for an answer"
        case TaskState.IN_REVIEW:
            return "in review: its change is " + ("being merged" if task.merging else "with the gatekeeper")
        case _:
            return f"{task.state}" + (f": {task.cause}" if task.cause else "")


def _waiting(cluster: Cluster, task: Task) -> str:
    if task.held:
        return f"held; agentcom task release {task_ref(task.n)}"
    first = next((edge for edge in task.edges if not edge.satisfied), None)
    if first is None:
        return "nothing is open"
    needed = cluster.tasks.get(first.needs)
    more = f" (and {task.open_deps - 1} more)" if task.open_deps > 1 else ""
    return f"dependency {task_ref(first.needs)} is {needed.state if needed is not None else 'not done'}{more}"


def _queued(cluster: Cluster, task: Task, stamp: Stamp) -> str:
    need = cluster.ready.needs[task.requirement]
    if cluster.volatile.draining:
        return "the hub is draining"
    if stamp.mono < cluster.volatile.settling_until:
        left_s = (cluster.volatile.settling_until - stamp.mono) // SECOND + 1
        return f"the hub was restored: for {left_s} s more agents tell what they still hold"
    if cluster.projects.get(task.project, (False, ""))[0]:
        return f"project {task.project} is paused"
    if task.repo is not None and cluster.repos.get(task.repo, False):
        return f"repository {task.repo} is paused"
    able = [agent for agent in cluster.agents.values() if class_of(agent).serves(need)]
    if task.assign_to is not None:
        pinned = cluster.agents.get(task.assign_to)
        return f"pinned to {task.assign_to}, which " + (
            _state(cluster, pinned, stamp) if pinned is not None else "never connected"
        )
    if not able:
        return _nobody(cluster, need)
    barred = [(agent, agent.barred(stamp.mono, stamp.wall, cluster.terms.fresh_us)) for agent in able]
    if all(why is not None for _, why in barred):
        return "no eligible agent: " + "; ".join(f"{agent.id} {_state(cluster, agent, stamp)}" for agent in able[:4])
    if stamp.mono < task.rests_until:
        return f"declined {task.refusals} times in a row; offered again in {_seconds(task.rests_until - stamp.mono)}"
    if task.avoid is not None and stamp.mono < task.avoid_until:
        return f"{task.avoid} failed at it just now; another agent is waited for a moment"
    ahead = sum(cluster.ready.depth.values()) - 1
    busy = f"{able[0].id}, the only eligible agent, is busy" if len(able) == 1 else f"all {len(able)} eligible agents are busy"
    line = f"; {ahead} other {'task is' if ahead == 1 else 'tasks are'} ready, too" if ahead > 0 else ""
    return busy + line


def _nobody(cluster: Cluster, need: Requirement) -> str:
    for capability in sorted(need.capabilities):
        if not any(capability in agent.capabilities for agent in cluster.agents.values()):
            return f"no agent has capability {capability}"
    wants = ", ".join(sorted(need.capabilities)) or f"project {need.project}"
    return f"no agent offers {wants} together" if cluster.agents else "no agent has ever connected"


def _state(cluster: Cluster, agent: Agent, stamp: Stamp) -> str:
    why = agent.barred(stamp.mono, stamp.wall, cluster.terms.fresh_us)
    if why == "quarantined" and agent.quarantined_until is not None:
        ends = "until resumed" if agent.quarantined_until >= FOREVER else f"until {_when(agent.quarantined_until)}"
        return f"is quarantined {ends}, because of {agent.quarantine_cause} (agentcom agent resume {agent.id})"
    if why == "declining":
        return f"declined, and is asked again in {_seconds(agent.declined_until_mono - stamp.mono)}"
    return f"is {why or agent.state}"


def _seconds(micros: int) -> str:
    return f"{max(1, -(-micros // SECOND))} s"


def _when(micros: int | None) -> str:
    return "?" if micros is None else datetime.fromtimestamp(micros / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
