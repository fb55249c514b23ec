"""What escapes its run: orphans without a mark, zombies, frozen shims, fork chains, commands of a killed sidecar.

Adoption is a property of a whole process, so each scene is played by a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hub.ids import LeaseEpoch, TaskId
from sidecar.app import own_state
from sidecar.core.records import Key
from sidecar.remains import set_aside
from sidecar.runs import sweep
from sidecar.runs.clock import boot_us
from sidecar.runs.run import Run, read_spool
from sidecar.runs.runner import LOST, Deadline, Order, Runner
from sidecar.runtimes.base import Launch
from tests.integration.test_shim import gone, is_gone, shim_of

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable
ENV = {"PATH": os.environ["PATH"]}

SCENE = """
import asyncio, contextlib, os, signal, sys
from pathlib import Path
from sidecar.runs import sweep
from sidecar.app import own_state
from sidecar.runs.children import CHILDREN
from sidecar.runs.clock import boot_us
from sidecar.runs.process import run
from sidecar.runs.runner import Deadline, Order, Runner
from sidecar.runtimes.base import Launch
home = Path(sys.argv[1])
ENV = {"PATH": os.environ["PATH"]}
ESCAPE = "setsid env -i PATH=$PATH sh -c 'echo $$ > %s; exec sleep 90' & sleep 0.3" % (home / "escaped")
def below():
    return [process for process in sweep.processes() if process.parent == os.getpid()]
async def scene():
    CHILDREN.adopt()
    collecting = asyncio.create_task(CHILDREN.keep_collecting())
{body}
    collecting.cancel()
asyncio.run(scene())
"""


def play(home: Path, body: str) -> subprocess.Popen[str]:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return subprocess.Popen(
        [PYTHON, "-c", SCENE.replace("{body}", indented), str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


async def played(home: Path, body: str) -> list[str]:
    scene = play(home, body)
    said, _ = await asyncio.to_thread(scene.communicate, timeout=40)
    assert scene.returncode == 0
    return said.split()


async def test_an_orphan_of_a_check_that_emptied_its_environment_dies_with_the_check(tmp_path: Path) -> None:
    await played(tmp_path, 'await run(("sh", "-c", ESCAPE), env=ENV, timeout_s=20)')
    assert is_gone(int((tmp_path / "escaped").read_text()))


async def test_a_check_spares_the_orphan_that_another_living_check_may_own(tmp_path: Path) -> None:
    body = """
other = asyncio.create_task(run(("sh", "-c", "(%s); sleep 2" % ESCAPE), env=ENV, timeout_s=20))
await run(("sleep", "1"), env=ENV, timeout_s=20)
escaped = int((home / "escaped").read_text())
print(sweep.look(escaped).parent == os.getpid() and sweep.look(escaped).state not in "ZX")
await other
print(sweep.look(escaped) is None)
"""
    assert await played(tmp_path, body) == ["True", "True"]


async def test_adopted_children_are_collected_and_no_status_is_stolen(tmp_path: Path) -> None:
    body = """
script = "setsid env -i sleep 0.2 & sleep 0.05; exit 3"
done = await asyncio.gather(*(run(("sh", "-c", script), env=ENV, timeout_s=20, sweep=False) for _ in range(10)))
print({one.returncode for one in done} == {3})
for _ in range(100):
    if not below():
        break
    await asyncio.sleep(0.05)
print(len(below()))
"""
    assert await played(tmp_path, body) == ["True", "0"]


async def test_what_outlives_a_dead_shim_without_a_mark_is_swept_before_the_run_counts_as_lost(tmp_path: Path) -> None:
    body = """
now = boot_us()
launch = Launch(argv=("sh", "-c", ESCAPE + "; echo up; sleep 90"), env=ENV)
runner = Runner(home / "runs")
order = Order(launch=launch, cwd=home, prompt="", prompt_file=home / "prompt.md", wall_s=60)
live = await runner.start("1-1-0", order, Deadline(now + 30_000_000, now + 32_000_000))
async for event in live.events():
    if event.get("out") == "up":
        os.kill(int((home / "runs/1-1-0/lock").read_text().split()[0]), signal.SIGKILL)
