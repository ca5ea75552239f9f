"""A small HTTP endpoint that says whether the bot is well, and serves its metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot.ops.metrics import Metrics


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
