"""Whole days of the bot on virtual time: many requests, every fault, several lives; all of it repeatable by a seed."""

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
from tests.support.simulated_world import DAY, HOUR, Asked, World
from tests.support.virtual_clock import Loop, Numbered

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Coroutine, Iterator

    from bot.domain.models import Requester

JOBS = 100
_LATEST = 3 * DAY  # requests come until so many were taken, or until here
_REST = 10 * DAY  # longer than a picture waits for its requester, and an requester for words
_MEMORY = Path("/dev/shm")  # noqa: S108 - a place of folders with names of their own, where a flush costs nothing


@dataclass(frozen=True, slots=True)
class Result:
    """What a day came to."""

    digest: str
    counts: Counter[str]
    broken: tuple[str, ...]


class Day:
    """One seed: the requests, the lives of the bot, and the rest at the end."""

    def __init__(self, seed: int, loop: Loop, folder: Path) -> None:
        self.world = World(seed, loop, journal=folder / "journal")
        self.plan = Plan.drawn(self.world.chance)
        self.invariants = Invariants(self.world, self.plan.rules)
        self.bot = self._born()
        self.ends_at = math.inf
        for _ in range(self.plan.stops):
            loop.call_at(self.world.chance.uniform(0, DAY), self._stop)

    def _born(self) -> Bot:
        chance, fuse = self.world.chance, self.plan.fuse
        if fuse:
            fuse = chance.randint(1, 12) if chance.random() < 0.2 else round(chance.expovariate(1 / fuse)) + 1
            self.world.loop.call_later(chance.expovariate(1 / (20 * HOUR)), self._die)
        if self.world.files and self.world.happens("file lost"):
            del self.world.files[chance.choice(list(self.world.files))]
        bot = self.world.loop.owner = Bot(self.world, self.plan, self.invariants, fuse=fuse)
        return bot

    def _stop(self) -> None:
        self.bot.end("stop")

    def _die(self) -> None:
        if not self.world.calm:
            self.bot.die("at some moment")

    # --- the course of the day ---------------------------------------------------------------------------------------

    async def whole(self) -> None:
        self._keep_asking()
        self._keep_tidy()
        while True:
            self._do(self.bot.start())
            how = await self.bot.over
            if how == "stop":
                await self._stopped()
            if how == "rest":
                break
            await self._buried()
            self.invariants.life_ended()
            await asyncio.sleep(self.world.seconds(30))
            self.bot = self._born()
        self.invariants.settled(since=self.bot.ready_at)
        if self.bot.queue.running or self.bot.queue.waiting or self.bot.queue.tickets:
            self.world.forbidden("a ticket was never given back")
        await self._buried()
        self.invariants.at_rest()

    async def _stopped(self) -> None:
        self.world.counts["stops"] += 1
        self.bot.over = self.world.loop.create_future()
        grace = self.world.chance.choice((0.0, 5.0, 120.0))
        stopping = self._do(self.bot.stop(grace))
        await asyncio.wait((stopping, self.bot.over), return_when=asyncio.FIRST_COMPLETED)
        self.bot.dead = True

    async def _buried(self) -> None:
        """End what is left of a process; it reaches nothing any more."""
        self.bot.dead = True
        for _ in range(100):
            left = sorted(cast("set[Numbered[Any]]", asyncio.all_tasks()), key=lambda task: task.number)
            if len(left) == 1:  # this one
                return
            for task in left[1:]:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError("a dead process goes on")

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In a task of the bot's process."""
        return self.world.loop.create_task(work)

    # --- what the members do -----------------------------------------------------------------------------------------

    def _keep_asking(self) -> None:
        world, chance = self.world, self.world.chance
        if world.counts["jobs"] >= JOBS or world.loop.time() > _LATEST:
            world.calm, self.ends_at = True, world.loop.time() + _REST
            world.note("calm")
            return
        if world.happens("clock jumps"):
            world.skew += chance.uniform(-90, 90)
        for _ in range(chance.randint(1, self.plan.burst)):
            self._ask()
        if (world.is_down("books full") or world.is_down("books gone")) and chance.random() < 0.3:
            self._claim_for_everyone()
        world.loop.call_later(chance.expovariate(1 / self.plan.gap), self._keep_asking)

    def _ask(self) -> None:
        world, chance = self.world, self.world.chance
        member = chance.randint(1, self.plan.members)
        if chance.random() < 0.03:
            self._hear(self.bot.claim(member))
            return
        asked = self._request(self._asker(member))
        self._hear(self.bot.accept(asked))
        if world.happens("sent twice"):  # a reaction whose job was released may become another job
            again = asked if asked.requester.reacted_to is None else self._request(asked.requester)
            world.loop.call_later(chance.choice((0, 0, 0.1, 60)), lambda: self._hear(self.bot.accept(again)))

    def _asker(self, member: int) -> Requester:
        number, now = len(self.world.asked) + 1, self.world.loop.time()
        who = requester(member, interaction_id=10**18 + number, at=NOON + timedelta(seconds=now))
        by_reaction = self.world.chance.random() < 0.2
        return replace(who, interaction_id=None, token="", reacted_to=number) if by_reaction else who

    def _request(self, who: Requester) -> Asked:
        world, number = self.world, len(self.world.asked) + 1
        what = replace(request(world.chance.choice(MODELS)), image_url=f"https://cdn.example/{number}")
        closes = world.loop.time() + world.chance.expovariate(1 / 30)
        asked = Asked(number, what, who, world.drawn_way(), closes)
        world.asked.append(asked)
        return asked

    def _hear(self, work: Coroutine[Any, Any, None]) -> None:
        """What Discord sends reaches a bot that is connected."""
        if self.bot.is_ready and not self.world.is_down("gateway"):
            self._do(work)
        else:
            work.close()
            self.world.counts["unheard"] += 1

    # --- every hour --------------------------------------------------------------------------------------------------

    def _keep_tidy(self) -> None:
        world = self.world
        if self.bot.is_ready:
            self.invariants.settled(since=self.bot.ready_at)
            self._do(self.bot.tidy())
        if world.calm and world.loop.time() > self.ends_at - (_REST if self._rests() else 0):
            self._end()
            return
        if world.happens("claim for everyone") or (world.calm and world.chance.random() < 0.02):
            self._claim_for_everyone()  # at the very moment of the tidying, which may give up what is claimed
        world.loop.call_later(6 * HOUR if world.calm else HOUR, self._keep_tidy)

    def _rests(self) -> bool:
        return self.bot.is_ready and not self.world.files and not self._unsettled()

    def _unsettled(self) -> int:
        sql = "SELECT count(*) FROM jobs WHERE ended_at IS NULL OR notified_at IS NULL"
        [number] = self.world.raw.execute(sql).fetchone()
        return int(number)

    def _end(self) -> None:
        """Where two things failed at once, the rest may be left to the next start."""
        left, counts = self._unsettled(), self.world.counts
        excused = counts["journal took nothing"] or (counts["books gone down"] and counts["unforeseen"])
        if not left or not excused or counts["started once more"]:
            self.bot.end("rest")
            return
        self.world.counts["started once more"] += 1
        self.world.counts["left to the next start"] += left
        self.ends_at = self.world.loop.time() + _REST
        self.bot.end("stop")
        self.world.loop.call_later(HOUR, self._keep_tidy)

    def _claim_for_everyone(self) -> None:
        for member in range(1, self.plan.members + 1):
            self._hear(self.bot.claim(member))


def play(seed: int) -> Result:
    """Play the day of a seed."""
    random.seed(seed)  # the jitter of the bot's pauses
    with (
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder,
        asyncio.Runner(loop_factory=Loop) as runner,
    ):
        loop = cast("Loop", runner.get_loop())
        day = Day(seed, loop, Path(folder))
        loop.set_exception_handler(lambda _, context: _unheard(day.world, context))
        runner.run(day.whole())
    day.world.raw.close()
    world = day.world
    digest = hashlib.sha256("\n".join(map(repr, world.events)).encode())
    return Result(digest.hexdigest(), world.counts, tuple(world.broken))


def _unheard(world: World, context: dict[str, Any]) -> None:
    """An exception nobody awaited; those of the dead do not count."""
    error, owner = context.get("exception"), getattr(context.get("future"), "owner", None)
    if isinstance(error, Exception) and not (isinstance(owner, Bot) and owner.dead):
        world.forbidden(f"a task ended with {error!r}")


@contextmanager
def silence() -> Iterator[None]:
    """Without the bot's log, which takes longer than the bot."""
    log = logging.getLogger("bot")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
