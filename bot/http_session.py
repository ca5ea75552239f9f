"""What every HTTP client of ours shares: an isolated session, and bodies that are never read without a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType


class BodyTooLarge(Exception):
    """A response has more bytes than any honest one."""


class HttpClient:
    """Owns a session without cookies, without a proxy from the environment, and without decompression; closes it at
    the end of its `async with`.
    """

    def __init__(
        self,
        *,
        timeout: aiohttp.ClientTimeout,
        connector: aiohttp.BaseConnector | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", **(headers or {})},
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()


async def capped(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises `BodyTooLarge` beyond `limit` bytes, and reads no further."""
    total = 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > limit:
            response.close()
            raise BodyTooLarge
        yield piece
