"""Asked to stop at any moment, also as PID 1 of a container, it leaves with 0, in time and with its books in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, books, png
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

pytestmark = pytest.mark.faults

GRACE = 5.0
MARGIN = 4.0  # seconds for whatever is not waiting: closing, and the interpreter's own end, on a busy machine
LATENCY = 0.4
STOPS = (signal.SIGTERM, signal.SIGINT)
DATABASE = "pikzels-bot.sqlite3"
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


@dataclass(slots=True)
class House:
    """A Discord and a Pikzels, and a folder where one bot after the other lives."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    folder: Path
    asked: list[discord_server.Interaction] = field(default_factory=list)
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
        command = (*before, sys.executable, "-m", "sandbox.discord_server", "run")
        child = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
        self.children.append(child)
        return child

    async def start(self, *before: str, grace: float = GRACE) -> asyncio.subprocess.Process:
        child = await self.launch(*before, grace=grace)
        await self.discord.ready(30)
        return child

    async def ask(self, members: int = 1) -> None:
        for member in range(1, members + 1):
            self.asked.append(await self.discord.slash("thumbnail", options={"image": PHOTO}, user_id=member))

    def unfinished(self) -> list[dict[str, Any]]:
        """The jobs that a next start has something to do for."""
        if not (self.folder / DATABASE).exists():
            return []
        jobs, _ = books(self.folder)
        return [job for job in jobs if job["ended_at"] is None or job["notified_at"] is None]

    def check(self) -> None:
        """One ending for everyone: a charge for exactly those whose picture is shown, nobody paid for twice."""
        jobs, entries = books(self.folder) if (self.folder / DATABASE).exists() else ([], [])
        shown = {message.id for message in self.discord.messages.values() if message.attachments}
        for job in jobs:
            kinds = [entry["kind"] for entry in entries if entry["job_id"] == job["id"]]
            assert kinds == ["hold", "charge" if job["message_id"] in shown else "release"], job
            assert (job["reason"] or "not_started").startswith("not_started"), job
            assert job["notified_at"] is not None
        assert len(shown) == sum(entry["spent"] for entry in entries)
        assert len(self.api.calls) <= len(jobs)
        assert all(has_ended(one) for one in self.asked if one.message is not None)


def has_ended(interaction: discord_server.Interaction) -> bool:
    message = interaction.message
    return message is not None and bool(message.attachments or "You were not charged." in message.content)


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[House]:
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png(3_000_000)) as api:
        house = House(discord, api, folder)
        try:
            yield house
        finally:
            for child in house.children:
                if child.returncode is None:
                    child.kill()
                await child.communicate()


async def left(child: asyncio.subprocess.Process, *, within: float = GRACE + MARGIN) -> int:
    """Wait for its end, which must come in time; returns its code, printing the log of a bad one."""
    began = time.perf_counter()
    _, errors = await asyncio.wait_for(child.communicate(), 60)
    took = time.perf_counter() - began
    assert took < within, f"{took:.1f} s\n{errors.decode()}"
    assert child.returncode is not None
    if child.returncode:
        print(errors.decode())  # noqa: T201 - shown when the test fails
    return child.returncode


async def stopped(child: asyncio.subprocess.Process, *, within: float = GRACE + MARGIN) -> None:
    child.send_signal(signal.SIGTERM)
    assert await left(child, within=within) == 0


async def settled(house: House) -> None:
    """Start once more and stop, when a life has left something to do; then nothing may be left."""
    for job in house.unfinished():
        assert job["ended_at"] is not None or job["state"] in ("generated", "spooled"), job
    if house.unfinished():
        child = await house.start()
        await asyncio.gather(*(one.wait(has_ended, 20) for one in house.asked if one.message is not None))
        await stopped(child)
    assert house.unfinished() == []
    house.check()


# --- at random moments ---------------------------------------------------------------------------------------------


async def starting(house: House) -> None:
    """Nothing to wait for: the signal meets the interpreter, the imports, the database, the login or an idle bot."""


async def idle(house: House) -> None:
    await house.discord.ready(30)


async def calling(house: House) -> None:
    await house.discord.ready(30)
    await house.ask(4)
    await house.api.called(1)


async def downloading(house: House) -> None:
    house.api.script_output(*[Reply.drip(every=0.005, limit=60)] * 4)
    await house.discord.ready(30)
    await house.ask(2)
    await house.api.downloaded(1)


async def uploading(house: House) -> None:
    house.discord.fail("PATCH", "*", status=503, times=2)
    await house.discord.ready(30)
    await house.ask(2)
    await house.discord.wait(lambda discord: any(seen.method == "PATCH" for seen in discord.requests), 20)


PHASES: dict[Callable[[House], Awaitable[None]], float] = {
    # how long after its beginning a signal may come, in seconds
    starting: 1.5,
    idle: 0.3,
    calling: 1.0,
    downloading: 0.6,
    uploading: 1.0,
}


