"""Runs bots that kill themselves at a chosen point. It imports everything once, then forks a bot for each input line.

Each line is an order in JSON. It contains the settings, the simulated Discord's addresses, a log file, a trace file,
a failpoint, and how often the bot must reach that failpoint before the process kills itself, as in a power failure.
The runner answers with two lines: the pid of the child, and its exit code.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import discord
import uvloop
from discord.gateway import DiscordWebSocket
from yarl import URL

from bot import config, supervisor
from bot.discord_io.client import COGS
from bot.ops import logs
from sandbox.failpoints import wrapped

_IMPORTED_LATE = ("bot.storage.restoration", "encodings.idna", "importlib.readers")  # by the bot, when it needs them


class CrashTrigger:
    """Logs each failpoint that the bot reaches, and kills the process when it reaches `point` `count` times."""

    def __init__(self, trace: Path, *, point: str | None, count: int) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._point = point
        self._count = count
        self._reached: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        os.write(self._trace, f"{point}\n".encode())
        self._reached[point] += 1
        if point == self._point and self._reached[point] == self._count:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    for name in (*COGS, *_IMPORTED_LATE):
        import_module(name)  # once, instead of in every child
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it shares with this process
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_run_bot(json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return 0


def _run_bot(order: dict[str, Any]) -> int:
    """Run one bot until it ends; returns its exit code, unless the process is killed."""
    discord.http.Route.BASE = order["rest"]
    DiscordWebSocket.DEFAULT_GATEWAY = URL(order["gateway"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    logs.set_up(level="INFO", as_json=False, secrets=())
    trigger = CrashTrigger(Path(order["trace"]), point=order["point"], count=order["count"])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        settings = config.Settings.model_validate(order["settings"])
        runner.run(supervisor.run(settings, wrap=partial(wrapped, reach=trigger)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
