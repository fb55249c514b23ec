"""What can be set. Each key has a default, bounds, and the one line that explains it everywhere; durations are seconds.

A key is written ``table.key`` here and in messages, ``key`` under ``[table]`` in the file, and ``AGENTCOM_TABLE_KEY`` in the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from hub.core.lease import Terms
from hub.ids import SECOND
from hub.settings import listening
from hub.settings.listening import Host, Network, TrustedNetwork

ScopeWord = Literal["admin", "operator", "approver", "submitter", "observer", "agent", "enrol"]
RULE = "rule"
"""Type of the error of a table whose keys do not fit each other; its context holds the ``faults``."""


def default_data_dir() -> Path:
    """Where a hub keeps its data unless told otherwise (XDG on Linux)."""
    return user_data_path("agentcom")


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def faults(self) -> list[tuple[str, str]]:
        """What is wrong between keys that are right by themselves: (key, words with the cure)."""
        return []

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Table:
        if found := self.faults():
            raise PydanticCustomError(RULE, "{said}", {"said": "; ".join(said for _, said in found), "faults": found})
        return self


class Listen(Table):
    """Where the hub listens, and who may come."""

    host: Annotated[Host, Field(description="IP address to listen on; 0.0.0.0 or :: for all, see the keys below")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="one port for everything; 0 picks a free one")] = 8790
    public_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^/\s?#@]+$",
            description="what others call this hub, if not by the address above",
            examples=["https://hub.example.org"],
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        Field(description="certificate chain (PEM): serves HTTPS and WSS", examples=["tls/fullchain.pem"]),
    ] = None
    tls_key: Annotated[
        Path | None,
        Field(description="its private key (PEM), which nobody else can read", examples=["tls/privkey.pem"]),
    ] = None
    trusted_networks: Annotated[
        tuple[TrustedNetwork, ...],
        Field(description="private networks that need no TLS, such as 100.64.0.0/10; others are then refused"),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Field(description="proxies that do TLS: X-Forwarded-For and -Proto are believed from them alone"),
    ] = ()

    def faults(self) -> list[tuple[str, str]]:
        """Half a TLS configuration, and plain HTTP for strangers."""
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_key", "tls_cert") if self.tls_cert is None else ("tls_cert", "tls_key")
            return [(given, f"needs listen.{missing}: a certificate and its key belong together")]
        if self.tls_cert is not None:
            return []
        refusal = listening.refusal(self.host, self.trusted_networks, self.trusted_proxies)
        return [] if refusal is None else [("host", refusal)]

    @property
    def admitted(self) -> tuple[Network, ...] | None:
        """The networks whose connections are taken beside loopback; None for everybody's."""
        if self.tls_cert is not None and not self.trusted_networks:
            return None
        return (*self.trusted_networks, *self.trusted_proxies)


class Lease(Table):
    """How long a silent agent keeps its task."""

    term_s: Annotated[
        float, Field(ge=0.6, le=3600, description="term of a lease: a silent agent's task is given away a third later")
    ] = 180.0
    beat_s: Annotated[
        float, Field(ge=0.1, le=600, description="how often a sidecar renews it; at most a sixth of the term")
    ] = 20.0
    accept_s: Annotated[float, Field(ge=0.5, le=600, description="how long an offered task may stay unaccepted")] = 30.0
    grace_s: Annotated[float, Field(ge=0, le=3600, description="how long a lost link shows as reconnecting before offline")] = (
        30.0
    )

    def faults(self) -> list[tuple[str, str]]:
        """A beat too rare to keep the lease."""
        if self.beat_s <= self.term_s / 6:
            return []
        return [("beat_s", f"{self.beat_s:g} is more than a sixth of term_s = {self.term_s:g}; use {self.term_s / 9:g}")]


