"""The disk that a power cut hits, against small stories told by hand."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.powercut.disk import Disk, Names
from tests.powercut.tape import Op, Step

SYNC_OF = {"f": 1, "g": 2, "d": 3, ".": 0}


def story(*told: tuple[str, str, bytes | int]) -> list[Step]:
    """``(op, path, data or offset)``; the number of a file follows from its name, so that it keeps it when it is renamed."""
    steps = []
    for op, path, what in told:
        data, offset = (what, 0) if isinstance(what, bytes) else (b"", what)
        steps.append(Step(Op(op), SYNC_OF[path.rpartition("/")[2] or "."], offset, path, data))
    return steps


def left(names: Names, steps: list[Step], place: Path, chance: Random | None = None) -> dict[str, bytes]:
    disk = Disk(names)
    for step in steps:
        disk.take(step)
    place.mkdir()
    disk.cut(place, chance)
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


WRITTEN = [("C", "f", b""), ("W", "f", b"old")]
SYNCED = [*WRITTEN, ("S", "f", b""), ("S", ".", b"")]
REPLACED = [*SYNCED, ("C", "g", b""), ("W", "g", b"new"), ("S", "g", b""), ("R", "g", b"f")]


@pytest.mark.parametrize(
    ("names", "steps", "found"),
    [
        (Names.STRICT, WRITTEN, {}),
        (Names.STRICT, [*WRITTEN, ("S", "f", b"")], {}),
        (Names.ORDERED, [*WRITTEN, ("S", "f", b"")], {"f": b"old"}),
        (Names.STRICT, [*WRITTEN, ("S", ".", b"")], {"f": b""}),
        (Names.STRICT, SYNCED, {"f": b"old"}),
        (Names.STRICT, [*SYNCED, ("W", "f", b"new")], {"f": b"old"}),
        (Names.STRICT, [*SYNCED, ("T", "f", 1), ("S", "f", b"")], {"f": b"o"}),
        (Names.STRICT, [*SYNCED, ("U", "f", b"")], {"f": b"old"}),
        (Names.STRICT, [*SYNCED, ("U", "f", b""), ("S", ".", b"")], {}),
        (Names.STRICT, REPLACED, {"f": b"old"}),
        (Names.STRICT, [*REPLACED, ("S", ".", b"")], {"f": b"new"}),
        (Names.STRICT, [("M", "d", b""), ("C", "d/f", b""), ("S", "f", b""), ("S", "d", b"")], {}),
        (Names.ORDERED, [("M", "d", b""), ("C", "d/f", b""), ("W", "d/f", b"x"), ("S", "d/f", b"")], {"d/f": b"x"}),
    ],
)
def test_what_is_left(names: Names, steps: list[tuple[str, str, bytes | int]], found: dict[str, bytes], tmp_path: Path) -> None:
    assert left(names, story(*steps), tmp_path / "left") == found


def test_chance_leaves_any_part_of_what_was_not_synced_and_nothing_else_changes(tmp_path: Path) -> None:
    body = bytes([1]) * 512 + bytes([2]) * 512 + bytes([3]) * 100
    steps = story(("C", "f", b""), ("W", "f", b"old"), ("S", "f", b""), ("S", ".", b""), ("W", "f", body))
    seen = {left(Names.STRICT, steps, tmp_path / str(seed), Random(seed))["f"] for seed in range(60)}
    assert {b"old", body} < seen, "all of it, and none"
    assert any(content[:3] == b"old" and len(content) > 512 for content in seen), "the second sector without the first"
    whole = [b"old", body[:512], body[512:1024], body[1024:]]
    assert all(part in whole or not part.strip(b"\0") for content in seen for part in _sectors(content) if part[:3] != b"old")


def _sectors(content: bytes) -> list[bytes]:
    return [content[at : at + 512] for at in range(0, len(content), 512)]
