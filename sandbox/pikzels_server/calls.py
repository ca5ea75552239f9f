"""The calls the stand-in received, and a way to wait for the nth."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

KEY_HEADER = "X-Api-Key"


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came in, without its key; `body` is its JSON value, None if it had none."""

    at: datetime
    body: Any
    headers: Mapping[str, str] = field(repr=False)
    request_id: str
    keyed: bool


class Log:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._news = asyncio.Event()

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self._news.set()
        self._news = asyncio.Event()

    async def reached(self, count: int, *, within: float) -> None:
        """Wait until there are `count` calls; raises TimeoutError."""
        async with asyncio.timeout(within):
            while len(self.calls) < count:
                await self._news.wait()


def call_of(request: web.Request, body: Any, *, request_id: str) -> Call:
    headers = request.headers.copy()
    keyed = headers.popall(KEY_HEADER, None) is not None
    return Call(datetime.now(UTC), body, CIMultiDictProxy(headers), request_id, keyed)
