"""Smaller copies of the images that members attach: made only if the member agrees, one at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

from bot.domain.errors import InvalidOption, JobFailed, PictureUnusable
from bot.domain.validation import IMAGE_BYTES, STORE_ONLY
from bot.images import downloads, formats, inspection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.domain.models import Oversized, ThumbnailRequest, Upload
    from bot.domain.protocols import ImageDownloader, SourceStore

log = logging.getLogger(__name__)

# A copy is sent as base64, which makes four bytes of three: it fits, whichever of the two the provider counts.
_COPY_BYTES = IMAGE_BYTES * 3 // 4 - 1024


class SmallerCopies:
    """`downloader` fetches the originals, `store` keeps the copies. An image may have `max_pixels`."""

    def __init__(self, *, downloader: ImageDownloader, store: SourceStore, max_pixels: int) -> None:
        self._downloader = downloader
        self._store = store
        self._max_pixels = max_pixels
        self._one_at_a_time = asyncio.Lock()  # each takes a few hundred megabytes

    def may_help(self, oversized: Oversized) -> bool:
        """Whether smaller copies of these images can be made and kept, as far as Discord's word goes."""
        return self._store.enabled and all(map(_can_shrink, oversized.images))

    async def make(self, request: ThumbnailRequest) -> ThumbnailRequest:
        """`request` with a kept copy instead of each image that is too large; raises `InvalidOption`."""
        async with self._one_at_a_time:
            image = await self._copy("image", request.image_url, request.image_hash)
            if image is not None:
                request = replace(request, image_url=STORE_ONLY, image_hash=image)
            support = await self._copy("reference", request.support_image_url, request.support_hash)
            if support is not None:
                request = replace(request, support_image_url=STORE_ONLY, support_hash=support)
        return request

    async def _copy(self, option: str, address: str | None, known: str | None) -> str | None:
        """The hash of a copy that is kept; None if the image itself will do."""
        if address is None or (known is not None and self._store.has(known)):
            return None
        if not self._store.enabled:
            raise InvalidOption(option, "not_shrunk")
        try:
            content = await downloads.fetch_whole(self._downloader, address)
        except JobFailed as failure:
            log.info("no smaller copy of %s: %s", option, failure.kind)
            raise InvalidOption(option, "not_fetched") from None
        try:
            copy = await asyncio.to_thread(self._shrunk, content)
            return None if copy is None else await self._store.add(_one(copy))
        except (PictureUnusable, OSError) as error:
            log.info("no smaller copy of %s: %s", option, type(error).__name__)
            raise InvalidOption(option, "not_shrunk") from None

    def _shrunk(self, content: bytes) -> bytes | None:
        header = formats.read_header(BytesIO(content))
        if len(content) <= IMAGE_BYTES and header.width * header.height <= self._max_pixels:
            return None
        return inspection.smaller_copy(content, limit=_COPY_BYTES, max_pixels=self._max_pixels)


def _can_shrink(upload: Upload) -> bool:
    if upload.size is not None and upload.size > downloads.MAX_BYTES:
        return False
    if upload.width is None or upload.height is None:
        return True
    kind = "JPEG" if (upload.content_type or "").startswith(("image/jpeg", "image/jpg")) else ""
    return inspection.can_shrink(kind, upload.width, upload.height)


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece
