"""The files a hub leaves for the first who come in."""

import stat

import pytest

from hub.edge.auth import Authenticator
from hub.edge.credentials import InsecureFile, KeyLost, first_tokens, mark_of, new_key, open_key
from hub.store.tokens import NewToken, TokenRecord

NOW = 10


def kept(new: NewToken, **fields) -> TokenRecord:
    same = {name: getattr(new, name) for name in new.__slots__}
    return TokenRecord(**same | {"created_by": "hub", "created_at": 0} | fields)


def made(tmp_path, known=(), **how):
    return list(first_tokens(tmp_path, open_key(tmp_path, None), known, NOW, local_agents=how.get("local_agents", False)))


def read(tmp_path, name):
    return (tmp_path / name).read_text().strip()


def test_a_first_start_leaves_an_administrators_and_an_operators_token_for_their_owner_alone(tmp_path):
    issued = made(tmp_path)
    assert [(token.name, token.scopes, token.person) for token in issued] == [
        ("admin", ("admin",), True),
        ("operator", ("operator", "submitter"), True),
    ]
    auth = Authenticator(open_key(tmp_path, None), map(kept, issued), lambda: NOW)
    assert auth.authenticate(f"Bearer {read(tmp_path, 'admin.token')}").name == "admin"
    assert auth.authenticate(f"Bearer {read(tmp_path, 'operator.token')}").name == "operator"
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert {file.name for file in tmp_path.iterdir()} == {"hub.key", "admin.token", "operator.token"}


def test_a_hub_for_this_machine_leaves_a_token_for_its_agents(tmp_path):
    issued = made(tmp_path, local_agents=True)
    assert [(token.name, token.scopes, token.person) for token in issued][2] == ("sidecar", ("agent:*",), False)
    assert made(tmp_path, [kept(token) for token in issued], local_agents=True) == []


def test_what_was_revoked_or_deleted_is_not_made_again(tmp_path):
    known = [kept(token) for token in made(tmp_path)]
    (tmp_path / "operator.token").unlink()
    (tmp_path / "admin.token").unlink()
    assert made(tmp_path, known) == []
    mine = kept(known[0], id="5f3a9c01")
    assert made(tmp_path, [kept(known[0], ends_at=NOW, revoked_by="me"), known[1], mine]) == []


def test_when_nobody_can_administrate_the_hub_an_administrator_is_made_anew(tmp_path):
    known = [kept(token) for token in made(tmp_path)]
    before = read(tmp_path, "admin.token")
    [again] = made(tmp_path, [kept(known[0], ends_at=NOW), known[1]])
    assert again.scopes == ("admin",)
    assert read(tmp_path, "admin.token") != before


@pytest.mark.parametrize("name", ["hub.key", "admin.token", "operator.token"])
def test_a_secret_that_others_can_read_keeps_the_hub_from_starting(tmp_path, name):
    made(tmp_path)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(InsecureFile, match=f"chmod 600 .*{name}"):
        open_key(tmp_path, None)


def test_a_key_that_is_lost_or_another_is_said_and_never_replaced_in_silence(tmp_path):
    made(tmp_path)
    mark = mark_of(open_key(tmp_path, None))
    assert mark_of(open_key(tmp_path, mark)) == mark
    (tmp_path / "hub.key").write_text("0" * 64 + "\n")
    with pytest.raises(KeyLost, match="is not the key that this hub's tokens were made with; restore it"):
        open_key(tmp_path, mark)
    (tmp_path / "hub.key").write_text("oops\n")
    with pytest.raises(KeyLost, match="token recover"):
        open_key(tmp_path, None)
    (tmp_path / "hub.key").unlink()
    with pytest.raises(KeyLost, match=r"hub\.key is gone"):
        open_key(tmp_path, mark)
    assert not (tmp_path / "hub.key").exists()
    assert mark_of(new_key(tmp_path)) != mark


def test_the_key_stays_the_same(tmp_path):
    assert open_key(tmp_path, None) == open_key(tmp_path, None)
