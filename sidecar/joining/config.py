"""The configuration file as text: every key with its default and a comment, for people to edit. Pure.

``config/sidecar.toml`` is :data:`EXAMPLE` rendered, and what ``join`` writes is the same page with a machine's own values
under a seal, by which a later ``join`` or ``leave`` knows whether somebody has edited it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMENT_COLUMN = 36
SEAL = "# Written by agentcom join, which leaves it alone once you edit it. Seal: "
HEAD = """\
# Every key of the sidecar's configuration with its default; what has no default is an example.
# Run it with: agentcom sidecar run --config sidecar.toml
# Relative paths start at this file's directory. For a hub whose certificate is from a CA of your own, set SSL_CERT_FILE in
# the environment to that CA's file (join passes it on to the service); it is used for all that speaks wss or https.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to start a program as an agent."""

    argv: Sequence[str]
    stdin: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent of the file."""

    id: str
    runtime: str
    capabilities: Sequence[str] = ()
    command: Command | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The values of a file; what is None is there as a comment."""

    hub_url: str
    token_file: Path | None = None
    state_dir: Path | None = None
    run_as: str = ""
    repos: Mapping[str, str] = field(default_factory=dict)
    agents: Sequence[Agent]


EXAMPLE = Page(
    hub_url="ws://127.0.0.1:8790/ws",
    agents=(Agent(id="builder-1", runtime="command", command=Command(argv=("my-agent", "--prompt-file", "{prompt_file}"))),),
)


def render(page: Page) -> str:
    """The file, unsealed."""
    return HEAD + "\n" + "\n".join(_lines(page)) + "\n"


def seal(text: str) -> str:
    """The file with its seal as first line."""
    return f"{SEAL}{_digest(text)}\n{text}"


def is_sealed(text: str) -> bool:
    """Whether a file is exactly as :func:`seal` made it."""
    first, _, rest = text.partition("\n")
    return first == SEAL + _digest(rest)


def _lines(page: Page) -> Iterator[str]:
    yield _line("hub_url", page.hub_url, "where the hub listens for sidecars")
    about = "file (mode 0600) with the agents' token; without it AGENTCOM_TOKEN is read"
    yield _line("token_file", _path(page.token_file), about, "agent.token")
    about = "journals, runs and clones; default: agentcom/sidecar in the user's state directory"
    yield _line("state_dir", _path(page.state_dir), about, "")
    yield _line("run_as", page.run_as, "the user that agents and checks run as, when the sidecar is root; empty: its own")
    yield _line("reconnect_first_s", 5.0, "the first reconnection happens somewhere within this time")
    yield _line("stop_grace_s", 5.0, "between asking an agent to stop and killing all its processes")
    yield _line("drain_s", 10.0, "how long SIGTERM waits for the hub to take unstarted work back")
    yield _table("repos", "this machine's own addresses for repositories of the hub")
    for name, url in page.repos.items():
        yield f"{_string(name)} = {_string(url)}"
    if not page.repos:
        yield '# website = "/srv/git/website.git"   # a line for each, by its name in the hub'
    yield _table("git", "who the agents' commits are by")
    yield _line("name", "AgentCom", "name of the author")
    yield _line("email", "agents@agentcom.invalid", "address of the author")
    yield _table("log", "on stderr")
    yield _line("level", "info", "debug, info, warning, error")
    yield _line("format", "auto", "json, console, or auto: console on a terminal")
    first, *others = page.agents
    yield from _agent(first)
    for agent in others:
        yield from _briefly(agent)


def _agent(agent: Agent) -> Iterator[str]:
    yield "\n[[agents]]"
    yield _line("id", agent.id, "unique in the hub: a-z 0-9 . _ -")
    yield _line("name", "", "what people see")
    yield _line("runtime", agent.runtime, "command; mock: scripted, to try things out; none: only runs checks")
    yield _line("capabilities", list(agent.capabilities), 'what it can do; "checks" alone reserves it for registered checks')
    yield _line("projects", [], "the only projects it works for; empty: any")
    yield _line("token_file", None, "its own token, instead of the one above", f"{agent.id}.token")
    yield _line("env_allow", [], "variables of this environment the agent gets beside PATH HOME LANG LC_* TMPDIR")
    yield _line(
        "env_set", {}, "variables it gets with these values; checks too, whose HOME is empty: name RUSTUP_HOME and such here"
    )
    yield _table("agents.command", 'for runtime = "command"', commented=agent.command is None)
    for line in _command(agent.command or Command(argv=("my-agent", "{prompt_file}"))):
        yield line if agent.command is not None else f"# {line}"


def _command(command: Command) -> Iterator[str]:
    yield _line("argv", list(command.argv), "also {prompt} {cwd} {task_id} {model}; never a shell line")
    yield _line("success_when", "exit_zero", "exit_zero; outcome: a JSON line; marker: a line; marker_file: a file exists")
    yield _line("marker", "", "the line or file, for marker and marker_file")
    yield _line("events", "none", "jsonl: it prints JSON lines and may ask questions")
    yield _line("stdin", command.stdin, "prompt: the prompt arrives on stdin")


def _briefly(agent: Agent) -> Iterator[str]:
    """A further agent: what differs from the defaults, the first one explains the rest."""
    yield "\n[[agents]]"
    yield f"id = {_string(agent.id)}\nruntime = {_string(agent.runtime)}\ncapabilities = {_value(list(agent.capabilities))}"
    if agent.command is not None:
        yield f"\n[agents.command]\nargv = {_value(list(agent.command.argv))}\nstdin = {_string(agent.command.stdin)}"


def _table(name: str, comment: str, *, commented: bool = False) -> str:
    return "\n" + ("# " if commented else "") + f"{f'[{name}]':<{COMMENT_COLUMN}}# {comment}"


def _line(key: str, value: object, comment: str, example: str | None = None) -> str:
    text = f"# {key} = {_value(example)}" if value is None else f"{key} = {_value(value)}"
    return f"{text:<{COMMENT_COLUMN - 2}}  # {comment}"


def _value(value: object) -> str:
    match value:
        case list():
            return f"[{', '.join(_string(str(one)) for one in value)}]"
        case dict():
            return "{}"
        case str():
            return _string(value)
    return str(value)


def _string(text: str) -> str:
    """A basic string of TOML, whose escapes are those of JSON but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
