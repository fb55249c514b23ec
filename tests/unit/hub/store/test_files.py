"""What a power cut may not take: the order of making and syncing is what counts, and tests/powercut sees it from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.store import files


def test_each_new_name_is_synced_in_the_directory_that_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    files.make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    synced.clear()
    files.make_directory(tmp_path / "a" / "b")
    assert synced == []


def test_a_directory_is_synced_and_let_go(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    files.sync_directory(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
