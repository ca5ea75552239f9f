"""Counters and gauges for the operator's monitoring."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Gauge:
    """`value()` is read whenever someone asks."""

    name: str
    help: str
    value: Callable[[], float]


class Metrics:
    """Counts from the start, in plain numbers: `bot.ops.health` puts them into words, if it is on."""

    def __init__(self) -> None:
        self.jobs_started = 0
        self.jobs_ended: Counter[str] = Counter()  # by outcome
        self.refusals: Counter[str] = Counter()  # by kind
        self.gauges: list[Gauge] = []

    def started(self) -> None:
        self.jobs_started += 1

    def ended(self, outcome: str) -> None:
        self.jobs_ended[outcome] += 1

    def rejected(self, reason: str) -> None:
        self.refusals[reason] += 1

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Export `value()` as a gauge, read at every scrape."""
        self.gauges.append(Gauge(name, help_, value))
