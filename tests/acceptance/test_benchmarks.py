"""The benchmarks run: each once, with the smallest sizes. Their documents are whole and sane; what the figures are is not judged here."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "ops" / "bench"
pytestmark = pytest.mark.timeout(90)


async def document(name: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(BENCH / name), "--tiny", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode() + said.decode()
    found: dict[str, Any] = json.loads(said)
    assert found["settings"]["durability"] == "full"
    assert {"date", "cpu", "cores", "python", "sqlite"} <= found["machine"].keys()
    return found


async def test_the_push_benchmark_measures_a_push_and_its_parts() -> None:
    found = await document("push.py")
    assert list(found["agents"]) == ["1", "3", "10"]
    parts = found["fsync_ms"] + found["noop_http_ms"] + found["rtt_ms"]
    for took in found["agents"].values():
        assert 0 < took["p50_ms"] <= took["p99_ms"]
    assert found["ratio"] == pytest.approx(found["agents"]["3"]["p50_ms"] / parts)
    assert found["flat"] == pytest.approx(found["agents"]["10"]["p50_ms"] / found["agents"]["1"]["p50_ms"])


async def test_the_lifecycle_benchmark_measures_whole_lifecycles_and_what_must_not_grow() -> None:
    found = await document("lifecycle.py")
    assert list(found["agents"]) == ["1", "2", "4"]
    assert all(size["per_s"] > 0 and size["hub_cpu_us"] > 0 for size in found["agents"].values())
    assert found["ratio"] == pytest.approx(found["agents"]["4"]["per_s"] / found["store_alone_per_s"])
    assert found["hub_cpu_us"] == found["agents"]["4"]["hub_cpu_us"]
    assert found["claim_ratio"] > 0
    assert abs(found["kib_per_agent"]) < 1000
    assert found["rebuild_s_per_100k"] > 0 and found["rebuild_ratio"] > 0


async def test_the_keeping_benchmark_prunes_and_compacts_beside_submits() -> None:
    found = await document("keeping.py")
    assert found["prune"]["tasks"] == 400
    assert found["compact"]["bytes_after"] < found["compact"]["bytes_before"]
    for phase in ("alone", "prune", "compact"):
        assert found[phase]["submits"] > 0 and 0 < found[phase]["p50_ms"] <= found[phase]["p99_ms"]
    assert found["prune"]["steps"] > 0 and found["compact"]["steps"] > 0


async def test_the_backup_benchmark_measures_a_backup_under_writes_and_the_way_back() -> None:
    found = await document("backup.py")
    assert found["bytes"] > 2**20
    assert found["commits_during"] > 0
    assert found["p99_ratio"] == pytest.approx(found["during_ms"]["p99"] / found["before_ms"]["p99"])
    assert all(
        found[name] > 0 for name in ("backup_s", "verify_s", "restore_s", "quick_check_s_per_100k", "full_check_s_per_100k")
    )
