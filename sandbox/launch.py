"""Starts the bot against a simulated Discord: `python -m sandbox.launch run …`.

The environment variables SANDBOX_DISCORD_REST and SANDBOX_DISCORD_GATEWAY hold the server's addresses. Outside of
`sandbox.discord_server`, so that a bot that is measured does not carry the simulated server in its memory.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module


def launch(argv: list[str]) -> int:
    """Run the bot's own command line with discord.py pointed at the simulated Discord."""
    gc.disable()  # as `bot run` does before it imports discord.py
    import discord.gateway  # noqa: PLC0415 - a test that only runs the server does not need the library
    import discord.http  # noqa: PLC0415
    from yarl import URL  # noqa: PLC0415

    discord.http.Route.BASE = os.environ["SANDBOX_DISCORD_REST"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(os.environ["SANDBOX_DISCORD_GATEWAY"])
    # Imported by name, so that the bot's code is loaded only when the bot is launched.
    code: int = import_module("bot.__main__").main(argv)
    return code


if __name__ == "__main__":
    raise SystemExit(launch(sys.argv[1:]))
