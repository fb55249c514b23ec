"""A Python that other users may run: the one of the tests often lies in a home that is closed to them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def interpreter_for_all() -> tuple[str, str]:
    """A Python of our version below /usr, and the path that gives it this checkout and its packages."""
    return f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}", os.pathsep.join([str(ROOT), *sys.path])
