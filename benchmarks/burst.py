"""Measures a burst of simultaneous /thumbnail commands, with a simulated Discord and image service on this machine.

    python -m benchmarks.burst --jobs 200
    python -m benchmarks.burst --jobs 1000

The bot runs in its own process, and only that process is measured: CPU from /proc/<pid>/stat, memory from the kernel's
high-water mark. One warm-up job runs before the burst and is not counted. The bot alternates with the baseline,
`benchmarks.bare`. Compare them within one run only, because results vary from run to run.

Medians with `--rounds 2`, on two cores that also ran both servers (AMD EPYC, Linux 6.18, Python 3.11, a 1.5 MB PNG,
0.5 s for each provider call, 200 calls at a time):

                      CPU / job   peak memory   slowest answer     CPU ratio
    --jobs 200   bot    10.6 ms       110 MiB           0.15 s          2.37
                 bare    4.5 ms       385 MiB           0.16 s
    --jobs 1000  bot    12.1 ms       128 MiB           0.76 s          2.61
                 bare    4.6 ms       964 MiB           0.64 s

The slowest answer is that of all rounds. The bot's additional 6 ms pay for a hash (0.8 ms), a file that is written,
flushed, read and removed, six SQLite commits, and the threads that keep disk and database from blocking answers.

Exits with 1 if a job is lost, if a job is not paid or charged exactly once, if an answer takes more than 3 seconds, or
if memory exceeds its limit. CPU is the noisiest measurement, so its ratio is printed but never fails the benchmark.
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
import struct
import sys
import tempfile
import time
import zlib
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sandbox import discord_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

_END_BYTES = 12  # of a chunk without content: its length, its type, and its checksum
IMAGE_BYTES = 1_500_000
ANSWER_SECONDS = 3.0  # Discord's deadline
MEBIBYTE = 1024 * 1024
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parent.parent
_READY_SECONDS = 30.0
_STOP_SECONDS = 30.0
_SETTLING_SECONDS = 0.5  # after the last delivery, the bot still has to commit it and clear the spool


@dataclass(frozen=True, slots=True)
class Plan:
    """A benchmark plan. `delay` is the duration of a provider call and `limit` that of a burst, in seconds."""

    jobs: int
    concurrency: int
    delay: float
    limit: float

    @property
    def memory_limit(self) -> float:
        """In MiB."""
        return 150.0 if self.jobs <= 200 else 200.0


@dataclass(frozen=True, slots=True)
class Usage:
    """The resource usage of a process so far: `cpu` is user and system time in seconds, `peak` is in MiB."""

    cpu: float
    peak: float


@dataclass(frozen=True, slots=True)
class Burst:
    """The measurements of one burst."""

    before: Usage
    after: Usage
    answers: Sequence[float]  # seconds until the answer, one entry for each answered command
    delivered: int
    seconds: float
    jobs: int

    @property
    def cpu(self) -> float:
        return self.after.cpu - self.before.cpu

    @property
    def cpu_per_job(self) -> float:
        """In milliseconds."""
        return self.cpu / self.jobs * 1000


# --- the image service -----------------------------------------------------------------------------------------------


def make_image() -> bytes:
    """A whole PNG of that size: the bot follows its chunks to the end, and decodes only its header."""
    file = io.BytesIO()
    Image.new("RGB", (1280, 720)).save(file, "PNG")
    content, end = file.getvalue()[:-_END_BYTES], file.getvalue()[-_END_BYTES:]
    noise = os.urandom(IMAGE_BYTES - len(file.getvalue()) - _END_BYTES)
    chunk = b"noIs" + noise  # private and ancillary: programs that don't know it pass over it
    return b"".join([content, struct.pack(">I", len(noise)), chunk, struct.pack(">I", zlib.crc32(chunk)), end])


class ImageService:
    """The stand-in for Pikzels, which runs in its own process."""

    def __init__(self, address: str, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader) -> None:
        self.address = address
        self._stdin = stdin
        self._stdout = stdout

    async def calls(self) -> int:
        """The number of calls so far. The provider charges for every call."""
        self._stdin.write(b"\n")
        return int(await self._stdout.readline())


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


# --- the measured process --------------------------------------------------------------------------------------------


def bot_settings(plan: Plan, api: str, folder: Path) -> dict[str, str]:
    config = folder / "config.toml"
    config.touch()  # an empty file, so that no other config.toml is read
    return {
        "BOT_CONFIG": str(config),
        "BOT_DISCORD__TOKEN": "tok.en",
        "BOT_PIKZELS__API_KEY": "pkz_sandbox",
        "BOT_PIKZELS__BASE_URL": api,
        "BOT_PIKZELS__CONCURRENCY": str(plan.concurrency),
        "BOT_QUEUE__LENGTH": str(2 * plan.jobs),
        "BOT_QUEUE__PER_MEMBER": "10",
        "BOT_QUOTA__MEMBER_DAILY": "1000",
        "BOT_BUDGET__DAILY_DOLLARS": "inf",
        "BOT_BUDGET__MONTHLY_DOLLARS": "inf",
        "BOT_STORAGE__FOLDER": str(folder),
    }


@asynccontextmanager
async def run_module(module: str, *arguments: str, settings: dict[str, str], log: Path) -> AsyncIterator[int]:
    """Run a Python module in a child process with `settings`; yields its pid, and stops it at the end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOT_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, cwd=_ROOT, env=inherited | settings, stdout=output, stderr=output
        )
    try:
        yield process.pid
    except BaseException:
        _print_log_tail(log)
        raise
    else:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _print_log_tail(log: Path) -> None:
    print(*log.read_text("utf-8").splitlines()[-20:], sep="\n", file=sys.stderr)


