"""Counters, and a small HTTP endpoint that says whether the bot is well."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Metrics:
    """A registry of its own, so that two bots in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._started = Counter("pikzels_jobs_started", "Jobs that began or went on", registry=self.registry)
        self._ended = Counter("pikzels_jobs_ended", "Jobs by how they ended", ["outcome"], registry=self.registry)
        self._refused = Counter("pikzels_refusals", "Requests not taken", ["reason"], registry=self.registry)

    def started(self) -> None:
        self._started.inc()

    def ended(self, outcome: str) -> None:
        self._ended.labels(outcome).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Show `value()` as a gauge whenever somebody looks."""
        Gauge(name, help_, registry=self.registry).set_function(value)


@asynccontextmanager
async def served(
    metrics: Metrics, *, host: str, port: int, healthy: Callable[[], dict[str, bool]]
) -> AsyncIterator[int]:
    """Serve /health (200 when every part is well, else 503) and /metrics; yields the port."""

    async def health(_: web.Request) -> web.Response:
        parts = healthy()
        return web.json_response(parts, status=200 if all(parts.values()) else 503)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8")

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
