import pytest

from hub.core.errors import Refused
from hub.edge.auth import Authenticator, Identity, Scope, digest, mint_token, require

KEY = b"k" * 32


def bearer(token: str) -> str:
    return f"Bearer {token}"


def test_a_known_token_gives_its_identity_and_any_other_is_refused_alike():
    token, other = mint_token(), mint_token()
    ann = Identity("ann", frozenset({Scope.OPERATOR}), person=True)
    auth = Authenticator(KEY, [(digest(KEY, other), Identity("eve", frozenset())), (digest(KEY, token), ann)])
    assert auth.authenticate(bearer(token)) is ann
    refusals = []
    for header in (None, "", token, "Basic abc", bearer(mint_token()), bearer(token[:-1]), bearer("ac_xyz")):
        with pytest.raises(Refused) as refused:
            auth.authenticate(header)
        refusals.append((refused.value.status, refused.value.code, refused.value.message))
        assert header is None or header == "" or header not in refused.value.message
    assert set(refusals) == {(401, "unauthenticated", "a valid token is needed")}


def test_the_same_token_is_unknown_under_another_key():
    token = mint_token()
    auth = Authenticator(b"other", [(digest(KEY, token), Identity("ann", frozenset({Scope.ADMIN})))])
    with pytest.raises(Refused):
        auth.authenticate(bearer(token))


def test_tokens_are_long_random_and_never_part_of_their_digest():
    tokens = {mint_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == len("ac_") + 8 + 1 + 43 for token in tokens)
    assert all(token.encode() not in digest(KEY, token) for token in tokens)


@pytest.mark.parametrize(
    ("held", "granted"),
    [
        (Scope.ADMIN, {Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.OPERATOR, {Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.APPROVER, {Scope.APPROVER, Scope.OBSERVER}),
        (Scope.SUBMITTER, {Scope.SUBMITTER, Scope.OBSERVER}),
        (Scope.OBSERVER, {Scope.OBSERVER}),
        (Scope.AGENT, {Scope.AGENT}),
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
