"""A real sidecar at work while its writes are recorded, before a hub that marks as a promise what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.ids import ControlKind, LeaseEpoch, TaskId, TaskType
from hub.wire import frames
from hub.wire.spec import Spec
from tests.powercut.tape import Recording, Tape
from tests.support.fake_hub import FakeHub, running

ROOT = Path(__file__).parents[2]
AGENT = "a"
STATE = "state"
CLONES = "workspaces"
"""Clones of remotes and what agents do in them: git's and the agents' to write, and not recorded."""
END_S = 30.0
CANCELLED_EVERY = 5


@dataclass
class MarkingHub(FakeHub):
    """Agrees with everything. A promise ends when the hub answers that it has what was promised."""

    recording: Recording | None = None

    async def _answer(self, frame: frames.FromSidecar) -> None:
        if self.recording is not None:
            self._mark(self.recording, frame)
        await super()._answer(frame)

    @staticmethod
    def _mark(recording: Recording, frame: frames.FromSidecar) -> None:
        match frame:
            case frames.Hello():
                recording.mark("who it is", install_id=frame.install_id)
            case frames.Accept():
                recording.mark(f"t-{frame.task} accepted", held=[frame.task, frame.lease_epoch])
            case frames.Result():
                key = [frame.task, frame.lease_epoch]
                recording.mark(f"result of t-{frame.task}", result=frame.sha256, held=key)
                recording.mark(f"t-{frame.task} settled", settled=key)  # its acknowledgement follows
            case _:
                pass


def spec(task: int, *steps: dict[str, Any], **more: Any) -> Spec:
    """A task without a repository, large enough that a journal is compacted now and then."""
    script = [*steps, {"do": "no_commit"}]
    values: dict[str, Any] = {"type": TaskType.RESEARCH, "needs_change": False, "feedback": ("y" * 60_000,), **more}
    return Spec(task=TaskId(task), lease_epoch=LeaseEpoch(1), title=f"Task {task}", metadata={"mock": script}, **values)


@contextlib.asynccontextmanager
async def sidecar(place: Path, hub: FakeHub, environ: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, ended in order."""
    config, token = place / "sidecar.toml", place / "token"
    token.write_text(hub.token)
    token.chmod(0o600)
    config.write_text(
        f'hub_url = "{hub.url}"\ntoken_file = "token"\nstate_dir = "root/{STATE}"\nreconnect_first_s = 0.2\n'
        f'drain_s = 5\nstop_grace_s = 1\n[[agents]]\nid = "{AGENT}"\nruntime = "mock"\n'
    )
    with (place / "sidecar.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "run", "--config", str(config), "--stop-agents",
            cwd=ROOT, stderr=log, env={**os.environ, **environ},
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_S):
            await process.wait()


async def record_sidecar(place: Path, *, tasks: int) -> Tape:
    """Start a sidecar on an empty directory, have it do ``tasks`` one after the other, and end it in order."""
    root = place / "root"
    root.mkdir()
    recording = Recording(root, place / "tape", only=STATE, skip=CLONES, sync_delay_us=500)
    async with running(MarkingHub(recording=recording)) as hub, sidecar(place, hub, recording.environ):
        for task in range(1, tasks + 1):
            await (_cancelled(hub, task) if task % CANCELLED_EVERY == 0 else _finished(hub, task))
    return recording.tape()


async def _finished(hub: FakeHub, task: int) -> None:
    await hub.assign(spec(task))
    result = await hub.expect(frames.Result, task)
    assert result.outcome == "succeeded", result


async def _cancelled(hub: MarkingHub, task: int) -> None:
    await hub.assign(spec(task, {"do": "question", "text": "which?"}))
    await hub.until(lambda: [asked for asked in hub.of(frames.Question) if asked.task == task])
    obeyed = len(hub.of(frames.Ok))
    await hub.send(frames.Control(cid=task, task=TaskId(task), lease_epoch=LeaseEpoch(1), kind=ControlKind.CANCEL))
    await hub.expect(frames.Ok, obeyed + 1)
    assert hub.recording is not None
    hub.recording.mark(f"control of t-{task} obeyed", obeyed=task)
    assert (await hub.expect(frames.Result, task)).outcome == "cancelled"
