"""When an agent connects again, and when it gives up."""

from __future__ import annotations

from random import Random

import pytest

from hub.wire.codes import Close
from sidecar.backoff import Ending, Reconnect, Refused


class Latest(Random):
    """Always the end of the window."""

    def uniform(self, a: float, b: float) -> float:
        return b


def attempts(reconnect: Reconnect, count: int, *, holding: bool = False, ending: Ending | None = None) -> list[float]:
    """The waits of attempts that each fail at once."""
    now, waits = 1000.0, []
    for _ in range(count):
        wait = reconnect.ended(ending or Ending(), now, holding=holding)
        waits.append(wait)
        now += wait
    return waits


def test_windows_double_up_to_about_a_minute() -> None:
    assert attempts(Reconnect(Latest()), 9) == [5, 1, 2, 4, 8, 16, 32, 64, 64]


def test_windows_stay_short_while_the_hub_waits_for_a_lease() -> None:
    assert attempts(Reconnect(Latest()), 9, holding=True) == [5, 1, 2, 4, 8, 8, 8, 8, 8]


def test_an_early_attempt_waits_out_its_window_before_the_next() -> None:
    class Earliest(Random):
        def uniform(self, a: float, b: float) -> float:
            return a

    assert attempts(Reconnect(Earliest()), 5) == [0, 5, 1, 2, 4]


def test_the_first_reconnection_is_spread_over_its_window() -> None:
    waits = [Reconnect(Random(seed)).ended(Ending(), 0.0, holding=False) for seed in range(200)]
    assert 0 <= min(waits) < 0.5
    assert 4.5 < max(waits) <= 5


def test_a_stable_minute_forgets_the_failures_and_less_does_not() -> None:
    reconnect = Reconnect(Latest())
    attempts(reconnect, 6)
    reconnect.welcomed(2000)
    assert reconnect.ended(Ending(code=1006), 2059, holding=False) == 32
    reconnect.welcomed(3000)
    assert reconnect.ended(Ending(code=1006), 3060, holding=False) == 5


def test_the_hub_says_how_long_to_wait() -> None:
    wait = Reconnect(Latest()).ended(Ending(code=Close.GOAWAY, after_s=40), 0.0, holding=True)
    assert 40 <= wait <= 45


@pytest.mark.parametrize("code", [Close.VERSION, Close.FORBIDDEN, Close.REVOKED, Close.AGENT_DELETED, Close.FLAPPING, 4999])
def test_codes_from_4501_are_final(code: int) -> None:
    with pytest.raises(Refused) as refused:
        Reconnect(Latest()).ended(Ending(code=code), 0.0, holding=True)
    assert refused.value.code == code


def test_a_version_refused_before_the_upgrade_is_final() -> None:
    with pytest.raises(Refused):
        Reconnect(Latest()).ended(Ending(http_status=426), 0.0, holding=True)


@pytest.mark.parametrize("ending", [Ending(code=c) for c in (1006, 1011, 1012, 4000, 4408, 4410)] + [Ending(http_status=502)])
def test_everything_else_is_worth_another_attempt(ending: Ending) -> None:
    assert len(attempts(Reconnect(Latest()), 20, ending=ending)) == 20


@pytest.mark.parametrize("ending", [Ending(http_status=401), Ending(code=Close.UNAUTHENTICATED)])
def test_a_refused_token_is_final_only_after_ten_minutes(ending: Ending) -> None:
    reconnect = Reconnect(Latest())
    reconnect.ended(ending, 100.0, holding=False)
    reconnect.ended(ending, 699.0, holding=False)
    with pytest.raises(Refused):
        reconnect.ended(ending, 700.0, holding=False)


def test_a_welcome_ends_the_ten_minutes() -> None:
    reconnect = Reconnect(Latest())
    reconnect.ended(Ending(http_status=401), 100.0, holding=False)
    reconnect.welcomed(600.0)
    reconnect.ended(Ending(http_status=401), 800.0, holding=False)


def test_a_superseded_agent_waits_half_a_minute_and_gives_up_at_the_third_time_in_five_minutes() -> None:
    reconnect, ending = Reconnect(Latest()), Ending(code=Close.SUPERSEDED)
    assert reconnect.ended(ending, 0.0, holding=True) >= 30
    reconnect.ended(ending, 100.0, holding=True)
    with pytest.raises(Refused) as refused:
        reconnect.ended(ending, 200.0, holding=True)
    assert refused.value.code == Close.FLAPPING


def test_being_superseded_now_and_then_is_no_reason_to_give_up() -> None:
    reconnect = Reconnect(Latest())
    for at in (0.0, 200.0, 400.0, 600.0):
        reconnect.ended(Ending(code=Close.SUPERSEDED), at, holding=True)
