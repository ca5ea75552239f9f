"""Files that pass through Discord. They are read as a stream, measured and hashed, then shown as attachments."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

from sandbox.discord_server.api_errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.discord_server.payloads import Json

CDN = "https://cdn.discordapp.com"
PROXY = "https://media.discordapp.net"
URL_LIFETIME_SECONDS = 86_400
CHUNK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024  # a JPEG stores its dimensions after its metadata
FILE_FIELD = re.compile(r"files\[(\d{1,2})\]")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a user attaches. `url` replaces the CDN address that the bot sees."""

    filename: str
    size: int
    content_type: str
    width: int | None = 1280
    height: int | None = 720
    url: str = ""

    def payload(self, attachment_id: int, application_id: int) -> Json:
        urls = _signed_urls(f"ephemeral-attachments/{application_id}/{attachment_id}/{self.filename}")
        if self.url:
            urls = {"url": self.url, "proxy_url": self.url}
        properties = {"size": self.size, "content_type": self.content_type, "width": self.width, "height": self.height}
        return {"id": str(attachment_id), "filename": self.filename, "ephemeral": True, **properties, **urls}

    def attachment(self, attachment_id: int, channel_id: int) -> Attachment:
        """The attachment of a user's message; its content is unknown."""
        return Attachment(
            id=attachment_id,
            channel_id=channel_id,
            filename=self.filename,
            size=self.size,
            sha256="",
            content_type=self.content_type,
            description=None,
            width=self.width,
            height=self.height,
            ephemeral=False,
            data=None,
            url=self.url,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """A file that the bot uploaded."""

    filename: str
    size: int
    sha256: str
    image_size: tuple[int, int] | None
    data: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file on a message. `data` is None unless the server keeps files."""

    id: int
    channel_id: int
    filename: str
    size: int
    sha256: str
    content_type: str | None
    description: str | None
    width: int | None
    height: int | None
    ephemeral: bool
    data: bytes | None = field(repr=False)
    url: str = ""

    def payload(self) -> Json:
        """Every payload contains a freshly signed URL."""
        shown = {
            "id": str(self.id),
            "filename": self.filename,
            "size": self.size,
            "content_type": self.content_type,
            "description": self.description,
            "width": self.width,
            "height": self.height,
        }
        folder = "ephemeral-attachments" if self.ephemeral else "attachments"
        urls = _signed_urls(f"{folder}/{self.channel_id}/{self.id}/{self.filename}")
        if self.url:
            urls = {"url": self.url, "proxy_url": self.url}
        flags = {"ephemeral": True} if self.ephemeral else {}
        return {key: value for key, value in shown.items() if value is not None} | urls | flags


def make_attachment(
    received: ReceivedFile, described: Json, *, attachment_id: int, channel_id: int, ephemeral: bool
) -> Attachment:
    """Discord derives the type from the file name and ignores the Content-Type of the part."""
    filename = described.get("filename") or received.filename
    width, height = received.image_size or (None, None)
    return Attachment(
        id=attachment_id,
        channel_id=channel_id,
        filename=filename,
        size=received.size,
        sha256=received.sha256,
        content_type=mimetypes.guess_type(filename)[0],
        description=described.get("description"),
        width=width,
        height=height,
        ephemeral=ephemeral,
        data=received.data,
    )


class KnownFile:
    """A file that is expected many times, so that it is hashed once."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()


class Digest:
    """The SHA-256 of a file that arrives in chunks. It is only compared for as long as it may be the known file."""

    def __init__(self, known: KnownFile | None) -> None:
        self._known = known
        self._same = 0  # bytes
        self._hash = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        if self._known is not None:
            end = self._same + len(chunk)
            if self._known.content[self._same : end] == chunk:
                self._same = end
                return
            self._stop_comparing(self._known)
        self._hash.update(chunk)

    def hexdigest(self) -> str:
        if self._known is not None:
            if self._same == len(self._known.content):
                return self._known.sha256
            self._stop_comparing(self._known)
        return self._hash.hexdigest()

    def _stop_comparing(self, known: KnownFile) -> None:
        self._hash.update(known.content[: self._same])
        self._known = None


@dataclass(frozen=True, slots=True)
class Form:
    """A request body: the JSON payload, and the files by number."""

    payload: Json
    files: Mapping[int, ReceivedFile]


async def read_form(request: web.Request, *, limit: int, keep: bool, known: KnownFile | None) -> Form:
    """Reads JSON, or `payload_json` with `files[n]`. A file over the limit is read to its end before it is refused."""
    if request.content_type != "multipart/form-data":
        return Form(_parse_json(await request.read()), {})
    payload: Json = {}
    files: dict[int, ReceivedFile] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        name = part.name or ""
        if name == "payload_json":
            payload = _parse_json(bytes(await part.read()))
        elif match := FILE_FIELD.fullmatch(name):
            files[int(match[1])] = await _receive(part, keep=keep, known=known)
    if any(file.size > limit for file in files.values()):
        raise ApiError.from_code(40005)
    return Form(payload, files)


def _parse_json(body: bytes) -> Json:
    try:
        found: Any = json.loads(body or b"{}")
    except ValueError as unreadable:
        raise ApiError.from_code(50109) from unreadable
    if not isinstance(found, dict):
        raise ApiError.from_code(50109)
    return found


async def _receive(part: BodyPartReader, *, keep: bool, known: KnownFile | None) -> ReceivedFile:
    digest, size, head, kept = Digest(known), 0, b"", bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if len(head) < HEAD_BYTES:
            head += chunk[:HEAD_BYTES]
        if keep:
            kept += chunk
    data = bytes(kept) if keep else None
    return ReceivedFile(
        filename=part.filename or "unknown",
        size=size,
        sha256=digest.hexdigest(),
        image_size=image_size(head),
        data=data,
    )


def image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, JPEG or WebP image, read from its first bytes."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", head, 16)
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(head)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp_size(head)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    at = 2
    while head[at] == 0xFF:
        marker, length = head[at + 1], int(struct.unpack_from(">H", head, at + 2)[0])
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 2 + length
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int(struct.unpack_from("<I", head, 21)[0])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _signed_urls(path: str) -> Json:
    issued = int(time.time())
    signature = hashlib.sha256(path.encode()).hexdigest()
    query = f"ex={issued + URL_LIFETIME_SECONDS:x}&is={issued:x}&hm={signature}&"
    return {"url": f"{CDN}/{path}?{query}", "proxy_url": f"{PROXY}/{path}?{query}"}
