"""Watches the bot while it runs: its connection, its event loop, and what its metrics and its health are read from."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING

from bot.discord_io import gateway_state
from bot.domain.errors import InvalidConfiguration
from bot.domain.health import Connection
from bot.domain.models import Circuit
from bot.ops.loop_lag import LoopLag

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AsyncExitStack
    from pathlib import Path

    import aiohttp

    from bot.app import App
    from bot.config import Settings
    from bot.domain import protocols
    from bot.domain.health import Gateway
    from bot.ops.metrics import Metrics

log = logging.getLogger(__name__)


def start(stack: AsyncExitStack, work: Coroutine[None, None, None], *, name: str) -> None:
    """Run `work`, which never ends by itself, in a task until the stack is closed."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("%s ended because of an internal error", name, exc_info=task.exception())

    async def stop() -> None:
        task.cancel()
        await asyncio.wait([task])

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    stack.push_async_callback(stop)


def measured(provider: protocols.Provider, settings: Settings, metrics: Metrics) -> protocols.Provider:
    """The provider, measured if anybody may ask for the figures."""
    if settings.health.port is None:
        return provider
    from bot.ops.call_times import MeasuredProvider  # noqa: PLC0415 - as below

    return MeasuredProvider(provider, metrics)


def trace(settings: Settings, metrics: Metrics) -> aiohttp.TraceConfig | None:
    if settings.health.port is None:
        return None
    from bot.ops.call_times import discord_trace  # noqa: PLC0415 - as below

    return discord_trace(metrics)


async def serve_health(stack: AsyncExitStack, settings: Settings, metrics: Metrics, app: App) -> None:
    if settings.health.port is None:
        return
    from bot.ops import health, ports  # noqa: PLC0415 - a web server and Prometheus' library, which few bots need
    from bot.ops.exposition import Exposition  # noqa: PLC0415

    lag = LoopLag()
    start(stack, lag.run(), name="loop-lag")
    _watch(metrics, app, lag, folder=settings.storage.folder)
    host, port = settings.health.host, settings.health.port
    served = health.served(health.Health(Exposition(metrics), lag, app.ready), host=host, port=port)
    try:
        port = await stack.enter_async_context(served)
    except OSError as error:
        raise InvalidConfiguration(*ports.described(error, host=host, port=port)) from error
    log.info("health and metrics on http://%s:%d", host, port)


def _watch(metrics: Metrics, app: App, lag: LoopLag, *, folder: Path) -> None:
    """Everything that is read when somebody asks for the metrics."""
    queue, watch = app.queue, metrics.watch

    def gateway() -> Gateway:
        return gateway_state.read(app.client)

    def shards() -> dict[str, float]:
        known = gateway().connections
        return {str(state): float(known.count(state)) for state in Connection}

    def open_circuits() -> dict[str, float]:
        return {str(circuit): float(circuit in queue.circuits.open) for circuit in Circuit}

    watch(
        "gateway_connected",
        "Whether every connection to Discord is acknowledged (1) or not (0)",
        lambda: float(gateway().is_connected),
    )
    watch("gateway_shards", "Connections to Discord, by how they are now", shards, label="state")
    watch("gateway_latency_seconds", "Time until Discord acknowledged the last heartbeat", lambda: gateway().latency)
    watch("queue_length", "Requests that wait for a paid call", lambda: queue.waiting)
    watch("provider_calls_in_progress", "Paid calls in progress", lambda: queue.running)
    watch(
        "jobs_in_progress",
        "Jobs that have not ended, without those that wait for a claim",
        lambda: len(app.use_case.tasks.jobs),
    )
    watch("circuit_open", "Whether requests are refused (1) or not (0), by reason", open_circuits, label="circuit")
    watch("event_loop_lag_seconds", "How late the event loop was at most, within the last minute", lambda: lag.highest)
    watch("spool_bytes", "Finished images on their way to Discord", app.spool.size, slow=True)
    watch("sources_bytes", "Stored source images", lambda: app.source_store.size)
    watch(
        "disk_free_bytes",
        "Free disk space in the folder of the data",
        lambda: shutil.disk_usage(folder).free,
        slow=True,
    )
    watch("backup_age_seconds", "Age of the newest backup; NaN without one", app.backup_age)
