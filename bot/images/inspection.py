"""What kind of image a file is, from its header or to its end, without decoding a pixel; and a smaller copy of it."""

from __future__ import annotations

import math
import os
import struct
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from bot.domain.errors import PictureUnusable
from bot.domain.models import Picture
from bot.images import formats

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 16_384  # pixels; WebP's own limit is 16 383, nothing Discord shows needs more
MAX_PIXELS = 64_000_000
_MAX_JPEG_PIXELS = 4 * MAX_PIXELS  # of one that is decoded at a fraction of its size
_COPY_PIXELS = 16_000_000  # of a smaller copy: many more than any result has, and few enough to make it quickly
_BUFFER = 64 * 1024  # bytes, in which a walk through small parts can step back

# Pillow's bomb error is neither an OSError nor a ValueError; its warning is raised where warnings are errors.
_DAMAGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, ValueError, SyntaxError)

_EXIF_DAMAGE = (struct.error, KeyError, TypeError, OverflowError)  # what Pillow raises for damaged metadata


def inspect(path: Path, *, content: bytes | None = None) -> Picture:
    """Read the header of the file at `path`, or of `content` if that is given; raises `PictureUnusable`, `OSError`.

    What follows the header may be missing. Reads as much as a hostile file makes it: call it in a thread.
    """
    with _opened(path, content) as file:
        return _read(file, path, content)


def inspect_to_the_end(path: Path, *, content: bytes | None = None) -> Picture:
    """As `inspect`, and raises `PictureUnusable` for a file that is cut off or damaged in its structure.

    Reads the whole file: call it in a thread.
    """
    with _opened(path, content) as file:
        picture = _read(file, path, content)
        formats.check_to_the_end(file, picture.type)
    return picture


def _opened(path: Path, content: bytes | None) -> BinaryIO:
    return path.open("rb", _BUFFER) if content is None else BytesIO(content)


def _read(file: BinaryIO, path: Path, content: bytes | None) -> Picture:
    kind, width, height = formats.read_header(file)
    _check_dimensions(width, height)
    return Picture(path, kind, width, height, file.seek(0, os.SEEK_END), content)


def _check_dimensions(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise PictureUnusable(f"dimensions out of bounds: {width} x {height}")


def shrink(picture: Picture, *, limit: int) -> Picture | None:
    """A smaller JPEG of `picture` that fits into `limit` bytes, in memory; None if even the smallest does not.

    Decodes the whole picture: call it in a thread, and only for a result that Discord would refuse. Raises
    `PictureUnusable` for one that is damaged after its header.
    """
    try:
        with _opened(picture.path, picture.content) as source, Image.open(source, formats=TYPES) as image:
            _check_dimensions(*image.size)  # Pillow may read another header of the file than `inspect` did
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


def can_shrink(kind: str, width: int, height: int) -> bool:
    """Whether `smaller_copy` takes on an image of this type and these dimensions in pixels."""
    return width * height <= (_MAX_JPEG_PIXELS if kind == "JPEG" else MAX_PIXELS)


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
        _check_dimensions(*image.size)
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
