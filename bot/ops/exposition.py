"""Puts the metrics into Prometheus' words. Imported only if somebody may ask."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from bot import __version__
from bot.domain.quota import DOLLAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from bot.ops.metrics import Gauge, Histogram, Metrics

PREFIX = "pikzels_bot_"


class Exposition(Collector):
    """The metrics of one bot, and those of its process. The registry is its own, so that two bots in one process do not
    add up.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._values: dict[str, float | Mapping[str, float]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def render(self, parts: Mapping[str, str | None]) -> bytes:
        """The exposition in Prometheus' text format; `parts` as for `Health`."""
        self._values = await asyncio.to_thread(self._metrics.read, slow=True)
        self._values |= self._metrics.read(slow=False)
        self._values["ready"] = {name: float(problem is None) for name, problem in parts.items()}
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: there is nothing to compare with other collectors, and so nothing to collect before a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}build", "The version of the bot", {"version": __version__})
        yield from self._jobs()
        yield from self._money()
        yield from self._others()
        for gauge in self._metrics.gauges:
            yield _gauge(gauge, self._values[gauge.name])
        ready = GaugeMetricFamily(
            f"{PREFIX}ready", "Whether a part is well (1) or not (0), as in /readyz", labels=["part"]
        )
        yield _labeled(ready, self._values["ready"])

    def _jobs(self) -> Iterator[Metric]:
        metrics = self._metrics
        started = "Jobs that started or went on after a restart"
        yield CounterMetricFamily(f"{PREFIX}jobs_started", started, value=metrics.jobs_started)
        ended = CounterMetricFamily(
            f"{PREFIX}jobs_ended", "Jobs by how they ended and by model", labels=["outcome", "model"]
        )
        for labels, count in metrics.jobs_ended.items():
            ended.add_metric(labels, count)
        yield ended
        yield _counts("requests_refused", "Refused requests by kind", "reason", metrics.refusals)
        yield _histogram("queue_wait_seconds", "Time that requests waited for their turn", {"": metrics.wait_seconds})

    def _money(self) -> Iterator[Metric]:
        for what, help_ in _CREDITS.items():
            yield CounterMetricFamily(f"{PREFIX}{what}_credits", help_, value=self._metrics.credits[what])
        for what, help_ in _DOLLARS.items():
            yield CounterMetricFamily(f"{PREFIX}{what}_dollars", help_, value=self._metrics.dollars[what] / DOLLAR)

    def _others(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield _counts("provider_calls", "Paid calls by what came back", "code", metrics.calls)
        yield _histogram(
            "provider_call_duration_seconds", "How long paid calls took, by model", metrics.call_seconds, label="model"
        )
        yield _counts("discord_requests", "Requests to Discord by HTTP status", "status", metrics.requests)
        yield _histogram(
            "discord_request_duration_seconds", "Time until Discord answered a request", {"": metrics.request_seconds}
        )
        connections = "Connections to the gateway, by whether the session was new or resumed"
        yield _counts("gateway_connections", connections, "session", metrics.connections)


_CREDITS = {
    "held": "Credits held for accepted requests",
    "charged": "Credits charged for delivered images",
    "released": "Credits given back",
}
_DOLLARS = {
    "held": "Price of accepted requests",
    "charged": "Price of delivered images",
    "released": "Price of requests that cost nothing after all",
    "spent": "Price of all images that were paid for, or may have been",
}


def _counts(name: str, help_: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", help_, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, help_: str, histograms: Mapping[str, Histogram], *, label: str | None = None) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}{name}", help_, labels=[label] if label else None)
    for value, histogram in histograms.items():
        bounds = [str(float(bound)) for bound in histogram.bounds]
        buckets = list(zip([*bounds, "+Inf"], accumulate(map(float, histogram.counts)), strict=True))
        family.add_metric([value] if label else [], buckets, histogram.sum)
    return family


def _gauge(gauge: Gauge, value: float | Mapping[str, float]) -> Metric:
    labels = [gauge.label] if gauge.label else None
    return _labeled(GaugeMetricFamily(f"{PREFIX}{gauge.name}", gauge.help, labels=labels), value)


def _labeled(family: GaugeMetricFamily, value: float | Mapping[str, float]) -> Metric:
    if isinstance(value, float | int):
        family.add_metric([], value)
    else:
        for label, number in value.items():
            family.add_metric([label], number)
    return family
