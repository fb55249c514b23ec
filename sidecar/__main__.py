"""Entry point of ``python -m sidecar``."""

import sys

try:
    from sidecar.cli import cli

    cli(prog_name="agentcom" if sys.argv[1:2] in (["join"], ["leave"]) else "agentcom sidecar")
except KeyboardInterrupt:  # also while it imports
    sys.exit(130)
