"""A machine that joins: its own configuration and state, and the command line as a stranger types it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
RUN_AS = "nobody" if IS_ROOT else ""
"""Whom agents run as: no test makes a user."""
COMMIT = "sh -c 'cat {prompt_file} > said.txt && id -u > who.txt && git add -A && git commit -qm Work'"
"""An agent: it writes down what it was told, and who it is."""


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that other users can reach, as pytest's cannot."""
    place = Path(tempfile.mkdtemp(prefix="agentcom-join-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Newcomer:
    """One machine. ``environ`` is added to what its commands get."""

    def __init__(self, place: Path, name: str = "m1", environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.config = place / name / "sidecar.toml"
        self.state = place / name / "state"
        self.environ = dict(environ or {})

    async def start(self, command: str, *words: str) -> asyncio.subprocess.Process:
        """Start ``python -m sidecar COMMAND``."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", command, *words,
            cwd=ROOT, env={**os.environ, **self.environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def say(self, command: str, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run it to its end with --json: the exit code, the documents of its lines, and what it said on stderr."""
        process = await self.start(command, *words, "--json")
        out, err = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode is not None
        return process.returncode, [json.loads(line) for line in out.decode().splitlines()], err.decode()

    def joining(self, url: str, code: str | None, *more: str, command: str = COMMIT) -> list[str]:
        """The words behind ``join``."""
        enrol = [] if code is None else ["--enrol", code]
        places = ["--config", str(self.config), "--state-dir", str(self.state), "--run-as", RUN_AS]
        return [url, *enrol, *places, "--name", self.name, "--no-service", "--command", command, *more]

    async def join(self, url: str, code: str | None, *more: str) -> tuple[int, list[dict[str, Any]], str]:
        return await self.say("join", *self.joining(url, code, *more))

    async def leave(self, *more: str) -> tuple[int, list[dict[str, Any]], str]:
        return await self.say("leave", "--config", str(self.config), *more)

    async def join_until_killed_after(self, step: int, url: str, code: str | None) -> None:
        """Join, and kill the process with SIGKILL as soon as it has said that a step is done."""
        process = await self.start("join", *self.joining(url, code), "--json")
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                if json.loads(line).get("step") == step:
                    break
        process.kill()
        await process.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Its sidecar, started as join says."""
        process = await self.start("run", "--config", str(self.config), "--stop-agents")
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.communicate(), 30)


def faults(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the failed step found."""
    last = documents[-1]
    assert last.get("state") == "fail", last
    return last["findings"]
