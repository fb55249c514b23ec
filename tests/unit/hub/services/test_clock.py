"""The steady clock: never back, and still while the hub could not have served anybody."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.services.clock import STALL_US, SteadyClock

PROFILE = settings(max_examples=300, derandomize=True, deadline=None, database=None)


class Raw:
    def __init__(self) -> None:
        self.now = 10_000_000

    def __call__(self) -> int:
        return self.now


def ran(clock: SteadyClock, raw: Raw, seconds: float) -> None:
    """Time passes while the pulse looks at the clock twice a stall bound."""
    end = raw.now + int(seconds * 1_000_000)
    while raw.now < end:
        raw.now = min(end, raw.now + STALL_US // 2)
        clock.mono()


def test_time_that_is_watched_counts() -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    ran(clock, raw, 100)
    assert clock.mono() - start == 100_000_000


def test_a_stall_of_the_loop_does_not_count() -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    raw.now += 30_000_000
    assert clock.mono() == start
    ran(clock, raw, 2)
    assert clock.mono() - start == 2_000_000


def test_a_hanging_commit_counts_up_to_the_bound() -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    clock.wait_begins()
    ran(clock, raw, 30)
    assert clock.mono() - start == STALL_US, "it stands still while the disk hangs"
    clock.wait_ends()
    assert clock.mono() - start == STALL_US
    ran(clock, raw, 2)
    assert clock.mono() - start == STALL_US + 2_000_000


def test_a_quick_commit_counts_in_full() -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    for _ in range(50):
        clock.wait_begins()
        ran(clock, raw, 0.1)
        clock.wait_ends()
    assert clock.mono() - start == 5_000_000


def test_a_stall_during_a_hanging_commit_keeps_what_was_lost_before() -> None:
    """The stall forgot how long the commit had been hanging: the clock jumped forward and leases expired."""
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    clock.wait_begins()
    ran(clock, raw, 60)
    raw.now += 5_000_000
    assert clock.mono() - start == STALL_US
    clock.wait_ends()
    assert clock.mono() - start <= 2 * STALL_US


@PROFILE
@given(st.lists(st.tuples(st.sampled_from(["look", "begin", "end"]), st.integers(0, 4_000_000)), max_size=60))
def test_it_never_goes_back_and_never_faster_than_time(steps: list[tuple[str, int]]) -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    waiting, last, began = False, clock.mono(), raw.now
    start = last
    for what, passes in steps:
        raw.now += passes
        if what == "begin" and not waiting:
            clock.wait_begins()
            waiting = True
        elif what == "end" and waiting:
            clock.wait_ends()
            waiting = False
        now = clock.mono()
        assert now >= last
        last = now
    assert last - start <= raw.now - began


@pytest.mark.parametrize("gap", [STALL_US, STALL_US + 1])
def test_the_bound_itself(gap: int) -> None:
    raw = Raw()
    clock = SteadyClock(raw)
    start = clock.mono()
    raw.now += gap
    assert clock.mono() - start == (gap if gap <= STALL_US else 0)


def test_a_stamp_has_all_three() -> None:
    stamp = SteadyClock().stamp()
    assert stamp.wall > 1_600_000_000_000_000
    assert 0 <= stamp.jitter < 1


async def test_the_pulse_tells_how_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    lags: list[float] = []
    monkeypatch.setattr("hub.services.clock.STALL_US", 2)
    pulse = asyncio.create_task(SteadyClock(on_lag=lags.append).pulse())
    while not lags:
        await asyncio.sleep(0)
    pulse.cancel()
    await asyncio.gather(pulse, return_exceptions=True)
    assert all(lag >= 0 for lag in lags)