print(event["stopped"])
print(sweep.look(int((home / "escaped").read_text())) is None)
await runner.close()
"""
    assert await played(tmp_path, body) == ["lost", "True"]


async def test_commands_of_a_killed_sidecar_are_killed_when_its_state_is_owned_again(tmp_path: Path) -> None:
    body = """
with own_state(home / "state"):
    script = "setsid sleep 91 & echo $! > %s; exec sleep 92" % (home / "pids")
    asyncio.get_running_loop().call_later(0.7, lambda: print(os.getpid(), flush=True))
    await run(("sh", "-c", script), env=ENV, timeout_s=60)
"""
    bystander = await asyncio.create_subprocess_exec("sleep", "93", env={**ENV, "AGENTCOM_JOB": "[0-0:1234]"})
    scene = play(tmp_path, body)
    assert scene.stdout is not None
    await asyncio.to_thread(scene.stdout.readline)
    (command,) = [process.pid for process in sweep.processes() if process.parent == scene.pid and process.state not in "ZX"]
    child = int((tmp_path / "pids").read_text())
    scene.kill()
    await asyncio.to_thread(scene.wait)
    scene.stdout.close()
    assert not is_gone(command)
    with own_state(tmp_path / "state"):
        assert await gone(command)
        assert await gone(child)
        assert bystander.returncode is None
        assert not is_gone(bystander.pid)
    bystander.kill()
    await bystander.wait()


FROZEN = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); time.sleep(90)"


async def frozen(tmp_path: Path, *, wall_s: float = 60, hard_s: float = 60) -> tuple[Runner, Run, int]:
    """A run whose agent has stopped its own shim."""
    now = boot_us()
    runner = Runner(tmp_path / "runs")
    order = Order(
        launch=Launch(argv=(PYTHON, "-S", "-c", FROZEN), env=ENV),
        cwd=tmp_path,
        prompt="",
        prompt_file=tmp_path / "prompt.md",
        wall_s=wall_s,
    )
    run = await runner.start("1-1-0", order, Deadline(int(now + hard_s * 1e6) - 1, int(now + hard_s * 1e6)))
    shim = shim_of(runner, "1-1-0")
    while (process := sweep.look(shim)) is not None and process.state != "T":
        await asyncio.sleep(0.02)
    return runner, run, shim


@pytest.mark.parametrize("bound", ["stop", "wall", "deadline"])
async def test_a_frozen_shim_is_killed_with_its_agent_once_a_bound_is_over(
    tmp_path: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.runs.run.OVERDUE_S", 1.0)
    monkeypatch.setattr("sidecar.runs.run.WALL_GRACE_US", 0)
    monkeypatch.setattr("sidecar.runs.run.UNKNOWN_US", 0)
    runner, run, shim = await frozen(tmp_path, wall_s=2 if bound == "wall" else 60, hard_s=2 if bound == "deadline" else 60)
    agents = sweep.marked(str(runner.directory("1-1-0").resolve()), sweep.processes())
    assert len(agents) == 1
    if bound == "stop":
        run.stop(100)
    began = time.monotonic()
    events = [event async for event in run.events()]
    assert events[-1] == LOST
    assert time.monotonic() - began < 10
    assert is_gone(shim)
    assert await gone(agents[0].pid)
    await runner.close()


async def test_a_stranger_with_a_frozen_shim_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.runs.run.OVERDUE_S", 1.0)
    runner, _, shim = await frozen(tmp_path)
    assert await asyncio.wait_for(runner.stop_strangers(set()), 10) == ["1-1-0"]
    assert is_gone(shim)
    assert not runner.directory("1-1-0").exists()
    await runner.close()


async def test_an_extended_run_is_not_given_up_by_a_sidecar_that_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds it knows the deadline it was started with; how far it was moved since only the shim knows."""
    monkeypatch.setattr("sidecar.runs.run.OVERDUE_S", 1.0)
    monkeypatch.setattr("sidecar.runs.run.UNKNOWN_US", 0)
    now = boot_us()
    runner = Runner(tmp_path / "runs")
    order = Order(launch=Launch(argv=("sleep", "4"), env=ENV), cwd=tmp_path, prompt="", prompt_file=tmp_path / "p", wall_s=60)
    run = await runner.start("1-1-0", order, Deadline(now + 1_000_000, now + 1_200_000))
    run.extend(Deadline(now + 30_000_000, now + 31_000_000))
    await run.connect()
    await asyncio.sleep(0)
    run.close()
    events = [event async for event in runner.attach("1-1-0").events()]
    assert (events[-1]["exit"], events[-1]["stopped"]) == (0, None)
    await runner.close()


