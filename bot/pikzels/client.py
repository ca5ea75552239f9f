"""The HTTP client of the Pikzels API: one paid call, sent at most once per invocation, every outcome a type.

No redirect is followed (aiohttp would send the key and the body again), the body is capped while it streams, nothing
is decompressed, and the key appears in no repr, log or exception: aiohttp's own errors carry the request's headers,
so they are never chained or passed on, only named.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp

from bot.domain.errors import AnswerUnusable, OutcomeUnknown, ProviderMoved, ProviderRefused, ProviderUnreachable
from bot.domain.models import Output
from bot.http_session import BodyTooLarge, HttpClient, capped, json_object
from bot.pikzels import create_from_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot.domain.diagnosis import Answer
    from bot.domain.errors import JobFailed
    from bot.domain.models import ThumbnailRequest

BODY_BYTES = 256 * 1024
_CONNECT_SECONDS = 10.0
_NO_PERSONA = "/v2/pikzonality/00000000-0000-0000-0000-000000000000"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,64}")


class Pikzels(HttpClient):
    """`timeout` is the total seconds that one call may take.

    Each paid call has a fresh connection of its own. A kept one can close just as the request is written, which looks
    like a reset after sending.
    """

    def __init__(
        self, *, api_key: str, base_url: str, timeout: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            headers={"X-Api-Key": api_key, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=timeout, connect=_CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS),
        )
        self._base_url = base_url.rstrip("/")
        self._url = self._base_url + create_from_image.PATH
        self._clock = clock

    async def create(self, request: ThumbnailRequest) -> Output:
        """Make the paid call; raises `ProviderRefused`, `ProviderUnreachable`, `ProviderMoved`, `AnswerUnusable`,
        `OutcomeUnknown`.
        """
        content = aiohttp.BytesIOPayload(BytesIO(await _encoded(request)), content_type="application/json")
        try:
            async with self._session.post(self._url, data=content, allow_redirects=False) as response:
                return self._read(response.status, response.headers, await _body(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            # All are raised before or while the connection is being made: nothing has left.
            failure: JobFailed = ProviderUnreachable(type(error).__name__)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            failure = OutcomeUnknown(type(error).__name__)
        raise failure  # here, where aiohttp's error, which holds the key, is not its context

    async def try_key(self) -> Answer:
        """Ask for a persona that nobody has: an accepted key gets a 404, and the call costs nothing."""
        return await self.ask(self._base_url + _NO_PERSONA)

    def _read(self, status: int, headers: Mapping[str, str], raw: bytes | None) -> Output:
        header_id = _matching(_REQUEST_ID, headers.get("X-Request-Id"))
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirects
            raise ProviderMoved(f"status {status}")
        answer = json_object(raw)
        request_id = _matching(_REQUEST_ID, answer.get("request_id")) or header_id
        if status == 200:  # noqa: PLR2004 - the contract's only success
            return _output(answer, request_id)
        error = answer.get("error")
        code = _matching(_CODE, error.get("code")) if isinstance(error, dict) else None
        if status < 400 or code is None:  # noqa: PLR2004
            raise OutcomeUnknown("no error envelope", status=status, request_id=request_id)
        raise ProviderRefused(
            code, status, request_id=request_id, retry_after=self._retry_after(headers), fields=_fields(error)
        )

    def _retry_after(self, headers: Mapping[str, str]) -> timedelta | None:
        """Seconds or an HTTP date; None for nonsense and for the past."""
        value = headers.get("Retry-After", "").strip()
        try:
            if value.isascii() and value.isdigit():
                return timedelta(seconds=min(int(value[:9]), 86_400))
            moment = parsedate_to_datetime(value)
            pause = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - self._clock()
        except (ValueError, OverflowError):
            return None
        return pause if pause > timedelta(0) else None


async def _encoded(request: ThumbnailRequest) -> bytes:
    if request.image_base64 is None and request.support_base64 is None:
        return create_from_image.encoded(request)
    return await asyncio.to_thread(create_from_image.encoded, request)


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None if it is longer than any honest answer."""
    try:
        return b"".join([piece async for piece in capped(response, BODY_BYTES)])
    except BodyTooLarge:
        return None


def _output(answer: Mapping[str, Any], request_id: str | None) -> Output:
    url = answer.get("output")
    if not isinstance(url, str) or not 0 < len(url) <= 4096 or not url.isprintable():  # noqa: PLR2004 - longer than any URL
        raise AnswerUnusable("no output address", status=200, request_id=request_id)
    return Output(url, request_id)


def _fields(error: Any) -> tuple[str, ...]:
    """The names of the fields that a validation error is about; its messages are never shown."""
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return ()
    named = (_matching(_FIELD, detail.get("field")) for detail in details[:10] if isinstance(detail, dict))
    return tuple(name for name in named if name)


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