async def drill(house: House, phase: Callable[[House], Awaitable[None]], pauses: Sequence[float]) -> int:
    """One life, asked to stop after the first pause and again after each of the others; returns how it ended."""
    house.api.always(Reply.ok(delay=LATENCY))
    child = await house.launch()
    await phase(house)
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        if child.returncode is None:
            child.send_signal(STOPS[number % 2])
    code = await left(child)
    if code == -signal.SIGTERM:  # before the program's first line: then nothing has been touched
        assert phase is starting
        assert not house.folder.exists()
        return code
    assert code == 0
    await settled(house)
    return code


@pytest.mark.timeout(size(300, 1800))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_asked_to_stop_at_a_random_moment_it_leaves_in_order(
    tmp_path: Path, phase: Callable[[House], Awaitable[None]]
) -> None:
    chance = random.Random(seed(f"tests/faults/test_shutdown.py -k {phase.__name__}"))  # noqa: S311 - a choice, not a secret
    codes = []
    for number in range(size(3, 20)):
        pauses = [chance.uniform(0, PHASES[phase]), *(chance.uniform(0, 0.5) for _ in range(chance.randrange(4)))]
        async with standing(tmp_path / str(number)) as house:
            codes.append(await drill(house, phase, pauses))
    print(f"{phase.__name__}: {codes}")  # noqa: T201 - the outcomes are shown


@pytest.mark.parametrize("output", [Reply.hang(), Reply.ok()], ids=["download", "upload"])
async def test_a_transfer_that_never_ends_keeps_it_no_longer_than_its_grace(tmp_path: Path, output: Reply) -> None:
    async with standing(tmp_path / "data") as house:
        house.api.script_output(output)
        house.discord.fail("PATCH", "*", status=503, times=10_000)
        child = await house.start(grace=0.5)
        await house.ask()
        await house.api.downloaded(1)
        await stopped(child, within=0.5 + MARGIN)
        [job] = house.unfinished()
        assert job["state"] in ("generated", "spooled")


# --- before it is ready --------------------------------------------------------------------------------------------


def holds_back(pid: int) -> bool:
    """Whether the kernel keeps a SIGTERM for this process; False for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


async def holding_back(pid: int) -> None:
    async with asyncio.timeout(30):
        while not holds_back(pid):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.001)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")


@needs_proc
@pytest.mark.parametrize("name", STOPS)
async def test_a_signal_that_comes_before_anybody_listens_is_kept(tmp_path: Path, name: signal.Signals) -> None:
    async with standing(tmp_path / "data") as house:
        child = await house.launch()
        await holding_back(child.pid)
        assert not house.folder.exists()
        child.send_signal(name)
        assert await left(child) == 0
        assert house.discord.identifies == 0


# --- as the first process of a container ---------------------------------------------------------------------------


@cache
def namespace() -> tuple[str, ...] | None:
    """The command that makes a program PID 1 of its own namespace; None where that is not allowed."""
    for command in (NAMESPACE, (*NAMESPACE, "--user", "--map-root-user")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False, timeout=10).returncode == 0:
                return command
        except OSError:
            return None
    return None


async def inner(child: asyncio.subprocess.Process) -> int:
    """The pid, seen from here, of the process that is PID 1 in there.

    As soon as it is the program: what becomes it holds signals back for reasons of its own, and forgets them.
    """
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    async with asyncio.timeout(10):
        while not (pids := children.read_text().split()) or not runs_python(pids[0]):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
    return int(pids[0])


def runs_python(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()
    except OSError:  # not there yet
        return False


@pytest.fixture
def as_first() -> tuple[str, ...]:
    command = namespace()
    if command is None:
        pytest.skip("this platform allows no PID namespace of one's own")
    return command


@pytest.mark.parametrize("name", STOPS)
async def test_as_pid_1_it_stops_when_asked_and_finishes_what_is_paid_for(
    tmp_path: Path, as_first: tuple[str, ...], name: signal.Signals
) -> None:
    async with standing(tmp_path / "data") as house:
        house.api.script(Reply.hold())
        child = await house.start(*as_first)
        await house.ask()
        await house.api.called(1)
        pid = await inner(child)
        assert f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()
        os.kill(pid, name)
        house.api.release()
        assert await left(child) == 0
        assert [one.message is not None and bool(one.message.attachments) for one in house.asked] == [True]
        await settled(house)


async def test_as_pid_1_it_stops_when_asked_before_it_is_ready(tmp_path: Path, as_first: tuple[str, ...]) -> None:
    async with standing(tmp_path / "data") as house:
        child = await house.launch(*as_first)
        pid = await inner(child)
        await holding_back(pid)
        assert not house.folder.exists()
        os.kill(pid, signal.SIGTERM)
        assert await left(child) == 0
        assert house.discord.identifies == 0
