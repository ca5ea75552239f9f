"""Simulates a full day of the bot on virtual time, with many requests, faults and restarts. A seed repeats the day."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests.support.factories import NOON, request, requester
from tests.support.invariants import Invariants
from tests.support.simulated_bot import MODELS, Bot, Plan
from tests.support.simulated_world import DAY, HOUR, Submission, World
from tests.support.virtual_clock import Loop, NumberedTask

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Coroutine, Iterator

    from bot.domain.models import Requester

JOBS = 100
_REQUESTS_END = 3 * DAY  # members send no requests after this, even if fewer than `JOBS` were accepted
_IDLE_TIME = 10 * DAY  # longer than the bot keeps a saved picture or retries a notice
_MEMORY = Path("/dev/shm")  # noqa: S108 - holds uniquely named folders; flushing is free there


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one day."""

    digest: str
    counts: Counter[str]
    broken: tuple[str, ...]


class Day:
    """The day of one seed: the requests, each process of the bot, and the idle time at the end."""

    def __init__(self, seed: int, loop: Loop, folder: Path) -> None:
        self.world = World(seed, loop, journal=folder / "journal")
        self.plan = Plan.draw(self.world.chance)
        self.invariants = Invariants(self.world, self.plan.rules)
        self.bot = self._new_process()
        self.ends_at = math.inf
        for _ in range(self.plan.stops):
            loop.call_at(self.world.chance.uniform(0, DAY), self._stop)

    def _new_process(self) -> Bot:
        chance, crash_after = self.world.chance, self.plan.crash_interval
        if crash_after:
            crash_after = (
                chance.randint(1, 12) if chance.random() < 0.2 else round(chance.expovariate(1 / crash_after)) + 1
            )
            self.world.loop.call_later(chance.expovariate(1 / (20 * HOUR)), self._die)
        if self.world.files and self.world.happens("file lost"):
            del self.world.files[chance.choice(list(self.world.files))]
        bot = self.world.loop.owner = Bot(self.world, self.plan, self.invariants, crash_after=crash_after)
        return bot

    def _stop(self) -> None:
        self.bot.end("stop")

    def _die(self) -> None:
        if not self.world.faults_stopped:
            self.bot.die("at a random time")

    # --- the day -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        self._send_requests()
        self._run_housekeeping()
        while True:
            self._spawn(self.bot.start())
            reason = await self.bot.over
            if reason == "stop":
                await self._shut_down()
            if reason == "idle":
                break
            await self._cancel_tasks()
            self.invariants.process_ended()
            await asyncio.sleep(self.world.seconds(30))
            self.bot = self._new_process()
        self.invariants.check_charges(since=self.bot.ready_at)
        if self.bot.queue.running or self.bot.queue.waiting or self.bot.queue.tickets:
            self.world.report_violation("a ticket was never returned")
        await self._cancel_tasks()
        self.invariants.check_final_state()

    async def _shut_down(self) -> None:
        self.world.counts["stops"] += 1
        self.bot.over = self.world.loop.create_future()
        grace = self.world.chance.choice((0.0, 5.0, 120.0))
        stopping = self._spawn(self.bot.stop(grace))
        await asyncio.wait((stopping, self.bot.over), return_when=asyncio.FIRST_COMPLETED)
        self.bot.dead = True

    async def _cancel_tasks(self) -> None:
        """Cancel the remaining tasks of a dead process."""
        self.bot.dead = True
        for _ in range(100):
            left = sorted(cast("set[NumberedTask[Any]]", asyncio.all_tasks()), key=lambda task: task.number)
            if len(left) == 1:  # only the current task is left
                return
            for task in left[1:]:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError("a dead process keeps running")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task of the bot's process."""
        return self.world.loop.create_task(work)

    # --- the members -------------------------------------------------------------------------------------------------

    def _send_requests(self) -> None:
        world, chance = self.world, self.world.chance
        if world.counts["jobs"] >= JOBS or world.loop.time() > _REQUESTS_END:
            world.faults_stopped, self.ends_at = True, world.loop.time() + _IDLE_TIME
            world.note("faults stopped")
            return
        if world.happens("clock jumps"):
            world.skew += chance.uniform(-90, 90)
        for _ in range(chance.randint(1, self.plan.burst)):
            self._send_request()
        if (world.is_down("database full") or world.is_down("database unavailable")) and chance.random() < 0.3:
            self._claim_for_everyone()
        world.loop.call_later(chance.expovariate(1 / self.plan.gap), self._send_requests)

    def _send_request(self) -> None:
        world, chance = self.world, self.world.chance
        member = chance.randint(1, self.plan.members)
        if chance.random() < 0.03:
            self._receive(self.bot.claim(member))
            return
        submission = self._new_submission(self._new_requester(member))
        self._receive(self.bot.accept(submission))
        if world.happens("sent twice"):  # after a release, the same reaction may create a new job
            duplicate = (
                submission if submission.requester.reacted_to is None else self._new_submission(submission.requester)
            )
            world.loop.call_later(chance.choice((0, 0, 0.1, 60)), lambda: self._receive(self.bot.accept(duplicate)))

    def _new_requester(self, member: int) -> Requester:
        number, now = len(self.world.submissions) + 1, self.world.loop.time()
        sender = requester(member, interaction_id=10**18 + number, at=NOON + timedelta(seconds=now))
        by_reaction = self.world.chance.random() < 0.2
        return replace(sender, interaction_id=None, token="", reacted_to=number) if by_reaction else sender

    def _new_submission(self, sender: Requester) -> Submission:
        world, number = self.world, len(self.world.submissions) + 1
        thumbnail = replace(request(world.chance.choice(MODELS)), image_url=f"https://cdn.example/{number}")
        changes_at = world.loop.time() + world.chance.expovariate(1 / 30)
        submission = Submission(number, thumbnail, sender, world.draw_reachability(), changes_at)
        world.submissions.append(submission)
        return submission

    def _receive(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the handler if the bot is connected. Otherwise the event is lost."""
        if self.bot.is_ready and not self.world.is_down("gateway"):
            self._spawn(work)
        else:
            work.close()
            self.world.counts["not received"] += 1

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def _run_housekeeping(self) -> None:
        world = self.world
        if self.bot.is_ready:
            self.invariants.check_charges(since=self.bot.ready_at)
            self._spawn(self.bot.run_housekeeping())
        if world.faults_stopped and world.loop.time() > self.ends_at - (_IDLE_TIME if self._is_idle() else 0):
            self._end()
            return
        if world.happens("claim for everyone") or (world.faults_stopped and world.chance.random() < 0.02):
            self._claim_for_everyone()  # during housekeeping, which may release the same pictures
        world.loop.call_later(6 * HOUR if world.faults_stopped else HOUR, self._run_housekeeping)

    def _is_idle(self) -> bool:
        return self.bot.is_ready and not self.world.files and not self._count_unfinished()

    def _count_unfinished(self) -> int:
        sql = "SELECT count(*) FROM jobs WHERE ended_at IS NULL OR notified_at IS NULL"
        [number] = self.world.raw.execute(sql).fetchone()
        return int(number)

    def _end(self) -> None:
        """End the day. If two faults coincided, restart the bot once to finish the remaining jobs."""
        left, counts = self._count_unfinished(), self.world.counts
        restart_allowed = counts["journal write failed"] or (
            counts["database unavailable down"] and counts["internal error"]
        )
        if not left or not restart_allowed or counts["restarted to finish"]:
            self.bot.end("idle")
            return
        self.world.counts["restarted to finish"] += 1
        self.world.counts["left to the next start"] += left
        self.ends_at = self.world.loop.time() + _IDLE_TIME
        self.bot.end("stop")
        self.world.loop.call_later(HOUR, self._run_housekeeping)

    def _claim_for_everyone(self) -> None:
        for member in range(1, self.plan.members + 1):
            self._receive(self.bot.claim(member))


def play(seed: int) -> Result:
    """Simulate the day of one seed."""
    random.seed(seed)  # seeds the jitter of the bot's retries
    with (
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder,
        asyncio.Runner(loop_factory=Loop) as runner,
    ):
        loop = cast("Loop", runner.get_loop())
        day = Day(seed, loop, Path(folder))
        loop.set_exception_handler(lambda _, context: _report_unhandled(day.world, context))
        runner.run(day.run())
    day.world.raw.close()
    world = day.world
    digest = hashlib.sha256("\n".join(map(repr, world.events)).encode())
    return Result(digest.hexdigest(), world.counts, tuple(world.violations))


def _report_unhandled(world: World, context: dict[str, Any]) -> None:
    """Report an exception that no one awaited, unless its process is dead."""
    error, owner = context.get("exception"), getattr(context.get("future"), "owner", None)
    if isinstance(error, Exception) and not (isinstance(owner, Bot) and owner.dead):
        world.report_violation(f"a task ended with {error!r}")


@contextmanager
def silence() -> Iterator[None]:
    """Disable the bot's logging, which would take longer than the bot itself."""
    log = logging.getLogger("bot")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
