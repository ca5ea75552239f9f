"""The pictures a job is made from: kept when they are first used, brought back when one is made again."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain import validation
from bot.domain.errors import BooksUnavailable, Failed, SourceExpired
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.models import Job, ThumbnailRequest
    from bot.domain.protocols import Kept, Notes, Source

log = logging.getLogger(__name__)

_MARGIN = timedelta(minutes=10)  # the provider fetches when its turn comes
_AT_ONCE = 4  # results go before what is only kept for later


class Originals:
    """`source` fetches from Discord, `kept` is the folder, `notes` the place where a job's hashes are written."""

    def __init__(self, *, source: Source, kept: Kept, notes: Notes, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._kept = kept
        self._notes = notes
        self._clock = clock
        self._transfers = asyncio.Semaphore(_AT_ONCE)

    async def keep(self, job: Job) -> None:
        """Keep what `job` is made from, as well as may be: a job needs it only to be made again."""
        if not self._kept.keeps:
            return
        request = job.request
        image = await self._kept_of(job, request.image_url, request.image_kept)
        support = await self._kept_of(job, request.support_image_url, request.support_kept)
        if (image, support) != (request.image_kept, request.support_kept):
            with suppress(BooksUnavailable, OSError):  # made again from its address, for as long as that works
                await self._notes.sourced(job, image=image, support=support)

    async def _kept_of(self, job: Job, address: str | None, sha256: str | None) -> str | None:
        """The hash under which one picture is kept now; as it was before when it cannot be."""
        if address is None or (sha256 is not None and self._kept.has(sha256)):
            return sha256
        try:
            async with self._transfers, aclosing(self._source.fetch(address)) as pieces:
                return await self._kept.keep(pieces)
        except Failed as failure:
            log.info("what job %s is made from is not kept: %s", job.id, words.operator(failure))
        except OSError as error:
            log.warning("what job %s is made from is not kept: %s", job.id, type(error).__name__)
        return sha256

    def check(self, request: ThumbnailRequest) -> None:
        """Raises `SourceExpired` when a picture of `request` is neither kept nor still at its address."""
        if not self._is_there(request.image_url, request.image_kept):
            raise SourceExpired("image")
        if request.support_image_url and not self._is_there(request.support_image_url, request.support_kept):
            raise SourceExpired("reference")

    async def prepared(self, request: ThumbnailRequest) -> ThumbnailRequest:
        """The request as it is sent: with an address that still works, else with the bytes. Raises `SourceExpired`."""
        self.check(request)
        image = await self._bytes(request.image_url, request.image_kept, option="image")
        support = await self._bytes(request.support_image_url, request.support_kept, option="reference")
        return replace(request, image_base64=image, support_base64=support)

    async def _bytes(self, address: str | None, sha256: str | None, *, option: str) -> str | None:
        if address is None or sha256 is None or self._is_valid(address):
            return None
        found = await self._kept.data_url(sha256)
        if found is None and validation.expiry(address) is not None:
            raise SourceExpired(option)  # removed since, or damaged
        return found

    def _is_there(self, address: str, sha256: str | None) -> bool:
        if sha256 is not None and self._kept.has(sha256):
            return True
        return validation.expiry(address) is None or self._is_valid(address)

    def _is_valid(self, address: str) -> bool:
        """Whether an address says itself that it will work for a while."""
        expiry = validation.expiry(address)
        return expiry is not None and self._clock() + _MARGIN < expiry
