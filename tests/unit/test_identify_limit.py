from __future__ import annotations

import json
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
