"""Measures a burst: many /thumbnail at the same moment, against a Discord and an image service on this machine.

    python -m benchmarks.burst --jobs 200
    python -m benchmarks.burst --jobs 1000

The bot runs in a process of its own and only that process is measured: CPU from its /proc/<pid>/stat, memory from the
high-water mark the kernel keeps. One job goes before the burst and is not counted. Next to the bot runs the yardstick,
`benchmarks.bare`, in turns with it: compare within one run, for the figures of two runs differ with the machine's mood.

Measured with `--rounds 2` on two cores that also ran the other side (AMD EPYC, Linux 6.18, Python 3.11, a 1.5 MB PNG,
0.5 s for each provider call, 200 of them at a time), medians:

                      CPU a job   peak memory   slowest answer   CPU to bare
    --jobs 200   bot    10.6 ms       110 MiB           0.15 s          2.37
                 bare    4.5 ms       385 MiB           0.16 s
    --jobs 1000  bot    12.1 ms       128 MiB           0.76 s          2.61
                 bare    4.6 ms       964 MiB           0.64 s

(slowest: of all rounds). The bot's further 6 ms buy a hash (0.8), a file written, flushed, read and removed, six
commits in SQLite, and the threads that keep disk and database from holding up the answers.

Exits 1 when a job is lost, paid or charged other than once, when an answer takes over 3 seconds, or when the memory
goes over its bound. CPU is told as a ratio and decides nothing: it is the noisiest of them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sandbox import discord_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

PICTURE_BYTES = 1_500_000
ANSWER_SECONDS = 3.0  # Discord's
MEBIBYTE = 1024 * 1024
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parent.parent
_READY_SECONDS = 30.0
_STOP_SECONDS = 30.0
_SETTLING_SECONDS = 0.5  # after the last delivery the bot has yet to book it and to clear the spool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for; `delay` is the seconds the image service takes, `limit` the seconds a burst may take."""

    jobs: int
    concurrency: int
    delay: float
    limit: float

    @property
    def memory_bound(self) -> float:
        """MiB."""
        return 150.0 if self.jobs <= 200 else 200.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process so far: `cpu` in seconds, user and system; `peak` in MiB."""

    cpu: float
    peak: float


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst took."""

    before: Usage
    after: Usage
    answers: Sequence[float]  # seconds until each command was answered; fewer than the jobs when some never were
    delivered: int
    seconds: float
    jobs: int

    @property
    def cpu(self) -> float:
        return self.after.cpu - self.before.cpu

    @property
    def cpu_per_job(self) -> float:
        """Milliseconds."""
        return self.cpu / self.jobs * 1000


# --- the picture and whoever makes it --------------------------------------------------------------------------------


def picture() -> bytes:
    """A real PNG's beginning and noise behind it: nobody decodes more than the header."""
    drawn = io.BytesIO()
    Image.new("RGB", (1280, 720)).save(drawn, "PNG")
    return drawn.getvalue()[:64] + os.urandom(PICTURE_BYTES - 64)


class ImageService:
    """The stand-in, in a process of its own, seen from here."""

    def __init__(self, address: str, asked: asyncio.StreamWriter, told: asyncio.StreamReader) -> None:
        self.address = address
        self._asked = asked
        self._told = told

    async def calls(self) -> int:
        """How often it was called, which costs each time."""
        self._asked.write(b"\n")
        return int(await self._told.readline())


