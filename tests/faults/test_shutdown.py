"""A stop signal at any moment, also to PID 1 of a container, ends the bot in time with code 0 and a correct ledger."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, png
from tests.support.e2e import books as stored_rows
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

pytestmark = pytest.mark.faults

GRACE = 5.0
MARGIN = 4.0  # seconds for closing the bot and the interpreter on a busy machine
LATENCY = 0.4
STOPS = (signal.SIGTERM, signal.SIGINT)
DATABASE = "pikzels-bot.sqlite3"
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


@dataclass(slots=True)
class BotHost:
    """A simulated Discord and provider, and the data folder that one bot process after another uses."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    folder: Path
    interactions: list[discord_server.Interaction] = field(default_factory=list)
    children: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def launch(self, *before: str, grace: float = GRACE) -> asyncio.subprocess.Process:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BOT_")},
            **self.discord.environment(),
            "BOT_DISCORD__TOKEN": "token",
            "BOT_PIKZELS__API_KEY": KEY,
            "BOT_PIKZELS__BASE_URL": self.api.base_url,
            "BOT_PIKZELS__CONCURRENCY": "2",
            "BOT_STORAGE__FOLDER": str(self.folder),
            "BOT_SHUTDOWN__GRACE": str(grace),
        }
        command = (*before, sys.executable, "-m", "sandbox.launch", "run")
        child = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
        self.children.append(child)
        return child

    async def start(self, *before: str, grace: float = GRACE) -> asyncio.subprocess.Process:
        child = await self.launch(*before, grace=grace)
        await self.discord.ready(30)
        return child

    async def send_commands(self, members: int = 1) -> None:
        for member in range(1, members + 1):
            self.interactions.append(await self.discord.slash("thumbnail", options={"image": PHOTO}, user_id=member))

    def unfinished(self) -> list[dict[str, Any]]:
        """The jobs that the next startup must finish."""
        if not (self.folder / DATABASE).exists():
            return []
        jobs, _ = stored_rows(self.folder)
        return [job for job in jobs if job["ended_at"] is None or job["notified_at"] is None]

    def check(self) -> None:
        """Check that each job ended once, with a charge exactly for each shown image and no second paid call."""
        jobs, entries = stored_rows(self.folder) if (self.folder / DATABASE).exists() else ([], [])
        shown = {message.id for message in self.discord.messages.values() if message.attachments}
        for job in jobs:
            kinds = [entry["kind"] for entry in entries if entry["job_id"] == job["id"]]
            assert kinds == ["hold", "charge" if job["message_id"] in shown else "release"], job
            assert (job["reason"] or "not_started").startswith("not_started"), job
            assert job["notified_at"] is not None
        assert len(shown) == sum(entry["spent"] for entry in entries)
        assert len(self.api.calls) <= len(jobs)
        assert all(has_ended(one) for one in self.interactions if one.message is not None)


def has_ended(interaction: discord_server.Interaction) -> bool:
    message = interaction.message
    return message is not None and bool(message.attachments or "You were not charged." in message.content)


@asynccontextmanager
async def bot_host(folder: Path) -> AsyncIterator[BotHost]:
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png(3_000_000)) as api:
        host = BotHost(discord, api, folder)
        try:
            yield host
        finally:
            for child in host.children:
                if child.returncode is None:
                    child.kill()
                await child.communicate()


async def wait_for_exit(child: asyncio.subprocess.Process, *, limit: float = GRACE + MARGIN) -> int:
    """Wait for the process, which must exit in time; return its code, and print the log if it failed."""
    began = time.perf_counter()
    _, errors = await asyncio.wait_for(child.communicate(), 60)
    took = time.perf_counter() - began
    assert took < limit, f"{took:.1f} s\n{errors.decode()}"
    assert child.returncode is not None
    if child.returncode:
        print(errors.decode())  # noqa: T201 - shown when the test fails
    return child.returncode


async def stop(child: asyncio.subprocess.Process, *, limit: float = GRACE + MARGIN) -> None:
    child.send_signal(signal.SIGTERM)
    assert await wait_for_exit(child, limit=limit) == 0


async def settle(host: BotHost) -> None:
    """Start the bot once more if work is left, and stop it; afterwards nothing may be left."""
    for job in host.unfinished():
        assert job["ended_at"] is not None or job["state"] in ("generated", "spooled"), job
    if host.unfinished():
        child = await host.start()
        await asyncio.gather(*(one.wait(has_ended, 20) for one in host.interactions if one.message is not None))
        await stop(child)
    assert host.unfinished() == []
    host.check()


# --- at random moments ---------------------------------------------------------------------------------------------


async def starting(host: BotHost) -> None:
    """Waits for nothing: the signal arrives during startup, imports, database opening, login, or idling."""


async def idle(host: BotHost) -> None:
    await host.discord.ready(30)


async def calling(host: BotHost) -> None:
    await host.discord.ready(30)
    await host.send_commands(4)
    await host.api.called(1)


async def downloading(host: BotHost) -> None:
    host.api.script_output(*[Reply.drip(every=0.005, limit=60)] * 4)
    await host.discord.ready(30)
    await host.send_commands(2)
    await host.api.downloaded(1)


async def uploading(host: BotHost) -> None:
    host.discord.fail("PATCH", "*", status=503, times=2)
    await host.discord.ready(30)
    await host.send_commands(2)
    await host.discord.wait(lambda discord: any(seen.method == "PATCH" for seen in discord.requests), 20)


