"""Measures how long a start takes with many ended jobs: from the start of the process until Discord has let the bot in.

    python -m benchmarks.boot --jobs 0 10000 1000000

The bot runs in its own process, with a simulated Discord on this machine. The first start after the jobs were stored
checks the whole database before anything else, as every start does whose last one was killed before its check ended.
The starts after it check a large database while the bot runs. Medians of `--rounds` starts.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import documents, records
from benchmarks.process import inherited_environment
from benchmarks.servers import ROOT
from bot.storage import opening
from bot.storage.integrity import CHECKED_AT_ONCE
from sandbox import discord_server
from tests.support.many_entries import fill_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

_READY_SECONDS = 120.0
_CHECK_SECONDS = 120.0
_CHECKED = re.compile(r"the database is whole: it was checked in ([0-9.]+) s")
_DAYS = 360  # less than what the bot keeps, or its first sweep would be measured


@dataclass(frozen=True, slots=True)
class Boot:
    """Seconds from the start of the process until it is online, and of the check after that (0: there was none)."""

    online: float
    check: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the size of the database in bytes, the start that checks first, and those after it."""

    jobs: int
    size: int
    first: Boot
    later: Sequence[Boot]

    def figures(self) -> dict[str, float]:
        online, check = (statistics.median(getattr(boot, name) for boot in self.later) for name in ("online", "check"))
        measured = {"online": online, "check": check, "first": self.first.online}
        return {"jobs": self.jobs, "megabytes": round(self.size / 1e6)} | {
            name: round(seconds, 2) for name, seconds in measured.items()
        }

    def __str__(self) -> str:
        online, check = (statistics.median(getattr(boot, name) for boot in self.later) for name in ("online", "check"))
        spread = f"{min(boot.online for boot in self.later):.2f}-{max(boot.online for boot in self.later):.2f}"
        megabytes = self.size / 2**20
        return f"{self.jobs:>10,}{megabytes:>10,.0f}{online:>10.2f}{spread:>13}{self.first.online:>14.2f}{check:>14.2f}"


async def _boot(folder: Path, *, is_checked_later: bool) -> Boot:
    """Start the bot, wait for what it does, and stop it."""
    async with discord_server.serve() as discord:
        settings = {
            "BOT_CONFIG": str(folder / "config.toml"),
            "BOT_DISCORD__TOKEN": "tok.en",
            "BOT_PIKZELS__API_KEY": "pkz_sandbox",
            "BOT_STORAGE__FOLDER": str(folder),
        }
        environment = inherited_environment() | settings | discord.environment()
        start = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sandbox.launch", "run", cwd=ROOT, env=environment, stdout=DEVNULL, stderr=PIPE
        )
        try:
            await discord.ready(_READY_SECONDS)
            online = time.perf_counter() - start
            return Boot(online, await _check_seconds(process.stderr) if is_checked_later else 0.0)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


async def _check_seconds(log: asyncio.StreamReader | None) -> float:
    """Read the bot's log until the check has ended."""
    assert log is not None
    async with asyncio.timeout(_CHECK_SECONDS):
        async for line in log:
            if (found := _CHECKED.search(line.decode())) is not None:
                return float(found[1])
    raise RuntimeError("the bot ended before the check")


async def measure(jobs: int, rounds: int) -> Row:
    """Store that many jobs in a new database, and start the bot with it again and again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "pikzels-bot.sqlite3"
        (folder / "config.toml").touch()  # an empty file, so that no other config.toml is read
        async with opening.opened(path):
            pass
        fill_jobs(path, jobs, now=datetime.now(UTC), days=_DAYS)
        size = path.stat().st_size
        first = await _boot(folder, is_checked_later=False)
        later = [await _boot(folder, is_checked_later=size > CHECKED_AT_ONCE) for _ in range(rounds)]
        return Row(jobs, size, first, later)


async def _run(amounts: Sequence[int], rounds: int) -> list[Row]:
    print(f"{'ended jobs':>10}{'MiB':>10}{'online, s':>10}{'spread':>13}{'checked first':>14}{'check after':>14}")
    rows = []
    for jobs in amounts:
        rows.append(await measure(jobs, rounds))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[0, 10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/figures.json")
    arguments = parser.parse_args()
    found = asyncio.run(_run(arguments.jobs, arguments.rounds))
    if arguments.record:
        records.write(records.BOOT, {"rows": [row.figures() for row in found]})
        documents.refresh()
