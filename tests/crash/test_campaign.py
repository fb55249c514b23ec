"""The campaign in small: thirty kills, of them one at each of the points where most is at stake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.campaign import Plan, run, show, table
from tests.crash.kills import Kill

pytestmark = pytest.mark.timeout(300)

KILLS = 30
POINTS = frozenset(
    {
        "hub.commit.after",
        "hub.answer.head.before",
        "hub.send.result_ack.before",
        "hub.forge.push.after",
        "sidecar.append.woken.after",
        "sidecar.append.exited.after",
        "sidecar.verify.before",
        "sidecar.git.push.after",
        "sidecar.send.result.before",
        "shim.spawn.after",
        "shim.close.before",
    }
)


async def test_a_cluster_killed_part_by_part_loses_nothing_and_runs_nothing_twice(tmp_path: Path) -> None:
    plan = Plan(kills=KILLS, seed=20, agents=2, points=POINTS)
    report = await run(plan, tmp_path, print)
    print("\n".join(show(report, plan)))
    assert report.findings.faults == []
    assert set(report.reached) == POINTS
    assert len(report.kills) >= KILLS
    assert sum(kill.recovered_s is not None for kill in report.kills) > KILLS / 2
    assert report.findings.merged > 0
    assert report.findings.ops > report.findings.tasks


def test_the_table_gives_each_kind_of_kill_its_line() -> None:
    kills = [Kill("hub", 0, 1, hub=True, recovered_s=2.0), Kill("hub", 0, 1, hub=True, recovered_s=4.0)]
    kills.append(Kill("at shim.close.before", 0, 1, frozenset({"a-1"}), recovered_s=0.5))
    shown = table(kills)
    assert shown[1].split() == ["hub", "2", "2", "3.00", "s", "3.98", "s", "4.00", "s"]
    assert [line.split()[0] for line in shown[1:]] == ["hub", "failpoint", "all"]
