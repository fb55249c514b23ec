"""``agentcom``: the command line, one file per noun, over the client alone.

Importing this package costs nothing, and the commands import what they need when they run, so ``--help`` is quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the process ends with one of the exit codes of :mod:`hub.cli.exits`, or 130 for Ctrl-C."""
    try:
        from hub.cli.root import app

        app()
    except KeyboardInterrupt:  # also while it imports
        sys.exit(130)
