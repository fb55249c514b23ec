"""What can be scraped, besides what the hub counts: the process, and what must not grow."""

from __future__ import annotations

from hub.telemetry.metrics import Metrics


async def test_the_process_is_measured_with_the_hub() -> None:
    metrics = Metrics()
    metrics.watch(dict, dict, {metrics.links: lambda: 3, metrics.observers: lambda: 2})
    text = metrics.render()[0].decode()
    shown = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if not line.startswith("#")}
    assert shown["agentcom_links"] == 3
    assert shown["agentcom_observers"] == 2
    assert shown["agentcom_asyncio_tasks"] >= 1
    assert shown["agentcom_threads"] >= 1
    assert shown["process_open_fds"] > 2
    assert shown["process_resident_memory_bytes"] > 1_000_000
