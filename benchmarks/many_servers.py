"""What servers cost: memory for each, and time until the bot serves all of them: `python -m benchmarks.many_servers`.

The bot runs in its own process, with a simulated Discord on this machine, over TLS. Discord recommends a connection for
each 1,000 servers, and lets one in every five seconds, as the real one does for most bots. Each line is the median of
`--rounds` starts. `--record` writes the figures to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from benchmarks import documents, programs, records
from benchmarks.programs import BOT
from benchmarks.servers import make_image, served
from bot.discord_io.identify_limit import INTERVAL
from sandbox.discord_server import GUILD_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sandbox.discord_server import DiscordServer

SERVERS = (1, 2_500, 25_000)
_OF_A_SHARD = 1_000  # servers, as Discord recommends
_READY_SECONDS = 60.0  # beyond the turns of the shards
_LOOK_SECONDS = 0.02
_MOST_BYTES = 2_000  # of memory for each server


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until the first connection and until all of them, and then the memory in MB."""

    first: float
    ready: float
    memory: float


@dataclass(frozen=True, slots=True)
class Row:
    """The starts with that many servers, and how many connections there were."""

    servers: int
    shards: int
    starts: Sequence[Start]

    @property
    def turns(self) -> float:
        """The seconds of a start in which Discord lets nobody in."""
        return INTERVAL * (self.shards - 1)

    def median(self, name: str) -> float:
        return float(statistics.median(getattr(start, name) for start in self.starts))

    def bytes_more(self, one: Row) -> float | None:
        """The bytes of memory for each server more than in a start with one."""
        if self.servers == one.servers:
            return None
        return (self.median("memory") - one.median("memory")) * 1e6 / (self.servers - one.servers)

    def figures(self, one: Row) -> dict[str, float | None]:
        more = self.bytes_more(one)
        return {
            "servers": self.servers,
            "shards": self.shards,
            "first": round(self.median("first"), 2),
            "ready": round(self.median("ready"), 2),
            "turns": self.turns,
            "memory": round(self.median("memory"), 1),
            "bytes": None if more is None else round(more),
        }


async def start(servers: int, shards: int) -> Start:
    """Start the bot in that many servers, and stop it. Raises `RuntimeError` if it knows another number of them."""
    async with served(make_image()) as around:
        _join(around.discord, servers, shards)
        async with programs.running(BOT, around) as running:
            first = time.perf_counter()
            await _ready(around.folder / "log", servers, INTERVAL * shards + _READY_SECONDS)
            ready = running.start + time.perf_counter() - first
            return Start(running.start, ready, (await running.members.settle()).memory)


def _join(discord: DiscordServer, servers: int, shards: int) -> None:
    discord.session_starts.shards = discord.session_starts.required = shards
    discord.guilds.joined.update(GUILD_ID + (number << 22) for number in range(servers))


async def _ready(log: Path, servers: int, seconds: float) -> None:
    """Wait until the bot's log says that every connection is there."""
    said = "in 1 server;" if servers == 1 else f"in {servers} servers"
    async with asyncio.timeout(seconds):
        while "connected to Discord as" not in (text := log.read_text("utf-8")):  # noqa: ASYNC110, ASYNC240 - a log
            await asyncio.sleep(_LOOK_SECONDS)
    if said not in text:
        raise RuntimeError(f"the bot does not know its {servers} servers")


async def _run(amounts: Sequence[int], rounds: int, of_a_shard: int) -> list[Row]:
    print(f"{'servers':>8}{'shards':>8}{'first, s':>10}{'all, s':>10}{'turns, s':>10}{'MB':>8}{'bytes a server':>16}")
    rows: list[Row] = []
    for servers in amounts:
        shards = math.ceil(servers / of_a_shard)
        rows.append(Row(servers, shards, [await start(servers, shards) for _ in range(rounds)]))
        print("".join(f"{value!s:>9}" for value in rows[-1].figures(rows[0]).values()), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_servers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--servers", type=int, nargs="+", default=SERVERS, help="the first one is what is compared with"
    )
    parser.add_argument("--of-a-shard", type=int, default=_OF_A_SHARD, help="servers for which there is a connection")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/figures.json")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(_run(options.servers, options.rounds, options.of_a_shard))
    if options.record:
        found = [row.figures(rows[0]) for row in rows]
        records.write(records.MANY_SERVERS, {"rounds": options.rounds, "rows": found})
        documents.refresh()
    over = [row.servers for row in rows if (row.bytes_more(rows[0]) or 0) > _MOST_BYTES]
    for servers in over:
        print(f"PROBLEM: with {servers:,} servers, each takes more than {_MOST_BYTES:,} bytes")
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
