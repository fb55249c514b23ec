"""Who is refused on a disk that fills: people's submissions, never what agents at work say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hub.core import commands as c
from hub.core.errors import Refused
from hub.ids import SpaceState, TaskType
from hub.services.room import Room, judge_space
from hub.store.reserve import MEBIBYTE, Space
from tests.support.conductor import stage


class FakeReserve:
    """A disk that is as full as it is told to be, and counts who asks."""

    size_bytes = 10 * MEBIBYTE

    def __init__(self, state: SpaceState = SpaceState.AMPLE, free_bytes: int = 100 * MEBIBYTE) -> None:
        self.state = state
        self.free_bytes = free_bytes
        self.looks = 0

    def look(self) -> Space:
        self.looks += 1
        return Space(self.state, self.free_bytes, self.size_bytes, self.size_bytes)

    keep = look


def room_on(disk: FakeReserve) -> Room:
    reserve: Any = disk
    return Room(reserve)


def submit(*types: TaskType) -> c.Submit:
    task = c.NewTask(title="t", spec="{}", body_hash="")
    return c.Submit(tasks=tuple(replace(task, type=kind) for kind in types))


def test_an_ample_disk_is_not_looked_at() -> None:
    disk = FakeReserve()
    room = room_on(disk)
    room.admit(submit(TaskType.TASK))
    room.admit_body(8 * MEBIBYTE)
    assert (disk.looks, room.degraded()) == (0, [])


@pytest.mark.parametrize("state", [SpaceState.LOW, SpaceState.FULL])
def test_people_are_refused_with_the_cure_and_everybody_else_goes_on(state: SpaceState) -> None:
    room = room_on(FakeReserve(state, free_bytes=3 * MEBIBYTE))
    with pytest.raises(Refused) as refused:
        room.admit(submit(TaskType.CHECK, TaskType.TASK))
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (507, "disk_full", 10)
    assert "3 MiB free" in refused.value.message
    assert "agentcom db health" in refused.value.hint
    room.admit(submit(TaskType.CHECK))
    for command in (c.Cancel(n=1), c.Tick(), c.Requeue(n=1)):
        room.admit(command)
    assert room.degraded() == ["disk_full"]


def test_a_refusal_looks_again_so_that_space_helps_at_once() -> None:
    disk = FakeReserve(SpaceState.LOW)
    room = room_on(disk)
    with pytest.raises(Refused):
        room.admit_growth()

    def look() -> Space:
        disk.state = SpaceState.AMPLE
        return Space(disk.state, 0, 0, 0)

    disk.look = look  # type: ignore[method-assign]
    room.admit_growth()


def test_a_body_takes_no_more_than_half_of_what_is_kept() -> None:
    room = room_on(FakeReserve(SpaceState.FULL, free_bytes=8 * MEBIBYTE))
    room.admit_body(3 * MEBIBYTE)
    with pytest.raises(Refused):
        room.admit_body(3 * MEBIBYTE + 1)


async def test_a_change_is_an_event_once() -> None:
    async with stage() as here:
        disk = FakeReserve()
        room = room_on(disk)
        await room.look(here.conductor)
        disk.state = SpaceState.FULL
        await room.look(here.conductor)
        await room.look(here.conductor)
        events = here.store.rows("SELECT kind, actor, from_state, to_state FROM event WHERE kind = 'hub.space'")
    assert events == [{"kind": "hub.space", "actor": "hub", "from_state": "ample", "to_state": "full"}]


@pytest.mark.parametrize(
    ("state", "size", "finding"),
    [(SpaceState.AMPLE, 1, "ok"), (SpaceState.LOW, 1, "fail"), (SpaceState.FULL, 1, "fail"), (SpaceState.AMPLE, 0, "warn")],
)
def test_the_doctor_says_it_with_a_cure(state: SpaceState, size: int, finding: str) -> None:
    found = judge_space(Space(state, 10 * MEBIBYTE, size, size))
    assert found.state == finding
    assert (found.fix is None) == (finding == "ok")


async def test_the_conductor_refuses_before_anything_is_decided() -> None:
    async with stage() as here:
        room = room_on(FakeReserve(SpaceState.LOW))
        here.conductor.admit = room.admit
        with pytest.raises(Refused, match="nearly full"):
            await here.submit()
        assert here.store.rows("SELECT n FROM task") == []
        here.conductor.admit = room_on(FakeReserve()).admit
        assert await here.submit() == 1, "no number was lost"
