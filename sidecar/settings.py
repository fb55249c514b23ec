"""The sidecar's configuration: one TOML file, read once, wrong in no silent way.

Unknown keys are faults, and every fault of a file is reported at once with the key that was probably meant.
"""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hub.ids import AGENT_ID, CHECKS, NAME
from sidecar.backoff import FIRST_S
from sidecar.runs.account import AccountError, find_account
from sidecar.runtimes.command import SuccessRule, template_faults

DRAIN_S = 10.0
ROOT_CONFIG = Path("/etc/agentcom")
TOKEN_VARIABLE = "AGENTCOM_TOKEN"  # noqa: S105  the variable's name


class SettingsError(Exception):
    """The configuration cannot be used. ``faults`` lists everything that is wrong with it."""

    code = "bad_settings"
    retryable = False

    def __init__(self, source: Path, faults: list[str]) -> None:
        super().__init__(f"{source}:\n" + "\n".join(f"  {fault}" for fault in faults))
        self.faults = faults


def _agent_id(value: str) -> str:
    if not AGENT_ID.fullmatch(value):
        raise ValueError("an agent's id is 1-64 characters of a-z 0-9 . _ -")
    return value


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("a name is 1-64 characters of a-z 0-9 . _ - and does not begin with a dot or dash")
    return value


