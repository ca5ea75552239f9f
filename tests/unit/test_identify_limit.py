from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from bot.discord_io.identify_limit import IdentifyLimit
from bot.domain.errors import IdentifyLimitReached
from tests.support.factories import NOON


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
