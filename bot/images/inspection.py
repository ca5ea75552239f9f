"""What kind of image a file is, from its header or to its end, without decoding a pixel; and a smaller copy of it."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from bot.domain.errors import PictureUnusable
from bot.domain.models import Picture
from bot.images import formats

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 16_384  # pixels; WebP's own limit is 16 383, nothing Discord shows needs more
MAX_PIXELS = 64_000_000
_BUFFER = 64 * 1024  # bytes, in which a walk through small parts can step back

# Pillow's bomb error is neither an OSError nor a ValueError; its warning is raised where warnings are errors.
_DAMAGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, ValueError, SyntaxError)


def inspect(path: Path, *, sha256: str, content: bytes | None = None) -> Picture:
    """Read the header of the file at `path`, or of `content` if that is given; raises `PictureUnusable`, `OSError`.

    What follows the header may be missing. Reads as much as a hostile file makes it: call it in a thread.
    """
    with _opened(path, content) as file:
        return _read(file, path, sha256, content)


def inspect_to_the_end(path: Path, *, sha256: str, content: bytes | None = None) -> Picture:
    """As `inspect`, and raises `PictureUnusable` for a file that is cut off or damaged in its structure.

    Reads the whole file: call it in a thread.
    """
    with _opened(path, content) as file:
        picture = _read(file, path, sha256, content)
        formats.check_to_the_end(file, picture.type)
    return picture


def _opened(path: Path, content: bytes | None) -> BinaryIO:
    return path.open("rb", _BUFFER) if content is None else BytesIO(content)


def _read(file: BinaryIO, path: Path, sha256: str, content: bytes | None) -> Picture:
    kind, width, height = formats.read_header(file)
    _check_dimensions(width, height)
    return Picture(path, kind, width, height, file.seek(0, os.SEEK_END), sha256, content)


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
            for quality, scale in ((92, 1.0), (85, 1.0), (80, 0.75), (75, 0.5), (70, 0.25)):
                size = (max(1, int(flat.width * scale)), max(1, int(flat.height * scale)))
                file = BytesIO()
                flat.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality, optimize=True)
                if file.tell() <= limit:
                    return inspect(picture.path.with_suffix(".jpg"), sha256="", content=file.getvalue())
    except _DAMAGE as error:
        raise PictureUnusable("damaged") from error
    return None
