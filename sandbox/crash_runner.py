"""A nursery of bots that die where they are told to: imports everything once, then forks a bot for each line it reads.

A line is an order as JSON: the settings, the Discord, a file for the log, and the point and how often it must be
reached before the process kills itself, as a power cut would. Two lines come back: the child's pid, and how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import discord
import uvloop
from discord.gateway import DiscordWebSocket
from yarl import URL

from bot import config, supervisor
from bot.ops import logs
from sandbox.failpoints import wrapped


class Reaper:
    """Writes down every point that is reached, and ends the process at the `count`-th time of one of them."""

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
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_live(json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return 0


def _live(order: dict[str, Any]) -> int:
    """The life of one bot; returns its exit code, unless it dies before."""
    discord.http.Route.BASE = order["rest"]
    DiscordWebSocket.DEFAULT_GATEWAY = URL(order["gateway"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    logs.set_up(level="INFO", as_json=False, secrets=())
    reaper = Reaper(Path(order["trace"]), point=order["point"], count=order["count"])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            supervisor.run(config.Settings.model_validate(order["settings"]), wrap=partial(wrapped, reach=reaper))
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
