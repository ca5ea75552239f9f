"""Kills the process at every named point of every scenario, and again while it recovers. Afterwards the ledger,
the provider's calls, and what the member sees must agree."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, png, settings_for
from tests.support.e2e import books as stored_rows
from tests.support.fault_injection import LONG, seed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

UPLOAD_LIMIT = 10 * 1024 * 1024
_MEMORY = Path("/dev/shm")  # noqa: S108 - holds uniquely named folders

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A sequence of events, without a crash."""

    calls: tuple[Reply, ...] = ()
    outputs: tuple[Reply, ...] = ()
    discord: Callable[[discord_server.DiscordServer], None] = lambda _: None
    jobs: int = 1
    upload_limit: int = UPLOAD_LIMIT
    posts: int = 1  # the maximum for one job
    private: bool = False
    again: str = ""  # how the first result is repeated: by reaction or by button
    usable: bool = True  # whether the provider's output is a usable image

    @property
    def reachable(self) -> bool:
        """Whether the member's message can be edited."""
        return self.discord not in (message_gone, everything_closed)

    @property
    def differs_after_call(self) -> bool:
        """Whether nothing is unlike the first scenario until the provider answers."""
        return bool(self.calls or self.outputs) or self.upload_limit != UPLOAD_LIMIT


def token_dead(discord: discord_server.DiscordServer) -> None:
    discord.fail("PATCH", "/webhooks/*", status=401, code=50027, times=10_000)


def message_gone(discord: discord_server.DiscordServer) -> None:
    discord.fail("PATCH", "*", status=404, code=10008, times=10_000)


def everything_closed(discord: discord_server.DiscordServer) -> None:
    discord.fail("PATCH", "*", status=403, code=50001, times=10_000)
    discord.fail("POST", "/channels/*", status=403, code=50001, times=10_000)
    discord.fail("POST", "/users/*", status=403, code=50007, times=10_000)


SCENARIOS = {
    "delivered": Scenario(),
    "two members in line": Scenario(jobs=2),
    "refused by the provider": Scenario(calls=(Reply.error("GENERATION_REJECTED"),)),
    "outcome unknown": Scenario(calls=(Reply.reset(),)),
    "unusable picture": Scenario(outputs=(Reply.raw(200, b"no image"),) * 20, usable=False),
    "download breaks off": Scenario(outputs=(Reply.truncated(),)),
    "token dead": Scenario(discord=token_dead),
    "message gone": Scenario(discord=message_gone),
    "every way closed": Scenario(discord=everything_closed),
    "too large for Discord": Scenario(upload_limit=100_000),
    "private": Scenario(private=True),
    "again by reaction": Scenario(again="reaction"),
    "again by button": Scenario(again="button"),
}
if LONG:
    SCENARIOS["slowed down"] = Scenario(calls=(Reply.error("TOO_MANY_REQUESTS", retry_after="1"),), posts=2)


def _has_ended(interaction: discord_server.Interaction) -> bool:
    message = interaction.message
    return message is not None and bool(message.attachments or "You were not charged." in message.content)


def _nothing_pending(discord: discord_server.DiscordServer) -> bool:
    """Whether no message still announces an image."""
    return not any(
        message.content.startswith(("Queued", "Generating"))
        for message in discord.messages.values()
        if not message.deleted
    )


async def first_of(awaited: asyncio.Task[Any], ended: asyncio.Task[int]) -> None:
    """Wait for `awaited`, or until the bot has ended."""
    await asyncio.wait((awaited, ended), return_when=asyncio.FIRST_COMPLETED)
    awaited.cancel()
    await asyncio.gather(awaited, return_exceptions=True)


