"""Measures what others do for us: the provider's calls and Discord's answers. Imported only if somebody may ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp

from bot.domain.errors import JobFailed

if TYPE_CHECKING:
    from types import SimpleNamespace

    from bot.domain.models import Output, ThumbnailRequest
    from bot.domain.protocols import Provider
    from bot.ops.metrics import Metrics


class MeasuredProvider:
    """A `Provider` that measures another one."""

    def __init__(self, provider: Provider, metrics: Metrics) -> None:
        self._provider = provider
        self._metrics = metrics

    async def create(self, request: ThumbnailRequest) -> Output:
        began = time.perf_counter()
        try:
            output = await self._provider.create(request)
        except JobFailed as failure:
            self._metrics.called(request.model, failure, time.perf_counter() - began)
            raise
        except asyncio.CancelledError:
            self._metrics.interrupted(request.model, time.perf_counter() - began)
            raise
        self._metrics.called(request.model, None, time.perf_counter() - began)
        return output


def discord_trace(metrics: Metrics) -> aiohttp.TraceConfig:
    """For discord.py's client: tells `metrics` of every answer, up to its headers."""

    async def started(_: aiohttp.ClientSession, request: SimpleNamespace, __: aiohttp.TraceRequestStartParams) -> None:
        request.began = time.perf_counter()

    async def ended(_: aiohttp.ClientSession, request: SimpleNamespace, end: aiohttp.TraceRequestEndParams) -> None:
        metrics.requested(end.response.status, time.perf_counter() - request.began)

    async def failed(
        _: aiohttp.ClientSession, request: SimpleNamespace, __: aiohttp.TraceRequestExceptionParams
    ) -> None:
        metrics.requested(None, time.perf_counter() - request.began)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    trace.on_request_end.append(ended)
    trace.on_request_exception.append(failed)
    return trace
