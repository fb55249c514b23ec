import hashlib

import pytest

from hub.core.errors import Refused
from hub.edge.auth import Authenticator, Identity, digest, digest_of_sha256, mint, require
from hub.ids import ANY_AGENT, AgentId, Scope
from hub.store.tokens import TokenRecord

KEY = b"k" * 32
NOW = 1_000_000


def bearer(token: str) -> str:
    return f"Bearer {token}"


def record(minted, *scopes: str, key: bytes = KEY, **fields) -> TokenRecord:
    fields = {"name": "ann", "person": True, "created_by": "hub", "created_at": 0} | fields
    return TokenRecord(id=minted.id, digest=digest(key, minted.secret), scopes=scopes, **fields)


def knows(*tokens: TokenRecord, now: int = NOW) -> Authenticator:
    return Authenticator(KEY, tokens, lambda: now)


def test_a_known_token_gives_its_identity_and_any_other_is_refused_alike():
    token, other = mint(), mint()
    auth = knows(record(other, "observer"), record(token, "operator"))
    assert auth.authenticate(bearer(token.text)) == Identity("ann", frozenset({Scope.OPERATOR}), person=True, token=token.id)
    mixed = f"ac_{token.id}_{other.secret}"
    refusals = []
    for header in (
        None,
        "",
        token.text,
        "Basic abc",
        bearer(mint().text),
        bearer(mixed),
        bearer(token.text[:-1]),
        bearer("ac_xyz"),
    ):
        with pytest.raises(Refused) as refused:
            auth.authenticate(header)
        refusals.append((refused.value.status, refused.value.code, refused.value.message))
        assert not header or header not in refused.value.message
    assert set(refusals) == {(401, "unauthenticated", "a valid token is needed")}


def test_the_same_token_is_unknown_under_another_key():
    token = mint()
    with pytest.raises(Refused):
        knows(record(token, "admin", key=b"other")).authenticate(bearer(token.text))


def test_a_token_opens_nothing_from_the_moment_it_ends():
    token = mint()
    held = record(token, "admin", ends_at=NOW + 1)
    assert knows(held).authenticate(bearer(token.text)).name == "ann"
    with pytest.raises(Refused):
        knows(held, now=NOW + 1).authenticate(bearer(token.text))


def test_a_token_that_ends_while_the_hub_runs_opens_nothing_more():
    moment, token = [NOW], mint()
    auth = Authenticator(KEY, [record(token, "admin", ends_at=NOW + 1)], lambda: moment[0])
    identity = auth.authenticate(bearer(token.text))
    assert auth.holds(identity)
    moment[0] = NOW + 1
    assert not auth.holds(identity)
    with pytest.raises(Refused):
        auth.authenticate(bearer(token.text))


def test_a_forgotten_token_opens_nothing():
    token = mint()
    auth = knows(record(token, "admin"))
    auth.forget(token.id)
    with pytest.raises(Refused):
        auth.authenticate(bearer(token.text))


def test_a_secret_can_be_registered_by_its_hash_alone():
    token = mint()
    known = digest_of_sha256(KEY, hashlib.sha256(token.secret.encode()).hexdigest())
    assert known == digest(KEY, token.secret)
    assert token.secret not in known


def test_tokens_are_long_random_and_never_part_of_their_digest():
    tokens = {mint().text for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == len("ac_") + 8 + 1 + 43 for token in tokens)


@pytest.mark.parametrize(
    ("held", "granted"),
    [
        (Scope.ADMIN, {Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.OPERATOR, {Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.APPROVER, {Scope.APPROVER, Scope.OBSERVER}),
        (Scope.SUBMITTER, {Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.OBSERVER, {Scope.OBSERVER}),
        (Scope.AGENT, {Scope.AGENT}),
        (Scope.ENROL, {Scope.ENROL}),
    ],
)
def test_scopes_imply_exactly_what_the_table_says_and_approving_is_never_implied(held, granted):
    identity = Identity("x", frozenset({held}))
    assert {scope for scope in Scope if identity.may(scope)} == granted


def test_a_missing_scope_is_refused_with_403():
    with pytest.raises(Refused) as refused:
        require(Identity("x", frozenset({Scope.OBSERVER})), Scope.APPROVER, Scope.OPERATOR)
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    require(Identity("x", frozenset({Scope.APPROVER})), Scope.APPROVER, Scope.OPERATOR)


def test_a_token_speaks_as_the_agents_it_names_and_as_no_other():
    token = mint()
    one = Identity.of(record(token, "agent:w1", "agent:w2"))
    assert [one.may_be(AgentId(name)) for name in ("w1", "w2", "w3", "*")] == [True, True, False, False]
    assert Identity.of(record(token, "agent:*")).may_be(AgentId("w3"))
    assert not Identity("x", frozenset({Scope.AGENT})).may_be(AgentId("w1")), "a scope that names no agent is good for none"
    assert not Identity("x", frozenset({Scope.ADMIN}), agents=frozenset({ANY_AGENT})).may_be(AgentId("w1"))