class Dampers(Table):
    """What keeps broken agents, bad tasks and storms from harming the rest."""

    strikes: Annotated[
        int,
        Field(ge=0, le=8, description="offers refused or runs that ended badly in a row that quarantine an agent; 0: never"),
    ] = 3
    instant_s: Annotated[
        float,
        Field(ge=0, le=600, description="an agent's program that fails without a word this soon may be broken; 0: never"),
    ] = 5.0
    light_per_min: Annotated[int, Field(ge=0, description="reading requests of one identity a minute; 0: any number")] = 6000
    normal_per_min: Annotated[int, Field(ge=0, description="changing requests of one identity a minute; a batch is one")] = 6000
    heavy_per_min: Annotated[
        int, Field(ge=0, description="requests of one identity a minute that make the hub ask remotes")
    ] = 120
    denied_per_min: Annotated[int, Field(ge=0, description="wrong tokens from one address a minute that are answered 401")] = (
        120
    )
    connect_per_min: Annotated[
        int, Field(ge=0, description="links of sidecars that one address may open a minute with one token")
    ] = 6000
    exempt: Annotated[tuple[ScopeWord, ...], Field(max_length=7, description="scopes whose requests are not counted")] = (
        "agent",
    )


class Limits(Table):
    """What is refused beyond: see the protocol's chapter on backpressure."""

    max_live_tasks: Annotated[int, Field(ge=1, le=5_000_000, description="tasks that are not done, dead or cancelled")] = (
        250_000
    )
    max_links: Annotated[int, Field(ge=1, le=100_000, description="agents connected at once; each needs an open file")] = 10_000


class Storage(Table):
    """What the store may take of its disk."""

    reserve_mb: Annotated[
        int, Field(ge=0, le=65_536, description="MiB kept for agents at work: submissions end while as much again is free")
    ] = 64
    blob_quota_mb: Annotated[
        int, Field(ge=1, le=1_048_576, description="MiB that bodies too large for a frame may take together")
    ] = 10_240
    compact_above_percent: Annotated[
        int, Field(ge=1, le=100, description="share of the file that is free, beyond which it is given back to the disk")
    ] = 20


class Retention(Table):
    """For how many days what is over is kept; 0 keeps it for ever."""

    task_days: Annotated[
        int, Field(ge=0, le=36_500, description="ended tasks, with all that belongs to them, from their end on; 0: for ever")
    ] = 90
    salvage_days: Annotated[
        int, Field(ge=0, le=36_500, description="work that was salvaged; its task stays as long; 0: for ever")
    ] = 180
    audit_days: Annotated[
        int, Field(ge=0, le=36_500, description="events of what is gone; then they are files in audit/; 0: for ever")
    ] = 365


class Backup(Table):
    """Whole copies of the store, each verified as it is made; whoever has one has the hub's key."""

    dir: Annotated[
        Path | None,
        Field(description="where they go; default: backups in the data directory", examples=["/mnt/elsewhere/agentcom"]),
    ] = None
    every_s: Annotated[float, Field(ge=1, le=2_678_400, description="how old the newest one may become")] = 86_400.0
    keep: Annotated[int, Field(ge=1, le=1000, description="how many stay; and the one before the last migration")] = 7


class Git(Table):
    """How the hub talks to remotes."""

    remote_timeout_s: Annotated[float, Field(ge=1, le=3600, description="how long one fetch or push may take")] = 120.0


class Log(Table):
    """How the hub logs, on stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="debug, info, warning, error")] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], Field(description="json, console, or auto: console on a terminal")
    ] = "auto"


class HubSettings(Table):
    """All settings of one hub."""

    data_dir: Annotated[
        Path,
        Field(
            default_factory=default_data_dir,
            description="store, keys and clones; default: agentcom in the user's data directory",
            examples=["/var/lib/agentcom"],
        ),
    ]
    durability: Annotated[
        Literal["full", "normal"],
        Field(description="full: what is acknowledged survives a power cut; normal: the last moments may not"),
    ] = "full"
    listen: Listen = Listen()
    lease: Lease = Lease()
    dampers: Dampers = Dampers()
    limits: Limits = Limits()
    storage: Storage = Storage()
    retention: Retention = Retention()
    backup: Backup = Backup()
    git: Git = Git()
    log: Log = Log()

    @property
    def terms(self) -> Terms:
        """The scheduler's numbers."""
        return Terms(
            lease_us=int(self.lease.term_s * SECOND),
            beat_us=int(self.lease.beat_s * SECOND),
            accept_us=int(self.lease.accept_s * SECOND),
            grace_us=int(self.lease.grace_s * SECOND),
            max_live=self.limits.max_live_tasks,
            strikes=self.dampers.strikes,
            instant_us=int(self.dampers.instant_s * SECOND),
        )
