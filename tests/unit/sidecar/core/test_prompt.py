"""What an agent is woken with holds nothing that cannot be passed on."""

from __future__ import annotations

import os

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import Salvaged, Spec
from sidecar.core.prompt import dirty_correction, wake_message


def test_names_of_uncommitted_files_become_printable_lines_of_their_own() -> None:
    dirty = [os.fsdecode(b"\xff.txt"), "new\nline", "\x1b[31mred", "grün.txt"]
    correction = dirty_correction(dirty, len(dirty))
    assert correction.splitlines()[1:] == ["- ?.txt", "- new?line", "- ?[31mred", "- grün.txt"]
    prompt = wake_message(Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="t"), branch="b", correction=correction)
    assert b"gr\xc3\xbcn.txt" in prompt.encode()


def test_work_of_earlier_attempts_is_told_with_where_it_is() -> None:
    one = Salvaged(
        lease_epoch=LeaseEpoch(2), agent="a-1", reason="it came too late", outcome="succeeded", branch="agentcom/t-1/2",
        head_sha="b" * 40, summary="I did it\n# and this is no heading",
    )  # fmt: skip
    gone = Salvaged(lease_epoch=LeaseEpoch(1), reason="left", outcome="failed", branch="agentcom/salvage/t-1/1")
    spec = Spec(task=TaskId(1), lease_epoch=LeaseEpoch(3), title="t", salvage=(one, gone))
    told = wake_message(spec, branch="b", offers={2: "refs/agentcom/salvage/t-1/2"})
    assert "Attempt 2 by a-1 (succeeded): it came too late." in told
    assert f"It left branch agentcom/t-1/2 at {'b' * 40}; it is here as refs/agentcom/salvage/t-1/2" in told
    assert "> # and this is no heading" in told, "what it said cannot pass for a section of ours"
    assert "agentcom/salvage/t-1/1 with what it did not commit; the remote no longer has it" in told
