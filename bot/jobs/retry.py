"""Pauses between tries: they grow, they respect what the provider asked for, and they never outlast a shutdown."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from bot.domain.errors import Interrupted, JobFailed, ProviderRefused, StorageUnavailable
from bot.ops.logs import job_id
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_PAUSE = 300.0  # seconds between two tries
_LONGEST_ASKED = 120.0  # seconds the provider may ask for
_LONGEST_COMMIT_PAUSE = 5.0  # seconds between two tries to write to the database


class Retry:
    """Whether and when to try again depends on the failure in hand, so the loop is the caller's; the pause is here."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The program is shutting down: nothing is tried again."""
        self._stopping.set()

    async def pause(
        self, failure: JobFailed, tries: int, *, announce: Callable[[float], None] = lambda _seconds: None
    ) -> None:
        """Wait before the next try, after the `tries`-th failed; `announce` learns for how many seconds. Raises
        `Interrupted` once the program stops.
        """
        seconds = _seconds(failure, tries)
        announce(seconds)
        log.info("job %s: try %d: %s; again in %.1f s", job_id.get(), tries, operator.failure(failure), seconds)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
            raise Interrupted(failure)

    async def commit(self, write: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Record what has already happened, however long it takes: a full disk must not lose what is paid for."""
        tries = 0
        while True:
            with suppress(StorageUnavailable):  # the repository has told the operator
                return await write(*args, **kwargs)
            tries += 1
            await asyncio.sleep(min(0.2 * 2 ** min(tries, 10), _LONGEST_COMMIT_PAUSE))


def requested_pause(failure: JobFailed) -> timedelta | None:
    """How long the provider wants to be left alone, if it said so."""
    return failure.retry_after if isinstance(failure, ProviderRefused) else None


def _seconds(failure: JobFailed, tries: int) -> float:
    """What the provider asked for, else doubling, always with jitter."""
    asked = requested_pause(failure)
    if asked:
        return min(asked.total_seconds(), _LONGEST_ASKED) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
    return min(2.0 ** min(tries - 1, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
