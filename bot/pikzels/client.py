"""The HTTP client of the Pikzels API: one paid call, sent at most once per invocation, every outcome a type.

No redirect is followed (aiohttp would send the key and the body again), the body is capped while it streams, nothing
is decompressed, and the key appears in no repr, log or exception: aiohttp's own errors carry the request's headers,
so they are never chained or passed on, only named.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from bot.domain.errors import AnswerUnusable, OutcomeUnknown, ProviderMoved, ProviderRefused, ProviderUnreachable
from bot.domain.models import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from bot.domain.errors import Failed
    from bot.domain.models import ThumbnailRequest

PATH = "/v2/thumbnail/image"
BODY_BYTES = 256 * 1024
_CONNECT_SECONDS = 10.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,64}")


def body(request: ThumbnailRequest) -> dict[str, str]:
    """The JSON body of the call; unset options are left out, since null is not in the schema."""
    fields = {
        "model": request.model.value,
        "format": request.format.value,
        "image_url": request.image_url if request.image_base64 is None else None,
        "image_base64": request.image_base64,
        "prompt": request.prompt,
        "support_image_url": request.support_image_url if request.support_base64 is None else None,
        "support_image_base64": request.support_base64,
        "image_weight": request.image_weight and request.image_weight.value,
        "persona": request.persona,
        "style": request.style,
    }
    return {name: value for name, value in fields.items() if value is not None}


class Pikzels:
    """A session of its own: no cookies, no proxy from the environment, no connection used twice.

    `timeout` is the total seconds one call may take. A fresh connection for each paid call rules out the race in which
    the other side closes a kept one just as the request is written.
    """

    def __init__(
        self, *, api_key: str, base_url: str, timeout: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._url = base_url.rstrip("/") + PATH
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"X-Api-Key": api_key, "Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=timeout, connect=_CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def create(self, request: ThumbnailRequest) -> Output:
        """Make the paid call; raises `ProviderRefused`, `ProviderUnreachable`, `ProviderMoved`, `AnswerUnusable`,
        `OutcomeUnknown`.
        """
        try:
            async with self._session.post(self._url, json=body(request), allow_redirects=False) as response:
                return self._read(response.status, response.headers, await _capped(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Both are raised only while the connection is being made: nothing has left.
            failure: Failed = ProviderUnreachable(type(error).__name__)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            failure = OutcomeUnknown(type(error).__name__)
        raise failure  # out here: `from None` would only hide aiohttp's error, with the key in it, as the context

    def _read(self, status: int, headers: Mapping[str, str], raw: bytes | None) -> Output:
        header_id = _matching(_REQUEST_ID, headers.get("X-Request-Id"))
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP's redirects
            raise ProviderMoved(f"status {status}")
        answer = _json(raw)
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
        """Seconds or an HTTP date; nonsense and the past count as not said."""
        value = headers.get("Retry-After", "").strip()
        try:
            if value.isascii() and value.isdigit():
                return timedelta(seconds=min(int(value[:9]), 86_400))
            moment = parsedate_to_datetime(value)
            pause = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - self._clock()
        except (ValueError, OverflowError):
            return None
        return pause if pause > timedelta(0) else None


async def _capped(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None when it is longer than any honest answer; the rest is not read."""
    collected = bytearray()
    async for chunk in response.content.iter_any():
        collected += chunk
        if len(collected) > BODY_BYTES:
            response.close()
            return None
    return bytes(collected)


def _json(raw: bytes | None) -> dict[str, Any]:
    """The JSON object in `raw`; an empty one for anything else."""
    try:
        answer = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _output(answer: Mapping[str, Any], request_id: str | None) -> Output:
    url = answer.get("output")
    if not isinstance(url, str) or not 0 < len(url) <= 4096 or not url.isprintable():  # noqa: PLR2004 - longer than any URL
        raise AnswerUnusable("no output address", status=200, request_id=request_id)
    return Output(url, request_id)


def _fields(error: Any) -> tuple[str, ...]:
    """The names of the fields a validation error is about; its messages are not for anyone's eyes."""
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return ()
    named = (_matching(_FIELD, detail.get("field")) for detail in details[:10] if isinstance(detail, dict))
    return tuple(name for name in named if name)


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
