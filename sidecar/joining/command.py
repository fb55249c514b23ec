"""``python -m sidecar join`` and ``leave``, which ``agentcom join`` and ``agentcom leave`` call.

Exit codes: 0 done; 1 a step failed, and the same command goes on from there; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from getpass import getpass
from pathlib import Path
from typing import Annotated, TypeVar

import platformdirs
import typer

from sidecar import logs, terminal
from sidecar.joining import leaving as going
from sidecar.joining import service
from sidecar.joining.leaving import Leaving
from sidecar.joining.plan import Facts, Plan, PlanError, Request, make_plan
from sidecar.joining.progress import InUse, alone
from sidecar.joining.report import Report
from sidecar.joining.running import Running
from sidecar.joining.service import Service
from sidecar.joining.step import Joining, StepError
from sidecar.joining.steps import STEPS
from sidecar.settings import SettingsError, default_file

T = TypeVar("T")

CODE_VARIABLE = "AGENTCOM_ENROL"
LONGEST_LINE = 4096
FAILED, USAGE, INTERRUPTED = 1, 2, 130
EPILOG = "Exit codes: 0 done; 1 a step failed, the same command goes on from there; 2 wrong usage; 130 interrupted."
ROOT_STATE = Path("/var/lib/agentcom-sidecar")

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line: a step each, then the end.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The sidecar's file; default: /etc/agentcom or the user's, sidecar.toml."
    ),
]


def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="The hub, as this machine reaches it: https://hub.example:8790")],
    enrol: Annotated[
        str | None,
        typer.Option(
            "--enrol",
            metavar="CODE",
            envvar=CODE_VARIABLE,
            help="From agentcom enrol create; not needed again once registered. Other users see a command line: - reads it from "
            "standard input, and on a terminal it is asked for.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Agents are NAME-1, NAME-2 …; default: the host's.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="KIND", help="command, or mock: scripted, to try things out.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="'PROGRAM …'",
            help="What starts an agent; {prompt_file}, {prompt}, {cwd}, {task_id}, {model} are filled in. Without a place for the "
            "prompt it arrives on standard input.",
        ),
    ] = None,
    agents: Annotated[
        int, typer.Option("--agents", metavar="COUNT", help="How many, beside one that runs repositories' checks.")
    ] = 2,
    repo: Annotated[
        list[str] | None,
        typer.Option("--repo", metavar="NAME=URL", help="This machine's own address of a repository. Repeatable."),
    ] = None,
    config: Config = None,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="Journals, runs and clones.")] = None,
    run_as: Annotated[
        str | None,
        typer.Option(
            "--run-as", metavar="USER", help="As root: whom agents run as, made if missing; default: agentcom-agents; '': root."
        ),
    ] = None,
    no_service: Annotated[bool, typer.Option("--no-service", help="Install no systemd service.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Once all works, go on as the sidecar; for containers.")
    ] = False,
    json: Json = False,
) -> None:
    """Make this machine part of a hub: checks, registers, configures, starts, and proves that it works.

    Any number of times: each run goes on where the last one stopped.

    Example: agentcom join https://hub.example:8790 --enrol ac_… --command 'my-agent {prompt_file}'
    """  # fmt: skip
    logs.configure("error", "auto")
    request = Request(
        url=url, code=_said(enrol), name=name, runtime=runtime, command=command, agents=agents, repos=repo or (), config=config,
        state_dir=state_dir, run_as=run_as, service=not no_service, foreground=foreground,
    )  # fmt: skip
    report = Report(len(STEPS), as_json=json)
    try:
        plan = make_plan(request, _facts())
        if plan.code is None and not plan.token_file.exists():
            plan = make_plan(replace(request, code=_ask()), _facts())
    except PlanError as fault:
        terminal.complain(fault.code, fault.faults, as_json=json)
        raise typer.Exit(USAGE) from None
    running = Running(plan.state_dir / "join.log")
    _orderly(plan.state_dir, lambda: _join(plan, running, report), as_json=json)
    _finish(plan, report)
    if plan.foreground:
        sys.stdout.flush()
        os.execv(plan.python, plan.argv)  # noqa: S606  an argv list, no shell


def _said(code: str | None) -> str | None:
    """The code as it was said: by a way that no other user can watch, if not in the command line."""
    os.environ.pop(CODE_VARIABLE, None)  # nothing that is started from here on needs it
    return sys.stdin.readline(LONGEST_LINE).strip() if code == "-" else code


def _ask() -> str | None:
    """The code from the terminal, unseen; None where nobody is there to be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        return getpass("Enrolment code, from agentcom enrol create: ").strip() or None
    except EOFError:
        return None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _join(plan: Plan, running: Running, report: Report) -> None:
    joining = Joining(plan, running)
    try:
        for title, step in STEPS:
            try:
                done = step(joining)
            except StepError as fault:
                report.step(title, "fail", "", fault.findings, fault.log)
                raise typer.Exit(FAILED) from None
            except OSError as fault:
                raise OSError(fault.errno, f"{title}: {fault.strerror or fault}", fault.filename) from fault
            report.step(title, "skip" if done.skipped else "ok", done.detail, done.findings)
    finally:
        running.stop()


