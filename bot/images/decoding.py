"""Smaller copies of images: the only file that decodes pixels, and that imports Pillow."""

from __future__ import annotations

import math
import struct
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from bot.domain.errors import PictureUnusable
from bot.images import formats
from bot.images.inspection import MAX_PIXELS, MAX_SIDE, can_shrink, check_dimensions, inspect, opened

if TYPE_CHECKING:
    from bot.domain.models import Picture

TYPES = ("PNG", "JPEG", "WEBP")
_COPY_PIXELS = 16_000_000  # of a smaller copy: many more than any result has, and few enough to make it quickly

# Pillow's bomb error is neither an OSError nor a ValueError; its warning is raised where warnings are errors.
_DAMAGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, ValueError, SyntaxError)

_EXIF_DAMAGE = (struct.error, KeyError, TypeError, OverflowError)  # what Pillow raises for damaged metadata


def shrink(picture: Picture, *, limit: int) -> Picture | None:
    """A smaller JPEG of `picture` that fits into `limit` bytes, in memory; None if even the smallest does not.

    Decodes the whole picture: call it in a thread, and only for a result that Discord would refuse. Raises
    `PictureUnusable` for one that is damaged after its header.
    """
    try:
        with opened(picture.path, picture.content) as source, Image.open(source, formats=TYPES) as image:
            check_dimensions(*image.size)  # Pillow may read another header of the file than `inspect` did
            image.draft("RGB", image.size)
            flat = image.convert("RGB")
            content = _encoded(flat, limit=limit)
    except _DAMAGE as error:
        raise PictureUnusable("damaged") from error
    return None if content is None else inspect(picture.path.with_suffix(".jpg"), content=content)


def _encoded(flat: Image.Image, *, limit: int, profile: bytes | None = None) -> bytes | None:
    """The best JPEG of at most `limit` bytes."""
    for quality, step in ((92, 1.0), (85, 1.0), (80, 0.75), (75, 0.5), (70, 0.25)):
        size = (max(1, int(flat.width * step)), max(1, int(flat.height * step)))
        file = BytesIO()
        fitting = flat if size == flat.size else flat.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        fitting.save(file, "JPEG", quality=quality, optimize=True, icc_profile=profile)
        if file.tell() <= limit:
            return file.getvalue()
    return None


# --- a smaller copy of what a member attached ------------------------------------------------------------------------


def smaller_copy(content: bytes, *, limit: int, max_pixels: int) -> bytes:
    """A JPEG of an image, upright, of at most `limit` bytes and `max_pixels`; raises `PictureUnusable`.

    Takes up to 500 MB and some seconds: call it in a thread, and once at a time.
    """
    header = formats.read_header(BytesIO(content))
    if not can_shrink(*header):
        raise PictureUnusable(f"dimensions out of bounds: {header.width} x {header.height}")
    most = min(max_pixels, _COPY_PIXELS)
    try:
        image = _decoder(header, content)
        scale = min(1.0, math.sqrt(most / (image.width * image.height)), MAX_SIDE / max(image.size))
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        image = _flat(image)  # from here on only this one takes memory
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0) if scale < 1 else image
        copy = _encoded(ImageOps.exif_transpose(image), limit=limit, profile=profile)
    except (*_DAMAGE, *_EXIF_DAMAGE) as error:
        raise PictureUnusable("damaged") from error
    if copy is None:
        raise PictureUnusable(f"cannot be made smaller than {limit} bytes")
    return copy


def _decoder(header: formats.Header, content: bytes) -> Image.Image:
    """An image to decode. A large JPEG is decoded at a half, a quarter, or an eighth of its size, which is cheap."""
    if header.type != "JPEG":
        image: Image.Image = Image.open(BytesIO(content), formats=TYPES)
        check_dimensions(*image.size)
        return image
    pixels = header.width * header.height
    if pixels > MAX_PIXELS and not formats.is_sequential(BytesIO(content)):
        raise PictureUnusable("not sequential")
    jpeg = JpegImageFile(BytesIO(content))  # not by Image.open, which warns of so many pixels
    if jpeg.size != (header.width, header.height):
        raise PictureUnusable("two headers")
    part = next((part for part in (1, 2, 4) if pixels <= 2 * _COPY_PIXELS * part**2), 8)
    jpeg.draft("RGB", (max(1, header.width // part), max(1, header.height // part)))
    return jpeg


def _flat(image: Image.Image) -> Image.Image:
    """The image in RGB, on white where it is transparent."""
    if image.has_transparency_data:
        layer = _in_mode(image, "RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(layer, mask=layer)
        flat.info = image.info
        return flat
    return _in_mode(image, "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Without the copy that Pillow makes of an image that is in this mode already."""
    return image if image.mode == mode else image.convert(mode)
