"""What joining will do to this machine, decided before anything is done. Pure: facts about the machine come in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hub.ids import CHECKS, NAME
from hub.wire.git import UnsafeNameError, check_url
from sidecar.hub import http_url, socket_url
from sidecar.joining.config import Agent, Command, Page
from sidecar.joining.unit import PASSED, Unit
from sidecar.runtimes.command import template_faults

CODE = re.compile(r"ac_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
USER = "agentcom-agents"
"""The unprivileged user that ``join`` as root makes for agents; never the one a hub on the same machine runs as."""
MOST_AGENTS = 63
"""A sidecar may have 64 agents; one is for checks."""
LONGEST_NAME = 57
"""So that ``<name>-checks`` is an agent's id, and ``<name>-63`` too."""
KNOWN: Mapping[str, str] = {
    "claude": "claude -p --permission-mode dontAsk --allowedTools Bash,Edit,Write,Read,Glob,Grep -- {prompt}",
    "codex": "codex exec --dangerously-bypass-approvals-and-sandbox {prompt}",
    "openclaw": "openclaw agent exec {prompt} --cwd {cwd}",
    "gemini": "gemini --skip-trust --approval-mode yolo -p {prompt}",
    "opencode": "opencode run {prompt}",
}
"""Agents without a runtime of their own yet, and the command that starts each without questions."""


