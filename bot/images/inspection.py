"""What kind of image a file is, from its header or to its end, without decoding a pixel."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from bot.domain.errors import PictureUnusable
from bot.domain.models import Picture
from bot.images import formats

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIDE = 16_384  # pixels; WebP's own limit is 16 383, nothing Discord shows needs more
MAX_PIXELS = 64_000_000
_MAX_JPEG_PIXELS = 4 * MAX_PIXELS  # of one that is decoded at a fraction of its size
_BUFFER = 64 * 1024  # bytes, in which a walk through small parts can step back


def inspect(path: Path, *, content: bytes | None = None) -> Picture:
    """Read the header of the file at `path`, or of `content` if that is given; raises `PictureUnusable`, `OSError`.

    What follows the header may be missing. Reads as much as a hostile file makes it: call it in a thread.
    """
    with opened(path, content) as file:
        return _read(file, path, content)


def inspect_to_the_end(path: Path, *, content: bytes | None = None) -> Picture:
    """As `inspect`, and raises `PictureUnusable` for a file that is cut off or damaged in its structure.

    Reads the whole file: call it in a thread.
    """
    with opened(path, content) as file:
        picture = _read(file, path, content)
        formats.check_to_the_end(file, picture.type)
    return picture


def opened(path: Path, content: bytes | None) -> BinaryIO:
    return path.open("rb", _BUFFER) if content is None else BytesIO(content)


def _read(file: BinaryIO, path: Path, content: bytes | None) -> Picture:
    kind, width, height = formats.read_header(file)
    check_dimensions(width, height)
    return Picture(path, kind, width, height, file.seek(0, os.SEEK_END), content)


def check_dimensions(width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise PictureUnusable(f"dimensions out of bounds: {width} x {height}")


def can_shrink(kind: str, width: int, height: int) -> bool:
    """Whether `smaller_copy` takes on an image of this type and these dimensions in pixels."""
    return width * height <= (_MAX_JPEG_PIXELS if kind == "JPEG" else MAX_PIXELS)


# --- what decodes it -------------------------------------------------------------------------------------------------
# Pillow is imported at the first use, in the thread of the caller. Few jobs need it, but it would delay every start and
# occupy 2.5 MB from then on.


def shrink(picture: Picture, *, limit: int) -> Picture | None:
    """As `decoding.shrink`: call it in a thread."""
    from bot.images import decoding  # noqa: PLC0415 - see above

    return decoding.shrink(picture, limit=limit)


def smaller_copy(content: bytes, *, limit: int, max_pixels: int) -> bytes:
    """As `decoding.smaller_copy`: call it in a thread, and once at a time."""
    from bot.images import decoding  # noqa: PLC0415 - see above

    return decoding.smaller_copy(content, limit=limit, max_pixels=max_pixels)
