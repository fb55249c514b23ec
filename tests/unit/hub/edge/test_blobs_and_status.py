import hashlib

from hub.core.agent import Agent
from hub.core.errors import Refused
from hub.ids import AgentId, AgentState, Lane, Scope, TaskState
from tests.support.doors import NOW


async def test_a_blob_is_stored_once_under_its_own_digest(house):
    body = b"\x00\xff" * 600_000
    sha256 = hashlib.sha256(body).hexdigest()
    async with house.client(Scope.AGENT) as client:
        first = await client.put(f"/api/v1/blobs/{sha256}", content=body)
        again = await client.put(f"/api/v1/blobs/{sha256}", content=body)
        got = await client.get(f"/api/v1/blobs/{sha256}")
        missing = await client.get(f"/api/v1/blobs/{'0' * 64}")
        odd = await client.get("/api/v1/blobs/zz")
    assert (first.status_code, again.status_code) == (201, 204)
    assert got.content == body
    assert got.headers["content-type"] == "application/octet-stream"
    assert missing.status_code == 404
    assert odd.status_code == 422


async def test_a_body_that_is_not_what_its_name_says_is_refused(house):
    async with house.client(Scope.AGENT) as client:
        answer = await client.put(f"/api/v1/blobs/{'0' * 64}", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert house.connection.execute("SELECT count(*) FROM blob").fetchone()[0] == 0


async def test_a_blob_beyond_8_mib_is_413(house):
    async with house.client(Scope.AGENT) as client:
        answer = await client.put(f"/api/v1/blobs/{'0' * 64}", content=bytes(8_388_609))
    assert answer.status_code == 413


async def test_an_observer_reads_blobs_but_stores_none(house):
    async with house.client(Scope.OBSERVER) as client:
        assert (await client.get(f"/api/v1/blobs/{'0' * 64}")).status_code == 404
        assert (await client.put(f"/api/v1/blobs/{'0' * 64}", content=b"x")).status_code == 403


async def test_status_counts_live_work_in_memory_and_finished_work_of_a_day(house):
    day_us = 86_400_000_000
    house.rows.task(1, state="done", finished_at=NOW - 1)
    house.rows.task(2, state="dead", finished_at=NOW - day_us - 1)
    house.rows.task(99, type="check", state="done")
    house.rows.repository()
    house.rows.change(1, 1)
    for task in (1, 2):  # of a task that is done, nobody has to decide about anything
        house.rows.insert("salvage", task=task, lease_epoch=1, sha256="f" * 64, at=NOW, reason="late", body="{}")
    house.scheduler.live = {TaskState.QUEUED: 3}
    house.scheduler.depth = {Lane.HIGH: 2}
    house.scheduler.present["bob"] = Agent(id=AgentId("bob"), first_seen_at=0, state=AgentState.IDLE)
    house.ready["accepting"] = False
    house.feed.last_seq = 9
    async with house.client(Scope.OBSERVER) as client:
        status = (await client.get("/api/v1/status")).json()
    assert status == {
        "version": "0.1.0",
        "ready": False,
        "checks": {"store": True, "accepting": False},
        "degraded": [],
        "tasks": {"queued": 3},
        "queue": {"urgent": 0, "high": 2, "normal": 0, "low": 0},
        "finished_24h": {"done": 1},
        "changes": {"waiting": 1},
        "salvage_open": 1,
        "agents": {"idle": 1},
        "feed_epoch": "e1",
        "seq": 9,
    }


async def test_a_body_without_room_is_refused_and_not_stored(house):
    body = b"x" * 10
    house.no_room = Refused(507, "disk_full", "no room", hint="free some", retry_after_s=10)
    async with house.client(Scope.AGENT) as client:
        answer = await client.put(f"/api/v1/blobs/{hashlib.sha256(body).hexdigest()}", content=body)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (507, "disk_full", "10")
    assert house.connection.execute("SELECT * FROM blob").fetchall() == []
