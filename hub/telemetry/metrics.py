"""Every metric of the hub, named in one place. Labels are lanes, states and verdicts: never ids."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from hub.ids import Lane, TaskState, Verdict

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LONG_SECONDS = (0.001, 0.01, 0.1, 1, 10, 60, 600)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 512, 1024)


class Metrics:
    """The hub's own registry; nothing is registered globally, so two hubs can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.queue_depth = Gauge("agentcom_queue_depth", "Ready tasks by lane.", ["lane"], registry=registry)
        self.tasks = Gauge("agentcom_tasks", "Live tasks by state.", ["state"], registry=registry)
        self.agents_connected = Gauge("agentcom_agents_connected", "Agents with a live session.", registry=registry)
        self.agents_quarantined = Gauge(
            "agentcom_agents_quarantined",
            "Agents that are given nothing because of what speaks against them.",
            registry=registry,
        )
        self.quarantines = Counter("agentcom_quarantines", "Agents put into quarantine.", registry=registry)
        self.rate_limited = Counter("agentcom_rate_limited", "Attempts refused for their number.", ["tier"], registry=registry)
        self.links = Gauge("agentcom_links", "Open sockets of sidecars, also those without a session yet.", registry=registry)
        self.observers = Gauge("agentcom_observers", "Streams of events that are read live.", registry=registry)
        self.loop_lag_seconds = Histogram(
            "agentcom_loop_lag_seconds",
            "How late the event loop is, looked at twice a second.",
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("agentcom_threads", "Threads of the process.", registry=registry).set_function(threading.active_count)
        Gauge("agentcom_asyncio_tasks", "Tasks of the event loop.", registry=registry).set_function(_tasks)
        ProcessCollector(registry=registry)  # memory, open files, processor time, start
        self.push_seconds = Histogram(
            "agentcom_push_latency_seconds", "From a claim's decision to its assign frame.", buckets=_SECONDS, registry=registry
        )
        self.lease_expiries = Counter("agentcom_lease_expiries", "Leases that ended without a word.", registry=registry)
        self.results = Counter("agentcom_results", "Results by verdict.", ["verdict"], registry=registry)
        self.salvage = Counter(
            "agentcom_salvage", "Work that was not applied: kept, and what was decided about it.", ["what"], registry=registry
        )
        self.group_size = Histogram("agentcom_commit_group_size", "Decisions in one commit.", buckets=_SIZES, registry=registry)
        self.commit_seconds = Histogram("agentcom_commit_seconds", "Time of one commit.", buckets=_SECONDS, registry=registry)
        self.rebuilds = Counter("agentcom_rebuilds", "Schedulers rebuilt after a failed commit.", registry=registry)
        self.safety_claims = Counter(
            "agentcom_safety_pass_claims", "Claims only the safety pass made: a defect.", registry=registry
        )
        self.chore_seconds = Histogram(
            "agentcom_chore_seconds", "Time of one run of periodic work.", ["chore"], buckets=_LONG_SECONDS, registry=registry
        )
        self.chore_failures = Counter(
            "agentcom_chore_failures", "Runs of periodic work that failed.", ["chore"], registry=registry
        )
        self.errand_seconds = Histogram(
            "agentcom_errand_step_seconds",
            "How long one step of pruning or compaction held the writer.",
            ["errand"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.pruned = Counter("agentcom_pruned", "Rows that were no longer kept, by kind.", ["kind"], registry=registry)
        self._store = {
            name: Gauge(f"agentcom_{name}", said, registry=registry)
            for name, said in (
                ("store_bytes", "Size of the store's file."),
                ("store_free_bytes", "What of it is free, and could be given back to the disk."),
                ("store_log_bytes", "Length of the store's log."),
                ("store_oldest_reader_seconds", "How long the longest query has been running."),
                ("blob_bytes", "All blobs together."),
                ("disk_free_bytes", "What is free on the disk of the store."),
                ("disk_reserve_bytes", "What is kept there for agents at work; 0 when it was given up."),
                ("prune_backlog", "Ended tasks that are older than they have to be kept, as counted once an hour."),
            )
        }
        self.backup_made = Gauge(
            "agentcom_backup_timestamp_seconds", "When the newest verified backup was made.", registry=registry
        )
        self.backup_verified = Gauge(
            "agentcom_backup_verified_timestamp_seconds", "When the newest backup was last found whole.", registry=registry
        )
        self.backup_bytes = Gauge("agentcom_backup_bytes", "Size of the newest backup.", registry=registry)
        self.backup_failures = Counter("agentcom_backup_failures", "Backups that could not be made.", registry=registry)
        self.integrity_checked = Gauge(
            "agentcom_integrity_checked_timestamp_seconds", "When the store was last checked in full.", registry=registry
        )
        self.integrity_faults = Gauge("agentcom_integrity_faults", "Faults that check found.", registry=registry)
        for lane in Lane:
            self.queue_depth.labels(lane)
        for what in ("kept", "applied", "dropped"):
            self.salvage.labels(what)
        for verdict in Verdict:
            self.results.labels(verdict)

    def watch(
        self,
        queue: Callable[[], Mapping[Lane, int]],
        states: Callable[[], Mapping[TaskState, int]],
        counts: Mapping[Gauge, Callable[[], int]],
    ) -> None:
        """Read gauges from where their figures are when they are scraped, not when they change."""
        for lane in Lane:
            self.queue_depth.labels(lane).set_function(partial(_lookup, queue, lane))
        for state in TaskState:
            self.tasks.labels(state).set_function(partial(_lookup, states, state))
        for gauge, count in counts.items():
            gauge.set_function(count)

    def watch_store(self, figures: Callable[[], Mapping[str, float]]) -> None:
        """Read the store's gauges when they are scraped: ``figures`` by the names of the metrics, without their prefix."""
        for name, gauge in self._store.items():
            gauge.set_function(partial(_figure, figures, name))

    def errand_stepped(self, errand: str, held_s: float) -> None:
        """A step of pruning or compaction is over."""
        self.errand_seconds.labels(errand).observe(held_s)

    def chore_ran(self, chore: str, seconds: float, done: bool) -> None:
        """A run of periodic work ended."""
        self.chore_seconds.labels(chore).observe(seconds)
        self.chore_failures.labels(chore).inc(not done)

    def render(self) -> tuple[bytes, str]:
        """The OpenMetrics text and its content type."""
        body: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        return body, CONTENT_TYPE_LATEST


K = TypeVar("K")


def _tasks() -> int:
    """Of the loop that renders: the hub's only one."""
    return len(asyncio.all_tasks())


def _lookup(read: Callable[[], Mapping[K, int]], key: K) -> int:
    return read().get(key, 0)


def _figure(read: Callable[[], Mapping[str, float]], name: str) -> float:
    return read().get(name, 0.0)
