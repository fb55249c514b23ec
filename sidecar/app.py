"""Composes a sidecar: several agents in one process, sharing a state directory and its workspaces. Picks the adapters.

The state directory belongs to one process at a time::

    lock  install_id  workspaces/  agents/<id>/journal  agents/<id>/runs/<task>-<lease_epoch>-<round>/
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import signal
import uuid
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from random import Random

import structlog

from hub.wire import frames
from sidecar import locks
from sidecar.agent import Agent
from sidecar.backoff import Reconnect, Refused
from sidecar.checks.verify import verify
from sidecar.core.environment import agent_environment
from sidecar.core.holder import Holder
from sidecar.core.records import Key
from sidecar.files import make_directory, write_durably
from sidecar.journal import Journal, has_room
from sidecar.link import SUBPROTOCOL, Link
from sidecar.remains import release_strangers, remove, set_aside
from sidecar.runs.account import Account, find_account
from sidecar.runs.children import CHILDREN
from sidecar.runs.clock import boot_name, boot_us
from sidecar.runs.process import owned_by
from sidecar.runs.runner import Runner
from sidecar.runtimes.base import Runtime
from sidecar.runtimes.command import CommandRuntime
from sidecar.runtimes.mock import MockRuntime
from sidecar.runtimes.none import NoRuntime
from sidecar.settings import AgentSettings, Settings, SettingsError, read_token
from sidecar.work import Tools
from sidecar.workspace.premises import open_premises, state_faults
from sidecar.workspace.workspaces import GitIdentity, Workspaces

log = structlog.get_logger(__name__)


class StateInUseError(Exception):
    """Another sidecar runs on this state directory."""

    code = "state_in_use"
    retryable = False


class Sidecar:
    """All agents of one configuration."""

    def __init__(self, settings: Settings, install_id: str) -> None:
        self._settings = settings
        self._install_id = install_id
        self._boot_id = uuid.uuid4().hex
        state = settings.state_dir
        self._work = state / "workspaces" / "work"
        self._account = let_in(settings)
        self._workspaces = workspaces_of(settings)
        self.agents = [self._agent(agent, state / "agents" / agent.id) for agent in settings.agents]
        self._draining = asyncio.Event()

    async def run(self, *, stop_agents: bool) -> int:
        """Work until SIGTERM or SIGINT, then drain; a second signal ends at once. Returns the exit code.

        0 drained, 4 the hub refused every agent. Faults are raised.
        """
        CHILDREN.adopt()  # what a dead shim leaves behind becomes ours to find
        left_over = await asyncio.to_thread(set_aside, self._work)  # before any agent can prepare a workspace
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        assert me is not None

        def asked_to_stop() -> None:
            if self._draining.is_set():
                me.cancel()
            self._draining.set()

        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, asked_to_stop)
        refused = 0

        async def live(agent: Agent) -> None:
            nonlocal refused
            try:
                await agent.run()
            except Refused as fault:
                refused += 1
                log.warning("agent_refused", agent=agent.name, code=fault.code, reason=str(fault))

        try:
            async with asyncio.TaskGroup() as group:
                lives = [group.create_task(live(agent), name=agent.name) for agent in self.agents]
                clean = group.create_task(self._clean_up(left_over), name="clean-up")
                collect = group.create_task(CHILDREN.keep_collecting(), name="collect-adopted")
                drain = group.create_task(self._drain(stop_agents=stop_agents), name="drain")
                await asyncio.wait(lives)
                for task in (clean, collect, drain):
                    task.cancel()
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)
        return 4 if refused == len(self.agents) else 0

    async def _drain(self, *, stop_agents: bool) -> None:
        await self._draining.wait()
        log.info("draining", stop_agents=stop_agents)
        async with asyncio.TaskGroup() as group:
            for agent in self.agents:
                group.create_task(agent.drain(stop_agents=stop_agents, patience_s=self._settings.drain_s))

    async def _clean_up(self, left_over: list[Path]) -> None:
        def holds(key: Key) -> bool:
            return any(agent.holder.holding(key) is not None for agent in self.agents)

        await remove(left_over)
        await release_strangers(self._workspaces, self._settings.state_dir / "agents", holds)

    def _agent(self, agent: AgentSettings, home: Path) -> Agent:
        make_directory(home)
        runtime = make_runtime(agent)
        settings = self._settings
        read_token(settings, agent)  # a missing token is found now, not after the first failed connection
        hello = frames.Hello(
            versions=(str(SUBPROTOCOL),),
            agent_id=agent.id,
            install_id=self._install_id,
            boot_id=self._boot_id,
            build=metadata.version("agentcom") if _installed() else "",
            name=agent.name,
            capabilities=tuple(agent.capabilities),
            projects=tuple(agent.projects),
            runtimes=(frames.RuntimeInfo(name=runtime.name, caps=runtime.caps),),
            host=_host_facts(),
        )
        allow = [*agent.env_allow, *runtime.passes]
        account = self._account
        tools = Tools(
            agent=agent.id,
            workspaces=self._workspaces,
            runner=Runner(home / "runs", account),
            runtime=runtime,
            environment=partial(
                agent_environment,
                os.environ,
                allow=allow,
                add=agent.env_set,
                identity=None if account is None else account.environment,
            ),
            verifier=partial(verify, account=account),
            stop_grace_ms=int(settings.stop_grace_s * 1000),
        )
        reconnect = Reconnect(Random(), first_s=settings.reconnect_first_s)  # noqa: S311  jitter, not a secret
        return Agent(
            agent.id,
            holder=Holder(hello, runtime=runtime.name),
            journal=Journal(home / "journal"),
            has_room=partial(has_room, home),
            tools=tools,
            workspaces=self._workspaces,
            link=lambda listener: Link(
                settings.hub_url,
                partial(read_token, settings, agent),
                agent=agent.id,
                reconnect=reconnect,
                listener=listener,
                clock_s=lambda: boot_us() / 1e6,
            ),
        )


def let_in(settings: Settings) -> Account | None:
    """Open the state directory to the user that agents run as, as far as they need it; raises :class:`SettingsError`."""
    account = find_account(settings.run_as)
    if account is None:
        if os.geteuid() == 0:
            log.warning("agents_run_as_root", cure="set run_as to an unprivileged user; agentcom join makes one")
        return None
    resolved = settings.state_dir.resolve()
    if theirs := [str(place) for place in (resolved, *resolved.parents) if place.stat().st_uid == account.uid]:
        raise SettingsError(resolved, [f"state_dir: {theirs[0]} is {account.name}'s, who could put another in its place"])
    os.umask(0o022)  # caches are read by that user; what is nobody's business lies in closed directories
    open_premises(settings.state_dir, account)
    if not account.can_enter(settings.state_dir / "workspaces" / "work"):
        cure = 'a directory above it is closed; set state_dir, for example to "/var/lib/agentcom-sidecar"'
        raise SettingsError(settings.state_dir, [f"state_dir: {account.name} cannot enter it: {cure}"])
    return account


def workspaces_of(settings: Settings) -> Workspaces:
    """The workspaces of a sidecar; whoever uses them owns the state directory."""
    identity = GitIdentity(name=settings.git.name, email=settings.git.email)
    account = find_account(settings.run_as)
    return Workspaces(settings.state_dir / "workspaces", identity=identity, urls=settings.repos, account=account)


def make_runtime(agent: AgentSettings) -> Runtime:
    """The runtime an agent is configured with."""
    if agent.command is None:
        return NoRuntime() if agent.runtime == "none" else MockRuntime()
    command = agent.command
    return CommandRuntime(command.argv, success=command.success, events=command.events, stdin=command.stdin)


@contextlib.contextmanager
def own_state(directory: Path) -> Iterator[str]:
    """Hold the state directory for this process and yield its install id; raises :class:`StateInUseError`, or :class:`SettingsError`
    for one that is not this user's or holds something else: nothing in it has been opened then.

    What commands of a killed predecessor still run is killed first: they work where this one is about to.
    """
    if faults := state_faults(directory):
        raise SettingsError(directory, [f"state_dir: {fault}" for fault in faults])
    make_directory(directory)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise StateInUseError(f"another sidecar uses {directory}") from fault
        locks.sign(lock)
        swept = owned_by(directory)
        if swept.killed:
            log.warning("left_over_commands_killed", killed=swept.killed, remain=[process.pid for process in swept.survivors])
        yield install_id(directory)
    finally:
        os.close(lock)


def install_id(directory: Path) -> str:
    """Who this installation is to the hub, made once: it tells a restart from somebody else with the same agent's name."""
    name = directory / "install_id"
    known = name.read_text().strip() if name.exists() else ""
    if not known:  # an empty file is what a loss of power makes of one that was not synced
        known = uuid.uuid4().hex
        write_durably(name, known)
    return known


def run(settings: Settings, *, stop_agents: bool) -> int:
    """Run a sidecar to its end; returns the exit code. Raises :class:`StateInUseError` and faults of the settings."""

    async def live(me: str) -> int:
        return await Sidecar(settings, me).run(stop_agents=stop_agents)

    with own_state(settings.state_dir) as me:
        return asyncio.run(live(me))


def _host_facts() -> frames.HostFacts:
    memory = 0
    with contextlib.suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return frames.HostFacts(
        hostname=platform.node()[:256],
        os=platform.platform()[:256],
        cpus=os.cpu_count() or 0,
        memory_bytes=max(0, memory),
        boot=boot_name(),
    )


def _installed() -> bool:
    try:
        metadata.version("agentcom")
    except metadata.PackageNotFoundError:
        return False
    return True
