"""Serves a simulated Discord and Pikzels, to rehearse the operation of a bot: `python -m sandbox.rehearsal`.

It prints environment variables. With these, `python -m sandbox.launch` takes the commands of `python -m bot`, and the
bot that it starts connects here. While one is connected, a member asks for a thumbnail now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import discord_server, pikzels_server

if TYPE_CHECKING:
    from collections.abc import Callable

API_KEY = "pkz_sandbox"
_PHOTO = Path(__file__).with_name("photo.jpg")
_MAKING_SECONDS = 2.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.rehearsal", description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two requests (default: %(default)s)")
    return parser.parse_args()


async def run(*, every: float, say: Callable[[str], None], making: float = _MAKING_SECONDS) -> None:
    """Serve until the task is cancelled. `say` is told the lines for the terminal. Every so many seconds, another
    member makes a request, and the image takes `making` seconds.
    """
    pikzels = pikzels_server.serve(api_key=API_KEY, output=_PHOTO.read_bytes(), delay=making)
    async with discord_server.serve() as discord, pikzels as api:
        for name, value in {**discord.environment(), "BOT_PIKZELS__BASE_URL": api.base_url}.items():
            say(f"export {name}={value}")
        say(f"# The API key is {API_KEY}, the server is {discord_server.GUILD_ID}, and every token is accepted.")
        say("# Press Ctrl-C here to end the rehearsal.")
        # Its address is Discord's. A bot with a simulated Pikzels leaves this machine for no image, so it keeps none.
        image = discord_server.Upload(_PHOTO.name, _PHOTO.stat().st_size, "image/jpeg")
        for member in itertools.count(discord_server.USER_ID):
            await asyncio.sleep(every)
            with contextlib.suppress(discord_server.NotConnected, LookupError):  # no bot, or one that has just come
                await discord.slash("thumbnail", options={"image": image, "prompt": "A rehearsal"}, user_id=member)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(every=_arguments().every, say=partial(print, flush=True)))