Name = Annotated[str, AfterValidator(_name)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CommandSettings(_Settings):
    """How the ``command`` runtime starts its program, and when the program has succeeded."""

    argv: list[str]
    success_when: Literal["exit_zero", "outcome", "marker", "marker_file"] = "exit_zero"
    marker: str = ""
    events: Literal["none", "jsonl"] = "none"
    stdin: Literal["none", "prompt"] = "none"

    @model_validator(mode="after")
    def _usable(self) -> CommandSettings:
        faults = template_faults(self.argv)
        if self.success_when.startswith("marker") != bool(self.marker):
            faults.append("marker belongs to success_when = 'marker' or 'marker_file', and is needed there")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def success(self) -> SuccessRule:
        """The rule the runtime takes."""
        return SuccessRule(kind=self.success_when, marker=self.marker)


class AgentSettings(_Settings):
    """One agent of this sidecar."""

    id: Annotated[str, AfterValidator(_agent_id)]
    name: Annotated[str, Field(max_length=256)] = ""
    runtime: Literal["mock", "command", "none"]
    capabilities: Annotated[list[Name], Field(max_length=64)] = []
    projects: Annotated[list[Name], Field(max_length=64)] = []
    token_file: Path | None = None
    env_allow: list[str] = []
    env_set: dict[str, str] = {}
    command: CommandSettings | None = None

    @model_validator(mode="after")
    def _complete(self) -> AgentSettings:
        if (self.runtime == "command") != (self.command is not None):
            raise ValueError("[agents.command] belongs to runtime = 'command', and is needed there")
        if self.runtime == "none" and CHECKS not in self.capabilities:
            raise ValueError("runtime = 'none' is for agents that only run checks: give it capabilities = ['checks']")
        return self


class GitSettings(_Settings):
    """Who the agents' commits are by."""

    name: Annotated[str, Field(min_length=1)] = "AgentCom"
    email: Annotated[str, Field(min_length=1)] = "agents@agentcom.invalid"


class LogSettings(_Settings):
    """How the sidecar logs, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Settings):
    """The whole file."""

    hub_url: Annotated[str, Field(pattern=r"^wss?://")]
    token_file: Path | None = None
    state_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_state_dir("agentcom")) / "sidecar")
    run_as: str = ""
    reconnect_first_s: Annotated[float, Field(ge=0, le=60)] = FIRST_S
    stop_grace_s: Annotated[float, Field(ge=0, le=60)] = 5.0
    drain_s: Annotated[float, Field(ge=0, le=600)] = DRAIN_S
    repos: dict[str, str] = {}
    git: GitSettings = GitSettings()
    log: LogSettings = LogSettings()
    agents: Annotated[list[AgentSettings], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _distinct(self) -> Settings:
        ids = [agent.id for agent in self.agents]
        if doubled := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"agents need ids of their own; used twice: {', '.join(doubled)}")
        return self


def default_file() -> Path:
    """Where the file is when nobody names one: root's is the machine's, others have one of their own."""
    return (ROOT_CONFIG if os.geteuid() == 0 else Path(platformdirs.user_config_dir("agentcom"))) / "sidecar.toml"


def load(path: Path) -> Settings:
    """Read a file; raises :class:`SettingsError` with all its faults. Relative paths in it start at its directory.

    It names programs to start and files to write: root takes it from root alone.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if foreign := _foreign(path, os.fstat(file.fileno())):
                raise SettingsError(path, [foreign])
            data = tomllib.loads(file.read())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise SettingsError(path, [str(fault)]) from fault
    base = path.resolve().parent
    try:
        settings = Settings.model_validate(_with_paths(data, base))
    except ValidationError as fault:
        raise SettingsError(path, [_explain(error) for error in fault.errors()]) from None
    return settings


def _foreign(path: Path, file: os.stat_result) -> str | None:
    """Why root must not do what an open file says."""
    if os.geteuid() != 0:
        return None
    if file.st_uid != 0:
        return f"it is another user's (uid {file.st_uid}) and root does what it says; look at it, then: chown root {path}"
    return (
        f"others may write to it and root does what it says; look at it, then: chmod go-w {path}"
        if file.st_mode & 0o022
        else None
    )


def account_faults(settings: Settings) -> list[str]:
    """Why agents cannot run as the user they are to run as."""
    try:
        find_account(settings.run_as)
    except AccountError as fault:
        return [f"run_as: {fault}"]
    return []


def missing_programs(settings: Settings) -> list[str]:
    """What the configured agents would fail to start for: a program that is not on this machine."""
    return [
        f"agents: {agent.id}: its program {agent.command.argv[0]!r} was not found; correct [agents.command] argv, or install it"
        for agent in settings.agents
        if agent.command is not None and "{" not in agent.command.argv[0] and shutil.which(agent.command.argv[0]) is None
    ]


def read_token(settings: Settings, agent: AgentSettings, environ: Mapping[str, str] = os.environ) -> str:
    """The agent's credential, read anew each time; raises :class:`SettingsError` when there is none or all can read it."""
    path = agent.token_file or settings.token_file
    if path is None:
        if token := environ.get(TOKEN_VARIABLE, "").strip():
            return token
        raise SettingsError(Path(agent.id), [f"no token: set token_file, or {TOKEN_VARIABLE} in the environment"])
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(path, [f"others can read the token; run: chmod 600 {path}"])
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise SettingsError(path, [f"cannot read the token: {fault}"]) from fault
    if not token:
        raise SettingsError(path, ["the token file is empty"])
    return token


def _with_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """TOML has no paths: turn the strings that are some into paths, relative to the file."""

    def path(value: object) -> object:
        return base / Path(value).expanduser() if isinstance(value, str) and value else value

    keys = ("token_file", "state_dir")
    agents = data.get("agents")
    data = {key: path(value) if key in keys else value for key, value in data.items()}
    if isinstance(agents, list):
        data["agents"] = [
            {key: path(value) if key in keys else value for key, value in agent.items()} if isinstance(agent, dict) else agent
            for agent in agents
        ]
    return data


def _explain(error: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".") or "file"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}"
    allowed = _keys_at(error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), allowed, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(allowed)}"
    return f"{where}: unknown key; {meant}"


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    """The keys of the table at a place in the file."""
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _table_of(model.model_fields[part].annotation) or model
    return sorted(model.model_fields)


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The settings table within an annotation such as ``list[AgentSettings]`` or ``CommandSettings | None``."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in typing.get_args(annotation) if (found := _table_of(part))), None)
