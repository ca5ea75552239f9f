from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from bot.discord_io.identify_limit import IdentifyLimit
from bot.domain.errors import IdentifyLimitReached
from tests.support.factories import NOON


class Memory:
    """Facts that outlive whoever asks."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    async def get_value(self, name: str) -> str | None:
        return self.facts.get(name)

    async def set_value(self, name: str, value: str) -> None:
        self.facts[name] = value


async def test_twenty_identifies_an_hour_are_free_and_then_five_minutes_lie_between_two() -> None:
    memory, now = Memory(), NOON
    for _ in range(20):
        await IdentifyLimit(memory, clock=lambda: NOON).spend()  # each by a process of its own
    with pytest.raises(IdentifyLimitReached) as refused:
        await IdentifyLimit(memory, clock=lambda: NOON).spend()
    assert refused.value.wait == timedelta(minutes=5)
    now = NOON + timedelta(minutes=5)
    await IdentifyLimit(memory, clock=lambda: now).spend()


async def test_no_crash_loop_can_spend_the_thousand_of_a_day() -> None:
    memory, now, spent = Memory(), NOON, 0

    def clock() -> datetime:
        return now

    while now < NOON + timedelta(days=1):
        identifies = IdentifyLimit(memory, clock=clock)
        wait = await identifies.wait()
        now += wait or timedelta(seconds=1)
        await identifies.spend()
        spent += 1
    assert spent < 600
