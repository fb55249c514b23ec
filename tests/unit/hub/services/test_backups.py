"""When a backup is due, what is remembered of it, and what the doctor says of its age."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hub.ids import BackupReason, FindingState, Micros
from hub.services import integrity as service
from hub.services.backups import VERIFIED_AT, Backups, judge_age, judge_broken, span
from hub.services.integrity import EVERY_S, Checked, Integrity, judge_checked
from hub.store import integrity
from hub.store.backups import Backup
from hub.store.copying import BackupFailed
from hub.store.sqlite import SqliteStore
from hub.telemetry.metrics import Metrics
from tests.support.doors import NOW, MemoryTx, backup, open_memory

SECOND = 1_000_000
DAY = 86_400 * SECOND


@dataclass
class FakeShelf:
    """Makes what it is told, or fails; ``hold`` keeps it at work."""

    shelved: list[Backup] = field(default_factory=list)
    made: list[BackupReason] = field(default_factory=list)
    fault: Exception | None = None
    hold: threading.Event | None = None

    def newest(self) -> Backup | None:
        return self.shelved[0] if self.shelved else None

    def every(self) -> list[Backup]:
        return self.shelved

    def create(self, reason: BackupReason, now: Micros, *, over: Any) -> Backup:
        while self.hold is not None and not self.hold.wait(0.01):
            if over():
                raise BackupFailed("the hub is stopping")
        self.made.append(reason)
        if self.fault is not None:
            raise self.fault
        self.shelved.insert(0, backup(created_at=now, verified_at=now, reason=reason))
        return self.shelved[0]

    def find(self, name: str) -> Backup:
        return next(one for one in self.shelved if one.name == name)

    def verify(self, one: Backup, now: Micros) -> Backup:
        return replace(one, fault="page 7 is broken")


class Bench:
    """The service with nothing real around it but rows."""

    def __init__(self) -> None:
        self.connection = open_memory()
        self.shelf = FakeShelf()
        self.metrics = Metrics()
        self.events: list[Any] = []
        self.now = NOW
        self.backups = Backups(self.shelf, self, self, self.metrics, 86_400.0, lambda: Micros(self.now))  # type: ignore[arg-type]

    async def record(self, operation: Any) -> Any:
        return operation(MemoryTx(self.connection, self.now, self.events))

    async def one(self, query: str, /, **params: Any) -> Any:
        return MemoryTx(self.connection, self.now, self.events).one(query, **params)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def bench() -> Any:
    made = Bench()
    yield made
    made.connection.close()


async def test_a_hub_without_one_makes_one(bench: Bench) -> None:
    await bench.backups.if_due()
    assert bench.shelf.made == [BackupReason.SCHEDULED]
    assert [(event.kind, event.actor) for event in bench.events] == [("backup.made", "hub")]
    assert (await bench.one("meta_get", key=VERIFIED_AT))["value"] == str(NOW)
    assert bench.metric("agentcom_backup_timestamp_seconds") == NOW / SECOND
    assert bench.metric("agentcom_backup_bytes") == 4096


@pytest.mark.parametrize(("age_us", "due"), [(-DAY, True), (0, False), (DAY * 9 // 10, False), (DAY, True), (9 * DAY, True)])
async def test_one_is_made_when_the_newest_is_too_old(bench: Bench, age_us: int, due: bool) -> None:
    bench.shelf.shelved = [backup(created_at=NOW - age_us)]
    await bench.backups.if_due()
    assert bool(bench.shelf.made) is due


async def test_hubs_that_began_together_do_not_write_together() -> None:
    benches = [Bench() for _ in range(20)]
    assert len({one.backups._early for one in benches}) > 10
    for one in benches:
        one.connection.close()


async def test_a_failure_is_counted_and_raised(bench: Bench) -> None:
    bench.shelf.fault = BackupFailed("no room")
    with pytest.raises(BackupFailed):
        await bench.backups.if_due()
    assert bench.metric("agentcom_backup_failures_total") == 1
    assert bench.events == []
    bench.shelf.fault = None
    await bench.backups.if_due()
    assert bench.metric("agentcom_backup_failures_total") == 1


async def test_two_who_ask_at_once_get_the_same_one(bench: Bench) -> None:
    bench.shelf.hold = threading.Event()
    asked = [asyncio.create_task(bench.backups.create(BackupReason.ASKED, who)) for who in ("ann", "bob")]
    await asyncio.sleep(0)
    bench.shelf.hold.set()
    first, second = await asyncio.gather(*asked)
    assert first is second
    assert bench.shelf.made == [BackupReason.ASKED]


async def test_a_hub_that_ends_gives_up_the_one_it_makes(bench: Bench) -> None:
    bench.shelf.hold = threading.Event()
    making = asyncio.create_task(bench.backups.create(BackupReason.ASKED))
    await asyncio.sleep(0)
    await bench.backups.close()
    with pytest.raises(BackupFailed, match="stopping"):
        await making
    assert bench.shelf.made == []


async def test_one_that_is_not_whole_is_told_and_never_called_verified(bench: Bench) -> None:
    bench.shelf.shelved = [backup()]
    found = await bench.backups.verify(backup().name, "ann")
    assert found.fault == "page 7 is broken"
    assert [(event.kind, event.actor) for event in bench.events] == [("backup.verified", "ann")]
    assert await bench.one("meta_get", key=VERIFIED_AT) is None


@pytest.mark.parametrize(
    ("age_days", "hub_days", "state"),
    [
        (0, 100, FindingState.OK),
        (1.9, 100, FindingState.OK),
        (2.1, 100, FindingState.WARN),
        (None, 1.9, FindingState.OK),
        (None, 2.1, FindingState.FAIL),
    ],
)
def test_the_doctor_judges_the_age_by_the_period(age_days: float | None, hub_days: float, state: FindingState) -> None:
    shelved = [] if age_days is None else [backup(created_at=NOW - int(age_days * DAY))]
    found = judge_age(shelved, 86_400.0, Micros(NOW), hub_days * 86_400)
    assert (found.check, found.state) == ("backup_age", state)
    assert (found.fix is None) is (state is FindingState.OK)


def test_what_is_no_backup_counts_for_nothing_and_is_told() -> None:
    broken = Backup(path=Path("/srv/backups/20270115T080000Z"), manifest=None, fault="it has no manifest.json")
    assert judge_age([broken], 86_400.0, Micros(NOW), 10 * 86_400).state is FindingState.FAIL
    (told,) = judge_broken([broken, backup()])
    assert "no manifest" in told.found


@pytest.mark.parametrize(
    ("checked", "state"),
    [
        (None, FindingState.OK),
        (Checked(at=NOW, took_s=1.0, faults=[]), FindingState.OK),
        (Checked(at=NOW - int(EVERY_S * 2.5) * SECOND, took_s=1.0, faults=[]), FindingState.WARN),
        (Checked(at=NOW, took_s=1.0, faults=["page 7"]), FindingState.FAIL),
    ],
)
def test_the_doctor_tells_the_last_check_of_everything(checked: Checked | None, state: FindingState) -> None:
    assert judge_checked(checked, NOW).state is state


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 seconds"), (119, "119 seconds"), (121, "2 minutes"), (7199, "119 minutes"), (200_000, "2 days")],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


async def test_a_check_during_which_the_log_grows_without_end_is_given_up(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "hub.db")
    try:
        await store.begin_epoch()
        checks = Integrity(store.path, bench, bench, bench.metrics, lambda: Micros(bench.now))  # type: ignore[arg-type]
        monkeypatch.setattr(integrity, "_PROGRESS_OPS", 1)
        assert await checks.check() is not None
        monkeypatch.setattr(service, "WAL_BYTES", store.log_bytes() - 1)
        assert await checks.check() is None
    finally:
        await store.close()
