"""A hub for a benchmark: the real ``hub.app`` in a child process, on loopback, in a directory of its own that goes with it.

Run as a program (``python ops/bench/server.py DIR``) it is that child: it prints its address once it is ready and drains at SIGTERM.
What it consumes is read from ``/proc``, so the benchmarks need Linux.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_S = 20.0


class Hub:
    """A running hub: where it is, who may come in, and what it has used so far."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.url = process.stdout.readline().strip()
        if not self.url.startswith("http"):
            raise RuntimeError(f"the hub did not start in {data_dir}")
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.token = (data_dir / "operator.token").read_text("utf-8").strip()
        self.admin_token = (data_dir / "admin.token").read_text("utf-8").strip()
        self.agent_token = (data_dir / "agent.token").read_text("utf-8").strip()

    def memory_kib(self) -> int:
        """Memory that is the process's own (RssAnon)."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def cpu_us(pid: int) -> float:
    """Processor time of all living threads of a process, in microseconds."""
    return sum(int(path.read_text("utf-8").split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


@contextmanager
def running_hub(prepare: Callable[[Path], None] = lambda _root: None) -> Iterator[Hub]:
    """A hub with default settings, but for rate limits, on a free port; afterwards it is stopped and its directory removed.

    ``prepare`` is called with the directory before the hub starts in it.
    """
    root = Path(tempfile.mkdtemp(prefix="agentcom-bench-"))
    prepare(root)
    with subprocess.Popen([sys.executable, __file__, str(root)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Hub(process, root)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            shutil.rmtree(root, ignore_errors=True)


def allow_many_sockets() -> None:
    """A thousand agents need more open files than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    from hub.app import run  # noqa: PLC0415  only the child needs a hub
    from hub.settings import HubSettings  # noqa: PLC0415  only the hub's process needs them
    from hub.telemetry import log  # noqa: PLC0415  only the hub's process needs them

    log.configure(level="warning")
    allow_many_sockets()
    unlimited = dict.fromkeys(("light_per_min", "normal_per_min", "connect_per_min"), 0)  # one identity is a whole fleet here
    settings = HubSettings.model_validate({"data_dir": Path(sys.argv[1]), "listen": {"port": 0}, "dampers": unlimited})
    return run(settings, lambda url: print(url, flush=True), local_agents=True)


if __name__ == "__main__":
    sys.exit(main())
