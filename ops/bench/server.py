"""A hub for a benchmark: the real ``hub.app`` in a child process, on loopback, in a directory of its own that goes with it.

Run as a program (``python ops/bench/server.py DIR SETTINGS``) it is that child: it prints its address once it is ready and drains at
SIGTERM. What it consumes is read from ``/proc``, so the benchmarks need Linux.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOP_S = 20.0
UNLIMITED = {"dampers": dict.fromkeys(("light_per_min", "normal_per_min", "connect_per_min"), 0)}
"""For a benchmark in which one identity is a whole fleet."""


PAGE_CACHE_KIB = 65_536
"""Of each connection to the store, as the product has it. A soak takes less, or this would fill for as long as the store grows."""


class Hub:
    """A hub's process: where it is, who may come in, and what it has used so far. It may be ended and started again in its place."""

    def __init__(self, data_dir: Path, settings: Mapping[str, Any]) -> None:
        self.data_dir = data_dir
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()
        self.token = (data_dir / "operator.token").read_text("utf-8").strip()
        self.admin_token = (data_dir / "admin.token").read_text("utf-8").strip()
        self.agent_token = (data_dir / "agent.token").read_text("utf-8").strip()

    def start(self) -> None:
        """Start it (again, on its port) and wait until it is ready."""
        settings = {**self._settings, "listen": {"port": self.port}}
        argv = [sys.executable, __file__, str(self.data_dir), json.dumps(settings)]
        self._process = process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        self.pid = process.pid
        self.url = process.stdout.readline().strip()
        if not self.url.startswith("http"):
            raise RuntimeError(f"the hub did not start in {self.data_dir}")
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def kill(self) -> None:
        """SIGKILL, as a power cord would."""
        assert self._process is not None
        self._process.kill()
        self._gone()

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def _gone(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.wait()
        self._process.stdout.close()

    def memory_kib(self) -> int:
        """Memory that is the process's own (RssAnon)."""
        return self._status("RssAnon")

    def peak_kib(self) -> int:
        """Most memory it ever had at once (VmHWM)."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:"))


def cpu_us(pid: int) -> float:
    """Processor time of all living threads of a process, in microseconds."""
    return sum(int(path.read_text("utf-8").split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


@contextmanager
def running_hub(
    settings: Mapping[str, Any] = UNLIMITED, *, prepare: Callable[[Path], None] = lambda _root: None
) -> Iterator[Hub]:
    """A hub on a free port, with default settings but for these; afterwards it is stopped and its directory removed.

    ``prepare`` is called with the directory before the hub starts in it.
    """
    root = Path(tempfile.mkdtemp(prefix="agentcom-bench-"))
    try:
        prepare(root)
        hub = Hub(root, settings)
        try:
            yield hub
        finally:
            hub.terminate()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def allow_many_sockets() -> None:
    """A thousand agents need more open files than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    from hub.app import run  # noqa: PLC0415  only the child needs a hub
    from hub.settings import HubSettings  # noqa: PLC0415  only the hub's process needs them
    from hub.store import sqlite  # noqa: PLC0415  only the hub's process needs them
    from hub.telemetry import log  # noqa: PLC0415  only the hub's process needs them

    log.configure(level="warning")
    allow_many_sockets()
    given = json.loads(sys.argv[2])
    sqlite.PRAGMAS = {**sqlite.PRAGMAS, "cache_size": -given.pop("page_cache_kib", PAGE_CACHE_KIB)}
    settings = HubSettings.model_validate({**given, "data_dir": Path(sys.argv[1])})
    return run(settings, lambda url: print(url, flush=True), local_agents=True)


if __name__ == "__main__":
    sys.exit(main())
