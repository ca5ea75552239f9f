"""`python -m bot demo`: serves a page on which /thumbnail works. With --once, it makes one thumbnail and exits."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.images import inspection
from bot.ops import logs
from bot.text import formatting
from sandbox import simulated

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    import simcord

    from bot.domain.models import Picture

PHOTO = Path(__file__).with_name("photo.jpg")
FIRST_PROMPT = "The cat that saw everything"
DELAY = 2.0  # seconds per image: long enough to see the progress messages
DEFAULT_PORT = 8080
EXIT_OK, EXIT_REFUSED, EXIT_USAGE = 0, 1, 64


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """The image and the options of a /thumbnail command."""

    image: Path
    model: str | None = None
    format: str | None = None
    prompt: str | None = None


def main(arguments: argparse.Namespace) -> int:
    """Run the demo that the command line asks for; returns the exit code."""
    logs.set_up(level="WARNING", as_json=False, secrets=())
    # discord.py warns about a missing voice library, which the bot does not use.
    logging.getLogger("discord").setLevel(logging.ERROR)
    if arguments.once is None:
        return asyncio.run(_serve_page(arguments.port))
    request = ThumbnailRequest(arguments.once, arguments.model, arguments.format, arguments.prompt)
    if problem := _problem_with(request.image):
        print(problem, file=sys.stderr)
        return EXIT_USAGE
    return asyncio.run(_run_once(request))


def _problem_with(image: Path) -> str | None:
    """Why no thumbnail of this file can be made and saved here, in one sentence."""
    if not image.is_file():
        return f"There is no image at {image}."
    try:
        with image.open("rb"):
            pass
    except OSError as error:
        return f"The image at {image} cannot be read ({(error.strerror or type(error).__name__).lower()})."
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        return f"The thumbnail cannot be saved in this folder ({(error.strerror or type(error).__name__).lower()})."
    return None


async def _run_once(request: ThumbnailRequest) -> int:
    async with _simulated_server() as server:
        try:
            result = await _generate(server, server.member("you"), request)
        except asyncio.CancelledError:
            logging.disable()  # the bot would warn its operator of the call that Ctrl-C ends
            raise
        return EXIT_REFUSED if result is None else EXIT_OK


async def _serve_page(requested: int | None) -> int:
    port = DEFAULT_PORT if requested is None else requested
    if port and not _is_free(port):
        if requested is not None:
            print(f"Port {port} is in use. Choose another one, or use --port 0 for any free port.", file=sys.stderr)
            return EXIT_USAGE
        port = 0
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with _simulated_server() as server:
        viewers = [
            server.member("you"),
            server.member("friend"),
            server.admin("admin"),
            await server.operator("operator"),
        ]
        print("This is the real bot with a simulated Discord and a simulated Pikzels. Nothing leaves this machine.")
        await _generate(server, viewers[0], ThumbnailRequest(PHOTO, prompt=FIRST_PROMPT))
        preview = server.env.preview(server.channel, viewers=viewers, layout="channel", port=port or None)
        async with preview:
            print(f"\nOpen {preview.url}")
            print("Type /thumbnail there and attach an image. You can also view the page as another member, as the")
            print("server's admin (/thumbnail-admin), and as the operator (/operator). Press Ctrl-C to end the demo.")
            sys.stdout.flush()
            await stopping.wait()
    print("Saved images were kept.")
    return EXIT_OK


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def _simulated_server() -> AsyncIterator[simulated.SimulatedServer]:
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-demo-") as folder:
        async with simulated.opened(Path(folder), delay=DELAY, check_errors=False) as server:
            yield server


async def _generate(
    server: simulated.SimulatedServer, member: simcord.MemberActor, request: ThumbnailRequest
) -> Picture | None:
    """Run the command as `member`, save the result and print its cost; None if the bot refused or failed."""
    options = {"model": request.model, "format": request.format, "prompt": request.prompt}
    chosen = {name: value for name, value in options.items() if value is not None}
    image = await asyncio.to_thread(request.image.read_bytes)
    print(f"/thumbnail image:{request.image.name}", *(f"{name}:{value}" for name, value in chosen.items()))
    async with _show_progress():
        answer = await member.slash(server.channel, "thumbnail", image=(request.image.name, image), **chosen)
    message = server.channel.last_message if not answer.ephemeral else None
    if message is None or not message.attachments:
        # A public message that was taken back was replaced by a private one.
        source = message or next(iter(reversed(answer.followups)), None) or answer.response
        print(source.content if source is not None else "The bot did not answer.")
        return None
    attachment = message.attachments[0]
    result = await asyncio.to_thread(_save, attachment.filename, await attachment.read())
    allowance = await server.allowance(member)
    cost = server.app.client.services.costs[Model(request.model or server.settings.defaults.model)]
    print(f"Made   {result.path} ({result.width} x {result.height}, {formatting.megabytes(result.size)})")
    print(f"Cost   {formatting.credits_(cost)}; left today: {allowance.left} of {allowance.limit.amount}")
    return result


def _save(name: str, image: bytes) -> Picture:
    """Save the image in the current directory."""
    target = Path(name).resolve()
    target.write_bytes(image)
    return inspection.inspect(target)


@asynccontextmanager
async def _show_progress() -> AsyncIterator[None]:
    """Show progress: the elapsed seconds on a terminal, otherwise a single line."""
    started = time.perf_counter()

    async def tick() -> None:
        while True:
            print(f"\rGenerating … {time.perf_counter() - started:.0f} s", end="", flush=True)
            await asyncio.sleep(1)

    if not sys.stdout.isatty():
        print("Generating …", flush=True)
        yield
        return
    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        with suppress(asyncio.CancelledError):
            await ticker
        print("\r" + " " * 30 + "\r", end="", flush=True)
