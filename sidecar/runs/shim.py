"""One process per run, between the sidecar and the agent: ``python -m sidecar.runs.shim RUN_DIR``. Standard library only.

It owns the agent's pipes, spools what the agent prints, holds the run's deadline and, whatever happens, leaves no
process behind. It lives in a session of its own and survives the sidecar, which re-attaches through the socket; so a
deadline holds although the sidecar is dead, frozen, or the machine slept.

The run directory::

    run.json       the order: mark, argv, cwd, env, stdin, keep_stdin, soft_boot_us, hard_boot_us, wall_boot_us, spool_bytes,
                   become (whom to run the agent as: [uid, gid]; null: as the shim)
    lock           flock'ed while this process lives: nobody else may run this run; says who it is (pid, start, boot)
    events.jsonl   the spool: {"n", "out"|"err": line}, {"n", "sent": key}, {"n", "dropped": count}; its last line is
                   the terminal event
    sock           commands in, spool lines out, both as JSON lines

Commands: ``{"cmd": "events"}`` streams the spool from its beginning and follows it; ``extend {soft_boot_us,
hard_boot_us}``; ``stop {grace_ms}``; ``send {key, text}`` writes to the agent's stdin, once per key; ``status``.

The terminal event, written and fsynced only when every process of the run is dead: ``{"exit", "signal", "stopped":
deadline|wall|stop|signal|null, "unrun", "dropped", "swept", "error"}`` (the one exception: ``error`` names survivors that
cannot be killed, such as processes stuck in a dead file system). Exit codes of the shim itself: 0 the terminal
event is written, 3 the lock is taken, 4 the directory was used before.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from sidecar.runs import sweep
from sidecar.runs.account import as_ids
from sidecar.runs.clock import boot_name, boot_us
from sidecar.runs.spool import Lines, Spool

LOCKED, USED = 3, 4
WALL_GRACE_US = 10_000_000
"""Between the soft and the hard stop of a run that used up its wall-clock budget."""
SURVIVORS_US = 30_000_000
"""How long a run whose agent has ended is held open for processes that do not die, though never beyond its deadline."""
_SWEEP_S = 3.0
_END_OF_TIME = 1 << 62
_TICK_S = 1.0  # asyncio sleeps on a clock that stops with the machine: the deadline is looked at this often


class Shim:
    """The run of one order, from spawn to the terminal event."""

    def __init__(self, order: dict[str, Any], spool: Spool) -> None:
        self._order = order
        self._spool = spool
        self._soft_us: int = order["soft_boot_us"]
        self._hard_us: int = order["hard_boot_us"]
        self._wall_us: int = order["wall_boot_us"]
        self._stopped: str | None = None
        self._kill_us: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._changed = asyncio.Event()
        self._pipes: list[Lines] = []
        self._stdin: asyncio.WriteTransport | None = None
        self._sent: dict[str, str] = {}
        self._streams: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run the order to its terminal event."""
        server = await asyncio.start_unix_server(self._serve, path="sock", limit=1 << 20)
        _announce()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop, "signal", 5_000_000)
        terminal = await self._live()
        self._spool.close(terminal)
        if self._streams:  # followers get the last lines; a stuck one does not hold the lock for ever
            await asyncio.wait(self._streams, timeout=2.0)
        server.close()

    async def _live(self) -> dict[str, Any]:
        if boot_us() >= self._soft_us:  # the lease this run was started under is over: another may hold the task
            return {"exit": None, "signal": None, "stopped": "deadline", "unrun": True, "swept": 0, "error": None}
        try:
            await self._spawn()
        except (OSError, ValueError) as fault:
            return {"exit": 127, "signal": None, "stopped": None, "unrun": True, "swept": 0, "error": str(fault)[:1000]}
        watch = asyncio.create_task(self._hold_deadline(), name="deadline")
        await self._exited.wait()
        watch.cancel()
        swept, survivors = await self._leave_nobody()
        for pipe in self._pipes:  # all writers are dead, so this is the time to read what is left
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await pipe.ended.wait()
        code = self._child.returncode if self._child else None
        died = code is not None and code < 0
        return {
            "exit": None if died else code,
            "signal": -code if died and code is not None else None,
            "stopped": self._stopped,
            "unrun": False,
            "swept": swept,
            "error": f"survivors: {' '.join(str(process.pid) for process in survivors)}" if survivors else None,
        }

    async def _leave_nobody(self) -> sweep.Swept:
        """Kill everything; as long as somebody is left, the run is not over."""
        give_up_us = min(boot_us() + SURVIVORS_US, self._hard_us)
        killed = 0
        while True:
            swept = self._kill_everything()
            killed += swept.killed
            if not swept.survivors or boot_us() >= give_up_us:
                return sweep.Swept(killed, swept.survivors)
            await asyncio.sleep(_TICK_S)

    async def _spawn(self) -> None:
        order, loop, parent = self._order, asyncio.get_running_loop(), os.getpid()

        argv, env, become = order["argv"], {**order["env"], sweep.RUN_VARIABLE: order["mark"]}, order["become"]
        if become:
            argv, env = as_ids(become[0], become[1], argv, env, dies_with_parent=True)

        def in_child() -> None:
            sweep.die_with_parent()
            if os.getppid() != parent:  # the shim died before the line above could take effect
                os._exit(1)

        wants_stdin = bool(order["stdin"]) or order["keep_stdin"]
        pipes = {name: os.pipe() for name in ("out", "err")}
        for _, writer in pipes.values():
            os.fchown(writer, become[0] if become else -1, -1)  # or the agent could not open its own /dev/stderr
        try:
            self._child = subprocess.Popen(  # noqa: ASYNC220  it must be reaped by our own SIGCHLD handler, with the orphans
                argv,
                cwd=order["cwd"],
                env=env,
                stdin=subprocess.PIPE if wants_stdin else subprocess.DEVNULL,  # an open, silent stdin hangs some agents
                stdout=pipes["out"][1],
                stderr=pipes["err"][1],
                start_new_session=True,
                preexec_fn=in_child,  # noqa: PLW1509  this process has one thread
            )
        finally:
            for _, writer in pipes.values():
                os.close(writer)
        self._pipes += [await self._read(os.fdopen(reader, "rb"), name) for name, (reader, _) in pipes.items()]
        if wants_stdin:
            self._stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, self._child.stdin)
            self._stdin.write("".join([order["stdin"], *self._sent.values()]).encode())
            if not order["keep_stdin"]:
                self._stdin.close()
        self._collect()  # it may have died before the handler could see it

    async def _read(self, pipe: IO[bytes], name: str) -> Lines:
        loop = asyncio.get_running_loop()
        _, lines = await loop.connect_read_pipe(lambda: Lines(lambda line: self._spool.add({name: line})), pipe)
        return lines

    async def _hold_deadline(self) -> None:
        while True:
            now = boot_us()
            if self._stopped is None and now >= self._soft_us:
                # Half of what is left until the hard deadline is for the agent to end, half for the sweep to finish.
                self._stop("deadline", max(0, self._hard_us - now) // 2)
            if self._stopped is None and now >= self._wall_us:
                self._stop("wall", WALL_GRACE_US)
            if now >= min(self._kill_us or self._hard_us, self._hard_us):
                self._kill_everything()
            ahead = [at - now for at in (self._soft_us, self._wall_us, self._kill_us, self._hard_us) if at and at > now]
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([_TICK_S, *(us / 1e6 for us in ahead)])):
                    await self._changed.wait()

    def _stop(self, why: str, grace_us: int) -> None:
        """Ask the agent to end; the hard stop follows after the grace, and never later than the hard deadline."""
        kill_us = boot_us() + grace_us
        self._kill_us = kill_us if self._kill_us is None else min(self._kill_us, kill_us)
        self._stopped = self._stopped or why
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, signal.SIGTERM)
        self._changed.set()

    def _kill_everything(self) -> sweep.Swept:
        me, mark = os.getpid(), self._order["mark"]

        def picked(table: list[sweep.Process]) -> list[sweep.Process]:
            found = {*sweep.descendants(me, table), *sweep.marked(mark, table)}
            return [process for process in found if process.pid != me]

        # This process exists for one run only: every child, born or adopted, is to die.
        find = sweep.Members(picked).find
        return sweep.kill_all(find, near=sweep.children, collect=lambda _: self._collect(), within_s=_SWEEP_S)

    def _collect(self) -> None:
        """Reap every dead child, ours and adopted, and notice when the agent is among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._child is not None and pid == self._child.pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                self._exited.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client; a line that is no command is ignored, since a newer sidecar may know more than this process."""
        stream: asyncio.Task[None] | None = None
        try:
            while line := await reader.readline():
                with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    command = json.loads(line)
                    if command["cmd"] == "events" and stream is None:
                        stream = asyncio.create_task(self._follow(writer), name="events")
                        self._streams.add(stream)
                        stream.add_done_callback(self._streams.discard)
                    else:
                        self._obey(command, writer)
        except (OSError, ValueError):
            pass  # the client went away in the middle of a line, or sent an absurdly long one
        finally:
            if stream is not None:
                stream.cancel()
            writer.close()

    def _obey(self, command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        match command["cmd"]:
            case "extend":  # never shortens: an old answer may arrive after a newer one
                self._soft_us = max(self._soft_us, _number(command["soft_boot_us"]))
                self._hard_us = max(self._hard_us, _number(command["hard_boot_us"]))
                self._changed.set()
            case "stop":
                self._stop("stop", _number(command["grace_ms"]) * 1000)
            case "send":
                self._send(str(command["key"]), str(command["text"]))
            case "status":
                status = {"stopped": self._stopped, "soft_boot_us": self._soft_us, "hard_boot_us": self._hard_us}
                writer.write(json.dumps({"status": status}).encode() + b"\n")

    def _send(self, key: str, text: str) -> None:
        """Write to the agent's stdin; what comes before the agent is there waits for it."""
        if key in self._sent or not self._order["keep_stdin"]:
            return
        self._sent[key] = text
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(text.encode())
        self._spool.add({"sent": key})

    async def _follow(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with contextlib.aclosing(self._spool.follow()) as chunks:
                async for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
        writer.close()


def _number(value: Any) -> int:
    """A number of a command. The end of time is the same for all that lies beyond: no number may stop the watch over deadlines."""
    return min(int(value), _END_OF_TIME)


def _announce() -> None:
    """Tell the sidecar, over stdout, that the lock is held and the socket listens; then let go of the pipe."""
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def main(directory: Path) -> int:
    """Take the run directory and run it."""
    os.chdir(directory)
    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return LOCKED
    me = sweep.look(os.getpid())
    if me is not None and not os.fstat(lock).st_size:  # whoever must end a shim that does not answer finds it by this
        os.write(lock, f"{me.pid} {me.started} {boot_name()}".encode())
    order = json.loads(Path("run.json").read_text())
    sweep.become_subreaper()

    async def run() -> None:
        await Shim(order, Spool(Path("events.jsonl"), order["spool_bytes"])).run()

    try:
        asyncio.run(run())
    except FileExistsError:
        return USED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