@dataclass(slots=True)
class CrashRunner:
    """The process that forks the bots."""

    process: asyncio.subprocess.Process

    async def fork(self, order: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> int:
        assert self.process.stdout is not None
        return int(await asyncio.wait_for(self.process.stdout.readline(), 30))


@asynccontextmanager
async def crash_runner() -> AsyncIterator[CrashRunner]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox.crash_runner", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield CrashRunner(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)


@dataclass(slots=True)
class Run:
    """One scenario with its own servers, and with as many bot processes as it needs."""

    scenario: Scenario
    runner: CrashRunner
    folder: Path
    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    interactions: list[discord_server.Interaction] = field(default_factory=list)
    lives: int = 0

    async def live(self, *, ask: bool, point: str | None = None, count: int = 1) -> list[str]:
        """Run one bot process: start, send commands if `ask`, and stop or die; return the points that it reached."""
        self.lives += 1
        trace = self.folder / f"trace-{self.lives}"
        order = {
            "settings": settings_for(self.folder / "data", self.api.base_url, {"pikzels": {"concurrency": 1}}),
            "rest": self.discord.rest_url,
            "gateway": self.discord.gateway_url,
            "log": str(self.folder / "log"),
            "trace": str(trace),
            "point": point,
            "count": count,
        }
        pid = await self.runner.fork(order)
        ended = asyncio.create_task(self.runner.answer())
        ready = asyncio.create_task(self.discord.ready(30))
        await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            if ask:
                await self._ask(ended)
            if point is None and self.scenario.reachable:
                await self._wait_until_settled(ended)
            if not ended.done():
                with suppress(ProcessLookupError):  # the process ended by itself; its exit code will follow
                    os.kill(pid, signal.SIGTERM)
        code = await ended
        ready.cancel()
        await asyncio.wait((ready,))
        await self.discord.gone(10)
        assert code in ((0, -9) if point else (0,)), (self.folder / "log").read_text()
        return trace.read_text().splitlines() if trace.exists() else []

    async def _ask(self, ended: asyncio.Task[int]) -> None:
        """Send the commands; wait until each is answered or the bot has ended."""
        for number in range(self.scenario.jobs):
            try:
                interaction = await self.discord.slash(
                    "thumbnail",
                    options={"image": PHOTO, "private": self.scenario.private},
                    user_id=1 + number,
                    attachment_size_limit=self.scenario.upload_limit,
                )
            except ConnectionError:  # the bot has died; the server notices this before or while it sends
                return
            self.interactions.append(interaction)
            await first_of(asyncio.create_task(interaction.acked.wait()), ended)
        if self.scenario.again:
            await self._ask_again(self.interactions[0], ended)

    async def _ask_again(self, interaction: discord_server.Interaction, ended: asyncio.Task[int]) -> None:
        """Repeat the first result as another member, by reaction or by button."""
        await first_of(
            asyncio.create_task(interaction.wait(lambda i: bool(i.message and i.message.components), 5)), ended
        )
        await first_of(asyncio.create_task(interaction.wait(_has_ended, 5)), ended)
        if ended.done() or interaction.message is None or not interaction.message.attachments:
            return
        before = len(self.discord.messages)
        try:
            if self.scenario.again == "reaction":
                await self.discord.react(interaction.message, "🔁", user_id=7)
            else:
                job_id = interaction.message.content.split("#")[1].split()[0]
                self.interactions.append(
                    await self.discord.click(interaction.message, f"job:again:{job_id}", user_id=7)
                )
        except ConnectionError:
            return
        await first_of(asyncio.create_task(self.discord.wait(lambda server: len(server.messages) > before, 5)), ended)
        if not ended.done() and self.scenario.again == "reaction":
            await first_of(asyncio.create_task(self.discord.wait(_nothing_pending, 5)), ended)

    async def _wait_until_settled(self, ended: asyncio.Task[int]) -> None:
        """Wait until every member has been told the outcome, or the bot has ended."""
        for interaction in (interaction for interaction in self.interactions if interaction.message is not None):
            await first_of(asyncio.create_task(interaction.wait(_has_ended, 5)), ended)

    def open_jobs(self) -> list[dict[str, Any]]:
        return [
            job for job in stored_rows(self.folder / "data")[0] if job["ended_at"] is None and job["parked_at"] is None
        ]

    def check(self) -> None:
        """Check what must be true when everything has ended, whatever happened before."""
        jobs, entries = stored_rows(self.folder / "data")
        carriers = Counter(
            message.content.split("#")[1].split()[0]
            for message in self.discord.messages.values()
            if message.attachments
        )
        for job in jobs:
            kinds = [entry["kind"] for entry in entries if entry["job_id"] == job["id"]]
            charged, shown = "charge" in kinds, carriers[job["id"]] > 0
            assert kinds in (["hold", "charge"], ["hold", "release"], ["hold"]), kinds
            assert charged == shown, f"job {job['id']}: charged {charged}, shown {shown}"
            assert (kinds == ["hold"]) == (job["parked_at"] is not None and job["ended_at"] is None)
            assert charged == (job["state"] == "delivered")
            paid = job["generated_at"] is not None and self.scenario.usable
            assert not paid or charged or job["parked_at"] is not None, f"job {job['id']}: a paid image was lost"
            assert job["token"] is None or kinds == ["hold"] or job["notified_at"] is None
        contents = [message.content for message in self.discord.messages.values()]
        for job in (job for job in jobs if job["reacted_to"] and job["state"] == "released"):
            assert any(f"#{job['id']}" in text for text in contents), "the member who reacted was not told"
        assert len(self.api.calls) <= self.scenario.posts * len(jobs)
        assert set(carriers) <= {job["id"] for job in jobs}
        for interaction in self.interactions:
            message = interaction.message
            if message is not None and self.scenario.reachable:
                assert _has_ended(interaction), message.content
        assert _nothing_pending(self.discord) or not self.scenario.reachable
        assert [path for path in (self.folder / "data" / "spool").iterdir() if path.suffix == ".part"] == []


async def prepared(runner: CrashRunner, folder: Path) -> Path:
    """The data folder of a bot that has started once: making its tables takes longer than anything that it does."""
    folder.mkdir()
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        await Run(Scenario(), runner, folder, discord, api).live(ask=False)
    return folder / "data"


async def play(
    scenario: Scenario, runner: CrashRunner, folder: Path, data: Path, *kills: tuple[str, int]
) -> list[list[str]]:
    """Play a scenario on a copy of `data`, with a kill at each of `kills` in turn, until no job is open; return each
    process's points.
    """
    shutil.copytree(data, folder / "data")
    output = png(400_000 if scenario.upload_limit < 400_000 else 1000)
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=output) as api:
        api.script(*scenario.calls)
        api.script_output(*scenario.outputs)
        scenario.discord(discord)
        run = Run(scenario, runner, folder, discord, api)
        plans: list[tuple[str | None, int]] = [*kills]
        point, count = plans.pop(0) if plans else (None, 1)
        traces = [await run.live(ask=True, point=point, count=count)]
        for _ in range(8):
            if not plans and len(traces) > len(kills) and not run.open_jobs() and not has_unnotified_jobs(folder):
                break
            point, count = plans.pop(0) if plans else (None, 1)
            traces.append(await run.live(ask=False, point=point, count=count))
        assert not run.open_jobs(), "a job is still open after eight processes"
        run.check()
        return traces


