"""`python -m bot demo`: a page on which /thumbnail works, or with --once a single thumbnail without a browser."""

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
DELAY = 2.0  # seconds the stand-in takes for a picture: long enough to see it work
USUAL_PORT = 8080
EXIT_OK, EXIT_REFUSED, EXIT_USAGE = 0, 1, 64


@dataclass(frozen=True, slots=True)
class Order:
    """What the demo's member asks for."""

    picture: Path
    model: str | None = None
    format: str | None = None
    prompt: str | None = None


def main(arguments: argparse.Namespace) -> int:
    """Run the demo as the command line asks; returns the exit code."""
    logs.set_up(level="WARNING", as_json=False, secrets=())
    logging.getLogger("discord").setLevel(logging.ERROR)  # it misses a voice library nobody wants
    if arguments.once is None:
        return asyncio.run(_page(arguments.port))
    order = Order(arguments.once, arguments.model, arguments.format, arguments.prompt)
    if not order.picture.is_file():
        print(f"There is no picture at {order.picture}.", file=sys.stderr)
        return EXIT_USAGE
    return asyncio.run(_once(order))


async def _once(order: Order) -> int:
    async with _sandbox() as sandbox:
        made = await _make(sandbox, sandbox.member("you"), order)
        return EXIT_REFUSED if made is None else EXIT_OK


async def _page(wished: int | None) -> int:
    port = USUAL_PORT if wished is None else wished
    if port and not _is_free(port):
        if wished is not None:
            print(f"Port {port} is in use. Choose another, or --port 0 for any free one.", file=sys.stderr)
            return EXIT_USAGE
        port = 0
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with _sandbox() as sandbox:
        you, friend = sandbox.member("you"), sandbox.member("friend")
        print("A simulated Discord, the real bot, and a stand-in of Pikzels: nothing leaves this machine.")
        await _make(sandbox, you, Order(PHOTO, prompt=FIRST_PROMPT))
        preview = sandbox.env.preview(sandbox.channel, viewers=[you, friend], layout="channel", port=port or None)
        async with preview:
            print(f"\nOpen {preview.url}")
            print("Type /thumbnail there and attach a picture. Ctrl-C ends the demo.", flush=True)
            await stopping.wait()
    print("The demo has ended; what it made beside you stays.")
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
async def _sandbox() -> AsyncIterator[simulated.World]:
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-demo-") as folder:
        async with simulated.opened(Path(folder), delay=DELAY, check_errors=False) as sandbox:
            yield sandbox


async def _make(sandbox: simulated.World, member: simcord.MemberActor, order: Order) -> Picture | None:
    """Type the command as `member`, save what comes, say what it cost; None when the bot refused or failed."""
    options = {"model": order.model, "format": order.format, "prompt": order.prompt}
    chosen = {name: value for name, value in options.items() if value is not None}
    picture = await asyncio.to_thread(order.picture.read_bytes)
    print(f"/thumbnail image:{order.picture.name}", *(f"{name}:{value}" for name, value in chosen.items()))
    async with _ticking():
        answer = await member.slash(sandbox.channel, "thumbnail", image=(order.picture.name, picture), **chosen)
    message = sandbox.message() if not answer.ephemeral else None
    if message is None or not message.attachments:
        said = message or answer.response
        print(said.content if said is not None else "The bot did not answer.")
        return None
    attachment = message.attachments[0]
    made = await asyncio.to_thread(_save, attachment.filename, await attachment.read())
    [allowance] = await sandbox.app.use_case.lifecycle.allowances(member.id)
    cost = sandbox.app.client.services.costs[Model(order.model or sandbox.settings.defaults.model)]
    print(f"Made   {made.path} ({made.width} x {made.height}, {formatting.megabytes(made.size)})")
    print(f"Cost   {formatting.credits_(cost)}; left today: {allowance.left} of {allowance.limit.amount}")
    return made


def _save(name: str, picture: bytes) -> Picture:
    """Write the picture beside whoever runs the demo."""
    target = Path(name).resolve()
    target.write_bytes(picture)
    return inspection.inspect(target, sha256="")


@asynccontextmanager
async def _ticking() -> AsyncIterator[None]:
    """Show that something happens: seconds on a terminal, one line elsewhere."""
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
