"""The steps of joining, in order. Each looks first at what is already true, so a second run goes on where one stopped.

A step returns what it has to say, or raises :class:`StepError` with everything that stands in its way at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub.ids import FindingState
from hub.wire.finding import Finding, fail, failures, ok
from sidecar.doctor import hub as hub_side
from sidecar.doctor import machine
from sidecar.doctor.code import code
from sidecar.doctor.state import take_inventory, user_of
from sidecar.hub import Hub
from sidecar.joining import user
from sidecar.joining.configuration import configuration, unfit
from sidecar.joining.plan import Plan
from sidecar.joining.probe import Probe, ProbeError
from sidecar.joining.registration import identity, registration
from sidecar.joining.service import Service, ServiceError
from sidecar.joining.step import Joining, Outcome, StepError
from sidecar.runs.account import AccountError, find_account
from sidecar.settings import SettingsError, load

AGENTS_HOME = Path("/var/lib/agentcom-agents")


def checks(joining: Joining) -> Outcome:
    """Whether this machine and the hub are fit for each other. What agents are started with is theirs: none of it runs here."""
    plan = joining.plan
    if user.exists(plan.run_as) and (theirs := _code(plan)):
        raise StepError(theirs)  # before anything of it runs
    with Hub(plan.url) as hub:
        findings = [machine.python(), machine.git()]
        look = machine.there if plan.run_as else machine.program
        findings += [look("runtime", program) for program in plan.programs]
        findings += hub_side.reachable(hub)
    place = machine.state_directory(plan.state_dir)
    findings += [machine.disk(plan.state_dir), place, machine.linux(), *(_other_state(plan) or unfit(plan))]
    findings += _other_hub(joining) if place.state is FindingState.OK else []
    if failures(findings):
        raise StepError([finding for finding in findings if finding.state is not FindingState.OK])
    return Outcome("", tuple(findings))


def _code(plan: Plan) -> list[Finding]:
    """What the agents' user could change of what root runs; that user's faults are found when its step comes."""
    try:
        found = find_account(plan.run_as)
    except AccountError:
        return []
    return [] if found is None else failures([code(found)])


def _other_hub(joining: Joining) -> list[Finding]:
    """A machine is part of one hub: what it holds for another must come to an end first."""
    known = joining.known
    if known is None or known.hub == joining.plan.url or take_inventory(joining.plan.state_dir).settled:
        return []
    return [
        fail(
            "joined",
            f"{joining.plan.state_dir} holds unsettled work for {known.hub}",
            "agentcom leave first, or another --state-dir",
        )
    ]


def _other_state(plan: Plan) -> list[Finding]:
    """A file that another join wrote, or a person, goes on to name the state it names; its other faults have a step of their own."""
    try:
        there = load(plan.config).state_dir
    except SettingsError:
        return []
    if there == plan.state_dir:
        return []
    cure = f"go on with that: --state-dir {there}; or name another file with --config; or agentcom leave first"
    return [fail("configuration", f"{plan.config} is that of {there}, not of {plan.state_dir}", cure)]


def account(joining: Joining) -> Outcome:
    """The unprivileged user that agents and checks run as."""
    plan = joining.plan
    if not plan.run_as:
        return Outcome("agents run as the user of the sidecar; as root, join makes one for them", skipped=True)
    made = not user.exists(plan.run_as)
    try:
        if made:
            user.make(plan.run_as, AGENTS_HOME)
            joining.note(user=plan.run_as)
        found = find_account(plan.run_as)
    except (user.UserError, AccountError) as fault:
        raise StepError([fail("user", str(fault), "make it by hand, or name another with --run-as")]) from fault
    if found is None:
        return _oneself(plan)
    if theirs := _code(plan):
        raise StepError(theirs)
    place = machine.existing(plan.state_dir.parent)
    findings = [machine.program("runtime", program, found) for program in plan.programs]
    findings.append(
        ok("user", f"{found.name} can enter {place}")
        if found.can_enter(place)
        else fail("user", f"{found.name} cannot enter {place}", "name another --state-dir, such as /var/lib/agentcom-sidecar")
    )
    findings += [machine.home(found), machine.linux(found)]
    if failures(findings):
        raise StepError([finding for finding in findings if finding.state is not FindingState.OK])
    return Outcome(f"{found.name}{' (made)' if made else ''}, home {found.home}", tuple(findings))


def _oneself(plan: Plan) -> Outcome:
    findings = tuple(machine.program("runtime", program) for program in plan.programs)
    if failures(findings):
        raise StepError(failures(findings))
    return Outcome(f"this is {plan.run_as} already", findings, skipped=True)


def service(joining: Joining) -> Outcome:
    """Let systemd start the sidecar with the machine."""
    unit = joining.plan.unit
    if unit is None:
        return Outcome("none wanted, or no systemd here", skipped=True)
    try:
        changed = Service.of(unit).install(unit)
    except (ServiceError, OSError) as fault:
        cure = fault.cure if isinstance(fault, ServiceError) else "join with --no-service"
        raise StepError([fail("service", str(fault), cure)]) from fault
    joining.config_changed |= changed
    joining.note(unit=str(unit.path))
    linger = "" if unit.root else "; to run it while you are logged out: loginctl enable-linger"
    return Outcome(f"{unit.path}{linger}")


def start(joining: Joining) -> Outcome:
    """Have a sidecar running with this configuration."""
    plan, pid = joining.plan, user_of(joining.plan.state_dir)
    who = f", pid {pid}" if pid else ""
    stop_it = f"stop it{f' (kill {pid})' if pid else ''} and join again"
    try:
        if plan.unit is not None:
            systemd = Service.of(plan.unit)
            if pid is not None and not systemd.is_active():
                raise StepError([fail("sidecar", "one runs here that is not the service", stop_it)])
            systemd.start(again=joining.config_changed)
            return Outcome("the service runs")
        if pid is not None and joining.config_changed:
            raise StepError([fail("sidecar", "one runs here with the configuration of before", stop_it)])
        if pid is not None:
            return Outcome(f"it runs already{who}")
        joining.running.start(plan.argv)
    except ServiceError as fault:
        raise StepError([fail("service", str(fault), fault.cure)], _log(joining)) from fault
    return Outcome(f"for now as part of this command; its log is {joining.running.log_file}")


def verification(joining: Joining) -> Outcome:
    """Each agent connects and does a task that wakes nobody and costs no tokens."""
    plan = joining.plan
    begun: list[Probe] = []
    told: list[Finding] = []
    with Hub(plan.url, joining.token) as hub:
        for agent in plan.agents:
            one = Probe(hub, agent, joining.running.ended)
            try:
                one.begin()
                begun.append(one)
            except ProbeError as fault:
                told.append(fail(agent, str(fault), fault.cure))
        for one in begun:
            try:
                told.append(ok(one.agent, one.finish()))
            except ProbeError as fault:
                told.append(fail(one.agent, str(fault), fault.cure))
    if failures(told):
        raise StepError(failures(told), _log(joining))
    return Outcome("", tuple(told))


def _log(joining: Joining) -> str:
    unit = joining.plan.unit
    return Service.of(unit).log_tail() if unit is not None else joining.running.log_tail()


STEPS: tuple[tuple[str, Callable[[Joining], Outcome]], ...] = (
    ("checks", checks),
    ("identity", identity),
    ("registration", registration),
    ("user", account),
    ("configuration", configuration),
    ("service", service),
    ("start", start),
    ("verification", verification),
)
