"""A bot in many servers: several connections to a simulated Discord, each for a part of the servers."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.discord_io.identify_limit import INTERVAL, IdentifyLimit
from bot.domain.errors import IdentifyLimitReached
from bot.domain.health import Connection
from sandbox import discord_server
from tests.support.discord_clients import becomes
from tests.support.e2e import PHOTO, Live, sharded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SHARDS = 3


def server_of(shard: int) -> int:
    """The id of a server that falls to this one of three shards."""
    number = (discord_server.GUILD_ID >> 22) // SHARDS * SHARDS + shard
    return (number << 22) + 2


async def made(live: Live, shard: int) -> discord_server.Message:
    """An image, by a command in a server of this shard."""
    where = {"guild_id": server_of(shard), "channel_id": 500 + shard}
    interaction = await live.discord.slash("thumbnail", options={"image": PHOTO}, user_id=shard + 1, **where)  # type: ignore[arg-type]
    await interaction.wait(lambda it: it.message is not None and bool(it.message.attachments), 20)
    assert interaction.message is not None
    return interaction.message


async def connected(live: Live, shards: set[int] = frozenset(range(SHARDS))) -> None:  # type: ignore[assignment]
    await live.discord.wait(lambda simulated: simulated.shards == shards)


def lines(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [message for message in caplog.messages if words in message]


async def test_members_of_every_server_get_their_images_and_may_react_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    joined = [server_of(shard) for shard in range(SHARDS)]
    async with sharded(
        tmp_path, monkeypatch, shards=SHARDS, prepare=lambda simulated: simulated.guilds.joined.update(joined)
    ) as live:
        await connected(live)
        for shard in range(SHARDS):
            message = await made(live, shard)
            before = len(live.api.calls)
            await live.discord.react(message, "🔁", user_id=shard + 1)
            await live.api.called(before + 1)
        assert (live.discord.identified, live.discord.resumes) == ([0, 1, 2], 0)
        await becomes(live.app.client, Connection.CONNECTED)
        assert live.app.client.is_ready()
    assert len(lines(caplog, "in 4 servers, by 3 connections; to invite the bot")) == 1
    assert len(lines(caplog, "Discord recommends 3 connections")) == 1
    assert live.discord.goodbyes[-SHARDS:] == [1000] * SHARDS


async def test_a_first_connection_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=SHARDS, prepare=lambda simulated: simulated.cut_gateway()) as live:
        await live.discord.wait(lambda simulated: simulated.refused_connections >= SHARDS)
        assert live.discord.identified == []
        live.discord.mend_gateway()
        await connected(live)
        await made(live, 2)
        assert live.discord.identifies == SHARDS


async def test_a_connection_that_may_not_identify_after_all_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend, refused = IdentifyLimit.spend, 0

    async def refuse_first(limit: IdentifyLimit) -> None:
        nonlocal refused
        if refused < SHARDS:
            refused += 1
            raise IdentifyLimitReached(timedelta(0))
        await spend(limit)

    monkeypatch.setattr(IdentifyLimit, "spend", refuse_first)
    async with sharded(tmp_path, monkeypatch, shards=SHARDS) as live:
        await connected(live)
        assert live.discord.goodbyes == [1000] * SHARDS


async def test_a_shard_that_cannot_connect_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(
        tmp_path, monkeypatch, shards=SHARDS, prepare=lambda simulated: simulated.refused_shards.add(1)
    ) as live:
        await connected(live, {0, 2})
        await made(live, 0)
        await made(live, 2)
        assert not live.app.client.is_ready()
        assert "1 of 3 connections" in ((await live.app.ready())["gateway"] or "")
        live.discord.refused_shards.clear()
        await connected(live)
        await made(live, 1)


async def test_lost_connections_resume_their_sessions_even_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=SHARDS) as live:
        await connected(live)
        await becomes(live.app.client, Connection.CONNECTED)
        live.discord.cut_gateway()
        await live.discord.wait(lambda simulated: simulated.refused_connections >= SHARDS)
        live.discord.mend_gateway()
        await connected(live)
        assert (live.discord.identifies, live.discord.resumes) == (SHARDS, SHARDS)
        await made(live, 1)


async def test_a_shard_whose_session_is_gone_identifies_and_the_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=SHARDS) as live:
        await connected(live)
        await becomes(live.app.client, Connection.CONNECTED)
        live.discord.forget_sessions()
        await live.discord.drop_gateway(1)
        await live.discord.wait(lambda simulated: len(simulated.identified) == SHARDS + 1, 15)
        await connected(live)
        assert live.discord.identified[SHARDS:] == [1]
        await made(live, 1)


async def test_a_bot_that_has_grown_is_refused_and_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grown(simulated: discord_server.DiscordServer) -> None:
        simulated.session_starts.required = 2

    async with sharded(tmp_path, monkeypatch, shards=1, prepare=grown) as live:
        await live.discord.wait(lambda simulated: simulated.identified == [0])
        live.discord.session_starts.shards = SHARDS
        await connected(live)
        await made(live, 2)


async def test_a_bot_with_shards_that_has_grown_gets_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=2) as live:
        await connected(live, {0, 1})
        starts = live.discord.session_starts
        starts.shards = starts.required = SHARDS
        live.discord.forget_sessions()
        await live.discord.drop_gateway(0)
        await connected(live)
        await made(live, 2)


async def test_without_an_answer_about_shards_there_is_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sharded(
        tmp_path,
        monkeypatch,
        shards=SHARDS,
        prepare=lambda simulated: simulated.fail("GET", "/gateway/bot", status=503),
    ) as live:
        await live.discord.ready()
        assert live.discord.shards == {0}
        await made(live, 0)
    assert lines(caplog, "Discord did not say how many connections it recommends (GatewayNotFound); opening one")


async def test_an_answer_about_shards_that_makes_no_sense_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def senseless(simulated: discord_server.DiscordServer) -> None:
        simulated.session_starts.max_concurrency = None  # type: ignore[assignment]

    async with sharded(tmp_path, monkeypatch, shards=SHARDS, prepare=senseless) as live:
        await live.discord.ready()
        assert live.discord.shards == {0}
    assert lines(caplog, "Discord did not say how many connections it recommends (TypeError); opening one")


async def test_without_a_new_answer_about_shards_the_last_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=2) as live:
        await connected(live, {0, 1})
        live.discord.fail("GET", "/gateway/bot", status=404)
        live.discord.session_starts.required = SHARDS  # so the bot's client ends
        live.discord.forget_sessions()
        await live.discord.drop_gateway(0)
        await live.discord.wait(lambda _: bool(lines(caplog, "(GatewayNotFound); opening 2")), 20)


async def test_the_connections_to_the_gateway_take_no_place_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.discord_io.client._CONNECTIONS", 1)
    async with sharded(tmp_path, monkeypatch, shards=SHARDS) as live:
        await connected(live)
        await made(live, 0)


async def test_a_stop_while_the_shards_start_is_prompt_and_says_goodbye(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=SHARDS, interval=INTERVAL) as live:
        await connected(live, {0})
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert live.discord.identified == [0]
    assert live.discord.goodbyes[-1:] == [1000]


async def test_a_bot_that_would_come_near_the_daily_limit_does_not_identify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nearly_used(simulated: discord_server.DiscordServer) -> None:
        simulated.session_starts.remaining = 102

    async with sharded(tmp_path, monkeypatch, shards=SHARDS, prepare=nearly_used) as live:
        async with asyncio.timeout(10):
            while not lines(caplog, "too many new connections to Discord; the next in"):  # noqa: ASYNC110 - only the log
                await asyncio.sleep(0.01)
        assert live.discord.identified == []
