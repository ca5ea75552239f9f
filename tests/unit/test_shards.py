"""How long a shard pauses between its tries; the time is virtual."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
from discord.gateway import DiscordWebSocket

from bot.discord_io.shards import Shard, pause_after
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import discord

    from bot.discord_io.identify_limit import IdentifyLimit


class SlowTurns:
    """Each turn comes after some minutes, and then there is no network."""

    @asynccontextmanager
    async def turn(self, _: int) -> AsyncIterator[None]:
        await asyncio.sleep(120)
        yield

    async def until_free(self) -> None:
        raise OSError


def test_the_pauses_grow_however_long_the_shard_waited_for_its_turn() -> None:
    tries: list[int] = []

    def pause(count: int) -> float:
        tries.append(count)
        if len(tries) == 4:
            raise asyncio.CancelledError
        return 1.0

    async def keep() -> None:
        client = cast("discord.Client", None)
        await Shard(client, 0, cast("IdentifyLimit", SlowTurns()), pause=pause).keep()

    with asyncio.Runner(loop_factory=Loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(keep())
    assert tries == [1, 2, 3, 4]


def test_a_pause_is_a_second_at_least_and_five_minutes_at_most() -> None:
    assert all(1 <= pause_after(1) <= 2 for _ in range(100))
    assert all(150 <= pause_after(50) <= 300 for _ in range(100))


class OpenTurns:
    """It is always the turn of every shard."""

    @asynccontextmanager
    async def turn(self, _: int) -> AsyncIterator[None]:
        yield

    async def until_free(self) -> None:
        """It is free."""


async def test_a_stop_in_the_moment_of_the_connection_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connected:
        session_id = None
        open = False

        async def poll_event(self) -> None:
            await asyncio.Event().wait()

    async def from_client(*_: object, **__: object) -> Connected:
        asyncio.get_running_loop().call_soon(keeping.cancel)
        return Connected()

    monkeypatch.setattr(DiscordWebSocket, "from_client", from_client)
    shard = Shard(cast("discord.Client", None), 0, cast("IdentifyLimit", OpenTurns()))
    keeping = asyncio.create_task(shard.keep())
    ended, _ = await asyncio.wait([keeping], timeout=5)
    assert ended == {keeping}
    assert keeping.cancelled()
