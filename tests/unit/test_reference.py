"""The generated references are current, and the commented configuration files have every key, its default and one comment."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hub.settings import HubSettings, resolve
from hub.settings.document import commented_file, plain
from hub.settings.keys import KEYS
from sidecar.settings import Settings as SidecarSettings

ROOT = Path(__file__).parents[2]
HUB_FILE, SIDECAR_FILE = ROOT / "config" / "hub.toml", ROOT / "config" / "sidecar.toml"


def load() -> ModuleType:
    """The script is no package: it is loaded from its file."""
    found = importlib.util.spec_from_file_location("reference", ROOT / "ops" / "reference.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


reference = load()


def settings_lines(text: str) -> dict[str, tuple[str, bool]]:
    """``table.key`` → (its comment, whether it is commented out), for every line that sets or could set a key."""
    found: dict[str, tuple[str, bool]] = {}
    table = ""
    for line in text.splitlines():
        if header := re.match(r"\[+([\w.]+)\]+", line):
            table = header[1]
        elif key := re.match(r"(# )?(\w+) = ", line):
            name = f"{table}.{key[2]}".lstrip(".")
            assert name not in found, f"{name} stands there twice"
            assert line.count("  # ") == 1, f"{name} has {line.count('  # ')} comments"
            found[name] = (line.partition("  # ")[2].strip(), key[1] is not None)
    return found


def test_the_references_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_a_reference_that_is_out_of_date_is_named_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "DOCUMENTS", {"a.md": lambda: "new\n"})
    assert reference.main(["--check"]) == 1
    assert "a.md is out of date" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert (tmp_path / "a.md").read_text() == "new\n"
    assert reference.main(["--check"]) == 0


def test_the_hubs_file_has_every_key_and_no_other_each_with_a_comment() -> None:
    found = settings_lines(HUB_FILE.read_text())
    assert list(found) == list(KEYS)
    assert all(len(comment) > 10 for comment, _ in found.values())
    assert {name for name, (_, commented_out) in found.items() if commented_out} == {
        path for path, key in KEYS.items() if key.field.default_factory is not None or key.default is None
    }


def test_the_hubs_file_says_the_defaults() -> None:
    data = tomllib.loads(HUB_FILE.read_text())
    for path, key in KEYS.items():
        value = data.get(key.name) if not key.table else data.get(key.table, {}).get(key.name)
        if value is not None:
            assert value == plain(key.default), path
    assert resolve({}, {}, HUB_FILE).settings == HubSettings()


def test_the_examples_in_the_hubs_file_are_valid(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", commented_file(), flags=re.MULTILINE).replace('approver_digest = ""', "")
    (tmp_path / "hub.toml").write_text(text)
    settings = resolve({}, {}, tmp_path / "hub.toml").settings
    assert settings.listen.public_url == "https://hub.example.org"
    assert settings.listen.tls_cert == tmp_path / "tls" / "fullchain.pem"


def test_the_sidecars_file_has_every_key_and_no_other_each_with_its_default_and_a_comment() -> None:
    found = settings_lines(SIDECAR_FILE.read_text())
    data = tomllib.loads(SIDECAR_FILE.read_text())
    free = {name for name in found if name.startswith("repos.")}
    keys = dict(reference.sidecar_keys(SidecarSettings))
    assert set(found) - free == {path.replace("[]", "") for path in keys} - {"repos"}
    assert all(len(comment) > 10 for comment, _ in found.values())
    for path, info in keys.items():
        value = _at(data, path)
        if value is not None and not info.is_required() and path != "repos":
            assert value == plain(info.default) if not isinstance(info.default, dict | list) else value == info.default, path


def _at(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name.removesuffix("[]")) if data is not None else None
        data = data[0] if name.endswith("[]") and data else data
    return data