def has_unnotified_jobs(folder: Path) -> bool:
    return any(job["state"] == "released" and job["notified_at"] is None for job in stored_rows(folder / "data")[0])


def occurrences(trace: list[str]) -> list[tuple[str, int]]:
    """Every point of a trace, with how often it had been reached by then."""
    seen: Counter[str] = Counter()
    found = []
    for point in trace:
        seen[point] += 1
        found.append((point, seen[point]))
    return found


def one_untried(
    seconds: list[tuple[str, int]], tried: set[tuple[str, int]], chance: random.Random
) -> list[tuple[str, int]]:
    """A point of a recovery that no recovery of this scenario was killed at, if there is one; it is then `tried`."""
    untried = [second for second in seconds if second not in tried]
    chosen = chance.sample(untried, min(1, len(untried)))
    tried.update(chosen)
    return chosen


def kills_of(scenario: Scenario, trace: list[str]) -> list[tuple[str, int]]:
    """Where to kill: not at the first two points, which belong to a startup with nothing to recover, and not where a
    kill is the same as in another scenario, which is before the repetition of a result, and before an answer of the
    provider that is unlike the usual one.
    """
    found = occurrences(trace)
    if scenario.again:
        return found[found.index(("repository.reserve", 2)) :]
    return found[found.index(("provider.create", 1)) + 1 if scenario.differs_after_call else 2 :]


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory if there is such a place: a kill is no power cut, so nothing needs a disk."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_after_a_kill_at_any_point_no_paid_image_is_lost_and_nothing_else_is_charged(
    memory_folder: Path, request: pytest.FixtureRequest, name: str
) -> None:
    scenario = SCENARIOS[name]
    chance = random.Random(seed(f"'{request.node.nodeid}'"))  # noqa: S311 - test data, not a secret
    runs, tried = 0, set[tuple[str, int]]()
    async with crash_runner() as runner:
        data = await prepared(runner, memory_folder / "prepared")
        [trace, *_] = await play(scenario, runner, memory_folder / "whole", data)
        assert "repository.reserve" in trace
        for kill in kills_of(scenario, trace):
            traces = await play(scenario, runner, memory_folder / f"{runs}-{kill[0]}", data, kill)
            runs += 1
            seconds = occurrences(traces[1]) if len(traces) > 1 else []
            for second in seconds if LONG else one_untried(seconds, tried, chance):
                await play(scenario, runner, memory_folder / f"{runs}-{kill[0]}-{second[0]}", data, kill, second)
                runs += 1
    print(f"{name}: {runs} runs with a kill, points {', '.join(dict.fromkeys(trace))}")  # noqa: T201 - prints the counts
