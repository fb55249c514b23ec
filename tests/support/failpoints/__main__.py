"""``python -m tests.support.failpoints PROGRAM ARGUMENTS…``: a program of the product with what ``AGENTCOM_FAILPOINTS`` asks for."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from tests.support.failpoints import points
from tests.support.failpoints.seams import SEAMS, of

ROOT = Path(__file__).resolve().parents[3]
SHIM = "sidecar.runs.shim"
PROGRAMS = {"hub.cli": "hub", "sidecar": "sidecar", SHIM: "shim"}


def main(program: str, *arguments: str) -> int:
    if program == "--list":
        for name, fault in ((name, fault) for seam in SEAMS for name, fault in seam.faults().items()):
            print(name if fault is None else f"{name:<42} error: {fault()!r}")
        return 0
    side, asked = PROGRAMS[program], points.read(os.environ, SEAMS)
    points.install(asked, of(side))
    if side == "sidecar" and any(name.startswith("shim.") for name in asked):
        _reach_shims()
    if program == SHIM:  # run as a module it would have another copy of its class than the one that is wrapped
        from sidecar.runs import shim

        return shim.main(Path(arguments[0]))
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
    return 0


def _reach_shims() -> None:
    """Have this sidecar start its shims through this launcher, too: a shim inherits nothing of the environment."""
    spawn = os.posix_spawn

    def spawn_wrapped(path: str, argv: list[str], env: dict[str, str], **options: Any) -> int:
        if SHIM in argv:
            at = argv.index(SHIM)
            argv = [*argv[:at], __spec__.parent, *argv[at:]]
            env = {**env, **{name: os.environ[name] for name in points.VARIABLES if name in os.environ}}
            env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
        return spawn(path, argv, env, **options)

    os.posix_spawn = spawn_wrapped  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
