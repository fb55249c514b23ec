"""What the store tells doors about tasks."""

import pytest

from hub.ids import TaskState
from hub.store import tasks
from hub.store.tasks import SCAN_ROWS, TaskFilter, page
from tests.support.doors import MemoryReader, Rows, open_memory


@pytest.fixture
def rows():
    connection = open_memory()
    yield Rows(connection)
    connection.close()


@pytest.fixture
def reader(rows):
    return MemoryReader(rows.connection)


async def test_a_sparse_filter_gives_a_short_page_that_goes_on(rows, reader, monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK_ROWS", 10)
    monkeypatch.setattr(tasks, "SCAN_ROWS", 30)
    for n in range(1, 101):
        rows.task(n, lane="low" if n == 1 else "normal")
    wanted = TaskFilter(lane="low")
    before, pages, found = tasks.FIRST_PAGE, 0, []
    while before is not None:
        some, before = await page(reader, wanted, before=before, limit=5)
        assert len(some) <= 5
        found += some
        pages += 1
    assert [task.n for task in found] == [1]
    assert pages == 4
    assert SCAN_ROWS == 5_000


async def test_filters_of_one_page_all_hold(rows, reader):
    rows.task(1, repo="site", state="queued")
    rows.task(2, repo="site", state="done")
    rows.task(3, repo="other", state="queued")
    found, _ = await page(reader, TaskFilter(repo="site", state=TaskState.QUEUED))
    assert [task.n for task in found] == [1]
    found, _ = await page(reader, TaskFilter(state=TaskState.DONE, live=True))
    assert found == []


async def test_an_agents_tasks_are_found_once_however_often_it_tried(rows, reader):
    rows.task(1)
    for lease_epoch in (1, 2, 3):
        rows.attempt(1, lease_epoch)
    found, following = await page(reader, TaskFilter(agent="bob"))
    assert ([task.n for task in found], following) == ([1], None)
