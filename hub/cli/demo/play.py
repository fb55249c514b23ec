"""The demo's action: submit the ideas, be the person who approves, be the accident that kills, and watch until everything has ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hub.cli.demo.script import Idea
from hub.cli.demo.stage import Stage
from hub.client import HubClient
from hub.client.documents import ChangeDetail, TaskDetail, Verification
from hub.client.errors import HubUnreachable

REPO = "demo"
POLICY = {"auto_merge_tier1": True}
LOOK_S = 0.1
OUTAGE_S = 1.5
ENDED = frozenset({"done", "dead", "cancelled"})

Tell = Callable[[str], None]


@dataclass(slots=True)
class Seen:
    """What the demo knows so far. ``tasks`` maps an idea's ref to its task."""

    tasks: dict[str, TaskDetail] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    corrected: set[str] = field(default_factory=set)
    killed_agent: bool = False
    approved: bool = False


class Play:
    """One performance on a stage."""

    def __init__(self, stage: Stage, ideas: tuple[Idea, ...], tell: Tell, *, kill_hub: bool) -> None:
        self._stage = stage
        self._ideas = ideas
        self._tell = tell
        self._kill_hub = kill_hub
        self.seen = Seen()
        self.numbers: dict[str, str] = {}

    async def run(self, limit_s: float) -> None:
        """Until every task has ended; raises TimeoutError after ``limit_s``."""
        stage = self._stage
        await stage.start_hub()
        self._tell(f"hub ready on {stage.url}, data in {stage.data_dir}")
        async with HubClient(stage.url, stage.admin_token) as hub, asyncio.timeout(limit_s):
            await hub.add_repo(REPO, str(stage.remote), base=stage.base, policy=POLICY, checks=[self._check()])
            await stage.start_sidecars()
            batch = await hub.submit_batch([idea.task(REPO) for idea in self._ideas], idempotency_key="demo")
            self.numbers = {idea.ref: task["id"] for idea, task in zip(self._ideas, batch["tasks"], strict=True)}
            self._tell(f"submitted {len(self._ideas)} ideas: {', '.join(self.numbers.values())}")
            while not await self._all_ended(hub):
                self._be_the_accident()
                await self._be_the_person(hub)
                await self._cut_the_power()
                await asyncio.sleep(LOOK_S)
            await self._all_ended(hub)  # once more: the last task may have ended while the others were read

    def _check(self) -> Verification:
        """What is registered with the repository: without a check of its own no change would merge by itself."""
        return {"kind": "file_exists", "target": self._stage.some_file(), "description": "what was there is still there"}

    async def _all_ended(self, hub: HubClient) -> bool:
        with suppress(HubUnreachable):
            for idea in self._ideas:
                task = await hub.task(self.numbers[idea.ref])
                self.seen.tasks[idea.ref] = task
                if self.seen.states.get(idea.ref) != task["state"]:
                    self.seen.states[idea.ref] = task["state"]
                    who = f" on {task['agent']}" if task["agent"] else ""
                    why = f" ({task['cause']})" if task["cause"] and not task["cause"].startswith("lane_") else ""
                    self._tell(f"{task['id']} {idea.title}: {task['state']}{who}{why}")
                report = task["result"]["verification"] if task["result"] is not None else None
                if report is not None and report["fix_rounds"] and idea.ref not in self.seen.corrected:
                    self.seen.corrected.add(idea.ref)
                    self._tell(f"{task['id']} its verification failed at first; the agent was told why and corrected it")
        return len(self.seen.states) == len(self._ideas) and ENDED.issuperset(self.seen.states.values())

    def _be_the_accident(self) -> None:
        """Kill the agent of the task that is to survive it, in its first run."""
        victim = next((idea for idea in self._ideas if idea.is_killed), None)
        if victim is None or self.seen.killed_agent or victim.ref not in self.numbers:
            return
        for task, epoch, _, pid in self._stage.agent_runs():
            if f"t-{task}" == self.numbers[victim.ref] and epoch == 1:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.seen.killed_agent = True
                self._tell(f"killed the agent process of t-{task} (pid {pid})")

    async def _be_the_person(self, hub: HubClient) -> None:
        """Approve what waits for a person, after saying why it does."""
        if self.seen.approved:
            return
        with suppress(HubUnreachable):
            for waiting in (await hub.changes(state="waiting"))["changes"]:
                change = await hub.change(waiting["id"])
                self._explain(change)
                async with HubClient(self._stage.url, self._stage.approver_token) as approver:
                    await approver.approve(change["id"], head_sha=change["head_sha"], comment="Looked at in the demo.")
                self.seen.approved = True
                self._tell(f"approved {change['id']} with a token that is on no disk")

    def _explain(self, change: ChangeDetail) -> None:
        self._tell(f"{change['id']} of {change['task']} is tier {change['tier']} and waits for a person, because:")
        for reason in change["reasons"]:
            self._tell(f"    {reason}")

    async def _cut_the_power(self) -> None:
        """Kill the hub once agents are at work, leave them alone for a while, start it again."""
        working = sum(1 for state in self.seen.states.values() if state == "working")
        if not self._kill_hub or self._stage.hub_restarts or working < min(2, self._stage.agents) or not self.seen.killed_agent:
            return
        await self._stage.kill_hub()
        self._tell(f"killed the hub with SIGKILL while {working} agents work; they go on without it")
        await asyncio.sleep(OUTAGE_S)
        await self._stage.start_hub()
        self._tell("the hub is back; sidecars reconcile")


@asynccontextmanager
async def on_stage(stage: Stage) -> AsyncIterator[Stage]:
    """The stage, cleared of every process at the end whatever happens: a signal ends the play, not the clearing."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    try:
        yield stage
    finally:
        closing = asyncio.ensure_future(stage.close())
        while not closing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(closing)
        closing.result()
