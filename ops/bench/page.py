"""What a benchmark says besides its figures: where and how they were taken, and how a reader sees them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hub.telemetry import log

LIBRARIES = ("uvloop", "uvicorn", "websockets", "fastapi", "pydantic", "orjson")


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: shows that it runs, its figures mean nothing")
    return parser


def quiet() -> None:
    """No log of the parts of a hub that run inside the benchmark."""
    log.configure(level="warning")


def machine() -> dict[str, Any]:
    """Where the figures were taken, and how busy it was by then."""
    facts = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": next((line.partition(": ")[2] for line in facts if line.startswith("model name")), platform.machine()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "disk": tempfile.gettempdir(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in LIBRARIES},
    }


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which ``share`` of all lie."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def show(document: dict[str, Any], rows: Sequence[tuple[str, str, str]], *, as_json: bool) -> None:
    """Print the document for programs, or its rows (measure, figure, bar) for people."""
    if as_json:
        print(json.dumps(document))
        return
    table = Table("measure", "figure", "bar")
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout)
    console.print(table)
    for name in ("settings", "machine"):
        console.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in document[name].items()), highlight=False)


def judged(value: float, bar: float, *, at_most: bool = True) -> str:
    """A bar and whether it holds."""
    held = value <= bar if at_most else value >= bar
    return f"{'≤' if at_most else '≥'} {bar:g} {'holds' if held else 'MISSED'}"