def read_usage(pid: int) -> Usage:
    # The process name, in brackets, can contain anything. User and system time are fields 14 and 15 (proc_pid_stat(5)).
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    return Usage((int(fields[11]) + int(fields[12])) * _TICK, int(status["VmHWM"].split()[0]) / 1024)


# --- the burst -------------------------------------------------------------------------------------------------------


async def run_burst(discord: discord_server.DiscordServer, pid: int, plan: Plan, output: bytes) -> Burst:
    """Warm up, send every command, then wait for the last image or the time limit."""
    await discord.ready(_READY_SECONDS)
    if not await _wait_for_delivery(await _send_command(discord, 0), output, _READY_SECONDS):
        raise RuntimeError("the warm-up image was not delivered")
    await asyncio.sleep(_SETTLING_SECONDS)
    before, start = read_usage(pid), time.monotonic()
    sent = await asyncio.gather(*(_send_command(discord, member) for member in range(1, plan.jobs + 1)))
    arrived = await asyncio.gather(*(_wait_for_delivery(interaction, output, plan.limit) for interaction in sent))
    seconds = time.monotonic() - start
    await asyncio.sleep(_SETTLING_SECONDS)
    answers = [interaction.ack_seconds for interaction in sent if interaction.ack_seconds is not None]
    return Burst(before, read_usage(pid), answers, sum(arrived), seconds, plan.jobs)


async def _send_command(discord: discord_server.DiscordServer, member: int) -> discord_server.Interaction:
    options: dict[str, discord_server.Option] = {
        "image": discord_server.Upload("photo.png", IMAGE_BYTES, "image/png"),
        "prompt": f"A surprised face beside the number {member}",
    }
    return await discord.slash("thumbnail", options=options, user_id=discord_server.USER_ID + member)


async def _wait_for_delivery(interaction: discord_server.Interaction, output: bytes, seconds: float) -> bool:
    """Whether the complete image was delivered within `seconds`."""
    try:
        await interaction.wait(lambda it: it.message is not None and bool(it.message.attachments), seconds)
    except TimeoutError:
        return False
    assert interaction.message is not None
    [attachment] = interaction.message.attachments
    return attachment.sha256 == hashlib.sha256(output).hexdigest()


async def measure_bot(plan: Plan, output: bytes) -> tuple[Burst, list[str]]:
    """Run a burst on the bot; returns its measurements and its problems."""
    async with _servers(plan, output) as (folder, discord, api):
        settings = bot_settings(plan, api.address, folder) | discord.environment()
        async with run_module("sandbox.discord_server", "run", settings=settings, log=folder / "log") as pid:
            burst = await run_burst(discord, pid, plan, output)
        problems = [
            *check_burst(burst, plan),
            *check_ledger(folder / "pikzels-bot.sqlite3", await api.calls(), plan.jobs + 1),
        ]
        return burst, problems


async def measure_bare(plan: Plan, output: bytes) -> Burst:
    async with _servers(plan, output) as (folder, discord, api):
        settings = {"BARE_API": api.address} | discord.environment()
        async with run_module("benchmarks.bare", settings=settings, log=folder / "log") as pid:
            return await run_burst(discord, pid, plan, output)


