"""A small HTTP endpoint that says whether the bot is well, and serves its metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from bot.ops.metrics import Metrics


class _Exposition(Collector):
    """The metrics of one bot, as Prometheus reads them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        started = "Jobs that started or went on after a restart"
        yield CounterMetricFamily("pikzels_jobs_started", started, value=metrics.jobs_started)
        yield _counted("pikzels_jobs_ended", "Jobs by how they ended", "outcome", metrics.jobs_ended)
        yield _counted("pikzels_refusals", "Rejected requests by kind", "reason", metrics.refusals)
        for gauge in metrics.gauges:
            yield GaugeMetricFamily(gauge.name, gauge.help, value=gauge.value())


def _counted(name: str, help_: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


@asynccontextmanager
async def served(
    metrics: Metrics, *, host: str, port: int, healthy: Callable[[], dict[str, bool]]
) -> AsyncIterator[int]:
    """Serve /health (200 when every part is well, else 503) and /metrics; yields the port."""
    registry = CollectorRegistry()  # of its own, so that two bots in one process do not add up
    registry.register(_Exposition(metrics))

    async def health(_: web.Request) -> web.Response:
        parts = healthy()
        return web.json_response(parts, status=200 if all(parts.values()) else 503)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/metrics", exposition)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
