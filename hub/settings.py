"""Everything that can be set, in one frozen tree. Environment variables are ``AGENTCOM_`` + the field in capitals.

Only the composition root and the CLI read this module; everybody else is handed values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hub.core.lease import Terms
from hub.ids import SECOND


def default_data_dir() -> Path:
    """Where a hub keeps its data unless told otherwise (XDG on Linux)."""
    return user_data_path("agentcom")


class HubSettings(BaseSettings):
    """Settings of one hub. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="AGENTCOM_", frozen=True, extra="forbid")

    host: Annotated[str, Field(description="Address to listen on; start-dev serves loopback only.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="One port for everything; 0 picks a free one.")] = 8790
    data_dir: Annotated[Path, Field(default_factory=default_data_dir, description="Store, keys and repositories.")]
    durability: Annotated[
        Literal["full", "normal"],
        Field(description="full: an acknowledged change survives a power cut; normal: the last ones may be lost."),
    ] = "full"
    lease_s: Annotated[float, Field(ge=0.6, le=3600, description="Term of a lease.")] = 180.0
    beat_s: Annotated[float, Field(ge=0.1, le=600, description="How often a sidecar beats; at most a sixth of the lease.")] = (
        20.0
    )
    accept_s: Annotated[float, Field(ge=0.5, le=600, description="How long an offered task may stay unaccepted.")] = 30.0
    grace_s: Annotated[float, Field(ge=0, le=3600, description="How long a lost link shows as reconnecting.")] = 30.0
    max_live_tasks: Annotated[int, Field(ge=1, le=5_000_000, description="Live tasks in all lanes.")] = 250_000

    @model_validator(mode="after")
    def _beats_fit_the_lease(self) -> HubSettings:
        if self.beat_s > self.lease_s / 6:
            raise ValueError(
                f"beat_s = {self.beat_s:g} is more than a sixth of lease_s = {self.lease_s:g}; use {self.lease_s / 9:g}"
            )
        return self

    @property
    def terms(self) -> Terms:
        """The scheduler's numbers."""
        return Terms(
            lease_us=int(self.lease_s * SECOND),
            beat_us=int(self.beat_s * SECOND),
            accept_us=int(self.accept_s * SECOND),
            grace_us=int(self.grace_s * SECOND),
            max_live=self.max_live_tasks,
        )
