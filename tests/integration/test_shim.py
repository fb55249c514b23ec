"""Shims as real processes: nothing survives a run, whatever dies first, and a run happens once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId
from sidecar.core.records import Key
from sidecar.runs import sweep
from sidecar.runs.clock import boot_us
from sidecar.runs.runner import LOST, Deadline, Order, Run, RunFault, Runner, is_terminal, mark
from sidecar.runtimes.base import Launch

FAR_S = 30.0
PYTHON = sys.executable


@pytest.fixture
def runner(tmp_path: Path):
    runner = Runner(tmp_path / "runs")
    yield runner
    for directory in (tmp_path / "runs").glob("*"):
        sweep.kill_run(mark(directory))


def deadline(soft_s: float = FAR_S, hard_s: float | None = None) -> Deadline:
    now = boot_us()
    return Deadline(int(now + soft_s * 1e6), int(now + (hard_s or soft_s + 2) * 1e6))


def order(tmp_path: Path, script: str, *, keep_stdin: bool = False, wall_s: float = 60, stdin: str = "") -> Order:
    launch = Launch(argv=(PYTHON, "-S", "-c", script), env={"PATH": os.environ["PATH"]}, stdin=stdin, keep_stdin=keep_stdin)
    return Order(launch=launch, cwd=tmp_path, prompt="do it", prompt_file=tmp_path / "prompt.md", wall_s=wall_s)


async def collect(run: Run) -> list[dict]:
    return [event async for event in run.events()]


def lines(events: list[dict]) -> list[str]:
    return [event["out"] for event in events if "out" in event]


async def first_line(run: Run) -> tuple[str, asyncio.Task]:
    """The first output line, and a task that collects everything from the beginning on another connection."""
    async with contextlib.aclosing(run.events()) as events:
        async for event in events:
            if "out" in event:
                run.close()
                return event["out"], asyncio.create_task(collect(run))
    raise AssertionError("no output")


def is_gone(pid: int) -> bool:
    now = sweep.look(pid)
    return now is None or now.state in "ZX"


async def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while not is_gone(pid) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return is_gone(pid)


ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(child.pid, flush=True)
{end}
"""
CLEAN_ENVIRONMENT = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "300"], start_new_session=True, env={"PATH": os.environ["PATH"]})
print(child.pid, flush=True)
time.sleep(300)
"""


async def test_a_run_reports_its_output_and_its_exit_code(runner: Runner, tmp_path: Path) -> None:
    script = "import sys; print('hello'); print('oops', file=sys.stderr); sys.exit(3)"
    run = await runner.start("1-1-0", order(tmp_path, script), deadline())
    events = await collect(run)
    assert {"out": "hello"} in events
    assert {"err": "oops"} in events
    assert events[-1]["exit"] == 3
    assert events[-1]["stopped"] is None
    await runner.close()


async def test_descendants_in_sessions_of_their_own_die_with_a_clean_exit(runner: Runner, tmp_path: Path) -> None:
    run = await runner.start("1-1-0", order(tmp_path, ORPHAN.format(end="")), deadline())
    events = await collect(run)
    assert events[-1]["exit"] == 0
    assert events[-1]["swept"] == 1
    assert is_gone(int(lines(events)[0]))
    await runner.close()


async def test_descendants_die_when_the_agent_is_killed(runner: Runner, tmp_path: Path) -> None:
    script = ORPHAN.format(end="os.kill(os.getpid(), 9)")
    events = await collect(await runner.start("1-1-0", order(tmp_path, script), deadline()))
    assert events[-1]["signal"] == signal.SIGKILL
    assert is_gone(int(lines(events)[0]))
    await runner.close()


async def test_an_agent_that_ignores_sigterm_is_dead_by_the_hard_deadline(runner: Runner, tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    hold = deadline(1.0, 1.6)
    events = await collect(await runner.start("1-1-0", order(tmp_path, script), hold))
    assert events[-1]["stopped"] == "deadline"
    assert events[-1]["signal"] == signal.SIGKILL
    assert boot_us() <= hold.hard_us + 300_000  # the rest is how long this test takes to hear of it
    await runner.close()


async def test_an_agent_may_end_by_itself_at_the_soft_deadline(runner: Runner, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        "print('up', flush=True); time.sleep(300)"
    )
    events = await collect(await runner.start("1-1-0", order(tmp_path, script), deadline(0.8, 10)))
    assert lines(events) == ["up", "saved"]
    assert (events[-1]["exit"], events[-1]["stopped"]) == (0, "deadline")
    await runner.close()


async def test_an_extended_deadline_lets_the_run_finish_and_a_shorter_one_is_ignored(runner: Runner, tmp_path: Path) -> None:
    run = await runner.start("1-1-0", order(tmp_path, "import time; time.sleep(1.2); print('done')"), deadline(0.6, 0.9))
    run.extend(deadline(FAR_S))
    run.extend(deadline(0.1))
    events = await collect(run)
    assert lines(events) == ["done"]
    assert events[-1]["stopped"] is None
    await runner.close()


async def test_the_wall_clock_budget_holds_although_the_lease_goes_on(runner: Runner, tmp_path: Path) -> None:
    run = await runner.start("1-1-0", order(tmp_path, "import time; time.sleep(300)", wall_s=0.5), deadline())
    events = await collect(run)
    assert events[-1]["stopped"] == "wall"
    await runner.close()


async def test_a_shim_started_past_its_deadline_exits_unrun(runner: Runner, tmp_path: Path) -> None:
    touched = tmp_path / "ran"
    run = await runner.start("1-1-0", order(tmp_path, f"open({str(touched)!r}, 'w')"), deadline(-1.0))
    events = await collect(run)
    assert events[-1]["unrun"] is True
    assert events[-1]["stopped"] == "deadline"
    assert not touched.exists()
    await runner.close()


async def test_a_program_that_does_not_exist_is_reported(runner: Runner, tmp_path: Path) -> None:
    launch = Launch(argv=("no-such-program-anywhere",), env={})
    run = await runner.start(
        "1-1-0", Order(launch=launch, cwd=tmp_path, prompt="", prompt_file=tmp_path / "p", wall_s=5), deadline()
    )
    terminal = (await collect(run))[-1]
    assert terminal["unrun"] is True
    assert "no-such-program-anywhere" in terminal["error"]
    await runner.close()


async def test_stop_ends_the_agent_and_everything_below_it(runner: Runner, tmp_path: Path) -> None:
    run = await runner.start("1-1-0", order(tmp_path, CLEAN_ENVIRONMENT), deadline())
    pid, rest = await first_line(run)
    run.stop(1000)
    events = await rest
    assert events[-1]["stopped"] == "stop"
    assert is_gone(int(pid))
    await runner.close()


async def test_a_second_shim_for_a_run_is_refused(runner: Runner, tmp_path: Path) -> None:
    run = await runner.start("1-1-0", order(tmp_path, "import time; time.sleep(300)"), deadline())
    with pytest.raises(RunFault) as refused:
        await runner.start("1-1-0", order(tmp_path, "print('twice')"), deadline())
    assert refused.value.code == "run_exists"
    directory = runner.directory("1-1-0")
    again = await asyncio.create_subprocess_exec(PYTHON, "-m", "sidecar.runs.shim", str(directory), cwd=Path.cwd())
    assert await again.wait() == 3
    run.stop(0)
    await collect(run)
    late = await asyncio.create_subprocess_exec(PYTHON, "-m", "sidecar.runs.shim", str(directory), cwd=Path.cwd())
    assert await late.wait() == 4
    await runner.close()


async def test_text_reaches_the_agent_once_per_key(runner: Runner, tmp_path: Path) -> None:
    script = "import sys\nfor line in sys.stdin:\n  print('got', line.strip(), flush=True)\n  if 'end' in line: break"
    run = await runner.start("1-1-0", order(tmp_path, script, keep_stdin=True), deadline())
    for key, text in (("a", "one\n"), ("a", "one\n"), ("b", "end\n")):
        run.send(key, text)
    events = await collect(run)
    assert lines(events) == ["got one", "got end"]
    assert [event["sent"] for event in events if "sent" in event] == ["a", "b"]
    await runner.close()


async def test_stdin_without_text_is_at_its_end(runner: Runner, tmp_path: Path) -> None:
    script = "import sys; print(repr(sys.stdin.read()))"
    silent = await collect(await runner.start("1-1-0", order(tmp_path, script), deadline()))
    assert lines(silent) == ["''"]
    given = await collect(await runner.start("1-1-1", order(tmp_path, script, stdin="the prompt"), deadline()))
    assert lines(given) == ["'the prompt'"]
    await runner.close()


async def test_a_flood_of_output_is_bounded_and_its_end_is_kept(runner: Runner, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sidecar.runs.runner.SPOOL_BYTES", 20_000)
    script = "for n in range(200_000): print('line', n)\nprint('the end')"
    events = await collect(await runner.start("1-1-0", order(tmp_path, script), deadline()))
    assert events[-1]["dropped"] > 100_000
    assert lines(events)[0] == "line 0"
    assert lines(events)[-1] == "the end"
    assert (runner.directory("1-1-0") / "events.jsonl").stat().st_size < 400_000
    await runner.close()


FLOOD_THEN_ASK = """
import json, sys
for n in range(20_000): print("line", n)
print(json.dumps({"question": {"qid": "q", "text": "go on?"}}), flush=True)
print("got", sys.stdin.readline().strip())
for n in range(20_000): print("line", n)
"""


async def asked(run: Run) -> None:
    async with contextlib.aclosing(run.events()) as events:
        async for event in events:
            if "question" in event.get("out", ""):
                return
    raise AssertionError("the question was lost")


async def test_a_question_is_heard_live_and_again_though_the_spool_is_full(runner: Runner, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sidecar.runs.runner.SPOOL_BYTES", 20_000)
    run = await runner.start("1-1-0", order(tmp_path, FLOOD_THEN_ASK, keep_stdin=True), deadline())
    await asyncio.wait_for(asked(run), 10)
    again = runner.attach("1-1-0")
    await asyncio.wait_for(asked(again), 10)
    run.send("a", "yes\n")
    await run.connect()
    events = await collect(run)
    assert events[-1]["exit"] == 0
    said = lines(await collect(runner.attach("1-1-0")))
    question = next(at for at, line in enumerate(said) if "question" in line)
    assert said[0] == "line 0"
    assert said[question + 1 :], "what came last comes last, also from a file that was written out of order"
    assert said[-1] == "line 19999"
    assert any("dropped" in event and "exit" not in event for event in await collect(runner.attach("1-1-0")))
    await runner.close()


async def test_a_killed_shim_leaves_the_words_of_its_agent(runner: Runner, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sidecar.runs.runner.SPOOL_BYTES", 20_000)
    run = await runner.start("1-1-0", order(tmp_path, FLOOD_THEN_ASK, keep_stdin=True), deadline())
    await asyncio.wait_for(asked(run), 10)
    os.kill(shim_of(runner, "1-1-0"), signal.SIGKILL)
    events = await collect(runner.attach("1-1-0"))
    assert "question" in lines(events)[-1]
    assert events[-1] == LOST
    await runner.close()


async def test_a_follower_gets_what_the_file_has_no_room_for(runner: Runner, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sidecar.runs.runner.SPOOL_BYTES", 1000)
    script = "import time\nfor n in range(300): print('x' * 2000, n, flush=True); time.sleep(0.001)"
    run = await runner.start("1-1-0", order(tmp_path, script), deadline())
    assert len(lines(await collect(run))) == 300
    assert len(lines(await collect(runner.attach("1-1-0")))) < 100
    await runner.close()


async def test_a_json_line_is_kept_whole_and_other_long_lines_are_cut(runner: Runner, tmp_path: Path) -> None:
    script = "import json; print(json.dumps({'outcome': 'succeeded', 'message': 'é' * 100_000})); print('y' * 100_000)"
    said = lines(await collect(await runner.start("1-1-0", order(tmp_path, script), deadline())))
    assert json.loads(said[0])["outcome"] == "succeeded"
    assert [len(line) for line in said[1:]] == [65_536, 100_000 - 65_536]
    await runner.close()


async def test_the_newest_line_is_kept_however_long_it_is_when_written_down(
    runner: Runner, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("sidecar.runs.runner.SPOOL_BYTES", 1000)
    script = "print('before'); print('\\x01' * 60_000, end='')"
    run = await runner.start("1-1-0", order(tmp_path, script), deadline())
    await collect(run)
    assert lines(await collect(runner.attach("1-1-0")))[-1] == "\x01" * 60_000
    await runner.close()


async def test_a_run_that_cannot_be_written_down_is_a_fault_and_a_strange_prompt_is_not(runner: Runner, tmp_path: Path) -> None:
    strange = Launch(argv=(PYTHON, "\udcff"), env={})
    with pytest.raises(RunFault) as refused:
        await runner.start(
            "1-1-0", Order(launch=strange, cwd=tmp_path, prompt="", prompt_file=tmp_path / "p", wall_s=5), deadline()
        )
    assert refused.value.code == "no_shim"
    fine = replace(order(tmp_path, "print(1)"), prompt="a \udcff b")
    assert lines(await collect(await runner.start("1-1-1", fine, deadline()))) == ["1"]
    assert (tmp_path / "prompt.md").read_text() == "a ? b"
    await runner.close()


STARTER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from sidecar.runs.clock import boot_us
from sidecar.runs.runner import Deadline, Order, Runner
from sidecar.runtimes.base import Launch
async def main():
    now = boot_us()
    launch = Launch(argv=({python!r}, "-S", "-c", {script!r}), env={{}})
    order = Order(launch=launch, cwd=Path({cwd!r}), prompt="", prompt_file=Path({cwd!r}) / "prompt.md", wall_s=60)
    await Runner(Path({runs!r})).start("7-1-0", order, Deadline(now + {soft_us}, now + {hard_us}))
    print("started", flush=True)
    await asyncio.sleep(300)
asyncio.run(main())
"""


