"""The table of tokens on a real store: what commits, what is refused, what is kept."""

import pytest

from hub.core.errors import Refused
from hub.ids import AgentId, Micros
from hub.store import tokens
from hub.store.sqlite import SqliteStore
from hub.store.tokens import NewToken
from hub.store.writer import Group

NOW = 1_800_000_000_000_000


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "hub.db")
    yield opened
    await opened.close()


async def run(store, operation, now=NOW):
    done = await store.commit(Group(operations=[operation]), Micros(now))
    if isinstance(done.outcomes[0], BaseException):
        raise done.outcomes[0]
    return done.outcomes[0]


def code(token="c0de0001", ends_at=NOW + 1000):
    return NewToken(id=token, digest="d", name="enrolment", scopes=("enrol",), ends_at=ends_at)


def machine(token, install="i1", digest="m"):
    return NewToken(id=token, digest=digest, name="m1", scopes=("agent:w1",), install_id=install)


W1 = [AgentId("w1")]


async def test_a_failed_enrolment_leaves_nothing_behind(store):
    await run(store, tokens.issue("hub", code()))
    await run(store, tokens.enrol("c0de0001", machine("aaaa0001"), W1))
    await run(store, tokens.issue("hub", code("c0de0002")))
    with pytest.raises(Refused, match="belong to another machine"):
        await run(store, tokens.enrol("c0de0002", machine("aaaa0002", install="i2"), W1))
    assert [token.id for token in await tokens.every(store.reader)] == ["aaaa0001", "c0de0001", "c0de0002"]
    assert (await tokens.every(store.reader))[2].used_by is None


async def test_a_code_is_bound_to_the_first_registration_even_when_that_one_is_revoked(store):
    await run(store, tokens.issue("hub", code()))
    await run(store, tokens.enrol("c0de0001", machine("aaaa0001"), W1))
    await run(store, tokens.revoke("ann", "aaaa0001"), now=NOW + 1)
    with pytest.raises(Refused, match="another registration has used this code"):
        await run(store, tokens.enrol("c0de0001", machine("aaaa0002"), W1), now=NOW + 2)


async def test_tokens_that_ended_long_ago_are_forgotten_with_what_hangs_on_them(store):
    await run(store, tokens.issue("hub", code()))
    await run(store, tokens.enrol("c0de0001", machine("aaaa0001"), W1))
    await run(store, tokens.revoke("ann", "aaaa0001"), now=NOW + 1)
    later = NOW + 2000 + tokens.KEPT_US
    await run(store, tokens.issue("hub", code("c0de0002", ends_at=later + 1)), now=later)
    assert [token.id for token in await tokens.every(store.reader)] == ["c0de0002"]


async def test_there_is_a_bound_on_live_tokens_that_never_keeps_the_owner_out(store, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    await run(store, tokens.issue("hub", code("c0de0001")))
    await run(store, tokens.issue("hub", code("c0de0002")))
    with pytest.raises(Refused, match="there are 2 tokens"):
        await run(store, tokens.issue("hub", code("c0de0003")))
    await run(store, tokens.issue("hub", code("c0de0004"), bounded=False))
    await run(store, tokens.revoke("ann", "c0de0001"))
    await run(store, tokens.revoke("ann", "c0de0002"))
    await run(store, tokens.issue("hub", code("c0de0005")))


async def test_of_those_that_ended_only_so_many_are_kept_the_newest(store, monkeypatch):
    monkeypatch.setattr(tokens, "KEPT", 1)
    for i, ends_at in enumerate((NOW + 1, NOW + 3, NOW + 2)):
        await run(store, tokens.issue("hub", code(f"c0de000{i}", ends_at=ends_at)))
    await run(store, tokens.issue("hub", code("c0de0009", ends_at=NOW + 99)), now=NOW + 10)
    assert [token.id for token in await tokens.every(store.reader)] == ["c0de0001", "c0de0009"]


async def test_a_revoked_token_stays_ended_when_the_clock_is_set_back(store):
    await run(store, tokens.issue("hub", code()))
    ended = await run(store, tokens.revoke("ann", "c0de0001"), now=NOW + 500)
    assert not ended.is_live(NOW)
    assert not ended.is_live(NOW + 1000)
