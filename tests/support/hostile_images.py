"""Image files of 10 MB that are made of as many parts as possible, and the parts to make them of."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


TEN_MEGABYTES = 10 * 1024 * 1024


def repeated(part: bytes) -> bytes:
    return part * (TEN_MEGABYTES // len(part))


FRAME = segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 0))
SCAN = segment(0xDA, bytes(4))
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
VP8X = b"RIFF\xff\xff\x9f\0WEBPVP8X\x0a\0\0\0" + bytes(10)
HOSTILE: Mapping[str, Callable[[], bytes]] = {
    "JPEG of tiny comments": lambda: b"\xff\xd8" + repeated(segment(0xFE, b"")) + FRAME + SCAN + b"\xff\xd9",
    "JPEG of tiny comments after its frame": lambda: b"\xff\xd8" + FRAME + repeated(segment(0xFE, b"")) + SCAN,
    "JPEG of tiny scans": lambda: b"\xff\xd8" + FRAME + repeated(SCAN),
    "JPEG of fill bytes": lambda: b"\xff\xd8" + repeated(b"\xff"),
    "JPEG of stuffed bytes": lambda: b"\xff\xd8" + FRAME + SCAN + repeated(b"\xff\0"),
    "JPEG of restarts": lambda: b"\xff\xd8" + FRAME + SCAN + repeated(b"\xff\xd0"),
    "PNG of tiny chunks": lambda: SIGNATURE + HEADER + repeated(chunk(b"tEXt", b"")),
    "PNG of chunks without pixels": lambda: SIGNATURE + HEADER + repeated(chunk(b"IDAT", b"")),
    "WebP of tiny chunks": lambda: VP8X + repeated(b"ABCD\0\0\0\0"),
}
