"""The scripts of ``ops`` are no package: each is loaded from its file, with its siblings in reach."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

OPS = Path(__file__).parents[2] / "ops"


def script(name: str) -> ModuleType:
    """``ops/<name>.py``."""
    found = importlib.util.spec_from_file_location(name, OPS / f"{name}.py")
    assert found is not None and found.loader is not None
    sys.path.insert(0, str(OPS))
    try:
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(OPS))
    return module
