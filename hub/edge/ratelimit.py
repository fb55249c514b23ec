"""How often anybody may ask: token buckets, by who asks and what it costs the hub.

A limit is there so that one loop gone wild never delays the others, not to ration honest work; see :class:`Rates`. What is
refused changed nothing, says when to come again, and may be sent again as it is. Knows identities and addresses, no transport.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.ids import Scope

MINUTE_S = 60.0
MAX_KEYS = 10_000
"""Buckets of one kind; beyond, the one unused for longest is forgotten, which can only be to its owner's good."""


class Tier(StrEnum):
    """What an attempt costs the hub, and who is counted."""

    LIGHT = "light"
    """Reading, per identity."""
    NORMAL = "normal"
    """Changing something, per identity."""
    HEAVY = "heavy"
    """What makes the hub ask remotes or walk its disk, per identity."""
    DENIED = "denied"
    """Coming with a token that is none, per address."""
    CONNECT = "connect"
    """Opening a sidecar's link, per identity and address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Attempts per minute, and as many at once after a minute of rest; 0 is no limit. Identities with an ``exempt`` scope have none.

    Chosen, not measured: a hundred requests a second are far beyond what a shell loop of ``agentcom`` makes, and who submits more sends
    batches.
    """

    light: int = 6000
    normal: int = 6000
    heavy: int = 120
    denied: int = 120
    connect: int = 6000
    exempt: frozenset[Scope] = frozenset({Scope.AGENT})


@dataclass(slots=True)
class Bucket:
    """Tokens that come back evenly. ``per_min`` is how many fit, and how many come back in a minute; 0 is no limit."""

    per_min: float
    now_s: Callable[[], float]
    _tokens: float = field(init=False)
    _at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens, self._at_s = self.per_min, self.now_s()

    def take(self, cost: float = 1.0) -> float:
        """Seconds until there are enough tokens: 0 when there were, and they are taken."""
        if not self.per_min:
            return 0.0
        now_s = self.now_s()
        self._tokens = min(self.per_min, self._tokens + (now_s - self._at_s) * self.per_min / MINUTE_S)
        self._at_s = now_s
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) * MINUTE_S / self.per_min

    def give_back(self, tokens: float) -> None:
        """What the other side was asked for costs it nothing."""
        self._tokens = min(self.per_min, self._tokens + tokens)


class Limiter:
    """The buckets of everybody. ``refused`` hears of each refusal, for the metrics."""

    def __init__(
        self, rates: Rates, *, now_s: Callable[[], float] = time.monotonic, refused: Callable[[Tier], None] = lambda _tier: None
    ) -> None:
        self._rates = rates
        self._now_s = now_s
        self._refused = refused
        self._buckets: dict[Tier, OrderedDict[Hashable, Bucket]] = {tier: OrderedDict() for tier in Tier}

    def admit(self, identity: Identity, tier: Tier) -> None:
        """Count a request; refused 429 ``rate_limited`` when it is one too many."""
        if self._rates.exempt.isdisjoint(identity.scopes):
            self._take(tier, identity.name, f"{identity.name} may make so many such requests a minute")

    def connect(self, identity: Identity, peer: str) -> None:
        """Count the opening of a link; refused 429."""
        self._take(Tier.CONNECT, (identity.name, network_of(peer)), "so many links a minute may be opened from one address")

    def denied(self, peer: str) -> None:
        """Count a token that is none; refused 429 from the address that sends too many. Good tokens are never asked about."""
        self._take(Tier.DENIED, network_of(peer), "so many wrong tokens a minute are answered from one address")

    def _take(self, tier: Tier, key: Hashable, words: str) -> None:
        buckets, per_min = self._buckets[tier], float(getattr(self._rates, tier))
        bucket = buckets.get(key)
        if bucket is None:
            if len(buckets) >= MAX_KEYS:
                buckets.popitem(last=False)
            bucket = buckets[key] = Bucket(per_min, self._now_s)
        buckets.move_to_end(key)
        wait_s = bucket.take()
        if wait_s:
            self._refused(tier)
            raise Refused(
                429,
                "rate_limited",
                f"{words}: {per_min:g}",
                hint=f"wait as long as Retry-After says, or send batches; dampers.{tier}_per_min sets it",
                retry_after_s=math.ceil(wait_s),
            )


def network_of(peer: str) -> str:
    """Who counts as one address: an IPv4 address, or the 64 bits of an IPv6 address that one customer has."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(IPv6Address(int(address) >> 64 << 64))
    return str(address)
