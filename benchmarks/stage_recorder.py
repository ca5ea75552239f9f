"""Runs the bot, and writes down when each call of its use case began and ended.

It wraps the ports of the use case, so the bot itself knows nothing of it. At the end it writes a line of JSON for each
call to the file in `CALLS_FILE`: the interaction, the name of the call, and both times on the monotonic clock, which
all processes share.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import time
from contextvars import ContextVar
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import discord.gateway
import discord.http
import uvloop
from yarl import URL

from bot import config, supervisor
from bot.domain.models import Reservation
from bot.ops import logs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from bot.jobs.ports import Ports

WRAPPED = ("repository", "sources", "provider", "downloader", "spool", "messenger")

# A reservation sets it; the tasks that are started after that inherit it.
_interaction: ContextVar[int | None] = ContextVar("interaction", default=None)


class Recorder:
    """The calls so far, each with its interaction, its name, its begin and its end."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, float, float]] = []

    def add(self, name: str, begin: float) -> None:
        if (interaction := _interaction.get()) is not None:
            self.calls.append((interaction, name, begin, time.monotonic()))

    def wrapped(self, ports: Ports) -> Ports:
        changes: dict[str, Any] = {
            field.name: Timed(field.name, getattr(ports, field.name), self)
            for field in fields(ports)
            if field.name in WRAPPED
        }
        return replace(ports, **changes)

    def write(self, file: Path) -> None:
        file.write_text("".join(f"{json.dumps(call)}\n" for call in self.calls), "utf-8")


class Timed:
    """A port whose asynchronous calls are recorded when they have succeeded."""

    def __init__(self, name: str, port: Any, recorder: Recorder) -> None:
        self._name = name
        self._port = port
        self._recorder = recorder

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        if inspect.iscoroutinefunction(value):
            return self._call(f"{self._name}.{attribute}", value)
        if inspect.isasyncgenfunction(value):
            return self._stream(f"{self._name}.{attribute}", value)
        return value

    def _call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic()
            if args and isinstance(args[0], Reservation):
                _interaction.set(args[0].requester.interaction_id)
            result = await function(*args, **kwargs)
            self._recorder.add(name, begin)
            return result

        return call

    def _stream(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            begin = time.monotonic()
            async for item in function(*args, **kwargs):
                yield item
            self._recorder.add(name, begin)

        return stream


def main() -> None:
    discord.http.Route.BASE = os.environ["SANDBOX_DISCORD_REST"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(os.environ["SANDBOX_DISCORD_GATEWAY"])
    logs.set_up(level="INFO", as_json=False, secrets=())
    recorder = Recorder()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(supervisor.run(config.load(), wrap=recorder.wrapped))
    recorder.write(Path(os.environ["CALLS_FILE"]))


if __name__ == "__main__":
    main()
