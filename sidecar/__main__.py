"""Entry point of ``python -m sidecar``."""

from sidecar.cli import cli

cli(prog_name="agentcom sidecar")
