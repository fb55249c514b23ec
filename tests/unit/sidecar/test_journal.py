"""The journal on a real disk and on one that forgets."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.ids import ControlKind, LeaseEpoch, Outcome, TaskId
from hub.wire.frames import Control
from hub.wire.spec import RunError, Spec, Usage
from sidecar import journal as journal_module
from sidecar.core import records
from sidecar.core.records import Key
from sidecar.core.results import Delivered, compose
from sidecar.journal import Journal, JournalError, JournalFull
from sidecar.runtimes.base import RunEnd
from tests.support.fake_disk import FakeDisk

PATH = Path("journal")


def ids(task: int = 1, epoch: int = 1) -> dict:
    return {"task": TaskId(task), "lease_epoch": LeaseEpoch(epoch)}


def control(cid: int, task: int = 1) -> records.Commanded:
    return records.Commanded(**ids(task), control=Control(cid=cid, **ids(task), kind=ControlKind.CANCEL))


def whole_life() -> list[records.JournalRecord]:
    result = compose(
        Key(TaskId(1), LeaseEpoch(1)), Outcome.FAILED, RunError(cls="retryable", code="x"), delivered=Delivered(), output="o"
    )
    end = RunEnd(ok=False, code="agent_failed", text="ünïcode", usage=Usage(input=3, cost=0.5))
    return [
        records.Assigned(**ids()),
        records.Accepted(**ids(), spec=Spec(**ids(), title="t", metadata={"deep": [1, {"x": None}]})),
        records.Woken(**ids(), run_id="1-1-0", round=0, cause="first"),
        records.Exited(**ids(), run_id="1-1-0", stopped="deadline", end=end),
        records.Pushed(**ids(), head_sha="a" * 40, salvage_ref=None),
        records.Concluded(**ids(), result=result),
        control(9),
        records.Parked(**ids()),
    ]


def live(journal: Journal) -> list[records.JournalRecord]:
    return list(journal.records)[1:]


def test_what_was_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal")
    for record in whole_life():
        first.append(record)
    first.close()
    second = Journal(tmp_path / "journal")
    assert live(second) == whole_life()
    second.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    Journal(tmp_path / "journal").close()
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 30])
def test_a_torn_tail_is_cut_and_what_follows_is_readable(keep: int) -> None:
    disk = FakeDisk()
    first = Journal(PATH, disk)
    first.append(records.Assigned(**ids(1)))
    disk.nodes[PATH].written += b"\x00\x00\x00\x40torn by a power cut, not even a checksum fits here..."
    disk.crash(keep)
    second = Journal(PATH, disk)
    second.append(records.Assigned(**ids(2)))
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(1)), records.Assigned(**ids(2))]


def test_a_damaged_last_record_ends_the_journal_there() -> None:
    disk = FakeDisk()
    first = Journal(PATH, disk)
    first.append(records.Assigned(**ids(1)))
    first.append(records.Assigned(**ids(2)))
    disk.nodes[PATH].written[-2] ^= 1
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(1))]


def test_every_append_is_synced_before_it_returns() -> None:
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    for n, record in enumerate(whole_life(), start=1):
        journal.append(record)
        disk.crash()
        assert len(live(Journal(PATH, disk))) == n
        journal = Journal(PATH, disk)


def test_a_full_disk_is_a_fault_that_says_so_and_the_record_can_come_again() -> None:
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    disk.full = True
    with pytest.raises(JournalFull) as fault:
        journal.append(records.Assigned(**ids()))
    assert (fault.value.code, fault.value.retryable) == ("journal_full", True)
    disk.full = False
    journal.append(records.Assigned(**ids()))
    assert len(live(Journal(PATH, disk))) == 1


def test_what_there_was_room_for_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a record with whole ones behind it is damage, and the agent would not start again."""
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    journal.append(records.Assigned(**ids()))
    kind = type(disk.open(PATH))
    whole = kind.write

    def half(self: Any, data: bytes) -> int:
        return whole(self, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", half)
        with pytest.raises(JournalFull):
            journal.append(records.Assigned(**ids(2)))
    journal.append(records.Assigned(**ids(3)))
    assert len(live(Journal(PATH, disk))) == 2


def test_a_sync_that_fails_for_want_of_room_is_never_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    monkeypatch.setattr(disk, "sync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(JournalError) as fault:
        journal.append(records.Assigned(**ids()))
    assert not fault.value.retryable


def test_settled_assignments_leave_when_the_file_is_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_BYTES", 2000)
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    journal.append(records.Assigned(**ids(999)))
    for task in range(1, 100):
        journal.append(records.Assigned(**ids(task)))
        journal.append(control(task, task))
        journal.append(records.Removed(**ids(task)))
        assert len(disk.nodes[PATH].written) < 4000
    disk.crash()
    after = Journal(PATH, disk)
    assert live(after) == [records.Assigned(**ids(999))]
    seen = next(iter(after.records))
    assert isinstance(seen, records.Seen)
    assert seen.cids == tuple(range(1, 100)), "a control repeated by the hub is still recognised"


def test_ids_of_controls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(PATH, FakeDisk())
    for cid in range(records.SEEN_CONTROLS + 10):
        journal.append(control(cid))
    seen = next(iter(journal.records))
    assert isinstance(seen, records.Seen)
    assert len(seen.cids) == records.SEEN_CONTROLS
    assert seen.cids[-1] == records.SEEN_CONTROLS + 9


def test_a_crash_during_compaction_keeps_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_BYTES", 10)
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    journal.append(records.Assigned(**ids(1)))
    journal.append(records.Assigned(**ids(2)))
    monkeypatch.setattr(disk, "replace", lambda new, path: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(JournalError):
        journal.append(records.Removed(**ids(2)))
    disk.crash()
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(1))]


@pytest.mark.parametrize("at", [0, 1, 3, 5, 8, 30])
def test_a_flipped_bit_with_records_after_it_is_a_fault_and_never_an_empty_journal(at: int) -> None:
    disk = FakeDisk()
    first = Journal(PATH, disk)
    for task in (1, 2, 3):
        first.append(records.Assigned(**ids(task)))
    disk.nodes[PATH].written[at] ^= 0x20
    damaged = bytes(disk.nodes[PATH].written)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"journal is damaged at byte 0.*journal\.damaged.*delete it"):
            Journal(PATH, disk)
    assert bytes(disk.nodes[PATH].written) == damaged, "nothing is repaired by forgetting it"
    assert disk.nodes[PATH.with_suffix(".damaged")].durable == damaged


