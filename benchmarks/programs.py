"""The programs that are measured: the bot, and the bare bot that it is compared with."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.process import run_module
from benchmarks.servers import READY_SECONDS
from benchmarks.workload import Members

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.servers import Servers

CONCURRENCY = 200  # provider calls at a time
_QUEUE = 10_000
_NO_LIMIT = 1_000_000  # of credits, dollars and megabytes: each limit is checked, and none is reached


@dataclass(frozen=True, slots=True)
class Program:
    """A Python module and its arguments, and whether it keeps a ledger and the source images."""

    name: str
    arguments: tuple[str, ...]
    keeps_books: bool


BOT = Program("bot", ("sandbox.launch", "run"), keeps_books=True)
BARE = Program("bare", ("benchmarks.bare",), keeps_books=False)


@dataclass(frozen=True, slots=True)
class Running:
    """A program that is connected to Discord, and the seconds that took it."""

    pid: int
    start: float
    members: Members


@asynccontextmanager
async def running(program: Program, servers: Servers) -> AsyncIterator[Running]:
    """Start `program` and stop it at the end; its output is shown if anything fails."""
    begin = time.perf_counter()
    started = run_module(program.arguments, environment=_environment(servers), log=servers.folder / "log")
    async with started as pid:
        await servers.discord.ready(READY_SECONDS)
        yield Running(pid, time.perf_counter() - begin, Members(servers, pid))


def data_folder(servers: Servers) -> Path:
    return servers.folder / "data"


def database(servers: Servers) -> Path:
    return data_folder(servers) / "pikzels-bot.sqlite3"


def calls_file(servers: Servers) -> Path:
    """Where `benchmarks.stage_recorder` writes what it has seen."""
    return servers.folder / "calls.jsonl"


def _environment(servers: Servers) -> dict[str, str]:
    config = servers.folder / "config.toml"
    config.touch()  # an empty file, so that no other config.toml is read
    sections: dict[str, dict[str, object]] = {
        "DISCORD": {"TOKEN": "tok.en"},
        "PIKZELS": {"API_KEY": "pkz_sandbox", "BASE_URL": servers.images.api, "CONCURRENCY": CONCURRENCY},
        "QUEUE": {"LENGTH": _QUEUE, "PER_MEMBER": 10},
        "QUOTA": {"MEMBER_DAILY": 1000, "SERVER_DAILY": _NO_LIMIT, "BOT_MONTHLY": _NO_LIMIT},
        "BUDGET": {"DAILY_DOLLARS": _NO_LIMIT, "MONTHLY_DOLLARS": _NO_LIMIT},
        "STORAGE": {"FOLDER": data_folder(servers), "SOURCE_MEGABYTES": _NO_LIMIT},
    }
    settings = {
        f"BOT_{section}__{name}": str(value) for section, values in sections.items() for name, value in values.items()
    }
    return {**servers.environment, **settings, "BOT_CONFIG": str(config), "CALLS_FILE": str(calls_file(servers))}