@asynccontextmanager
async def image_service(output: bytes, folder: Path, *, delay: float) -> AsyncIterator[ImageService]:
    path = folder / "output.png"
    path.write_bytes(output)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.standin", path, str(delay), cwd=_ROOT, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            address = await process.stdout.readline()
        if not address:
            raise RuntimeError("the stand-in did not start")
        yield ImageService(address.decode().strip(), process.stdin, process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# --- whoever is measured ---------------------------------------------------------------------------------------------


def bot_settings(plan: Plan, api: str, folder: Path) -> dict[str, str]:
    config = folder / "config.toml"
    config.touch()  # so that none that lies about is read
    return {
        "BOT_CONFIG": str(config),
        "BOT_DISCORD__TOKEN": "tok.en",
        "BOT_PIKZELS__API_KEY": "pkz_sandbox",
        "BOT_PIKZELS__BASE_URL": api,
        "BOT_PIKZELS__CONCURRENCY": str(plan.concurrency),
        "BOT_QUEUE__LENGTH": str(2 * plan.jobs),
        "BOT_QUEUE__PER_MEMBER": "10",
        "BOT_QUOTA__MEMBER_DAILY": "1000",
        "BOT_STORAGE__FOLDER": str(folder),
    }


@asynccontextmanager
async def started(module: str, *arguments: str, settings: dict[str, str], log: Path) -> AsyncIterator[int]:
    """Run a Python module as a child with `settings`; yields its pid, and sees it end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOT_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, cwd=_ROOT, env=inherited | settings, stdout=output, stderr=output
        )
    try:
        yield process.pid
    except BaseException:
        _show_end(log)
        raise
    else:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _show_end(log: Path) -> None:
    print(*log.read_text("utf-8").splitlines()[-20:], sep="\n", file=sys.stderr)


def usage(pid: int) -> Usage:
    # the name, in brackets, may hold anything; user and system time are the 14th and 15th field (proc_pid_stat(5))
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    return Usage((int(fields[11]) + int(fields[12])) * _TICK, int(status["VmHWM"].split()[0]) / 1024)


# --- the burst -------------------------------------------------------------------------------------------------------


async def burst(discord: discord_server.DiscordServer, pid: int, plan: Plan, output: bytes) -> Burst:
    """Warm up, fire, wait for the last picture, or until the time is over."""
    await discord.ready(_READY_SECONDS)
    if not await _delivered(await _command(discord, 0), output, _READY_SECONDS):
        raise RuntimeError("not even one picture came")
    await asyncio.sleep(_SETTLING_SECONDS)
    before, start = usage(pid), time.monotonic()
    sent = await asyncio.gather(*(_command(discord, member) for member in range(1, plan.jobs + 1)))
    arrived = await asyncio.gather(*(_delivered(interaction, output, plan.limit) for interaction in sent))
    seconds = time.monotonic() - start
    await asyncio.sleep(_SETTLING_SECONDS)
    answers = [interaction.ack_seconds for interaction in sent if interaction.ack_seconds is not None]
    return Burst(before, usage(pid), answers, sum(arrived), seconds, plan.jobs)


async def _command(discord: discord_server.DiscordServer, member: int) -> discord_server.Interaction:
    options: dict[str, discord_server.Option] = {
        "image": discord_server.Upload("photo.png", PICTURE_BYTES, "image/png"),
        "prompt": f"A surprised face beside the number {member}",
    }
    return await discord.slash("thumbnail", options=options, user_id=discord_server.USER_ID + member)


async def _delivered(interaction: discord_server.Interaction, output: bytes, seconds: float) -> bool:
    """Whether the picture came whole within `seconds`."""
    try:
        await interaction.wait(lambda it: it.message is not None and bool(it.message.attachments), seconds)
    except TimeoutError:
        return False
    assert interaction.message is not None
    [attachment] = interaction.message.attachments
    return attachment.sha256 == hashlib.sha256(output).hexdigest()


async def burst_on_bot(plan: Plan, output: bytes) -> tuple[Burst, list[str]]:
    """The bot's burst, and what is wrong with it."""
    async with _surroundings(plan, output) as (folder, discord, api):
        settings = bot_settings(plan, api.address, folder) | discord.environment()
        async with started("sandbox.discord_server", "run", settings=settings, log=folder / "log") as pid:
            found = await burst(discord, pid, plan, output)
        wrong = [*broken(found, plan), *miscounted(folder / "pikzels-bot.sqlite3", await api.calls(), plan.jobs + 1)]
        return found, wrong


async def burst_on_bare(plan: Plan, output: bytes) -> Burst:
    async with _surroundings(plan, output) as (folder, discord, api):
        settings = {"BARE_API": api.address} | discord.environment()
        async with started("benchmarks.bare", settings=settings, log=folder / "log") as pid:
            return await burst(discord, pid, plan, output)


@asynccontextmanager
async def _surroundings(
    plan: Plan, output: bytes
) -> AsyncIterator[tuple[Path, discord_server.DiscordServer, ImageService]]:
    """A folder, a Discord and an image service. A late answer is to be measured, so this Discord does not refuse it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            image_service(output, folder, delay=plan.delay) as api,
            discord_server.serve(ack_deadline=plan.limit) as discord,
        ):
            yield folder, discord, api


# --- the verdict -----------------------------------------------------------------------------------------------------


def broken(found: Burst, plan: Plan) -> Iterator[str]:
    """Promises about one burst that were not kept."""
    if found.delivered != plan.jobs:
        yield f"{plan.jobs - found.delivered} pictures never came, or not whole"
    if len(found.answers) != plan.jobs:
        yield f"{plan.jobs - len(found.answers)} commands were never answered"
    if found.answers and max(found.answers) > ANSWER_SECONDS:
        yield f"an answer took {max(found.answers):.1f} s"
    if found.after.peak > plan.memory_bound:
        yield f"memory went up to {found.after.peak:.0f} MiB, over {plan.memory_bound:.0f}"


def miscounted(database: Path, paid: int, jobs: int) -> Iterator[str]:
    """What the books say that they should not, once the bot has ended."""
    counts = {
        "jobs delivered": "SELECT COUNT(*) FROM jobs WHERE state = 'delivered'",
        "jobs in all": "SELECT COUNT(*) FROM jobs",
        "holds": "SELECT COUNT(*) FROM entries WHERE kind = 'hold'",
        "charges": "SELECT COUNT(*) FROM entries WHERE kind = 'charge'",
        "jobs charged": "SELECT COUNT(DISTINCT job_id) FROM entries WHERE kind = 'charge'",
        "credits spent": "SELECT SUM(spent) FROM entries",
        "entries": "SELECT COUNT(*) / 2 FROM entries",
    }
    books = sqlite3.connect(database)
    try:
        found = {name: books.execute(sql).fetchone()[0] for name, sql in counts.items()} | {"calls paid": paid}
    finally:
        books.close()
    for name, count in found.items():
        if count != jobs:
            yield f"{name}: {count} instead of {jobs}"


# --- the report ------------------------------------------------------------------------------------------------------

_HEAD = "          CPU s  ms/job  MiB before  MiB peak  answer median  slowest  seconds  delivered"


def row(name: str, found: Burst) -> str:
    answers = found.answers or [float("nan")]
    return (
        f"{name:7s} {found.cpu:7.2f} {found.cpu_per_job:7.2f} {found.before.peak:11.0f} {found.after.peak:9.0f}"
        f" {statistics.median(answers):12.2f} s {max(answers):6.2f} s {found.seconds:8.2f} {found.delivered:10d}"
    )


async def measure(plan: Plan, *, rounds: int, with_bare: bool) -> list[str]:
    """Print a row for each burst; returns what was wrong with any of the bot's."""
    output, wrong, ratios = picture(), [], []
    print(f"{plan.jobs} jobs at once, {plan.concurrency} provider calls at a time of {plan.delay} s each\n{_HEAD}")
    for _ in range(rounds):
        found, faults = await burst_on_bot(plan, output)
        print(row("bot", found), flush=True)
        wrong += faults
        if with_bare:
            bare = await burst_on_bare(plan, output)
            print(row("bare", bare), flush=True)
            ratios.append(found.cpu_per_job / bare.cpu_per_job)
    if ratios:
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"CPU per job, bot to bare: {shown}; median {statistics.median(ratios):.2f}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burst", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=200, help="provider calls at once (default 200)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds the image service takes (default 0.5)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds one burst may take (default 120)")
    parser.add_argument("--no-bare", action="store_true", help="leave out the bare handler")
    given = parser.parse_args()
    plan = Plan(given.jobs, given.concurrency, given.delay, given.limit)
    wrong = asyncio.run(measure(plan, rounds=given.rounds, with_bare=not given.no_bare))
    for fault in wrong:
        print(f"WRONG: {fault}")
    print("Every job delivered, paid and charged once; answers and memory within bounds." if not wrong else "Failed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
