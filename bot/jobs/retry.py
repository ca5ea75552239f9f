"""Trying again: as long as the caller says, with pauses that grow, and never past a stop."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from bot.domain.errors import BooksUnavailable, Failed, Interrupted, ProviderRefused
from bot.ops.logs import job_id
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 300.0  # seconds between two tries
_LONGEST_ASKED = 120.0  # seconds the provider may ask for
_LONGEST_COMMIT_PAUSE = 5.0  # seconds between two tries to write the books


class Patience:
    """`on_unavailable` hears of every commit that the books would not take."""

    def __init__(self, *, on_unavailable: Callable[[BooksUnavailable], None]) -> None:
        self._on_unavailable = on_unavailable
        self._ended = asyncio.Event()

    def end(self) -> None:
        """The program stops: nothing is tried again."""
        self._ended.set()

    async def persist(self, step: Callable[[], Awaitable[T]], again: Callable[[Failed, int], bool]) -> T:
        """Do `step` until it works or `again`, asked with the failure and the number of tries, says no.

        Raises the last failure, or `Interrupted` with it as soon as the program stops.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await step()
            except Failed as failure:
                if not again(failure, tries):
                    raise
                await self._pause(failure, tries)

    async def commit(self, step: Callable[[], Awaitable[T]]) -> T:
        """Write down what has happened already, for as long as it takes: a full disk must not lose what is paid for."""
        tries = 0
        while True:
            try:
                return await step()
            except BooksUnavailable as unavailable:
                self._on_unavailable(unavailable)
            tries += 1
            await asyncio.sleep(min(0.2 * 2 ** min(tries, 10), _LONGEST_COMMIT_PAUSE))

    async def _pause(self, failure: Failed, tries: int) -> None:
        seconds = _seconds(failure, tries)
        log.info("job %s: try %d: %s; again in %.1f s", job_id.get(), tries, words.operator(failure), seconds)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
            raise Interrupted(failure)


def asked_pause(failure: Failed) -> timedelta | None:
    """How long the provider wants to be left alone, if it said so."""
    return failure.retry_after if isinstance(failure, ProviderRefused) else None


def _seconds(failure: Failed, tries: int) -> float:
    """What the provider asked for, else doubling, always with jitter."""
    asked = asked_pause(failure)
    if asked:
        return min(asked.total_seconds(), _LONGEST_ASKED) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
    return min(2.0 ** min(tries - 1, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