def test_a_tail_of_zeros_is_a_torn_one() -> None:
    disk = FakeDisk()
    Journal(PATH, disk).append(records.Assigned(**ids(1)))
    disk.nodes[PATH].written += bytes(4096)
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(1))]


def plant(disk: FakeDisk, body: bytes) -> None:
    disk.nodes[PATH].written += struct.pack(">II", len(body), zlib.crc32(body)) + body


def test_an_assignment_with_a_record_nobody_can_read_is_given_up_and_the_others_live_on() -> None:
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    for task in (1, 2):
        journal.append(records.Assigned(**ids(task)))
    plant(
        disk,
        orjson.dumps({"k": "exited", **ids(1), "run_id": "r", "stopped": None, "end": {"ok": True, "usage": {"cost": None}}}),
    )
    plant(disk, orjson.dumps({"k": "from the future"}))
    journal.append(records.Parked(**ids(1)))
    again = Journal(PATH, disk)
    assert live(again) == [records.Assigned(**ids(2))]
    again.append(records.Assigned(**ids(1)))
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(2)), records.Assigned(**ids(1))], "given up once, not for ever"


@pytest.mark.parametrize(
    "end",
    [
        RunEnd(ok=True, usage=Usage(cost=float("inf"))),
        RunEnd(ok=True, usage=Usage(input=2**53 + 1)),
        RunEnd(ok=True, usage=Usage(input=2**70)),
        RunEnd(ok=True, text="\udcff"),
        RunEnd(ok=True, text="x" * records.RECORD_BYTES),
    ],
)
def test_what_could_not_be_read_back_is_refused_before_anything_is_written(end: RunEnd) -> None:
    disk = FakeDisk()
    journal = Journal(PATH, disk)
    with pytest.raises(records.RecordError):
        journal.append(records.Exited(**ids(), run_id="r", stopped=None, end=end))
    assert not disk.nodes[PATH].written
    journal.append(records.Assigned(**ids(1)))
    assert live(Journal(PATH, disk)) == [records.Assigned(**ids(1))]
