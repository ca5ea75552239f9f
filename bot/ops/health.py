"""A small HTTP endpoint that says whether the bot is alive and ready, and serves its metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from bot.text import health as text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from bot.ops.loop_lag import LoopLag
    from bot.ops.metrics import Metrics

STUCK_SECONDS = 10.0  # a loop that is so late does not serve anybody, and a restart helps


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


@dataclass(frozen=True, slots=True)
class Health:
    """What the endpoint answers with. `ready` names the parts of the bot, each with the reason why it is not well, or
    None.
    """

    metrics: Metrics
    lag: LoopLag
    ready: Callable[[], Awaitable[Mapping[str, str | None]]]

    async def alive(self, _: web.Request) -> web.Response:
        """Whether a restart would help. What others do (Discord, the provider, the balance) must not provoke one."""
        stuck = self.lag.now > STUCK_SECONDS
        body = {
            "event_loop": text.LOOP_STUCK if stuck else text.OK,
            "loop_lag_seconds": round(self.lag.now, 6),
            "loop_lag_max_seconds": round(self.lag.highest, 6),
        }
        return web.json_response(body, status=503 if stuck else 200)

    async def readiness(self, _: web.Request) -> web.Response:
        parts = await self.ready()
        body = {name: reason or text.OK for name, reason in parts.items()}
        return web.json_response(body, status=503 if any(parts.values()) else 200)


@asynccontextmanager
async def served(health: Health, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve /healthz, /readyz (also as /health) and /metrics; yields the port."""
    registry = CollectorRegistry()  # of its own, so that two bots in one process do not add up
    registry.register(_Exposition(health.metrics))

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", health.alive),
            web.get("/readyz", health.readiness),
            web.get("/health", health.readiness),
            web.get("/metrics", exposition),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
