"""`python -m bot demo`: serves a page on which /thumbnail works. With --once, it makes one thumbnail and exits."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.cli import progress
from bot.domain.models import Model
from bot.domain.validation import PROMPT_LENGTH
from bot.images import inspection
from bot.ops import logs
from bot.text import formatting
from sandbox import apps_menu, page, simulated
from sandbox.pikzels_server.replies import Reply

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import simcord

    from bot.domain.models import Picture

PHOTO = Path(__file__).with_name("photo.jpg")
FRIENDS_WORDS = "Somebody should make a thumbnail of this."
FIRST_PROMPT = "The cat that saw everything"
ONCE_DELAY = 2.0  # seconds per image
FIRST_DELAY = 1.0
PAGE_DELAY = 5.0  # long enough to see the progress messages, and to cancel a request that waits behind another one
# One image at once, so that a second request waits; and names for the options `persona` and `style`.
PAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "pikzels": {"concurrency": 1},
    "personas": {
        "mascot": "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d",
        "news anchor": "1c6d7b4f-2e30-4d4c-8b9e-8f706b5c4d3e",
        "game streamer": "2d7e8c50-3f41-4e5d-9caf-90817c6d5e4f",
    },
    "styles": {
        "comic": "3e8f9d61-4052-4f6e-8db0-a1928d7e6f50",
        "neon": "4f90ae72-5163-407f-9ec1-b2a39e8f7061",
    },
}
DEFAULT_PORT = 8080
EXIT_OK, EXIT_REFUSED, EXIT_USAGE = 0, 1, 64


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """The image and the options of a /thumbnail command."""

    image: Path
    model: str | None = None
    format: str | None = None
    prompt: str | None = None
    folder: Path | None = None  # where the result is saved


def main(arguments: argparse.Namespace) -> int:
    """Run the demo that the command line asks for; returns the exit code."""
    logs.set_up(level="WARNING", as_json=False, secrets=())
    # discord.py warns about a missing voice library, which the bot does not use.
    logging.getLogger("discord").setLevel(logging.ERROR)
    if arguments.once is None:
        return _serve(arguments.port, arguments.save)
    folder = arguments.save or Path()
    request = ThumbnailRequest(arguments.once, arguments.model, arguments.format, arguments.prompt, folder)
    if problem := _problem_with(request.image) or _problem_with_prompt(request.prompt) or _problem_saving(folder):
        print(problem, file=sys.stderr)
        return EXIT_USAGE
    return asyncio.run(_run_once(request))


def _problem_with(image: Path) -> str | None:
    """Why no thumbnail of this file can be made, in one sentence."""
    if not image.is_file():
        return f"There is no image at {image}."
    try:
        with image.open("rb"):
            pass
    except OSError as error:
        return f"The image at {image} cannot be read ({(error.strerror or type(error).__name__).lower()})."
    return None


def _problem_with_prompt(prompt: str | None) -> str | None:
    """Why Discord would not let a member send this prompt, in one sentence."""
    if prompt is None or 1 <= len(prompt) <= PROMPT_LENGTH:
        return None
    return f"The prompt must have from 1 to {PROMPT_LENGTH:,} characters, and this one has {len(prompt):,}."


def _problem_saving(folder: Path) -> str | None:
    """Why nothing can be saved in this folder, in one sentence; it is made if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        where = "this folder" if folder == Path() else str(folder)
        return f"The thumbnail cannot be saved in {where} ({(error.strerror or type(error).__name__).lower()})."
    return None


def _serve(port: int | None, save: Path | None) -> int:
    if save is not None and (problem := _problem_saving(save)):
        print(problem, file=sys.stderr)
        return EXIT_USAGE
    return asyncio.run(_serve_page(port, save))


async def _run_once(request: ThumbnailRequest) -> int:
    async with _simulated_server(delay=ONCE_DELAY) as server:
        try:
            result = await _generate(server, server.member("you"), request)
        except asyncio.CancelledError:
            logging.disable()  # the bot would warn its operator of the call that Ctrl-C ends
            raise
        return EXIT_REFUSED if result is None else EXIT_OK


async def _serve_page(requested: int | None, folder: Path | None) -> int:
    port = DEFAULT_PORT if requested is None else requested
    if port and (problem := _problem_with_port(port)):
        if requested is not None:
            print(f"{problem} Choose another one, or use --port 0 for any free port.", file=sys.stderr)
            return EXIT_USAGE
        port = 0
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with _simulated_server(delay=PAGE_DELAY, sections=PAGE_SETTINGS, is_live=True) as server:
        you, friend = server.member("you"), server.member("friend")
        viewers = [you, friend, server.admin("admin"), await server.operator("operator")]
        print("This is the real bot with a simulated Discord and a simulated Pikzels. Nothing leaves this machine.")
        await friend.send(server.channel, FRIENDS_WORDS, attachments=[(PHOTO.name, PHOTO.read_bytes())])
        server.api.script(Reply(delay=FIRST_DELAY))
        await _generate(server, you, ThumbnailRequest(PHOTO, prompt=FIRST_PROMPT, folder=folder))
        async with page.opened(server, viewers=viewers, port=port or None) as opened, tips(server, opened, viewers):
            _introduce(opened)
            await stopping.wait()
    print("Nothing was kept." if folder is None else f"The first thumbnail was kept in {folder}.")
    return EXIT_OK


