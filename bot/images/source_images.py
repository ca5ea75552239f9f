"""The images a job starts from: kept when they are first used, brought back when the job is repeated."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain import image_problems, validation
from bot.domain.errors import InvalidOption, JobFailed, PictureUnusable, SourceExpired, StorageUnavailable
from bot.images import formats, inspection
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.models import Job, ThumbnailRequest
    from bot.domain.protocols import ImageDownloader, SourceRecords, SourceStore

log = logging.getLogger(__name__)

_MARGIN = timedelta(minutes=10)  # the provider downloads when its turn comes
_AT_ONCE = 2  # results come before what is only kept for later
_LOOKS_AT_ONCE = 8  # a request waits for these, so they have slots of their own
_LOOK_BYTES = 64 * 1024
_LOOK_SECONDS = 1.0  # for finding out what the provider would find out anyway, a few seconds later


class SourceImages:
    """`downloader` fetches from Discord, `store` keeps the files, `records` remembers which are a job's. An
    image may have `max_pixels`.
    """

    def __init__(
        self,
        *,
        downloader: ImageDownloader,
        store: SourceStore,
        records: SourceRecords,
        clock: Callable[[], datetime],
        max_pixels: int,
    ) -> None:
        self._downloader = downloader
        self._store = store
        self._records = records
        self._clock = clock
        self._max_pixels = max_pixels
        self._transfers = asyncio.Semaphore(_AT_ONCE)
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def look(self, request: ThumbnailRequest) -> InvalidOption | None:
        """What is wrong with the images of `request`, from their first bytes, within about a second. None if nothing
        is, or if that can't be seen: then the provider judges.
        """
        found = await asyncio.gather(
            self._look("image", request.image_url, request.image_hash),
            self._look("reference", request.support_image_url, request.support_hash),
        )
        return next((problem for problem in found if problem is not None), None)

    async def _look(self, option: str, address: str | None, known: str | None) -> InvalidOption | None:
        if address is None or (known is not None and self._store.has(known)):
            return None
        try:
            async with asyncio.timeout(_LOOK_SECONDS), self._looks:
                start, whole = await self._start(address)
        except (JobFailed, OSError) as error:  # TimeoutError is an OSError
            log.info("%s is not looked at: %s", option, type(error).__name__)
            return None
        return await asyncio.to_thread(self._problem, option, start, whole=whole)

    async def _start(self, address: str) -> tuple[bytes, bool]:
        """The first bytes of an image, and whether they are all of it."""
        start = b""
        async with aclosing(self._downloader.fetch(address, first=_LOOK_BYTES + 1)) as pieces:
            async for piece in pieces:
                start += piece
                if len(start) > _LOOK_BYTES:
                    return start[:_LOOK_BYTES], False
        return start, True

    def _problem(self, option: str, start: bytes, *, whole: bool) -> InvalidOption | None:
        if not start:
            return None
        try:
            header = formats.read_start(start, whole=whole)
        except PictureUnusable:
            return image_problems.unreadable(option)
        if header is None:
            return None
        kind, width, height = header
        can_shrink = self._store.enabled and inspection.can_shrink(kind, width, height)
        return image_problems.too_many_pixels(
            option, width=width, height=height, limit=self._max_pixels, can_shrink=can_shrink
        )

    async def keep(self, job: Job) -> None:
        """Keep the source images of `job`, best effort: they are only needed to regenerate the job."""
        if not self._store.enabled:
            return
        request = job.request
        image = await self._stored(job, request.image_url, request.image_hash)
        support = await self._stored(job, request.support_image_url, request.support_hash)
        if (image, support) != (request.image_hash, request.support_hash):
            with suppress(StorageUnavailable, OSError):  # repeated from its URL, for as long as that works
                await self._records.set_sources(job, image=image, support=support)

    async def _stored(self, job: Job, address: str | None, known: str | None) -> str | None:
        """The hash under which one image is kept now; unchanged if it can't be kept."""
        if address is None or (known is not None and self._store.has(known)):
            return known
        try:
            async with self._transfers, aclosing(self._downloader.fetch(address)) as pieces:
                return await self._store.add(pieces)
        except JobFailed as failure:
            log.info("a source image of job %s is not kept: %s", job.id, operator.failure(failure))
        except OSError as error:
            log.warning("a source image of job %s is not kept: %s", job.id, type(error).__name__)
        return known

    def check(self, request: ThumbnailRequest) -> None:
        """Raises `SourceExpired` if an image of `request` is neither kept nor still at its URL."""
        if not self._is_there(request.image_url, request.image_hash):
            raise SourceExpired("image")
        if request.support_image_url and not self._is_there(request.support_image_url, request.support_hash):
            raise SourceExpired("reference")

    async def prepare(self, request: ThumbnailRequest) -> ThumbnailRequest:
        """The request as it is sent: with a URL that still works, else with the bytes. Raises `SourceExpired`."""
        self.check(request)
        image = await self._bytes(request.image_url, request.image_hash, option="image")
        support = await self._bytes(request.support_image_url, request.support_hash, option="reference")
        return replace(request, image_base64=image, support_base64=support)

    async def _bytes(self, address: str | None, known: str | None, *, option: str) -> str | None:
        if address is None or known is None or self._is_valid(address):
            return None
        found = await self._store.data_url(known)
        if found is None and validation.url_expiry(address) is not None:
            raise SourceExpired(option)  # removed meanwhile, or damaged
        return found

    def _is_there(self, address: str, known: str | None) -> bool:
        if known is not None and self._store.has(known):
            return True
        return validation.url_expiry(address) is None or self._is_valid(address)

    def _is_valid(self, address: str) -> bool:
        """Whether the URL itself says that it will work for a while."""
        expiry = validation.url_expiry(address)
        return expiry is not None and self._clock() + _MARGIN < expiry
