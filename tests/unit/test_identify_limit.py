from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from bot.discord_io.identify_limit import IdentifyLimit
from bot.domain.errors import IdentifyLimitReached
from bot.domain.session_starts import SessionStarts
from tests.support.factories import NOON
from tests.support.virtual_clock import Loop


class KeyValueStore:
    """A key-value store that survives restarts of the bot."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    async def get_value(self, name: str) -> str | None:
        return self.facts.get(name)

    async def set_value(self, name: str, value: str) -> None:
        self.facts[name] = value


async def test_after_twenty_identifies_in_an_hour_the_next_waits_five_minutes() -> None:
    store, now = KeyValueStore(), NOON
    for _ in range(20):
        await IdentifyLimit(store, clock=lambda: NOON).spend()  # each from a new process
    with pytest.raises(IdentifyLimitReached) as refused:
        await IdentifyLimit(store, clock=lambda: NOON).spend()
    assert refused.value.wait == timedelta(minutes=5)
    now = NOON + timedelta(minutes=5)
    await IdentifyLimit(store, clock=lambda: now).spend()


async def test_a_crash_loop_cannot_use_up_the_daily_limit() -> None:
    store, now, spent = KeyValueStore(), NOON, 0

    def clock() -> datetime:
        return now

    while now < NOON + timedelta(days=1):
        identifies = IdentifyLimit(store, clock=clock)
        wait = await identifies.wait()
        now += wait or timedelta(seconds=1)
        await identifies.spend()
        spent += 1
    assert spent < 600


async def test_identifies_counted_by_a_clock_that_was_ahead_do_not_stop_the_bot() -> None:
    store = KeyValueStore()
    for _ in range(20):
        await IdentifyLimit(store, clock=lambda: NOON.replace(year=2037)).spend()
    limit = IdentifyLimit(store, clock=lambda: NOON)
    assert await limit.wait() == timedelta(0)
    await limit.spend()
    assert len(json.loads(store.facts["identified"])) == 1, "what lies in the future is forgotten"


@pytest.mark.parametrize("seconds", [1, 59])
async def test_a_clock_that_is_set_back_a_little_makes_nobody_wait_longer(seconds: int) -> None:
    store = KeyValueStore()
    for _ in range(20):
        await IdentifyLimit(store, clock=lambda: NOON).spend()
    limit = IdentifyLimit(store, clock=lambda: NOON - timedelta(seconds=seconds))
    assert await limit.wait() == timedelta(minutes=5), "they count, but the pause is no longer than a pause"


class Day:
    """A bot with many shards, its clock, and its count of IDENTIFYs."""

    def __init__(self, starts: SessionStarts) -> None:
        self.starts = starts
        self.now = NOON
        self.spent: list[datetime] = []
        self._store = KeyValueStore()

    def limit(self) -> IdentifyLimit:
        """That of a new process."""
        limit = IdentifyLimit(self._store, clock=lambda: self.now)
        limit.heed(self.starts)
        return limit

    async def starts_once(self) -> None:
        """Waits, and starts all shards."""
        limit = self.limit()
        self.now += await limit.wait()
        for _ in range(self.starts.shards):
            await limit.spend()
            self.spent.append(self.now)


@pytest.mark.parametrize("shards", [1, 2, 3, 16, 25, 60, 150])
async def test_four_starts_of_all_shards_need_not_wait(shards: int) -> None:
    day = Day(SessionStarts(shards=shards, total=1000 if shards < 150 else 2000))
    for _ in range(4 if shards < 60 else 1):
        await day.starts_once()
    assert day.now == NOON


@pytest.mark.parametrize(("shards", "total"), [(1, 1000), (25, 1000), (125, 1000)])
async def test_a_crash_loop_of_many_shards_uses_half_of_the_daily_limit_at_most(shards: int, total: int) -> None:
    day = Day(SessionStarts(shards=shards, total=total))
    while day.now < NOON + timedelta(hours=36):
        await day.starts_once()
        day.now += timedelta(seconds=20)
    worst = max(sum(at <= other < at + timedelta(days=1) for other in day.spent) for at in day.spent[::shards])
    assert worst <= total / 2 + shards, "a start is not stopped halfway"
    assert len(day.spent) > 2 * shards, "but it goes on"


async def test_one_shard_that_identifies_again_and_again_waits_while_a_start_may_not() -> None:
    day = Day(SessionStarts(shards=25))
    limit = day.limit()
    for _ in range(76):
        await limit.spend()
    assert await limit.wait() > timedelta(0), "25 more are too many"
    for _ in range(24):
        await limit.spend()
    with pytest.raises(IdentifyLimitReached):
        await limit.spend()


async def test_what_discord_has_counted_itself_is_respected() -> None:
    day = Day(SessionStarts(remaining=101, reset_after=timedelta(hours=7)))
    limit = day.limit()
    await limit.spend()
    with pytest.raises(IdentifyLimitReached) as refused:
        await limit.spend()
    assert refused.value.wait == timedelta(hours=7)
    day.now += timedelta(hours=7)
    await limit.spend()


@pytest.mark.parametrize(("concurrency", "expected"), [(1, [0, 5, 10, 15]), (2, [0, 0, 5, 5]), (16, [0, 0, 0, 0])])
def test_as_many_shards_identify_in_five_seconds_as_discord_lets(concurrency: int, expected: list[int]) -> None:
    at: list[float] = []

    async def identify(limit: IdentifyLimit, shard: int) -> None:
        async with limit.turn(shard):
            at.append(asyncio.get_running_loop().time())

    async def start() -> None:
        limit = Day(SessionStarts(shards=4, max_concurrency=concurrency)).limit()
        await asyncio.gather(*(identify(limit, shard) for shard in range(4)))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(start())
    assert at == pytest.approx(expected)
