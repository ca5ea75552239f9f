"""A finished image is uploaded from the system's cache: whole, again if need be, and nothing of it stays open."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from bot.discord_io.mapped_file import MappedFile, UploadedFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONTENT = bytes(range(256)) * 4000  # several pieces, and a rest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "image.png").write_bytes(CONTENT)
    return tmp_path / "image.png"


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Receives forms; yields its address and the files so far."""
    received: list[bytes] = []

    async def upload(request: web.Request) -> web.Response:
        form: Any = await request.post()
        assert form["file"].filename == "cat.png"
        received.append(form["file"].file.read())
        return web.Response()

    app = web.Application(client_max_size=10**7)
    app.router.add_post("/", upload)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", received
    await runner.cleanup()


def form_of(file: UploadedFile) -> aiohttp.FormData:
    """The form that discord.py makes of a file."""
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", file.fp, filename="cat.png", content_type="application/octet-stream")
    return form


def maps(path: Path) -> int:
    """How many maps of the file this process has."""
    return Path("/proc/self/maps").read_text("utf-8").count(path.name)


async def test_a_file_arrives_whole_and_again_after_a_reset(path: Path, server: tuple[str, list[bytes]]) -> None:
    address, received = server
    file = UploadedFile(MappedFile(path), "cat.png")
    async with aiohttp.ClientSession() as session:
        for tries in range(2):
            file.reset(seek=tries)
            async with session.post(address, data=form_of(file)) as response:
                assert response.status == 200
    assert received == [CONTENT, CONTENT]


async def test_a_file_that_was_removed_meanwhile_arrives_whole(path: Path, server: tuple[str, list[bytes]]) -> None:
    file = UploadedFile(MappedFile(path), "cat.png")
    path.unlink()
    async with aiohttp.ClientSession() as session, session.post(server[0], data=form_of(file)):
        pass
    assert server[1] == [CONTENT]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows what is mapped")
async def test_nothing_stays_mapped_after_an_upload(path: Path, server: tuple[str, list[bytes]]) -> None:
    gc.disable()  # it must not need the collector
    try:
        file = UploadedFile(MappedFile(path), "cat.png")
        assert maps(path) == 1
        async with aiohttp.ClientSession() as session, session.post(server[0], data=form_of(file)):
            pass
        file.close()
        assert maps(path) == 0
    finally:
        gc.enable()


async def test_a_file_may_be_closed_while_a_connection_still_has_a_part_of_it(path: Path) -> None:
    mapped = MappedFile(path)
    part = next(mapped.pieces())
    UploadedFile(mapped, "cat.png").close()
    assert bytes(part[:4]) == CONTENT[:4]


def test_it_can_be_read_like_any_other_file(path: Path) -> None:
    file = MappedFile(path)
    assert (file.readable(), file.seekable(), file.size) == (True, True, len(CONTENT))
    assert (file.read(3), file.tell(), file.read()) == (CONTENT[:3], 3, CONTENT[3:])
    assert file.seek(-2, io.SEEK_END) == len(CONTENT) - 2
    assert b"".join(file.pieces()) == CONTENT[-2:]


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        MappedFile(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        MappedFile(tmp_path / "missing")
