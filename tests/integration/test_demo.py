"""The demo, run as a new user would run it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from sandbox import demo
from tests.support.interrupts import default_interrupts

ROOT = Path(__file__).parents[2]


async def start_demo(*arguments: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot",
        "demo",
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=default_interrupts,
    )


async def run_demo(*arguments: str, folder: Path) -> tuple[int | None, str]:
    child = await start_demo(*arguments, folder=folder)
    out, errors = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode, out.decode() + errors.decode()


@pytest.mark.parametrize(("format_", "size"), [("16:9", (1280, 720)), ("9:16", (720, 1280))])
async def test_once_writes_the_thumbnail_to_the_working_directory_and_prints_its_cost(
    tmp_path: Path, format_: str, size: tuple[int, int]
) -> None:
    code, output = await run_demo(
        "--once", str(demo.PHOTO), "--model", "pkz_4", "--format", format_, "--prompt", "Hello", folder=tmp_path
    )
    assert code == 0, output
    [image_path] = tmp_path.glob("thumbnail-*.png")
    with Image.open(image_path) as image:
        assert image.size == size
    assert f"Made   {image_path}" in output
    assert "Cost   1 credit; left today: 9 of 10" in output


async def test_once_explains_why_a_file_is_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    code, output = await run_demo("--once", "notes.txt", folder=tmp_path)
    assert (code, "must be a PNG, JPEG or WebP image" in output) == (1, True)
    code, output = await run_demo("--once", "missing.png", folder=tmp_path)
    assert (code, output) == (64, "There is no image at missing.png.\n")


async def test_ctrl_c_during_once_leaves_nothing_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    child = await start_demo("--once", str(demo.PHOTO), folder=tmp_path)
    assert child.stdout is not None
    async with asyncio.timeout(60):
        lines = [await child.stdout.readline(), await child.stdout.readline()]
    child.send_signal(signal.SIGINT)
    rest, errors = await asyncio.wait_for(child.communicate(), 30)
    assert lines == [b"/thumbnail image:photo.jpg\n", "Generating …\n".encode()]
    assert (child.returncode, rest, errors) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


async def test_once_refuses_a_picture_of_12000_pixels_in_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (12_000, 12_000)).save(tmp_path / "large.jpg", quality=10)
    code, output = await run_demo("--once", "large.jpg", folder=tmp_path)
    assert code == 1
    command, progress, sentence = output.splitlines()
    assert (command, progress) == ("/thumbnail image:large.jpg", "Generating …")
    assert sentence.startswith("`image` is 12000 x 12000 pixels (144 megapixels); the limit is 50 megapixels.")


async def test_a_prompt_that_discord_would_not_send_is_one_sentence(tmp_path: Path) -> None:
    said = await run_demo("--once", str(demo.PHOTO), "--prompt", "", "--save", "images", folder=tmp_path)
    assert said == (64, "The prompt must have from 1 to 3,000 characters, and this one has 0.\n")
    assert list(tmp_path.iterdir()) == []
    too_long = "The prompt must have from 1 to 3,000 characters, and this one has 3,001."
    assert demo._problem_with_prompt("x" * 3001) == too_long
    assert demo._problem_with_prompt("x" * 3000) is None


def test_what_keeps_once_from_reading_or_saving_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo._problem_with(tmp_path) == f"There is no image at {tmp_path}."
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    problem = "The thumbnail cannot be saved in this folder (no such file or directory)."
    assert demo._problem_saving(Path()) == problem


async def test_the_page_is_served_with_a_first_thumbnail_until_ctrl_c(tmp_path: Path) -> None:
    child, output = await start_page(folder=tmp_path)
    assert re.search(r"Made   thumbnail-\w+\.png", output)
    [address] = re.findall(r"http://127\.0\.0\.1:\d+/", output)
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        assert response.status == 200
    assert await stop(child) == "Nothing was kept.\n"
    assert list(tmp_path.iterdir()) == []


async def test_the_page_saves_the_first_thumbnail_if_asked(tmp_path: Path) -> None:
    child, output = await start_page("--save", "images", folder=tmp_path)
    [image_path] = (tmp_path / "images").iterdir()
    assert f"Made   {image_path}" in output
    assert await stop(child) == "The first thumbnail was kept in images.\n"
    assert list(tmp_path.iterdir()) == [image_path.parent]


async def start_page(*arguments: str, folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    child = await start_demo("--port", "0", *arguments, folder=folder)
    assert child.stdout is not None
    output = ""
    async with asyncio.timeout(60):
        while "Press Ctrl-C to end the demo" not in output:
            line = await child.stdout.readline()
            assert line, output
            output += line.decode()
    return child, output


async def stop(child: asyncio.subprocess.Process) -> str:
    """Press Ctrl-C; returns what the demo says at its end."""
    child.send_signal(signal.SIGINT)
    rest, errors = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, errors.decode()) == (0, "")
    return rest.decode()


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        code, output = await run_demo("--port", str(port), folder=tmp_path)
    assert (code, output) == (64, f"Port {port} is in use. Choose another one, or use --port 0 for any free port.\n")


def test_a_port_that_needs_more_rights_is_told_from_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as the kernel does for another user than root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert demo._problem_with_port(80) == "This user may not use port 80."


async def test_the_demo_ignores_settings_of_the_real_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("[quota]\nmember_daily = 0\n")
    monkeypatch.setenv("BOT_QUOTA__MEMBER_DAILY", "0")
    code, output = await run_demo("--once", str(demo.PHOTO), folder=tmp_path)
    assert code == 0, output