@asynccontextmanager
async def _servers(plan: Plan, output: bytes) -> AsyncIterator[tuple[Path, discord_server.DiscordServer, ImageService]]:
    """A folder, a simulated Discord and an image service. Late answers are measured, so Discord accepts them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            image_service(output, folder, delay=plan.delay) as api,
            discord_server.serve(ack_deadline=plan.limit) as discord,
        ):
            yield folder, discord, api


# --- the checks ------------------------------------------------------------------------------------------------------


def check_burst(burst: Burst, plan: Plan) -> Iterator[str]:
    """Yield a problem for every limit that the burst exceeded."""
    if burst.delivered != plan.jobs:
        yield f"{plan.jobs - burst.delivered} images were not delivered, or were incomplete"
    if len(burst.answers) != plan.jobs:
        yield f"{plan.jobs - len(burst.answers)} commands were not answered"
    if burst.answers and max(burst.answers) > ANSWER_SECONDS:
        yield f"an answer took {max(burst.answers):.1f} s"
    if burst.after.peak > plan.memory_limit:
        yield f"memory reached {burst.after.peak:.0f} MiB, more than {plan.memory_limit:.0f}"


def check_ledger(database: Path, paid: int, jobs: int) -> Iterator[str]:
    """Yield a problem for every wrong count in the ledger, once the bot has stopped."""
    counts = {
        "jobs delivered": "SELECT COUNT(*) FROM jobs WHERE state = 'delivered'",
        "total jobs": "SELECT COUNT(*) FROM jobs",
        "holds": "SELECT COUNT(*) FROM entries WHERE kind = 'hold'",
        "charges": "SELECT COUNT(*) FROM entries WHERE kind = 'charge'",
        "jobs charged": "SELECT COUNT(DISTINCT job_id) FROM entries WHERE kind = 'charge'",
        "credits spent": "SELECT SUM(spent) FROM entries",
        "entries": "SELECT COUNT(*) / 2 FROM entries",
    }
    connection = sqlite3.connect(database)
    try:
        found = {name: connection.execute(sql).fetchone()[0] for name, sql in counts.items()} | {"calls paid": paid}
    finally:
        connection.close()
    for name, count in found.items():
        if count != jobs:
            yield f"{name}: {count} instead of {jobs}"


# --- the report ------------------------------------------------------------------------------------------------------

_HEADER = "          CPU s  ms/job  MiB before  MiB peak  answer median  slowest  seconds  delivered"


def format_row(name: str, burst: Burst) -> str:
    answers = burst.answers or [float("nan")]
    return (
        f"{name:7s} {burst.cpu:7.2f} {burst.cpu_per_job:7.2f} {burst.before.peak:11.0f} {burst.after.peak:9.0f}"
        f" {statistics.median(answers):12.2f} s {max(answers):6.2f} s {burst.seconds:8.2f} {burst.delivered:10d}"
    )


async def measure(plan: Plan, *, rounds: int, with_bare: bool) -> list[str]:
    """Print a row for each burst; returns the problems of the bot's bursts."""
    output, problems, ratios = make_image(), [], []
    print(f"{plan.jobs} jobs at once, {plan.concurrency} provider calls at a time, {plan.delay} s each\n{_HEADER}")
    for _ in range(rounds):
        burst, found = await measure_bot(plan, output)
        print(format_row("bot", burst), flush=True)
        problems += found
        if with_bare:
            bare = await measure_bare(plan, output)
            print(format_row("bare", bare), flush=True)
            ratios.append(burst.cpu_per_job / bare.cpu_per_job)
    if ratios:
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"Ratio of CPU per job, bot to bare: {shown}; median {statistics.median(ratios):.2f}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burst", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200, help="simultaneous commands (default 200)")
    parser.add_argument("--concurrency", type=int, default=200, help="provider calls at once (default 200)")
    parser.add_argument("--rounds", type=int, default=2, help="bursts for each bot (default 2)")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds per provider call (default 0.5)")
    parser.add_argument("--limit", type=float, default=120.0, help="time limit of a burst in seconds (default 120)")
    parser.add_argument("--no-bare", action="store_true", help="skip the baseline")
    arguments = parser.parse_args()
    plan = Plan(arguments.jobs, arguments.concurrency, arguments.delay, arguments.limit)
    problems = asyncio.run(measure(plan, rounds=arguments.rounds, with_bare=not arguments.no_bare))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(
        "Failed."
        if problems
        else "Every job was delivered, paid and charged once. Answers and memory stayed within their limits."
    )
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