CHAIN = """
import os, time
if os.fork() == 0:
    os.setsid()
    for _ in range(20_000):
        if os.fork():
            os._exit(0)
    os._exit(0)
time.sleep(0.2)
"""


async def test_a_chain_of_short_lived_processes_is_outrun(tmp_path: Path) -> None:
    now = boot_us()
    runner = Runner(tmp_path / "runs")
    order = Order(
        launch=Launch(argv=(PYTHON, "-S", "-c", CHAIN), env=ENV),
        cwd=tmp_path,
        prompt="",
        prompt_file=tmp_path / "prompt.md",
        wall_s=60,
    )
    run = await runner.start("1-1-0", order, Deadline(now + 30_000_000, now + 32_000_000))
    events = [event async for event in run.events()]
    assert (events[-1]["exit"], events[-1]["error"]) == (0, None)
    mark = str(runner.directory("1-1-0").resolve())
    assert [process for process in sweep.marked(mark, sweep.processes()) if process.state not in "ZX"] == []
    await runner.close()


async def test_a_sweep_says_who_survived_it(monkeypatch: pytest.MonkeyPatch) -> None:
    child = await asyncio.create_subprocess_exec("sleep", "94")
    process = sweep.look(child.pid)
    assert process is not None
    monkeypatch.setattr(sweep, "kill", lambda *_: None)  # as if it were stuck in the kernel
    swept = await asyncio.to_thread(sweep.kill_all, lambda: [process], within_s=0.1)
    assert [survivor.pid for survivor in swept.survivors] == [child.pid]
    child.kill()
    await child.wait()


def spool_of(tmp_path: Path, lines: int) -> Path:
    directory = tmp_path / "runs" / "1-1-0"
    directory.mkdir(parents=True)
    terminal = f'{{"n": {lines + 1}, "exit": 0, "signal": null, "stopped": null, "unrun": false, "dropped": 0}}\n'
    text = "".join(f'{{"n": {n}, "out": "ab"}}\n' for n in range(1, lines + 1))
    (directory / "events.jsonl").write_text(text + terminal)
    return directory


async def longest_stall(work: Any) -> float:
    """Seconds for which nothing else could run while ``work`` was awaited."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    beats = asyncio.create_task(beat())
    await work
    beats.cancel()
    return longest


async def test_a_long_spool_does_not_hold_up_the_beat(tmp_path: Path) -> None:
    directory = spool_of(tmp_path, 300_000)
    alone = await asyncio.to_thread(_seconds, read_spool, directory)

    async def read() -> None:
        assert len([event async for event in Run(directory).events()]) == 300_001

    assert await longest_stall(read()) < alone * 0.7
    assert await longest_stall(Runner(directory.parent).forget(Key(TaskId(1), LeaseEpoch(1)))) < alone * 0.7
    assert not directory.exists()


def _seconds(call: Any, *args: Any) -> float:
    began = time.monotonic()
    call(*args)
    return time.monotonic() - began


def test_an_empty_install_id_is_made_anew_and_kept(tmp_path: Path) -> None:
    (tmp_path / "install_id").write_text("")
    with own_state(tmp_path) as first:
        assert len(first) == 32
    with own_state(tmp_path) as again:
        assert again == first


def test_workspaces_nobody_ever_worked_in_are_set_aside(tmp_path: Path) -> None:
    for name in ("t-1-1", "t-2-1", "t-3-1"):
        (tmp_path / name / "tree").mkdir(parents=True)
    (tmp_path / "t-1-1" / "workspace.json").write_text("{}")
    (tmp_path / "t-2-1" / "removing.json").write_text("{}")
    (aside,) = set_aside(tmp_path)
    assert sorted(home.name for home in tmp_path.iterdir()) == sorted([aside.name, "t-1-1", "t-2-1"])
    assert set_aside(tmp_path) == [aside], "what could not be removed is tried again"
