"""Token buckets: how many at once, how many a minute, whose they are, and what is forgotten."""

from __future__ import annotations

import pytest

from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.edge.http.middleware import EXAMINES, REMOTE, tier_of
from hub.edge.ratelimit import MAX_KEYS, Bucket, Limiter, Rates, Tier, network_of
from hub.ids import Scope
from tests.support.doors import House


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def person(name: str, scope: Scope = Scope.SUBMITTER) -> Identity:
    return Identity(name, frozenset({scope}), person=True)


def granted(ask: object, times: int = 1000) -> int:
    for n in range(times):
        try:
            ask()  # type: ignore[operator]
        except Refused:
            return n
    return times


def test_a_minutes_worth_is_there_at_once_and_comes_back_evenly() -> None:
    clock = Seconds()
    bucket = Bucket(60, clock)
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    clock.now += 0.5
    assert bucket.take() == pytest.approx(0.5), "a refused attempt costs nothing"
    clock.now += 0.51
    assert bucket.take() == 0.0
    clock.now += 3600
    assert [bucket.take() for _ in range(61)].count(0.0) == 60, "rest is not saved beyond a minute"


def test_what_was_asked_for_is_given_back_but_never_more_than_fits() -> None:
    bucket = Bucket(2, Seconds())
    bucket.give_back(5)
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]
    bucket.give_back(1)
    assert bucket.take() == 0


def test_no_limit_is_none() -> None:
    assert {Bucket(0, Seconds()).take() for _ in range(1000)} == {0.0}


def test_identities_and_tiers_are_counted_apart() -> None:
    limiter = Limiter(Rates(light=5, normal=3), now_s=Seconds())
    assert granted(lambda: limiter.admit(person("ann"), Tier.LIGHT)) == 5
    assert granted(lambda: limiter.admit(person("ann"), Tier.NORMAL)) == 3
    assert granted(lambda: limiter.admit(person("bob"), Tier.LIGHT)) == 5


def test_exempt_scopes_are_not_counted() -> None:
    limiter = Limiter(Rates(normal=3), now_s=Seconds())
    assert granted(lambda: limiter.admit(person("m", Scope.AGENT), Tier.NORMAL)) == 1000


def test_a_refusal_says_when_and_what_to_do_and_is_counted() -> None:
    seen: list[Tier] = []
    limiter = Limiter(Rates(normal=1), now_s=Seconds(), refused=seen.append)
    limiter.admit(person("{0} %s"), Tier.NORMAL)
    with pytest.raises(Refused) as refused:
        limiter.admit(person("{0} %s"), Tier.NORMAL)
    fault = refused.value
    assert (fault.status, fault.code, fault.retry_after_s, seen) == (429, "rate_limited", 60, [Tier.NORMAL])
    assert "dampers.normal_per_min" in fault.hint


def test_links_are_counted_by_token_and_address_and_wrong_tokens_by_address() -> None:
    limiter = Limiter(Rates(connect=2, denied=4), now_s=Seconds())
    agent = person("machine:a", Scope.AGENT)
    assert granted(lambda: limiter.connect(agent, "10.0.0.1")) == 2
    assert granted(lambda: limiter.connect(agent, "10.0.0.2")) == 2
    assert granted(lambda: limiter.denied("10.0.0.1")) == 4
    assert granted(lambda: limiter.denied("10.0.0.2")) == 4


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("unknown", "unknown"),
        ("x" * 99, "x" * 64),
    ],
)
def test_an_address_is_what_one_customer_has(peer: str, network: str) -> None:
    assert network_of(peer) == network


def test_a_million_addresses_take_bounded_memory_and_the_one_in_use_stays_counted() -> None:
    limiter = Limiter(Rates(denied=2), now_s=Seconds())
    for n in range(MAX_KEYS * 2):
        limiter.denied(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        if n % 1000 == 0:
            granted(lambda: limiter.denied("192.0.2.1"))
    assert len(limiter._buckets[Tier.DENIED]) <= MAX_KEYS
    assert granted(lambda: limiter.denied("192.0.2.1")) == 0


@pytest.mark.parametrize(
    ("method", "path", "tier"),
    [
        ("GET", "/api/v1/tasks", Tier.LIGHT),
        ("HEAD", "/api/v1/tasks", Tier.LIGHT),
        ("POST", "/api/v1/tasks", Tier.NORMAL),
        ("GET", "/api/v1/doctor", Tier.HEAVY),
        ("POST", "/api/v1/repos", Tier.HEAVY),
        ("GET", "/api/v1/repos", Tier.LIGHT),
        ("POST", "/api/v1/backups", Tier.HEAVY),
        ("POST", "/api/v1/db/compaction", Tier.HEAVY),
        ("GET", "/api/v1/db/compaction", Tier.LIGHT),
        ("GET", "/api/v1/db/health", Tier.HEAVY),
        ("GET", "/api/v1/db/pruning/preview", Tier.HEAVY),
        ("DELETE", "/api/v1/tokens/1", Tier.NORMAL),
    ],
)
def test_what_a_request_costs(method: str, path: str, tier: Tier) -> None:
    assert tier_of(method, path) is tier


def test_what_costs_more_is_a_route_that_there_is(house: House) -> None:
    routes = house.app.openapi()["paths"]
    for prefix in (*REMOTE, *EXAMINES):
        assert any(path.startswith(prefix) for path in routes), prefix
