"""The files a hub leaves for the first who come in."""

import stat

import pytest

from hub.edge.auth import Authenticator
from hub.edge.credentials import InsecureFile, first_tokens, open_key
from hub.store.tokens import NewToken, TokenRecord

NOW = 10


def kept(new: NewToken, **fields) -> TokenRecord:
    same = {name: getattr(new, name) for name in new.__slots__}
    return TokenRecord(**same | {"created_by": "hub", "created_at": 0} | fields)


def made(tmp_path, known=(), **how):
    return list(first_tokens(tmp_path, open_key(tmp_path), known, NOW, local_agents=how.get("local_agents", False)))


def read(tmp_path, name):
    return (tmp_path / name).read_text().strip()


def test_a_first_start_leaves_an_administrators_and_an_operators_token_for_their_owner_alone(tmp_path):
    issued = made(tmp_path)
    assert [(token.name, token.scopes, token.person) for token in issued] == [
        ("admin", ("admin",), True),
        ("operator", ("operator", "submitter"), True),
    ]
    auth = Authenticator(open_key(tmp_path), map(kept, issued), lambda: NOW)
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
        open_key(tmp_path)


def test_a_key_that_is_none_is_refused(tmp_path):
    made(tmp_path)
    (tmp_path / "hub.key").write_text("oops\n")
    with pytest.raises(InsecureFile, match=r"restore it, or remove it together with hub\.db"):
        open_key(tmp_path)


@pytest.mark.parametrize("obstacle", ["a file", "a directory as key", "a binary key"])
def test_a_data_directory_that_is_none_is_said_not_thrown(tmp_path, obstacle):
    data_dir = tmp_path / "hub"
    match obstacle:
        case "a file":
            data_dir.touch()
        case "a directory as key":
            (data_dir / "hub.key").mkdir(mode=0o700, parents=True)
        case "a binary key":
            data_dir.mkdir()
            (data_dir / "hub.key").write_bytes(b"\xff")
            (data_dir / "hub.key").chmod(0o600)
    with pytest.raises(InsecureFile, match="choose another --data-dir"):
        open_key(data_dir)


def test_the_key_stays_the_same(tmp_path):
    assert open_key(tmp_path) == open_key(tmp_path)
