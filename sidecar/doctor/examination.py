"""Everything there is to find out about one sidecar: its configuration, machine, hub and state, in the order people ask. Blocking."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from hub.wire.finding import Finding, fail, ok, warn
from sidecar.doctor import hub as hub_side
from sidecar.doctor import machine, state
from sidecar.doctor.code import code
from sidecar.doctor.repair import is_open_token
from sidecar.hub import Hub
from sidecar.runs.account import Account, AccountError, find_account, own_name
from sidecar.settings import AgentSettings, Settings, SettingsError, load, read_token


def examine(config: Path) -> Iterator[Finding]:
    """Findings for the sidecar of a configuration file; without a usable one, those of the machine."""
    yield machine.agentcom()
    yield machine.python()
    yield machine.git()
    try:
        settings = load(config)
    except SettingsError as fault:
        for line in fault.faults:
            yield fail("settings", f"{config}: {line}", f"correct {config}; config/sidecar.toml explains every key")
        return
    yield ok("settings", f"{config}: {len(settings.agents)} agent{'s' * (len(settings.agents) != 1)}")
    account = None
    try:
        account = find_account(settings.run_as)
    except AccountError as fault:
        yield fail("user", str(fault), f"correct run_as in {config}")  # what agents run is not looked at: as whom?
    else:
        yield user(settings, account)
        if account is not None:
            yield code(account)
            yield machine.home(account)
        for agent in settings.agents:
            yield runtime(agent, account)
    yield from _hub(settings)
    yield machine.disk(settings.state_dir)
    yield machine.state_directory(settings.state_dir)
    yield machine.linux(account)
    yield from _state(settings, config)


def user(settings: Settings, account: Account | None) -> Finding:
    """Whom agents and repositories' checks run as, and what that user can reach."""
    if account is None:
        who = own_name()
        cure = 'run the sidecar as root with run_as = "<an unprivileged user>", or let it be all that user is for'
        return warn("user", f"agents run as {who}, like the sidecar: they can read its token and its journals", cure)
    work = machine.existing(settings.state_dir / "workspaces" / "work")
    if not account.can_enter(work):
        cure = 'set state_dir below a directory that others may pass, such as "/var/lib/agentcom-sidecar"'
        return fail("user", f"{account.name} cannot enter {work}", cure)
    return ok("user", f"agents run as {account.name}, the sidecar as {own_name()}")


def runtime(agent: AgentSettings, account: Account | None) -> Finding:
    """What an agent is started with."""
    check = f"runtime:{agent.id}"
    if agent.command is None:
        return (
            machine.program(check, sys.executable, account) if agent.runtime == "mock" else ok(check, "none: only runs checks")
        )
    name = agent.command.argv[0]
    return ok(check, f"{name}, known when a task is") if "{" in name else machine.program(check, name, account)


def _hub(settings: Settings) -> Iterator[Finding]:
    with Hub(settings.hub_url) as stranger:
        findings = list(hub_side.reachable(stranger))
    yield from findings
    by_token: dict[str, list[str]] = {}
    without: dict[str, Finding] = {}
    for agent in settings.agents:
        try:
            by_token.setdefault(read_token(settings, agent), []).append(agent.id)
        except SettingsError as fault:
            file = agent.token_file or settings.token_file
            loose = file is not None and is_open_token(file)
            cure = f"chmod 600 {file}" if loose else "join again: agentcom join; or write the token there, mode 0600"
            without[str(fault)] = fail("token", "; ".join(fault.faults), cure, fixable=loose)
    yield from without.values()
    for token, agents in by_token.items():
        with Hub(settings.hub_url, token) as ours:
            yield hub_side.token(ours, agents)


def _state(settings: Settings, config: Path) -> Iterator[Finding]:
    found = state.take_inventory(settings.state_dir)
    if found.running is None:
        yield warn(
            "sidecar", "none runs on this state directory", f"agentcom sidecar run --config {config}, or start its service"
        )
    else:
        yield ok("sidecar", f"running{f', pid {found.running}' if found.running else ''}")
    if os.geteuid() and found.running is None and not os.access(machine.existing(settings.state_dir), os.R_OK | os.X_OK):
        yield fail("journals", f"{settings.state_dir} is another user's", "ask as that user, or as root")
        return
    yield from state.findings(found, {agent.id for agent in settings.agents})
