"""The hub as seen from here: does it answer, does it take our token, and what is our clock worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from hub.wire.address import is_loopback
from hub.wire.finding import Finding, fail, ok, warn
from sidecar.hub import Hub, Refusal, Unreachable

DRIFT_WARN_S = 30.0
DRIFT_FAIL_S = 300.0
"""A clock this far off makes tokens, enrolment codes and every log misleading."""
CLOCK_CURE = "set the clock: timedatectl set-ntp true, or start chrony or ntpd"


def clock(theirs: datetime | None, ours: datetime) -> Finding:
    """The difference between the hub's clock and ours."""
    if theirs is None:
        return warn("clock", "the hub does not tell its time", "a proxy may remove its Date header; compare the clocks by hand")
    apart_s = abs((theirs - ours).total_seconds())
    if apart_s <= DRIFT_WARN_S:
        return ok("clock", "within a second of the hub's" if apart_s <= 1 else f"{apart_s:.0f} s from the hub's")
    ahead = "behind" if theirs > ours else "ahead of"
    found = f"{apart_s:.0f} s {ahead} the hub's"
    return fail("clock", found, CLOCK_CURE) if apart_s > DRIFT_FAIL_S else warn("clock", found, CLOCK_CURE)


def reachable(hub: Hub) -> Iterator[Finding]:
    """Whether the hub answers, and by its answer what our clock is worth."""
    try:
        theirs = hub.greet()
    except Unreachable as fault:
        yield fail("hub", str(fault), fault.cure)
        return
    if urlsplit(hub.url).scheme == "http" and not is_loopback(hub.url):
        yield warn("hub", f"{hub.url} answers, unencrypted", "use https, or be sure that the network between is private")
    else:
        yield ok("hub", f"{hub.url} answers")
    yield clock(theirs, datetime.now(UTC))


def token(hub: Hub, agents: Sequence[str]) -> Finding:
    """Whether the hub takes our token, for each of these agents."""
    try:
        who = hub.ask("GET", "/whoami")
    except Unreachable as fault:
        return warn("token", f"it could not be tried: {fault}", fault.cure)
    except Refusal as refusal:
        if refusal.status == 404:
            return warn("token", "this hub does not say whether a token is good", "update the hub")
        return fail("token", f"the hub refuses it: {refusal}", "join again with a new code: agentcom enrol create, on the hub")
    scopes = {str(scope) for scope in who.get("scopes") or []}
    if foreign := [agent for agent in agents if not scopes & {f"agent:{agent}", "agent:*"}]:
        return fail(
            "token", f"it is not for {', '.join(foreign)}", "join again with a new code that covers all agents of this machine"
        )
    return ok("token", f"the hub knows it as {who.get('name') or who.get('token_id') or 'an agent'}")