def _finish(plan: Plan, report: Report) -> None:
    command = shlex.join([_agentcom(plan), "sidecar", "run", "--config", str(plan.config)])
    lines = [("joined", f"{plan.url} as {', '.join(plan.agents)}")]
    if plan.unit is not None:
        commands = Service.of(plan.unit).commands
        lines += [("log", commands["log"]), ("stop", commands["stop"])]
    elif not plan.foreground:
        lines.append(("run it", command))
    lines.append(("leave", shlex.join([_agentcom(plan), "leave", "--config", str(plan.config)])))
    report.end(
        lines,
        joined=True,
        hub=plan.url,
        agents=plan.agents,
        config=str(plan.config),
        state_dir=str(plan.state_dir),
        service=str(plan.unit.path) if plan.unit is not None else None,
        command=command,
    )


def leave(
    config: Config = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", metavar="DIR", help="Where join kept its state, if there is no configuration.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Also while agents work: they are stopped, their tasks go to others.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the state, too, if nothing in it is unsettled or salvaged.")
    ] = False,
    json: Json = False,
) -> None:
    """Take this machine out of its hub: stops the sidecar, gives the token back, removes what join made.

    Work that is not settled is never removed. Without the hub it works, too, and says what the hub was not told.

    Example: agentcom leave
    """
    logs.configure("error", "auto")
    file = config.expanduser().absolute() if config is not None else None
    place = state_dir.expanduser().absolute() if state_dir is not None else None
    try:
        order = going.find(file, place, _state_dir(), now=now, purge=purge)
    except SettingsError as fault:
        file = file or default_file()
        terminal.complain(
            fault.code, [(line, f"correct {file}, or name another with --config") for line in fault.faults], as_json=json
        )
        raise typer.Exit(USAGE) from None
    report = Report(5, as_json=json)
    if order is None:
        nothing = f"nothing to leave: there is no {file or default_file()}, and nothing of a join in {place or _state_dir()}"
        report.end([("left", nothing)], left=True, said=[nothing])
        return
    said = _orderly(order.state_dir, lambda: _leave(order, report), as_json=json)
    report.end([("left", "this machine is no part of the hub any more")], left=True, said=said)


def _leave(order: Leaving, report: Report) -> list[str]:
    title = "check"
    try:
        going.check(order)
        report.step(title, "ok", "stops what is unsettled" if order.now else "nothing is unsettled")
        title = "stop"
        report.step(title, "ok", going.stop(order))
        title = "runs"
        going.check_again(order)
        report.step(title, "ok", asyncio.run(going.stop_runs(order)))
        title = "hub"
        detail, finding = going.tell_hub(order)
        report.step(title, "ok" if finding is None else "warn", detail, () if finding is None else (finding,))
    except StepError as fault:
        report.step(title, "fail", "", fault.findings)
        raise typer.Exit(FAILED) from None
    said = going.remove(order)
    report.step("files", "ok")
    for line in said:
        report.say(line)
    return said


def _orderly(state_dir: Path, work: Callable[[], T], *, as_json: bool) -> T:
    """Do it alone, and end with words whatever happens."""
    try:
        with alone(state_dir):
            return work()
    except InUse as fault:
        terminal.complain(fault.code, [(fault, "")], as_json=as_json)
        raise typer.Exit(FAILED) from None
    except OSError as fault:
        cure = "make that possible for this user, or name other places with --config and --state-dir"
        terminal.complain("os_error", [(fault, cure)], as_json=as_json)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        terminal.complain("interrupted", [("interrupted; the same command goes on from here", "")], as_json=as_json)
        raise typer.Exit(INTERRUPTED) from None


def _facts() -> Facts:
    return Facts(
        root=os.geteuid() == 0,
        hostname=platform.node(),
        python=sys.executable,
        home=Path.home(),
        config=default_file(),
        state_dir=_state_dir(),
        systemd=service.is_running(),
        environ=os.environ,
    )


def _state_dir() -> Path:
    return ROOT_STATE if os.geteuid() == 0 else Path(platformdirs.user_state_dir("agentcom")) / "sidecar"


def _agentcom(plan: Plan) -> str:
    """The program as it can be called again from anywhere."""
    beside = Path(plan.python).with_name("agentcom")
    return str(beside) if beside.exists() else "agentcom"
