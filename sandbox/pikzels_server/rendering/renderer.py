"""Gets the reference pictures, has the thumbnail painted, and keeps it for download."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from uuid import uuid4

import aiohttp

from sandbox.pikzels_server.contract import Refusal
from sandbox.pikzels_server.rendering.painter import Order, UnreadableImage, paint

PHOTO = Path(__file__).parents[2] / "photo.jpg"
# "10 MB" in the provider's words; the smaller of its two readings, to be the stricter policy_for.
IMAGE_MAX = 10_000_000
# The provider keeps a picture for 24 hours; memory is what runs out first here.
PICTURES_KEPT = 200

Fetch = Callable[[str], Awaitable[bytes]]


class Refused(Exception):
    """The reference or support picture is not acceptable."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Studio:
    """`fetch` gets a picture by its URL, the shipped photograph without it; `output` replaces every painting."""

    def __init__(self, *, fetch: Fetch | None = None, output: bytes | None = None) -> None:
        self._fetch = fetch
        self._output = output
        self._pictures: OrderedDict[str, bytes] = OrderedDict()

    async def made(self, body: Mapping[str, str], *, call: int) -> str:
        """The name of a new picture; raises Refused."""
        name = str(uuid4())
        if self._output is None:
            self._keep(name, await self._painted(body, call=call))
        return name

    def picture(self, name: str) -> bytes | None:
        return self._pictures.get(name) if self._output is None else self._output

    def _keep(self, name: str, picture: bytes) -> None:
        self._pictures[name] = picture
        while len(self._pictures) > PICTURES_KEPT:
            self._pictures.popitem(last=False)

    async def _painted(self, body: Mapping[str, str], *, call: int) -> bytes:
        reference = await self._fetched(body, "image")
        support = await self._fetched(body, "support_image") if _has_support(body) else None
        try:
            return await asyncio.to_thread(paint, _order(body, call=call), reference, support=support)
        except UnreadableImage as error:
            raise Refused(Refusal("INVALID_IMAGE")) from error

    async def _fetched(self, body: Mapping[str, str], name: str) -> bytes:
        """The picture in the body's fields of that name, the URL winning; raises Refused."""
        try:
            picture = await self._at(body[f"{name}_url"]) if f"{name}_url" in body else _decoded(body[f"{name}_base64"])
        except (aiohttp.ClientError, OSError, LookupError, ValueError) as error:
            raise Refused(Refusal("INVALID_IMAGE")) from error
        if len(picture) > IMAGE_MAX:
            raise Refused(Refusal("IMAGE_TOO_LARGE"))
        return picture

    async def _at(self, url: str) -> bytes:
        if self._fetch is not None:
            return await self._fetch(url)
        return await asyncio.to_thread(PHOTO.read_bytes)


def _has_support(body: Mapping[str, str]) -> bool:
    return "support_image_url" in body or "support_image_base64" in body


def _decoded(data_url: str) -> bytes:
    """The bytes of a base64 data URL; raises ValueError."""
    return base64.b64decode(data_url.partition(",")[2], validate=True)


def _order(body: Mapping[str, str], *, call: int) -> Order:
    return Order(
        model=body["model"],
        format=body["format"],
        prompt=body.get("prompt", ""),
        weight=body.get("image_weight", "medium"),
        call=call,
    )
