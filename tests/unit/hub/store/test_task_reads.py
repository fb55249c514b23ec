"""What the store tells doors and sidecars about tasks."""

import pytest

from hub.ids import TaskState, TaskType
from hub.store import tasks
from hub.store.tasks import FEEDBACK_BYTES, SCAN_ROWS, TaskFilter, hydrate, page
from tests.support.doors import NOW, SHA, MemoryReader, Rows, open_memory


@pytest.fixture
def rows():
    connection = open_memory()
    yield Rows(connection)
    connection.close()


@pytest.fixture
def reader(rows):
    return MemoryReader(rows.connection)


async def test_a_spec_carries_the_task_its_repository_and_its_claim(rows, reader):
    rows.repository("site", url="/srv/site.git", base="main")
    rows.task(
        7,
        repo="site",
        title="Fix it",
        type="bug",
        access="read_only",
        needs_change=0,
        tries=2,
        conversation_id="conv-1",
        project="web",
        spec='{"description": "do", "tags": ["x"], "verification": [{"kind": "no_secrets"}], "budget": {"wall_s": 60},'
        ' "metadata": {"k": 1}, "max_fix_rounds": 1, "complexity": "trivial"}',
    )
    spec = await hydrate(reader, 7, 3)
    assert (spec.task, spec.lease_epoch, spec.title, spec.type) == (7, 3, "Fix it", TaskType.BUG)
    assert (spec.repo.name, spec.repo.url, spec.repo.base) == ("site", "/srv/site.git", "main")
    assert (spec.attempt, spec.conversation_id, spec.project, spec.needs_change) == (2, "conv-1", "web", False)
    assert (spec.budget.wall_s, spec.max_fix_rounds, spec.metadata) == (60, 1, {"k": 1})
    assert spec.verification[0].kind == "no_secrets"
    assert (spec.feedback, spec.start, spec.answers, spec.check) == ((), None, (), None)


async def test_the_tasks_own_base_wins_over_the_repositorys(rows, reader):
    rows.repository("site")
    rows.task(1, repo="site", base="release")
    assert (await hydrate(reader, 1, 1)).repo.base == "release"


async def test_a_first_attempt_is_number_one_even_when_its_try_was_refunded(rows, reader):
    rows.task(1, tries=0)
    assert (await hydrate(reader, 1, 1)).attempt == 1


async def test_feedback_is_the_latest_five_newest_last(rows, reader):
    rows.task(1)
    for lease_epoch in range(1, 8):
        rows.feedback(1, lease_epoch)
    spec = await hydrate(reader, 1, 8)
    assert spec.feedback == tuple(f"feedback {lease_epoch}" for lease_epoch in range(3, 8))


async def test_feedback_stays_within_its_bytes_and_the_newest_is_kept_whole(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, text="old " * 20_000)
    rows.feedback(1, 2, text="é" * 30_000)
    spec = await hydrate(reader, 1, 3)
    assert spec.feedback[-1] == "é" * 30_000
    assert sum(len(text.encode()) for text in spec.feedback) <= FEEDBACK_BYTES
    assert spec.feedback[0].startswith("old")


async def test_a_rework_starts_from_the_newest_reworks_head(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, source="rework", branch="agentcom/t-1/1", head_sha="b" * 40)
    rows.feedback(1, 2, source="rework", branch="agentcom/t-1/2", head_sha=SHA)
    rows.feedback(1, 3, source="failure")
    spec = await hydrate(reader, 1, 4)
    assert (spec.start.branch, spec.start.head_sha) == ("agentcom/t-1/2", SHA)


async def test_a_newest_rework_without_a_head_starts_from_the_base(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, source="rework", branch="agentcom/t-1/1", head_sha=SHA)
    rows.feedback(1, 2, source="rework")
    assert (await hydrate(reader, 1, 3)).start is None


async def test_answered_questions_travel_and_open_ones_do_not(rows, reader):
    rows.task(1)
    rows.insert(
        "question", task=1, lease_epoch=1, qid="q1", text="a?", options="[]", asked_at=NOW, answered_at=NOW, answer="yes"
    )
    rows.insert("question", task=1, lease_epoch=2, qid="q2", text="b?", options="[]", asked_at=NOW)
    spec = await hydrate(reader, 1, 3)
    assert [(entry.qid, entry.answer) for entry in spec.answers] == [("q1", "yes")]


async def test_a_check_task_carries_its_job(rows, reader):
    job = '{"sha": "' + SHA + '", "ref": "agentcom/candidate/1", "checks": [{"kind": "command_succeeds", "argv": ["make"]}]}'
    rows.task(1, type="check", needs_change=0, spec='{"check": ' + job + "}")
    check = (await hydrate(reader, 1, 1)).check
    assert (check.sha, check.checks[0].argv) == (SHA, ("make",))


async def test_a_missing_row_is_a_lookup_error(rows, reader):
    with pytest.raises(LookupError):
        await hydrate(reader, 1, 1)
    rows.task(2, repo="gone")
    with pytest.raises(LookupError, match="gone"):
        await hydrate(reader, 2, 1)


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