class PlanError(Exception):
    """What was asked for makes no sense; ``faults`` are (what, cure), all of them."""

    code = "bad_request"
    retryable = False

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(fault for fault, _ in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line. None means the default for this machine."""

    url: str
    code: str | None = None
    name: str | None = None
    runtime: str | None = None
    command: str | None = None
    agents: int = 2
    repos: Sequence[str] = ()
    config: Path | None = None
    state_dir: Path | None = None
    run_as: str | None = None
    service: bool = True
    foreground: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the plan needs to know of the machine. ``systemd``: it runs here. ``home`` is the user's, for their own unit."""

    root: bool
    hostname: str
    python: str
    home: Path
    config: Path
    state_dir: Path
    systemd: bool
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that joining writes and starts. ``unit`` is None where there will be no service."""

    url: str
    code: str | None
    name: str
    agents: tuple[str, ...]
    config: Path
    state_dir: Path
    run_as: str
    page: Page
    unit: Unit | None
    python: str
    foreground: bool
    programs: tuple[str, ...] = field(default=())

    @property
    def token_file(self) -> Path:
        """The machine's credential."""
        return self.state_dir / "token"

    @property
    def secret_file(self) -> Path:
        """The half of it that is made here, until the hub has named the other."""
        return self.state_dir / "secret"

    @property
    def progress_file(self) -> Path:
        """What joining did here, for the next ``join`` and for ``leave``."""
        return self.state_dir / "join.json"

    @property
    def argv(self) -> list[str]:
        """The command that is the sidecar."""
        return [self.python, "-m", "sidecar", "run", "--config", str(self.config)]


def make_plan(request: Request, facts: Facts) -> Plan:
    """The plan for a request on a machine; raises :class:`PlanError` with every fault."""
    faults: list[tuple[str, str]] = []
    url = _url(request.url, faults)
    if request.code is not None and not CODE.fullmatch(request.code):
        faults.append(("the enrolment code is not one: it looks like ac_…_…", "copy it whole from agentcom enrol create"))
    name = _name(request.name, facts.hostname, faults)
    if not 1 <= request.agents <= MOST_AGENTS:
        faults.append((f"--agents {request.agents} is out of range", f"1 to {MOST_AGENTS}"))
    repos = _repos(request.repos, faults)
    runtime, command = _runtime(request, faults)
    if faults:
        raise PlanError(faults)
    state_dir = (request.state_dir or facts.state_dir).expanduser().absolute()
    config = (request.config or facts.config).expanduser().absolute()
    run_as = request.run_as if request.run_as is not None else USER if facts.root else ""
    workers = [Agent(id=f"{name}-{n}", runtime=runtime, command=command) for n in range(1, request.agents + 1)]
    checks = Agent(id=f"{name}-checks", runtime="none", capabilities=(CHECKS,))
    page = Page(
        hub_url=socket_url(url),
        token_file=state_dir / "token",
        state_dir=state_dir,
        run_as=run_as,
        repos=repos,
        agents=(*workers, checks),
    )
    argv = (facts.python, "-m", "sidecar", "run", "--config", str(config))
    environ = {variable: facts.environ[variable] for variable in PASSED if facts.environ.get(variable)}
    unit = Unit(argv=argv, environ=environ, root=facts.root, home=facts.home)
    return Plan(
        url=url,
        code=request.code,
        name=name,
        agents=tuple(agent.id for agent in page.agents),
        config=config,
        state_dir=state_dir,
        run_as=run_as,
        page=page,
        unit=unit if request.service and facts.systemd and not request.foreground else None,
        python=facts.python,
        foreground=request.foreground,
        programs=(facts.python,) if command is None else tuple(one for one in command.argv[:1] if "{" not in one),
    )


def fit_name(hostname: str) -> str:
    """A host's name as the beginning of agents' ids."""
    fit = re.sub(r"[^a-z0-9._-]+", "-", hostname.partition(".")[0].lower())[:LONGEST_NAME].strip("-._")
    return fit or "machine"


def _url(text: str, faults: list[tuple[str, str]]) -> str:
    cure = "write it like https://hub.example:8790"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable:
        faults.append((f"{text[:200]!r} is not the address of a hub", cure))
    elif parts.username is not None or parts.query or parts.fragment:
        faults.append(("the hub's address must not carry a user, a query or a fragment", cure))
    else:
        return http_url(text)
    return ""


def _name(given: str | None, hostname: str, faults: list[tuple[str, str]]) -> str:
    if given is None:
        return fit_name(hostname)
    if not NAME.fullmatch(given) or len(given) > LONGEST_NAME:
        cure = f"1 to {LONGEST_NAME} of a-z 0-9 . _ -, beginning with a letter or digit, such as {fit_name(given)}"
        faults.append((f"--name {given[:80]!r} cannot begin an agent's id", cure))
    return given


def _repos(given: Sequence[str], faults: list[tuple[str, str]]) -> dict[str, str]:
    repos: dict[str, str] = {}
    for text in given:
        name, separator, url = text.partition("=")
        if not separator or not NAME.fullmatch(name):
            faults.append((f"--repo {text[:200]!r} is not NAME=URL", "write it like --repo website=/srv/git/website.git"))
            continue
        try:
            check_url(url)
        except UnsafeNameError as fault:
            faults.append((f"--repo {name}: {fault}", "https://…, ssh://…, user@host:path or an absolute path"))
        repos[name] = url
    return repos


def _runtime(request: Request, faults: list[tuple[str, str]]) -> tuple[str, Command | None]:
    """Which kind of agent, and its command; a program that has no place for the prompt gets it on standard input."""
    runtime = request.runtime or ("command" if request.command is not None else None)
    if runtime is None:
        cure = "name your agent's program: --command 'my-agent {prompt_file}'; or try things out with --runtime mock"
        faults.append(("nothing says what the agents are", cure))
    elif runtime in KNOWN:
        faults.append((f"there is no runtime for {runtime} yet", f"start it as a program: --command '{KNOWN[runtime]}'"))
    elif runtime not in {"command", "mock"}:
        faults.append((f"there is no runtime {runtime[:80]!r}", "command with --command '…', or mock"))
    elif (runtime == "command") != (request.command is not None):
        faults.append(("--command belongs to --runtime command, and is needed there", "--command 'my-agent {prompt_file}'"))
    if request.command is None:
        return runtime or "", None
    try:
        argv = shlex.split(request.command)
    except ValueError as fault:
        faults.append((f"--command cannot be split into words: {fault}", "quote as in a shell; nothing is run by one"))
        return "command", None
    faults.extend((f"--command: {fault}", "--command 'my-agent {prompt_file}'") for fault in template_faults(argv))
    prompted = any("{prompt}" in word or "{prompt_file}" in word for word in argv)
    return "command", Command(argv=argv, stdin="none" if prompted else "prompt")
