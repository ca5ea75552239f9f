"""Loads the reference images, paints the thumbnail, and keeps it for download."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from uuid import uuid4

import aiohttp

from sandbox.pikzels_server.contract import Refusal
from sandbox.pikzels_server.rendering.painter import ThumbnailSpec, UnreadableImage, paint

PHOTO = Path(__file__).parents[2] / "photo.jpg"
# The provider says "10 MB". This is the smaller of the two possible readings, so the stricter limit.
IMAGE_MAX = 10_000_000
# The provider keeps an image for 24 hours; this limit keeps memory bounded instead.
IMAGES_KEPT = 200

Fetch = Callable[[str], Awaitable[bytes]]


class ImageRejected(Exception):
    """The reference or support image cannot be used."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Renderer:
    """Renders thumbnails. Without `fetch`, every URL yields the shipped photo; `output` replaces every thumbnail."""

    def __init__(self, *, fetch: Fetch | None = None, output: bytes | None = None) -> None:
        self._fetch = fetch
        self._output = output
        self._images: OrderedDict[str, bytes] = OrderedDict()

    async def render(self, body: Mapping[str, str], *, call: int) -> str:
        """Render a thumbnail and return its name; raises ImageRejected."""
        name = str(uuid4())
        if self._output is None:
            self._keep(name, await self._paint(body, call=call))
        return name

    def find_image(self, name: str) -> bytes | None:
        return self._images.get(name) if self._output is None else self._output

    def _keep(self, name: str, image: bytes) -> None:
        self._images[name] = image
        while len(self._images) > IMAGES_KEPT:
            self._images.popitem(last=False)

    async def _paint(self, body: Mapping[str, str], *, call: int) -> bytes:
        reference = await self._load_image(body, "image")
        support = await self._load_image(body, "support_image") if _has_support(body) else None
        try:
            return await asyncio.to_thread(paint, _spec_from_body(body, call=call), reference, support=support)
        except UnreadableImage as error:
            raise ImageRejected(Refusal("INVALID_IMAGE")) from error

    async def _load_image(self, body: Mapping[str, str], name: str) -> bytes:
        """Load the image that the body names, preferably from its URL; raises ImageRejected."""
        try:
            if f"{name}_url" in body:
                image = await self._download(body[f"{name}_url"])
            else:
                image = _decode_data_url(body[f"{name}_base64"])
        except (aiohttp.ClientError, OSError, LookupError, ValueError) as error:
            raise ImageRejected(Refusal("INVALID_IMAGE")) from error
        if len(image) > IMAGE_MAX:
            raise ImageRejected(Refusal("IMAGE_TOO_LARGE"))
        return image

    async def _download(self, url: str) -> bytes:
        if self._fetch is not None:
            return await self._fetch(url)
        return await asyncio.to_thread(PHOTO.read_bytes)


def _has_support(body: Mapping[str, str]) -> bool:
    return "support_image_url" in body or "support_image_base64" in body


def _decode_data_url(data_url: str) -> bytes:
    """Decode a base64 data URL; raises ValueError."""
    return base64.b64decode(data_url.partition(",")[2], validate=True)


def _spec_from_body(body: Mapping[str, str], *, call: int) -> ThumbnailSpec:
    return ThumbnailSpec(
        model=body["model"],
        format=body["format"],
        prompt=body.get("prompt", ""),
        weight=body.get("image_weight", "medium"),
        call=call,
    )
