"""The doctor asks every room, and one that cannot answer is a finding among the others."""

from __future__ import annotations

from hub.core.agent import Agent
from hub.ids import AgentId
from hub.services.doctor import SHOWN, Doctor, judge_agents
from hub.store.base import StoreBroken
from hub.wire.finding import Finding, ok


async def good() -> list[Finding]:
    return [ok("good", "fine")]


async def broken() -> list[Finding]:
    raise StoreBroken("no such disk")


async def gone() -> list[Finding]:
    raise PermissionError(13, "Permission denied")


async def test_a_room_that_cannot_be_examined_hides_no_other() -> None:
    found = await Doctor({"store": broken, "files": gone, "good": good}).examine()
    assert [(one.check, one.state) for one in found] == [("store", "fail"), ("files", "fail"), ("good", "ok")]
    assert "no such disk" in found[0].found


async def test_mending_comes_before_looking_again() -> None:
    done: list[str] = []

    async def mend() -> None:
        done.append("mended")

    async def look() -> list[Finding]:
        return [ok("look", ", ".join(done))]

    doctor = Doctor({"look": look}, menders=(mend,))
    assert (await doctor.examine())[0].found == ""
    assert (await doctor.mend())[0].found == "mended"


def test_quarantined_agents_are_named_with_their_cause_and_the_way_out() -> None:
    assert judge_agents([]).state == "ok"
    bad = [Agent(AgentId(f"w{i}"), 1, quarantine_cause="cannot_start") for i in range(SHOWN + 2)]
    found = judge_agents(bad)
    assert found.state == "warn" and "w0 (cannot_start)" in found.found and found.found.endswith("and 2 more")
    assert "agentcom agent resume w0" in found.fix
