"""Alerts the operator, by the log and by a webhook that does not need the bot's own token."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp

from bot.domain.models import AlertLevel
from bot.http_session import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

log = logging.getLogger(__name__)

QUIET = timedelta(minutes=15)  # an event of the same kind is posted at most once in this time
REMINDER = timedelta(days=1)  # what lasts is repeated after this time
_LEVELS = {AlertLevel.PAGE: logging.ERROR, AlertLevel.WARN: logging.WARNING, AlertLevel.COUNT: logging.INFO}

_MOST_UNSENT = 50  # alerts that wait for the webhook; beyond that the oldest are dropped
_FIRST_PAUSE = 1.0  # seconds between two tries; doubled after every failure
_LONGEST_PAUSE = 300.0
_LONGEST_ASKED = 3600.0  # seconds the webhook may ask for
_CLOSING_SECONDS = 3.0  # how long a shutdown waits for what is unsent


class _NotAccepted(Exception):
    """The webhook has not accepted an alert. `asked`: after so many seconds it may be tried again."""

    def __init__(self, asked: float | None = None) -> None:
        super().__init__(asked)
        self.asked = asked


class Alerts(HttpClient):
    """`webhook` is the URL of a Discord webhook, or None for the log alone.

    An alert waits in memory until the webhook has accepted it; of each key, only the newest text does. Nobody who
    sends one waits.
    """

    def __init__(
        self, *, webhook: str | None, clock: Callable[[], datetime], redact: Callable[[str], str] = lambda text: text
    ) -> None:
        super().__init__(timeout=aiohttp.ClientTimeout(total=10))
        self._webhook = webhook
        self._clock = clock
        self._redact = redact
        self._sent: dict[str, datetime] = {}  # when each key was last accepted; the keys are few and fixed
        self._unsent: dict[str, str] = {}  # by key, in the order in which they are tried
        self._going_on: set[str] = set()  # keys of alerts that `end` may end
        self._lost = 0  # tried for the last time
        self._posting: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._posting is not None:
            await asyncio.wait([self._posting], timeout=_CLOSING_SECONDS)
            self._posting.cancel()  # if it has not ended
            await asyncio.wait([self._posting])
        if lost := self._lost + len(self._unsent):
            log.error("alerts that could not be posted before the shutdown: %d", lost)
        await super().__aexit__(kind, error, trace)

    def send(self, level: AlertLevel, key: str, text: str) -> None:
        """Log `text`, and post it unless `key` was posted in the last 15 minutes. What is only counted is neither."""
        if level is AlertLevel.COUNT:
            return
        log.log(_LEVELS[level], "operator: %s", text)
        if self._was_sent_within(QUIET, key):
            return
        self._going_on.add(key)
        self._post_soon(key, text)

    def end(self, level: AlertLevel, key: str, text: str) -> None:
        """Log that what `key` stands for is over; post it if its beginning was posted, however short ago that was."""
        log.log(_LEVELS[level], "operator: %s", text)
        if key in self._going_on:
            self._going_on.remove(key)
            self._post_soon(f"{key}:over", text)

    def _post_soon(self, key: str, text: str) -> None:
        if self._webhook is None:
            self._sent[key] = self._clock()
            return
        self._keep(key, self._redact(text))
        if self._posting is None or self._posting.done():
            # In a context of its own: its log lines must not have the id of the job that caused the first alert.
            self._posting = asyncio.create_task(self._post_all(self._webhook), name="alerts", context=Context())

    def repeat(self, level: AlertLevel, key: str, text: str) -> None:
        """Send `text` unless `key` was sent within a day, or waits to be: for what lasts. Call it now and then."""
        if key not in self._unsent and not self._was_sent_within(REMINDER, key):
            self.send(level, key, text)

    def _was_sent_within(self, time: timedelta, key: str) -> bool:
        last = self._sent.get(key)
        return last is not None and abs(self._clock() - last) < time  # a clock may also have been ahead

    def _keep(self, key: str, text: str) -> None:
        self._unsent.pop(key, None)
        self._unsent[key] = text
        while len(self._unsent) > _MOST_UNSENT:
            del self._unsent[next(iter(self._unsent))]

    async def _post_all(self, webhook: str) -> None:
        """Post what is unsent, one by one; what is refused is tried again after the others."""
        failures = 0
        while self._unsent:
            key, text = next(iter(self._unsent.items()))
            try:
                await self._post(webhook, text)
            except _NotAccepted as refusal:
                waiting = self._unsent.pop(key, None)
                if self._closing.is_set():
                    self._lost += 1
                    continue
                if waiting is not None:
                    self._unsent[key] = waiting
                failures += 1
                await self._pause(refusal, failures)
            else:
                failures = 0
                self._unsent.pop(key, None)
                self._sent[key] = self._clock()

    async def _pause(self, refusal: _NotAccepted, failures: int) -> None:
        """Wait before the next try. A shutdown shortens it, unless the webhook has asked for it."""
        if refusal.asked is not None:
            await asyncio.sleep(min(refusal.asked, _LONGEST_ASKED))
            return
        with suppress(TimeoutError):
            seconds = min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE)
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _post(self, webhook: str, text: str) -> None:
        """Post one alert; raises `_NotAccepted`."""
        message = {"content": text[:1900], "allowed_mentions": {"parse": []}}
        try:
            async with self._session.post(webhook, json=message, allow_redirects=False) as response:
                if response.status // 100 == 2:  # noqa: PLR2004 - HTTP's successes
                    return
                log.error("the alert webhook answered %d", response.status)
                raise _NotAccepted(_retry_after(response))
        except (aiohttp.ClientError, OSError) as error:
            log.error("the alert webhook could not be reached: %s", type(error).__name__)  # noqa: TRY400 - no address
            raise _NotAccepted from None


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """The seconds that a rate limit asks for, if it is one and makes sense."""
    with suppress(ValueError):
        seconds = float(response.headers.get("Retry-After", ""))
        if response.status == 429 and seconds > 0:  # noqa: PLR2004 - HTTP's Too Many Requests
            return seconds
    return None
