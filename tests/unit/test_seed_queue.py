"""The reaction under a result comes late after a busy minute, but it comes, and the newest result gets it first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.discord_io import seed_queue
from bot.discord_io.seed_queue import SeedQueue
from tests.support.factories import NOON
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime

CHANNEL = 8


def on_virtual_time(work: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


def now() -> datetime:
    return NOON + timedelta(seconds=asyncio.get_running_loop().time())


class Channel:
    """Takes four reactions a second, and none while it is unreachable."""

    def __init__(self) -> None:
        self.seeded: list[int] = []
        self.unreachable = False
        self.busy = self.most_busy = 0

    async def add(self, _: int, message_id: int) -> bool:
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        await asyncio.sleep(0.25)
        self.busy -= 1
        if not self.unreachable:
            self.seeded.append(message_id)
        return not self.unreachable


def test_after_a_burst_every_result_gets_its_reaction_the_newest_first() -> None:
    async def scenario() -> None:
        channel = Channel()
        queue = SeedQueue(channel.add, clock=now)
        for message_id in range(405):
            queue.put(CHANNEL, message_id)
        await asyncio.sleep(405 * 0.25 + 1)
        assert channel.seeded == [*range(404, -1, -1)]

    on_virtual_time(scenario)


def test_a_reaction_waits_for_the_connection_and_is_dropped_only_when_nobody_looks_for_it_any_more() -> None:
    async def scenario() -> None:
        channel = Channel()
        queue = SeedQueue(channel.add, clock=now)
        channel.unreachable = True
        queue.put(CHANNEL, 1)
        await asyncio.sleep(seed_queue.LIFE.total_seconds() - 60)
        queue.put(CHANNEL, 2)
        await asyncio.sleep(70)
        channel.unreachable = False
        await asyncio.sleep(10)
        assert channel.seeded == [2]
        queue.put(CHANNEL, 3)
        await asyncio.sleep(1)
        assert channel.seeded == [2, 3]

    on_virtual_time(scenario)


def test_many_channels_share_a_few_requests_and_one_channel_a_bounded_list() -> None:
    async def scenario() -> None:
        channel = Channel()
        queue = SeedQueue(channel.add, clock=now)
        for channel_id in range(100):
            queue.put(channel_id, channel_id)
        await asyncio.sleep(100 * 0.25)
        assert sorted(channel.seeded) == [*range(100)]
        assert channel.most_busy == 8
        for message_id in range(seed_queue.CAP + 10):
            queue.put(CHANNEL, message_id)
        await asyncio.sleep(seed_queue.LIFE.total_seconds() * 2)
        assert 5 not in channel.seeded[100:]
        await queue.close()

    on_virtual_time(scenario)


def test_closing_gives_up_what_waits() -> None:
    async def scenario() -> None:
        channel = Channel()
        queue = SeedQueue(channel.add, clock=now)
        for message_id in range(10):
            queue.put(CHANNEL, message_id)
        await asyncio.sleep(0.3)
        await queue.close()
        await asyncio.sleep(10)
        assert len(channel.seeded) == 1

    on_virtual_time(scenario)
