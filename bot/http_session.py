"""What every HTTP client of ours shares: an isolated session, and bodies that are never read without a limit."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from bot import __version__
from bot.domain.diagnosis import Answer, Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta
    from types import TracebackType


USER_AGENT = f"pikzels-bot/{__version__}"
_BODY_BYTES = 256 * 1024


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
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **(headers or {})},
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
        )

    async def ask(self, url: str) -> Answer:
        """GET `url`, to see whether and how it answers: raises nothing for what a server or a network may do."""
        sent = datetime.now(UTC)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                raw = b"".join([piece async for piece in capped(response, _BODY_BYTES)])
                ahead = _ahead(response.headers.get("Date"), sent=sent, received=datetime.now(UTC))
                return Answer(response.status, json_object(raw), ahead)
        except (aiohttp.ClientError, OSError, ValueError, BodyTooLarge) as error:
            return Answer(trouble=_trouble(error))

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


def json_object(raw: bytes | None) -> dict[str, Any]:
    """The JSON object in `raw`; an empty one for anything else."""
    try:
        answer = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _ahead(date: str | None, *, sent: datetime, received: datetime) -> timedelta | None:
    """How far this machine's clock is ahead of a server that has answered with `date`; None if it is not a date."""
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return sent + (received - sent) / 2 - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _trouble(error: Exception) -> Trouble:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Trouble.NAME
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Trouble.CERTIFICATE
        case TimeoutError():
            return Trouble.TIMEOUT
        case aiohttp.ClientOSError() | OSError():
            return Trouble.CONNECTION
    return Trouble.ANSWER
