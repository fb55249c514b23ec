"""A disk that really fills under a hub at work: people are refused, agents finish, no lease ends, and nothing acknowledged is lost.

Mounts a file system of 24 MiB for the data directory, so it wants to be asked for: root and ``SYSTEM_TESTS=1``.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hub.ids import LeaseEpoch, Outcome, Phase, TaskId, Verdict
from hub.wire import frames
from tests.support.living_hub import PATIENT, LivingHub, living_hub
from tests.support.peer import Peer

pytestmark = [
    pytest.mark.skipif(os.environ.get("SYSTEM_TESTS") != "1", reason="asks for SYSTEM_TESTS=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system"),
]

AGENTS = int(os.environ.get("FULL_DISK_AGENTS", "8"))
DISK = f"{24 + AGENTS // 4}m"
RESERVE_MB = 2 + AGENTS // 16
TERM_S = 6.0 + AGENTS / 20
SETTINGS = PATIENT | {
    "AGENTCOM_LEASE_TERM_S": str(TERM_S),
    "AGENTCOM_LEASE_BEAT_S": str(TERM_S / 6),
    "AGENTCOM_STORAGE_RESERVE_MB": str(RESERVE_MB),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system where the hub keeps its data."""
    place = tmp_path / "hub"
    place.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("mounts are not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(ballast: Path) -> None:
    """Leave not a byte."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def submit(hub: LivingHub, title: str) -> httpx2.Response:
    return hub.ask("POST", "/tasks", json={"title": title, "description": "x" * 2000, "hold": True})


def renewed(peer: Peer, task: int) -> bool:
    """Whether the hub renews this peer's lease now."""
    held = frames.LeaseBeat(task=TaskId(task), lease_epoch=LeaseEpoch(1), phase=Phase.WOKEN)
    peer.say(frames.Beat(id=7, sent_mono=1, leases=(held,)))
    (answer,) = peer.hear(frames.Beaten).leases
    return bool(answer.ok)


def report(peer: Peer, task: int) -> Verdict:
    """The verdict on a result with some output."""
    done: dict[str, Any] = {"outcome": Outcome.SUCCEEDED, "output": "y" * 20_000, "sha256": f"{task:064x}"}
    peer.say(frames.Result(id=9, task=TaskId(task), lease_epoch=LeaseEpoch(1), **done))
    return peer.hear(frames.ResultAck).verdict


def test_people_are_refused_and_agents_finish_on_a_full_disk(tmp_path: Path, disk: Path) -> None:
    with living_hub(tmp_path, SETTINGS) as hub:
        at_work = [hub.working(f"a{i}") for i in range(AGENTS)]
        acked = [f"t-{task}" for _, task in at_work]
        fill(disk / "ballast")

        deadline = time.monotonic() + 60
        while (answer := submit(hub, "idea")).is_success:  # what the log has room for is taken, until the disk is looked at
            acked.append(answer.json()["id"])
            assert time.monotonic() < deadline
        refused = [answer] + [submit(hub, "idea") for _ in range(20)]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(507, "disk_full")}
        assert "free some space" in answer.json()["hint"]
        assert answer.headers["retry-after"]

        until = time.monotonic() + 2 * TERM_S  # longer than any lease lives unrenewed
        while time.monotonic() < until:
            assert all(renewed(peer, task) for peer, task in at_work)
            time.sleep(0.2)
        ready = hub.http.get(f"{hub.url}/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["disk_full"])
        assert [report(peer, task) for peer, task in at_work] == [Verdict.APPLIED] * AGENTS
        print(
            f"{AGENTS} of {AGENTS} results landed on a full disk, no lease ended; {len(refused)} submissions were refused with 507"
        )
        assert submit(hub, "still full").status_code == 507

        (disk / "ballast").unlink()
        deadline = time.monotonic() + 15
        while not (answer := submit(hub, "space is back")).is_success:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)
        acked.append(answer.json()["id"])
        assert (disk / "hub.db.reserve").stat().st_size == RESERVE_MB * 2**20
        for peer, _ in at_work:
            peer.close()
    with closing(sqlite3.connect(disk / "hub.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {f"t-{n}": state for n, state in store.execute("SELECT n, state FROM task")}
        moves = [to for (to,) in store.execute("SELECT to_state FROM event WHERE kind = 'hub.space' ORDER BY seq")]
        expired = store.execute("SELECT count(*) FROM event WHERE cause = 'lease_expired'").fetchone()
    assert set(acked) <= found.keys()
    assert [found[f"t-{task}"] for _, task in at_work] == ["done"] * AGENTS
    assert moves[0] in ("low", "full") and moves[-1] == "ample"
    assert expired == (0,)