def _introduce(opened: page.Page) -> None:
    print(f"\nOpen {opened.address}")
    print("Type /thumbnail there and attach an image. You can also view the page as another member, as the")
    print("server's admin (/thumbnail-admin), and as the operator (/operator). Send two requests, and the second one")
    print(f"waits with a Cancel button. The page has no menu for messages: /{apps_menu.NAME} stands in for")
    print("right-click → Apps → Make thumbnail.")
    if sys.stdin.isatty():
        print("Time passes as on your clock. Press Enter here to move on to the next day.")
    print("Press Ctrl-C to end the demo.", flush=True)


@asynccontextmanager
async def tips(
    server: simulated.SimulatedServer, opened: page.Page, viewers: Sequence[simcord.MemberActor]
) -> AsyncIterator[None]:
    """Meanwhile, say on the terminal what can be done without credits, and move the clock when Enter is pressed."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_watch_credits(server, viewers))
        loop = asyncio.get_running_loop()

        def move() -> None:
            sys.stdin.readline()
            tasks.create_task(move_to_next_day(server, opened))

        if sys.stdin.isatty():
            loop.add_reader(sys.stdin, move)
        try:
            yield
        finally:
            loop.remove_reader(sys.stdin)
            watching.cancel()


async def move_to_next_day(server: simulated.SimulatedServer, opened: page.Page) -> None:
    assert server.clock is not None
    server.clock.move_to_next_day()
    await opened.publish()
    print(f"It is now {server.env.now():%A, %d %B %Y, %H:%M} UTC on the page. Everybody has new credits.", flush=True)


async def _watch_credits(server: simulated.SimulatedServer, viewers: Sequence[simcord.MemberActor]) -> None:
    told: frozenset[str] = frozenset()
    while True:
        told = await tell_credits(server, viewers, told)
        await asyncio.sleep(1)


async def tell_credits(
    server: simulated.SimulatedServer, viewers: Sequence[simcord.MemberActor], told: frozenset[str]
) -> frozenset[str]:
    """Tell on the terminal who has no credits left, but for those who are in `told`; returns all of them."""
    left = {member.name: (await server.allowance(member)).left for member in viewers}
    used_up = frozenset(name for name, credits_ in left.items() if not credits_)
    for name in sorted(used_up - told):
        print(no_credits(name), flush=True)
    return used_up


def no_credits(name: str) -> str:
    """What can be done about it."""
    give = f"View the page as admin and give more: /thumbnail-admin grant member:{name} amount:10 reason:demo."
    wait = " Or press Enter here to move on to the next day." if sys.stdin.isatty() else " Or wait for the next day."
    return f"\n“{name}” has used all credits of today. {give}{wait}"


def _problem_with_port(port: int) -> str | None:
    """Why the page cannot be served on this port, in one sentence."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return f"This user may not use port {port}."
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"Port {port} cannot be used ({(error.strerror or type(error).__name__).lower()})."
            return f"Port {port} is in use."
    return None


@asynccontextmanager
async def _simulated_server(
    *, delay: float, sections: Mapping[str, Mapping[str, Any]] | None = None, is_live: bool = False
) -> AsyncIterator[simulated.SimulatedServer]:
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-demo-") as folder:
        async with simulated.opened(
            Path(folder), delay=delay, sections=sections, check_errors=False, is_live=is_live
        ) as server:
            yield server


async def _generate(
    server: simulated.SimulatedServer, member: simcord.MemberActor, request: ThumbnailRequest
) -> Picture | None:
    """Run the command as `member`, save the result and print its cost; None if the bot refused or failed."""
    options = {"model": request.model, "format": request.format, "prompt": request.prompt}
    chosen = {name: value for name, value in options.items() if value is not None}
    image = await asyncio.to_thread(request.image.read_bytes)
    print(f"/thumbnail image:{request.image.name}", *(f"{name}:{value}" for name, value in chosen.items()))
    with _show_progress():
        answer = await member.slash(server.channel, "thumbnail", image=(request.image.name, image), **chosen)
        await server.app.use_case.recovery.idle(simulated.SETTLE_SECONDS)
    message = server.channel.last_message if not answer.ephemeral else None
    if message is None or not message.attachments:
        # A public message that was taken back was replaced by a private one.
        source = message or next(iter(reversed(answer.followups)), None) or answer.response
        print(source.content if source is not None else "The bot did not answer.")
        return None
    attachment = message.attachments[0]
    folder = request.folder or server.settings.storage.folder  # the latter is deleted at the end
    result = await asyncio.to_thread(_save, folder / attachment.filename, await attachment.read())
    allowance = await server.allowance(member)
    cost = server.app.client.services.costs[Model(request.model or server.settings.defaults.model)]
    name = result.path if request.folder is not None else result.path.name
    print(f"Made   {name} ({result.width} x {result.height}, {formatting.megabytes(result.size)})")
    print(f"Cost   {formatting.credits_(cost)}; left today: {allowance.left} of {allowance.limit.amount}")
    return result


def _save(target: Path, image: bytes) -> Picture:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(image)
    return inspection.inspect(target.resolve())


def _show_progress() -> AbstractContextManager[None]:
    """Show progress: the elapsed seconds on a terminal, otherwise a single line."""
    if not sys.stdout.isatty():
        print("Generating …", flush=True)
    return progress.shown("Generating", stream=sys.stdout)
