"""The calls that the stand-in received, and a way to wait for more."""

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
    """A received request without its API key. `body` is its JSON value, or None if it had none."""

    at: datetime
    body: Any
    headers: Mapping[str, str] = field(repr=False)
    request_id: str
    keyed: bool


class CallLog:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._changed = asyncio.Event()

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_count(self, count: int, *, within: float) -> None:
        """Wait until the log has `count` calls; raises TimeoutError."""
        async with asyncio.timeout(within):
            while len(self.calls) < count:
                await self._changed.wait()


def call_from_request(request: web.Request, body: Any, *, request_id: str) -> Call:
    headers = request.headers.copy()
    keyed = headers.popall(KEY_HEADER, None) is not None
    return Call(datetime.now(UTC), body, CIMultiDictProxy(headers), request_id, keyed)
