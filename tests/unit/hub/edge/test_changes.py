from hub.core.errors import Refused
from hub.ids import Scope
from tests.support.doors import NOW, SHA

CHANGES = "/api/v1/changes"


def seed(house):
    house.rows.repository()
    house.rows.task(1, state="in_review", lease_epoch=1)
    house.rows.change(4, 1)


async def test_changes_are_listed_and_shown_with_their_reasons(house):
    seed(house)
    house.rows.insert("review", change=4, reviewer="eve", head_sha=SHA, verdict="rejected", person=0, comment="no", at=NOW)
    async with house.client(Scope.OBSERVER) as client:
        (listed,) = (await client.get(CHANGES, params={"state": "waiting", "repo": "site"})).json()["changes"]
        shown = (await client.get(f"{CHANGES}/c-4")).json()
        none = (await client.get(CHANGES, params={"state": "merged"})).json()
        wrong = await client.get(CHANGES, params={"state": "stuck"})
        missing = await client.get(f"{CHANGES}/c-9")
    assert (listed["id"], listed["task"], listed["tier"], listed["reasons"]) == ("c-4", "t-1", 2, ["no check is registered"])
    assert shown["reviews"][0]["reviewer"] == "eve"
    assert shown["commits"][0]["subject"] == "feat: x"
    assert none == {"changes": [], "next": None}
    assert "one of open, checking" in wrong.json()["errors"][0]["msg"]
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_change")


async def test_a_list_whose_filter_is_sparse_says_where_it_goes_on(house, monkeypatch):
    monkeypatch.setattr("hub.store.changes.SCAN_ROWS", 4)
    monkeypatch.setattr("hub.store.changes.CHUNK_ROWS", 2)
    house.rows.repository()
    house.rows.repository("other")
    house.rows.task(1)
    for n in range(1, 8):
        house.rows.change(n, 1, repo="site" if n == 1 else "other", lease_epoch=n)
    async with house.client(Scope.OBSERVER) as client:
        first = (await client.get(CHANGES, params={"repo": "site"})).json()
        second = (await client.get(CHANGES, params={"repo": "site", "cursor": first["next"]})).json()
    assert first == {"changes": [], "next": "4"}
    assert ([change["id"] for change in second["changes"]], second["next"]) == (["c-1"], None)


async def test_a_diff_is_plain_text_whatever_bytes_a_name_had(house):
    seed(house)
    house.gatekeeper.text = "+new \udcff\n"
    async with house.client(Scope.OBSERVER) as client:
        answer = await client.get(f"{CHANGES}/4/diff")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "+new ?\n"


async def test_approving_names_the_head_that_was_seen(house):
    seed(house)
    async with house.client(Scope.APPROVER) as client:
        blind = await client.post(f"{CHANGES}/c-4/approve", json={})
        answer = await client.post(f"{CHANGES}/c-4/approve", json={"head_sha": SHA, "comment": "fine"})
    assert blind.status_code == 422
    assert (answer.status_code, answer.json()["id"]) == (202, "c-4")
    assert house.gatekeeper.reviews == [("approve", 4, "approver", True, SHA, "fine")]


async def test_an_operator_approves_only_with_a_persons_confirmation(house):
    seed(house)
    async with house.client(Scope.OPERATOR) as client:
        refused = await client.post(f"{CHANGES}/c-4/approve", json={"head_sha": SHA})
        assert (refused.status_code, refused.json()["code"]) == (403, "confirmation_needed")
        assert house.gatekeeper.reviews == []
        assert (await client.post(f"{CHANGES}/c-4/approve", json={"head_sha": SHA, "confirmed": True})).status_code == 202
    assert len(house.gatekeeper.reviews) == 1


async def test_an_admins_token_does_not_imply_approving(house):
    seed(house)
    async with house.client(Scope.ADMIN) as client:
        assert (await client.post(f"{CHANGES}/c-4/approve", json={"head_sha": SHA})).status_code == 403


async def test_rejecting_needs_a_reason(house):
    seed(house)
    async with house.client(Scope.OPERATOR) as client:
        assert (await client.post(f"{CHANGES}/c-4/reject", json={"reason": ""})).status_code == 422
        assert (await client.post(f"{CHANGES}/c-4/reject", json={"reason": "no", "final": True})).status_code == 202
    assert house.gatekeeper.reviews == [("reject", 4, "operator", True, "no", True)]


async def test_the_gatekeepers_refusal_reaches_the_caller(house):
    seed(house)
    house.gatekeeper.refuse = Refused(409, "head_moved", "the head is another one now")
    async with house.client(Scope.APPROVER) as client:
        answer = await client.post(f"{CHANGES}/c-4/approve", json={"head_sha": SHA})
    assert (answer.status_code, answer.json()["code"]) == (409, "head_moved")