PHASES: dict[Callable[[BotHost], Awaitable[None]], float] = {
    # the latest moment for a signal, in seconds after the phase has begun
    starting: 1.5,
    idle: 0.3,
    calling: 1.0,
    downloading: 0.6,
    uploading: 1.0,
}


async def run_and_stop(host: BotHost, phase: Callable[[BotHost], Awaitable[None]], pauses: Sequence[float]) -> int:
    """Run one bot process and send a stop signal after each of the pauses; return its exit code."""
    host.api.always(Reply.ok(delay=LATENCY))
    child = await host.launch()
    await phase(host)
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        if child.returncode is None:
            # Not by `send_signal`: it would collect the exit code of a process that has just ended, and lose it.
            with suppress(ProcessLookupError):
                os.kill(child.pid, STOPS[number % 2])
    code = await wait_for_exit(child)
    if code == -signal.SIGTERM:  # before the program's first line, so nothing was changed
        assert phase is starting
        assert not host.folder.exists()
        return code
    assert code == 0
    await settle(host)
    return code


@pytest.mark.timeout(size(300, 1800))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_a_stop_signal_at_a_random_moment_ends_the_bot_cleanly(
    tmp_path: Path, phase: Callable[[BotHost], Awaitable[None]]
) -> None:
    chance = random.Random(seed(f"tests/faults/test_shutdown.py -k {phase.__name__}"))  # noqa: S311 - test data, not a secret
    codes = []
    for number in range(size(3, 20)):
        pauses = [chance.uniform(0, PHASES[phase]), *(chance.uniform(0, 0.5) for _ in range(chance.randrange(4)))]
        async with bot_host(tmp_path / str(number)) as host:
            codes.append(await run_and_stop(host, phase, pauses))
    print(f"{phase.__name__}: {codes}")  # noqa: T201 - prints the outcomes


@pytest.mark.parametrize("output", [Reply.hang(), Reply.ok()], ids=["download", "upload"])
async def test_an_endless_transfer_delays_the_exit_only_by_the_grace_period(tmp_path: Path, output: Reply) -> None:
    async with bot_host(tmp_path / "data") as host:
        host.api.script_output(output)
        host.discord.fail("PATCH", "*", status=503, times=10_000)
        child = await host.start(grace=0.5)
        await host.send_commands()
        await host.api.downloaded(1)
        await stop(child, limit=0.5 + MARGIN)
        [job] = host.unfinished()
        assert job["state"] in ("generated", "spooled")


# --- before it is ready --------------------------------------------------------------------------------------------


def blocks_sigterm(pid: int) -> bool:
    """Whether the process blocks SIGTERM; False if the process no longer exists."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


async def wait_until_sigterm_is_blocked(pid: int) -> None:
    async with asyncio.timeout(30):
        while not blocks_sigterm(pid):  # noqa: ASYNC110 - the kernel sends no notification
            await asyncio.sleep(0.001)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("name", STOPS)
async def test_a_signal_before_the_handler_is_installed_is_not_lost(tmp_path: Path, name: signal.Signals) -> None:
    async with bot_host(tmp_path / "data") as host:
        child = await host.launch()
        await wait_until_sigterm_is_blocked(child.pid)
        assert not host.folder.exists()
        child.send_signal(name)
        assert await wait_for_exit(child) == 0
        assert host.discord.identifies == 0


# --- as the first process of a container ---------------------------------------------------------------------------


@cache
def namespace() -> tuple[str, ...] | None:
    """The command that runs a program as PID 1 of a new namespace; None if that is not allowed."""
    for command in (NAMESPACE, (*NAMESPACE, "--user", "--map-root-user")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False, timeout=10).returncode == 0:
                return command
        except OSError:
            return None
    return None


async def wait_for_pid_1(child: asyncio.subprocess.Process) -> int:
    """Return the pid, outside the namespace, of the process that is PID 1 inside it.

    Wait until it runs Python, because the commands before it block signals too, and lose them.
    """
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    async with asyncio.timeout(10):
        while not (pids := children.read_text().split()) or not runs_python(pids[0]):  # noqa: ASYNC110 - no notification exists
            await asyncio.sleep(0.001)
    return int(pids[0])


def runs_python(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()
    except OSError:  # the process does not exist yet
        return False


@pytest.fixture
def run_as_pid_1() -> tuple[str, ...]:
    command = namespace()
    if command is None:
        pytest.skip("this platform does not allow a new PID namespace")
    return command


@pytest.mark.parametrize("name", STOPS)
async def test_as_pid_1_a_stop_signal_finishes_paid_requests(
    tmp_path: Path, run_as_pid_1: tuple[str, ...], name: signal.Signals
) -> None:
    async with bot_host(tmp_path / "data") as host:
        host.api.script(Reply.hold())
        child = await host.start(*run_as_pid_1)
        await host.send_commands()
        await host.api.called(1)
        pid = await wait_for_pid_1(child)
        assert f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()
        os.kill(pid, name)
        host.api.release()
        assert await wait_for_exit(child) == 0
        assert [one.message is not None and bool(one.message.attachments) for one in host.interactions] == [True]
        await settle(host)


async def test_as_pid_1_a_stop_signal_before_readiness_ends_the_bot(
    tmp_path: Path, run_as_pid_1: tuple[str, ...]
) -> None:
    async with bot_host(tmp_path / "data") as host:
        child = await host.launch(*run_as_pid_1)
        pid = await wait_for_pid_1(child)
        await wait_until_sigterm_is_blocked(pid)
        assert not host.folder.exists()
        os.kill(pid, signal.SIGTERM)
        assert await wait_for_exit(child) == 0
        assert host.discord.identifies == 0
