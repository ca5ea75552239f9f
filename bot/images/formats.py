"""How PNG, JPEG, and WebP files are built: what their header says, and whether they go on to their end.

No pixel is decoded. A file is read forwards in small blocks, and refused if it has more parts than any honest one:
Pillow walks through millions of empty parts, and allocates the canvas of a WebP to find its size.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bot.domain.errors import PictureUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_PARTS = 50_000  # chunks or segments; in 25 MB, those of libpng (8 KiB each) are 3,200
_HEADER = 30  # bytes up to the dimensions of a PNG or a WebP
_BLOCK = 64 * 1024  # bytes
_SEARCHED = 4096  # bytes searched for a marker at once: most are found in the first two

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_SOI, _EOI, _SOS = b"\xd8", b"\xd9", b"\xda"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the frame headers, which have the dimensions
_SEQUENTIAL = frozenset((0xC0, 0xC1))
# Not a marker: an FF of the pixels (followed by 00), a restart among them, TEM, and an FF that fills up.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")


class Header(NamedTuple):
    """`type` is Pillow's name of the format; `width` and `height` are in pixels as the file claims them, unchecked."""

    type: str
    width: int
    height: int


def read_header(file: BinaryIO) -> Header:
    """The type and the dimensions, from the start of a file alone; raises `PictureUnusable`."""
    start = file.read(_HEADER)
    if start.startswith(_PNG):
        return _png_header(start)
    if start.startswith(_JPEG):
        return _jpeg_header(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp_header(start)
    raise PictureUnusable("not an image of a known type")


def read_start(start: bytes, *, whole: bool) -> Header | None:
    """As `read_header`, from the first bytes of a file; None if the dimensions may come after them. `whole` says that
    nothing comes after them.
    """
    try:
        return read_header(BytesIO(start))
    except PictureUnusable:
        if start.startswith(_JPEG) and not whole:  # its metadata comes first, and may be long
            return None
        raise


def check_to_the_end(file: BinaryIO, kind: str) -> None:
    """Check that a file of the type `kind` has all its parts; raises `PictureUnusable`. Anything may follow its end."""
    walk, pixels = _FORMATS[kind]
    if pixels.isdisjoint(set(_capped(walk(file)))):
        raise PictureUnusable("without pixels")


def _capped(parts: Iterator[bytes]) -> Iterator[bytes]:
    for count, part in enumerate(parts):
        if count == MAX_PARTS:
            raise PictureUnusable("too many parts")
        yield part


def _take(file: BinaryIO, count: int) -> bytes:
    taken = file.read(count)
    if len(taken) < count:
        raise PictureUnusable("cut off")
    return taken


# --- PNG: chunks of a length, a name, their content, and a checksum ------------------------------------------------


def _png_header(start: bytes) -> Header:
    if start[8:16] != b"\0\0\0\x0dIHDR" or len(start) < _HEADER:
        raise PictureUnusable("damaged header")
    return Header("PNG", *struct.unpack_from(">II", start, 16))


def _png_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the name of each chunk, up to the last."""
    file.seek(len(_PNG))
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", _take(file, 8))
        _check_sum(file, name, length)
        yield name


def _check_sum(file: BinaryIO, name: bytes, length: int) -> None:
    checksum = zlib.crc32(name)
    while length:
        block = _take(file, min(length, _BLOCK))
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    if _take(file, 4) != checksum.to_bytes(4, "big"):
        raise PictureUnusable("damaged")


# --- JPEG: segments of a marker, a length, and their content; pixels follow some of them -----------------------------


def _jpeg_header(file: BinaryIO) -> Header:
    for marker in _capped(_jpeg_segments(file)):
        if marker[0] in _SOF:
            height, width = struct.unpack(">xHH", _take(file, 5))
            return Header("JPEG", width, height)
        if marker == _SOS:
            break
    raise PictureUnusable("damaged header")


def is_sequential(file: BinaryIO) -> bool:
    """Whether the pixels of a JPEG come row by row, all colors together. Decoding any other one takes memory for all of
    its pixels, even at a fraction of its size.
    """
    colors = 0
    for marker in _capped(_jpeg_segments(file)):
        if marker[0] in _SOF:
            if marker[0] not in _SEQUENTIAL:
                return False
            colors = _take(file, 6)[5]
        if marker == _SOS:
            return _take(file, 1)[0] == colors
    return False


def _jpeg_segments(file: BinaryIO) -> Iterator[bytes]:
    """Yield the marker of each segment, with the file at the start of its content, up to the end of the image."""
    file.seek(2)
    while (marker := _next_marker(file)) != _EOI:
        length = int.from_bytes(_take(file, 2), "big")  # counts itself
        if marker == _SOI or length < 2:  # noqa: PLR2004
            raise PictureUnusable("damaged")
        following = file.tell() + length - 2
        yield marker
        file.seek(following)


def _next_marker(file: BinaryIO) -> bytes:
    """Skip the pixels, if any are left, and return the marker that follows, with the file right behind it."""
    block = file.read(_SEARCHED)
    while len(block) > 1:
        found = _MARKER.search(block)
        if found is not None:
            file.seek(found.end() - len(block), os.SEEK_CUR)
            return found[1]
        block = block[-1:] + file.read(_SEARCHED)
    raise PictureUnusable("cut off")


# --- WebP: a length of all that follows, then chunks of a name, a length, and their content --------------------------


def _webp_header(start: bytes) -> Header:
    name, content = start[12:16], start[20:]
    if name == b"VP8X" and len(content) == 10:  # noqa: PLR2004 - flags, then two times 24 bits
        return Header("WEBP", 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:], "little"))
    if name == b"VP8 " and len(content) == 10 and content[3:6] == b"\x9d\x01\x2a":  # noqa: PLR2004 - a tag before, two times 16 bits after
        width, height = struct.unpack_from("<HH", content, 6)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)  # the bits above only ask for a larger display
    if name == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:  # noqa: PLR2004 - two times 14 bits
        dimensions = int.from_bytes(content[1:5], "little")
        return Header("WEBP", 1 + (dimensions & 0x3FFF), 1 + (dimensions >> 14 & 0x3FFF))
    raise PictureUnusable("damaged header")


def _webp_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the name of each chunk. A last one of odd length may lack the byte that pads it."""
    file.seek(4)
    end = 8 + int.from_bytes(_take(file, 4), "little")
    if file.seek(0, os.SEEK_END) < end:
        raise PictureUnusable("cut off")
    at = 12
    while at < end:
        file.seek(at)
        name, length = struct.unpack("<4sI", _take(file, 8))
        at += 8 + length
        if at > end:
            raise PictureUnusable("damaged")
        at += length % 2
        yield name


# How to walk through each format, and the parts of which one has the pixels.
_FORMATS: Mapping[str, tuple[Callable[[BinaryIO], Iterator[bytes]], frozenset[bytes]]] = MappingProxyType(
    {
        "PNG": (_png_chunks, frozenset((b"IDAT",))),
        "JPEG": (_jpeg_segments, frozenset((_SOS,))),
        "WEBP": (_webp_chunks, frozenset((b"VP8 ", b"VP8L", b"ANMF"))),
    }
)