def start_elsewhere(runner: Runner, tmp_path: Path, script: str, soft_s: float = FAR_S, hard_s: float = FAR_S + 2):
    """A process that starts a run, for us to kill; returns once the run goes on."""
    source = STARTER.format(
        root=str(Path.cwd()), python=PYTHON, script=script, cwd=str(tmp_path), runs=str(runner.root),
        soft_us=int(soft_s * 1e6), hard_us=int(hard_s * 1e6),
    )  # fmt: skip
    process = subprocess.Popen([PYTHON, "-c", source], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


async def test_a_run_survives_its_sidecar_and_is_found_again(runner: Runner, tmp_path: Path) -> None:
    script = "import time; print('one', flush=True); time.sleep(1.0); print('two', flush=True)"
    starter = await asyncio.to_thread(start_elsewhere, runner, tmp_path, script)
    await asyncio.to_thread(kill, starter)
    events = await collect(runner.attach("7-1-0"))
    assert lines(events) == ["one", "two"]
    assert events[-1]["exit"] == 0
    assert await collect(runner.attach("7-1-0")) == events, "a finished run reads the same as a living one"


async def test_a_sidecar_without_standard_streams_starts_runs(runner: Runner, tmp_path: Path) -> None:
    source = STARTER.format(
        root=str(Path.cwd()), python=PYTHON, script="print('up')", cwd=str(tmp_path), runs=str(runner.root),
        soft_us=FAR_S * 1e6, hard_us=FAR_S * 1e6,
    )  # fmt: skip
    source = source.replace('print("started", flush=True)\n    await asyncio.sleep(300)', "pass")
    # After the loop took its own: the next files opened get the numbers 0 to 2.
    closing = (
        "    import os\n    from sidecar.runs.runner import _above_standard\n    for fd in (0, 1, 2): os.close(fd)\n"
        "    null = _above_standard(os.open(os.devnull, os.O_RDONLY))\n    assert null > 2 and not os.get_inheritable(null)\n"
    )
    closed = source.replace("    now =", f"{closing}    now =")
    starter = await asyncio.create_subprocess_exec(PYTHON, "-c", closed)
    assert await starter.wait() == 0
    assert lines(await collect(runner.attach("7-1-0"))) == ["up"]


async def test_the_deadline_holds_when_the_sidecar_is_dead(runner: Runner, tmp_path: Path) -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    starter = await asyncio.to_thread(start_elsewhere, runner, tmp_path, script, 1.0, 1.5)
    await asyncio.to_thread(kill, starter)
    events = await collect(runner.attach("7-1-0"))
    assert events[-1]["stopped"] == "deadline"
    assert is_gone(int(lines(events)[0]))


def shim_of(runner: Runner, run_id: str) -> int:
    """The pid of a run's shim: the process whose argv names the run directory."""
    for process in sweep.processes():
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            if b"sidecar.runs.shim" in argv and str(runner.directory(run_id)).encode() in argv:
                return process.pid
    raise AssertionError("no shim")


async def test_a_killed_shim_takes_its_agent_along_and_its_orphans_are_swept(runner: Runner, tmp_path: Path) -> None:
    script = ORPHAN.format(end="print(os.getpid(), flush=True); time.sleep(300)")
    run = await runner.start("1-1-0", order(tmp_path, script), deadline())
    orphan, rest = await first_line(run)
    await asyncio.sleep(0.2)
    os.kill(shim_of(runner, "1-1-0"), signal.SIGKILL)
    events = await rest
    assert events[-1] == LOST
    assert await gone(int(lines(events)[1])), "PDEATHSIG reaches the agent itself"
    assert await gone(int(orphan)), "the sweep finds the rest by its environment"
    assert (await collect(runner.attach("1-1-0")))[-1] == LOST
    await runner.close()


async def test_a_run_whose_shim_never_started_is_lost_and_can_never_start(runner: Runner, tmp_path: Path) -> None:
    directory = runner.directory("1-1-0")
    directory.mkdir(parents=True)
    (directory / "run.json").write_text("{}")
    assert await collect(runner.attach("1-1-0")) == [LOST]
    late = await asyncio.create_subprocess_exec(
        PYTHON, "-m", "sidecar.runs.shim", str(directory), cwd=Path.cwd(), stderr=asyncio.subprocess.DEVNULL
    )
    assert await late.wait() != 0
    assert is_terminal((await collect(runner.attach("1-1-0")))[-1])


async def test_runs_that_no_journal_owns_are_stopped(runner: Runner, tmp_path: Path) -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    mine = await runner.start("1-1-0", order(tmp_path, script), deadline())
    strange = await runner.start("9-4-0", order(tmp_path, script), deadline())
    pid, rest = await first_line(strange)
    assert await runner.stop_strangers({"1-1-0"}) == ["9-4-0"]
    assert is_gone(int(pid))
    assert not runner.directory("9-4-0").exists()
    mine_pid, _rest = await first_line(mine)
    assert not is_gone(int(mine_pid))
    await rest
    await runner.forget(Key(TaskId(1), LeaseEpoch(1)))
    assert is_gone(int(mine_pid))
    await _rest
    await runner.close()


async def test_a_run_directory_may_lie_deep(tmp_path: Path) -> None:
    runner = Runner(tmp_path.joinpath(*["a-rather-long-directory-name"] * 6))
    events = await collect(await runner.start("1-1-0", order(tmp_path, "print('deep')"), deadline()))
    assert lines(events) == ["deep"]
    await runner.close()
