"""Entry point of ``python -m sidecar``."""

import sys

from sidecar.cli import cli

cli(prog_name="agentcom" if sys.argv[1:2] in (["join"], ["leave"]) else "agentcom sidecar")
