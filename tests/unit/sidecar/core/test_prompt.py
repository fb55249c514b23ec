"""What an agent is woken with holds nothing that cannot be passed on."""

from __future__ import annotations

import os

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import Spec
from sidecar.core.prompt import dirty_correction, wake_message


def test_names_of_uncommitted_files_become_printable_lines_of_their_own() -> None:
    dirty = [os.fsdecode(b"\xff.txt"), "new\nline", "\x1b[31mred", "grün.txt"]
    correction = dirty_correction(dirty, len(dirty))
    assert correction.splitlines()[1:] == ["- ?.txt", "- new?line", "- ?[31mred", "- grün.txt"]
    prompt = wake_message(Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="t"), branch="b", correction=correction)
    assert b"gr\xc3\xbcn.txt" in prompt.encode()
