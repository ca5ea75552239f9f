"""The provider's balance: who was refused while it was empty, and tells them when it no longer is."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import StorageUnavailable
from bot.domain.models import Circuit
from bot.text import refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from bot.domain.models import Requester
    from bot.domain.protocols import SpendingStore

log = logging.getLogger(__name__)

_REMEMBERED = timedelta(hours=1)  # whoever was refused earlier has given up


class Refill:
    """`tell` sends a person a direct message; without it, nobody is told."""

    def __init__(
        self,
        store: SpendingStore,
        *,
        clock: Callable[[], datetime],
        tell: Callable[[int, str], Awaitable[None]] | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tell = tell
        self._telling: asyncio.Task[None] | None = None

    async def refused(self, requester: Requester) -> None:
        """Somebody got no image because the balance is empty: they are told when it no longer is."""
        if self._tell is not None:
            with suppress(StorageUnavailable):
                await self._store.remember_refused(requester, now=self._clock())

    async def was_empty(self) -> bool:
        """After a start: whether the balance was empty within the last hour, and somebody waits for it."""
        return await self._store.anybody_refused(self._clock() - _REMEMBERED)

    def closed(self, circuit: Circuit) -> None:
        """A circuit has closed: images are generated again."""
        if circuit is Circuit.BALANCE and self._tell is not None and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_everyone(self._tell), name="refill")

    async def close(self) -> None:
        """Tell nobody any more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _tell_everyone(self, tell: Callable[[int, str], Awaitable[None]]) -> None:
        try:
            people = await self._store.take_refused(self._clock() - _REMEMBERED)
        except StorageUnavailable:
            log.warning("the people who wait for the balance could not be read")
            return
        for person in people:
            await tell(person.user_id, refusals.balance_is_back(person.channel_id, locale=person.locale))
        log.info("%d people were told that the balance is no longer empty", len(people))
