"""A small HTTP endpoint that says whether the bot is alive and ready, and serves its metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from bot.text import health as text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from bot.ops.exposition import Exposition
    from bot.ops.loop_lag import LoopLag

STUCK_SECONDS = 10.0  # a loop that is so late does not serve anybody, and a restart helps


@dataclass(frozen=True, slots=True)
class Health:
    """What the endpoint answers with. `ready` names the parts of the bot, each with the reason why it is not well, or
    None.
    """

    exposition: Exposition
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

    async def metrics(self, _: web.Request) -> web.Response:
        body = await self.exposition.render(await self.ready())
        return web.Response(body=body, content_type="text/plain", charset="utf-8")


@asynccontextmanager
async def served(health: Health, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve /healthz, /readyz (also as /health) and /metrics; yields the port."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", health.alive),
            web.get("/readyz", health.readiness),
            web.get("/health", health.readiness),
            web.get("/metrics", health.metrics),
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
