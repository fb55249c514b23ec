"""The unit starts what there is, and starts it again exactly when that helps."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from hub.app import EXIT_STORE
from hub.cli.exits import Exit
from hub.cli.root import app
from hub.settings.keys import KEYS

UNIT = (Path(__file__).parents[2] / "ops" / "systemd" / "agentcom-hub.service").read_text()


def values(name: str) -> list[str]:
    return re.findall(rf"^#?{name}=(.*)$", UNIT, re.MULTILINE)


def test_its_command_is_one_of_ours() -> None:
    (line,) = values("ExecStart")
    program, *words = line.split()
    assert program.endswith("/agentcom")
    command = get_command(app)
    while words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    assert words[0] in [option for param in command.params for option in param.opts]


def test_its_variables_are_known() -> None:
    named = set(re.findall(r"AGENTCOM_\w+", UNIT))
    assert named
    assert named <= {key.variable for key in KEYS.values()}


def test_a_broken_store_is_started_again_and_wrong_settings_are_not() -> None:
    assert values("Restart") == ["on-failure"]
    assert values("RestartPreventExitStatus") == [str(int(Exit.USAGE))]
    assert EXIT_STORE != Exit.USAGE


def test_it_waits_for_the_hub_to_say_that_it_is_ready() -> None:
    assert values("Type") == ["notify"]
