"""Finds out what kind of image a file is, from its header alone: no pixel is decoded."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from bot.domain.errors import PictureUnusable
from bot.domain.models import Picture

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 16_384  # pixels; WebP's own limit is 16 383, nothing Discord shows needs more
MAX_PIXELS = 64_000_000

# Pillow's bomb error is neither an OSError nor a ValueError; its warning is raised where warnings are errors.
_DAMAGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, ValueError, SyntaxError)


def inspect(path: Path, *, sha256: str, content: bytes | None = None) -> Picture:
    """Read the header of the file at `path`, or of `content` if that is given; raises `PictureUnusable`.

    Only the decoders of `TYPES` are tried.
    """
    try:
        with Image.open(path if content is None else BytesIO(content), formats=TYPES) as image:
            kind, (width, height) = image.format, image.size
    except _DAMAGE as error:
        raise PictureUnusable("not an image of a known type") from error
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise PictureUnusable(f"dimensions out of bounds: {width} x {height}")
    size = path.stat().st_size if content is None else len(content)
    return Picture(path, str(kind), width, height, size, sha256, content)


def shrink(picture: Picture, *, limit: int) -> Picture | None:
    """A smaller JPEG of `picture` that fits into `limit` bytes, in memory; None if even the smallest does not.

    Decodes the whole picture: call it in a thread, and only for a result that Discord would refuse. Raises
    `PictureUnusable` for one that is damaged after its header.
    """
    try:
        with _opened(picture) as source, Image.open(source, formats=TYPES) as image:
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


def _opened(picture: Picture) -> BinaryIO:
    return picture.path.open("rb") if picture.content is None else BytesIO(picture.content)
