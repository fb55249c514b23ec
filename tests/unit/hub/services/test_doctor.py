"""The doctor asks every room, and one that cannot answer is a finding among the others."""

from __future__ import annotations

from hub.services.doctor import Doctor
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
