"""What an agent is told about its task."""

import pytest

from hub.ids import TaskType
from hub.store.specs import FEEDBACK_BYTES, hydrate
from tests.support.doors import NOW, SHA, MemoryReader, Rows, open_memory


@pytest.fixture
def rows():
    connection = open_memory()
    yield Rows(connection)
    connection.close()


@pytest.fixture
def reader(rows):
    return MemoryReader(rows.connection)


async def spec(reader, n, lease_epoch):
    found = (await hydrate(reader, [(n, lease_epoch)]))[n, lease_epoch]
    if isinstance(found, Exception):
        raise found
    return found


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
    told = await spec(reader, 7, 3)
    assert (told.task, told.lease_epoch, told.title, told.type) == (7, 3, "Fix it", TaskType.BUG)
    assert (told.repo.name, told.repo.url, told.repo.base) == ("site", "/srv/site.git", "main")
    assert (told.attempt, told.conversation_id, told.project, told.needs_change) == (2, "conv-1", "web", False)
    assert (told.budget.wall_s, told.max_fix_rounds, told.metadata) == (60, 1, {"k": 1})
    assert told.verification[0].kind == "no_secrets"
    assert (told.feedback, told.start, told.answers, told.check) == ((), None, (), None)


async def test_the_tasks_own_base_wins_over_the_repositorys(rows, reader):
    rows.repository("site")
    rows.task(1, repo="site", base="release")
    assert (await spec(reader, 1, 1)).repo.base == "release"


async def test_a_first_attempt_is_number_one_even_when_its_try_was_refunded(rows, reader):
    rows.task(1, tries=0)
    assert (await spec(reader, 1, 1)).attempt == 1


async def test_feedback_is_the_latest_five_newest_last(rows, reader):
    rows.task(1)
    for lease_epoch in range(1, 8):
        rows.feedback(1, lease_epoch)
    told = await spec(reader, 1, 8)
    assert told.feedback == tuple(f"feedback {lease_epoch}" for lease_epoch in range(3, 8))


async def test_feedback_stays_within_its_bytes_and_the_newest_is_kept_whole(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, text="old " * 20_000)
    rows.feedback(1, 2, text="é" * 30_000)
    told = await spec(reader, 1, 3)
    assert told.feedback[-1] == "é" * 30_000
    assert sum(len(text.encode()) for text in told.feedback) <= FEEDBACK_BYTES
    assert told.feedback[0].startswith("old")


async def test_a_rework_starts_from_the_newest_reworks_head(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, source="rework", branch="agentcom/t-1/1", head_sha="b" * 40)
    rows.feedback(1, 2, source="rework", branch="agentcom/t-1/2", head_sha=SHA)
    rows.feedback(1, 3, source="failure")
    told = await spec(reader, 1, 4)
    assert (told.start.branch, told.start.head_sha) == ("agentcom/t-1/2", SHA)


async def test_a_newest_rework_without_a_head_starts_from_the_base(rows, reader):
    rows.task(1)
    rows.feedback(1, 1, source="rework", branch="agentcom/t-1/1", head_sha=SHA)
    rows.feedback(1, 2, source="rework")
    assert (await spec(reader, 1, 3)).start is None


async def test_answered_questions_travel_and_open_ones_do_not(rows, reader):
    rows.task(1)
    rows.insert(
        "question", task=1, lease_epoch=1, qid="q1", text="a?", options="[]", asked_at=NOW, answered_at=NOW, answer="yes"
    )
    rows.insert("question", task=1, lease_epoch=2, qid="q2", text="b?", options="[]", asked_at=NOW)
    told = await spec(reader, 1, 3)
    assert [(entry.qid, entry.answer) for entry in told.answers] == [("q1", "yes")]


async def test_a_check_task_carries_its_job(rows, reader):
    job = '{"sha": "' + SHA + '", "ref": "agentcom/candidate/1", "checks": [{"kind": "command_succeeds", "argv": ["make"]}]}'
    rows.task(1, type="check", needs_change=0, spec='{"check": ' + job + "}")
    check = (await spec(reader, 1, 1)).check
    assert (check.sha, check.checks[0].argv) == (SHA, ("make",))


async def test_a_missing_row_is_a_lookup_error(rows, reader):
    with pytest.raises(LookupError):
        await spec(reader, 1, 1)
    rows.task(2, repo="gone")
    with pytest.raises(LookupError, match="gone"):
        await spec(reader, 2, 1)


async def test_of_specs_read_together_one_without_spares_the_others(rows, reader):
    rows.task(1)
    rows.task(3)
    found = await hydrate(reader, [(3, 1), (2, 1), (1, 1)])
    assert {claim: getattr(item, "task", type(item)) for claim, item in found.items()} == {
        (3, 1): 3,
        (2, 1): LookupError,
        (1, 1): 1,
    }
