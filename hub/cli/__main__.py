"""``python -m hub.cli`` is ``agentcom``."""

from hub.cli import main

main()
