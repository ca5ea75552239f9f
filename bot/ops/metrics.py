"""Counters and gauges for the operator's monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable


class Metrics:
    """Has a registry of its own, so that two bots in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._started = Counter(
            "pikzels_jobs_started", "Jobs that started or went on after a restart", registry=self.registry
        )
        self._ended = Counter("pikzels_jobs_ended", "Jobs by how they ended", ["outcome"], registry=self.registry)
        self._rejected = Counter("pikzels_refusals", "Rejected requests by kind", ["reason"], registry=self.registry)

    def started(self) -> None:
        self._started.inc()

    def ended(self, outcome: str) -> None:
        self._ended.labels(outcome).inc()

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Export `value()` as a gauge, read at every scrape."""
        Gauge(name, help_, registry=self.registry).set_function(value)
