"""A hub as its own process, with its store on disk and its log in a file: spoken to over real sockets, and looked at from outside.

What a test of refusals needs: :meth:`LivingHub.state` tells whether anything committed has changed, :meth:`LivingHub.complaints`
whether the log holds anything a refusal must not leave there.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from hub.wire import frames
from tests.support.peer import Peer

READY_S = 30.0
STOP_S = 15.0
PATIENT = {
    # nothing may expire while a test looks at what is committed
    "AGENTCOM_LEASE_TERM_S": "3600",
    "AGENTCOM_LEASE_BEAT_S": "600",
    "AGENTCOM_LEASE_ACCEPT_S": "600",
    "AGENTCOM_LEASE_GRACE_S": "3600",
    "AGENTCOM_STORAGE_RESERVE_MB": "1",
}
NO_NETWORK = {
    # an address in a case is refused or fails at once: no test leaves this machine
    "https_proxy": "http://127.0.0.1:9",
    "GIT_SSH_COMMAND": "false",
}
_VOLATILE = {"agent": {"last_seen_at"}}
"""Columns that say when somebody was heard, not what was decided."""
_OF_CHORES = {
    "event": "kind NOT LIKE 'backup.%' AND kind <> 'hub.space'",
    "meta": "key NOT IN ('backup_verified_at', 'integrity')",
    "store_sample": "FALSE",
}
"""Which rows of these tables are not written by a hub for itself, whenever it likes."""


class LivingHub:
    """Use :func:`living_hub`."""

    def __init__(self, root: Path, settings: Mapping[str, str] = PATIENT) -> None:
        self.root = root
        self._settings = settings
        self.data_dir = root / "hub"
        self.log = root / "hub.log"
        self.tokens: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self._read = 0
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._sentinel: Peer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        argv = [
            "-m",
            "hub.cli",
            "server",
            "start-dev",
            "--port",
            str(self.port),
            "--data-dir",
            str(self.data_dir),
            "--json-logs",
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
        env |= {**self._settings, **NO_NETWORK}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([sys.executable, *argv], env=env, stdout=subprocess.DEVNULL, stderr=log)
        self.http = httpx2.Client(base_url=f"{self.url}/api/v1", timeout=30)
        deadline = time.monotonic() + READY_S
        while not self._is_ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the hub is not ready"
            time.sleep(0.05)
        self.tokens = {name: (self.data_dir / f"{name}.token").read_text().strip() for name in ("admin", "operator", "agent")}
        self._sentinel = self.peer("sentinel", quiet=True)

    def _is_ready(self) -> bool:
        with suppress(httpx2.TransportError):
            return self.http.get(f"{self.url}/readyz").status_code == 200
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; :meth:`start` starts it again on the same data."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.http.close()

    def stop(self) -> None:
        """End it in order; its exit code."""
        assert self._process is not None
        if self._sentinel is not None:
            self._sentinel.close()
        self.http.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()

    def issue(self, name: str, *scopes: str, **fields: Any) -> str:
        """A token's text, known by this name from now on."""
        issued = self.made("POST", "/tokens", {"name": name, "scopes": list(scopes)} | fields)
        self.tokens[name] = issued["token"]
        return issued["token"]

    def enrol(self, name: str, *, install_id: str, agents: list[str]) -> str:
        """A machine's token, known by this name from now on."""
        secret = self.secrets.setdefault(name, secrets.token_urlsafe(32))
        self.tokens["code of " + name] = self.made("POST", "/enrolments", {})["code"]
        body = {"install_id": install_id, "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(), "agents": agents}
        answer = self.ask("POST", "/enrol", token="code of " + name, json=body)
        assert answer.is_success, answer.text
        self.tokens[name] = f"ac_{answer.json()['token_id']}_{secret}"
        return self.tokens[name]

    # ── speaking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, method: str, path: str, *, token: str | None = "admin", **request: Any) -> httpx2.Response:
        """One request under ``/api/v1`` with the token of this name."""
        headers = dict(request.pop("headers", None) or {})
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {self.tokens[token]}")
        return self.http.request(method, path, headers=headers, **request)

    def made(self, method: str, path: str, body: Any = None) -> Any:
        """The document of a request that must succeed."""
        answer = self.ask(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def peer(self, agent: str, *, quiet: bool = False, **fields: Any) -> Peer:
        """A greeted sidecar."""
        peer = Peer(self.port, self.tokens["agent"])
        peer.greet(agent, quiet=quiet, **fields)
        return peer

    def working(self, agent: str) -> tuple[Peer, int]:
        """A sidecar whose agent holds an accepted task, and that task's number; its fence is 1."""
        peer = self.peer(agent)
        self.made("POST", "/tasks", {"title": f"work for {agent}", "assign_to": agent, "repo": None})
        assign = peer.hear(frames.Assign)
        peer.say(frames.Accept(id=2, task=assign.task, lease_epoch=assign.lease_epoch))
        peer.hear(frames.Accepted)
        return peer, assign.task

    def until(self, condition: Callable[[], bool], what: str, *, within_s: float = 10.0) -> None:
        """Wait until something is true of the hub; an assertion error says what never came."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"never within {within_s:g} s: {what}"
            time.sleep(0.05)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, str]:
        """A digest of every committed row, by table, after everything said so far has been decided."""
        assert self._sentinel is not None
        self._sentinel.beat()
        with closing(sqlite3.connect(f"file:{self.data_dir / 'hub.db'}?mode=ro", uri=True)) as store:
            store.row_factory = sqlite3.Row
            tables = [row["name"] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            return {table: _digest(table, store.execute(_rows_of(table))) for table in tables}

    def resident_bytes(self) -> int:
        """What its process holds in memory now."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def complaints(self) -> list[str]:
        """What the log says since the last look that a refusal must not leave there: errors and tracebacks."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            news = log.read()
            self._read = log.tell()
        return [line for line in news.decode(errors="replace").splitlines() if _is_complaint(line)]


def _rows_of(table: str) -> str:
    return f"SELECT * FROM {table} WHERE {_OF_CHORES.get(table, 'TRUE')}"


def _digest(table: str, rows: Iterator[sqlite3.Row]) -> str:
    drop = _VOLATILE.get(table, frozenset())
    kept = [repr([(name, row[name]) for name in row.keys() if name not in drop]) for row in rows]  # noqa: SIM118  a Row's keys
    return hashlib.sha256("\n".join(sorted(kept)).encode(errors="surrogatepass")).hexdigest()


def _is_complaint(line: str) -> bool:
    try:
        level = json.loads(line)["level"]
    except (ValueError, KeyError, TypeError):
        return bool(line.strip())  # not a line of the log's own: a traceback, a warning of the interpreter
    return level not in ("debug", "info", "warning") or "Traceback" in line


@contextmanager
def living_hub(root: Path, settings: Mapping[str, str] = PATIENT) -> Iterator[LivingHub]:
    """A hub that is ready, with these variables in its environment; ended in order."""
    hub = LivingHub(root, settings)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()
