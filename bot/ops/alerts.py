"""Alerts the operator, by the log and by a webhook that does not need the bot's own token."""

from __future__ import annotations

import asyncio
import logging
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

QUIET = timedelta(minutes=15)  # the same alert is posted at most once in this time
_LEVELS = {AlertLevel.PAGE: logging.ERROR, AlertLevel.WARN: logging.WARNING, AlertLevel.COUNT: logging.INFO}


class Alerts(HttpClient):
    """`webhook` is the URL of a Discord webhook, or None for the log alone."""

    def __init__(
        self, *, webhook: str | None, clock: Callable[[], datetime], redact: Callable[[str], str] = lambda text: text
    ) -> None:
        super().__init__(timeout=aiohttp.ClientTimeout(total=10))
        self._webhook = webhook
        self._clock = clock
        self._redact = redact
        self._last: dict[str, datetime] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        await super().__aexit__(kind, error, trace)

    def send(self, level: AlertLevel, key: str, text: str) -> None:
        """Log `text`, and post it unless `key` was posted in the last 15 minutes. What is only counted is neither."""
        if level is AlertLevel.COUNT:
            return
        log.log(_LEVELS[level], "operator: %s", text)
        now = self._clock()
        last = self._last.get(key)
        if self._webhook is None or (last is not None and now - last < QUIET):
            return
        self._last[key] = now
        task = asyncio.create_task(self._post(self._webhook, self._redact(text)), name="alert")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, webhook: str, text: str) -> None:
        message = {"content": text[:1900], "allowed_mentions": {"parse": []}}
        try:
            async with self._session.post(webhook, json=message, allow_redirects=False) as response:
                if response.status >= 400:  # noqa: PLR2004 - HTTP's errors
                    log.error("the alert webhook answered %d", response.status)
        except (aiohttp.ClientError, OSError) as error:
            log.error("the alert webhook could not be reached: %s", type(error).__name__)  # noqa: TRY400 - no address
