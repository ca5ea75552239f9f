"""The simulated Discord and the image service of the benchmarks, both with TLS, as the real ones are.

Discord runs in the process of the benchmark, the image service in one of its own. Both accept only connections from
this machine, with a certificate that is made for the run.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import struct
import sys
import tempfile
import zlib
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from PIL import Image

from sandbox import discord_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
IMAGE_BYTES = 1_500_000
READY_SECONDS = 30.0
_END_BYTES = 12  # of a chunk without content: its length, its type, and its checksum
_LATE_SECONDS = 120.0  # late answers are measured, so Discord accepts them


class ImageService:
    """The stand-in for Pikzels, and for the CDN that has the images that members attach."""

    def __init__(self, process: asyncio.subprocess.Process, api: str, cdn: str) -> None:
        self.api = api
        self._cdn = cdn
        self._process = process

    def source(self, number: int) -> str:
        """The address of a source image; each number is a file of its own."""
        return f"{self._cdn}/attachments/1/{number}/photo.png"

    async def calls(self) -> int:
        """The number of calls so far. The provider charges for every call."""
        return int(await self._ask("calls"))

    async def set_delay(self, seconds: float) -> None:
        """How long the next calls take."""
        await self._ask(f"delay {seconds}")

    async def _ask(self, line: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        return await self._process.stdout.readline()


@dataclass(frozen=True, slots=True)
class Servers:
    """What a bot talks to, and an empty folder for it. `environment` points a program at it."""

    folder: Path
    discord: discord_server.DiscordServer
    images: ImageService
    output: bytes
    environment: Mapping[str, str]


@asynccontextmanager
async def served(output: bytes) -> AsyncIterator[Servers]:
    """Run both servers; `output` is the image that every call makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate, authority = _make_certificates(folder)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        (folder / "output.png").write_bytes(output)
        async with (
            _image_service(folder / "output.png", certificate) as images,
            discord_server.serve(ack_deadline=_LATE_SECONDS, tls=tls, known_file=output) as discord,
        ):
            # Python's default TLS context trusts what this variable names instead of the system's authorities.
            environment = {"SSL_CERT_FILE": str(authority), "BARE_API": images.api} | discord.environment()
            yield Servers(folder, discord, images, output, environment)


def _make_certificates(folder: Path) -> tuple[Path, Path]:
    """The server's certificate with its key, and the authority's."""
    authority = trustme.CA()
    certificate, trusted = folder / "server.pem", folder / "authority.pem"
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    return certificate, trusted


@asynccontextmanager
async def _image_service(output: Path, certificate: Path) -> AsyncIterator[ImageService]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.standin", output, certificate, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            addresses = (await process.stdout.readline()).decode().split()
        if not addresses:
            raise RuntimeError("the stand-in did not start")
        yield ImageService(process, *addresses)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def make_image() -> bytes:
    """A whole PNG of that size: the bot follows its chunks to the end, and decodes only its header."""
    file = io.BytesIO()
    Image.new("RGB", (1280, 720)).save(file, "PNG")
    content, end = file.getvalue()[:-_END_BYTES], file.getvalue()[-_END_BYTES:]
    noise = os.urandom(IMAGE_BYTES - len(file.getvalue()) - _END_BYTES)
    chunk = b"noIs" + noise  # private and ancillary: programs that don't know it pass over it
    return b"".join([content, struct.pack(">I", len(noise)), chunk, struct.pack(">I", zlib.crc32(chunk)), end])
