"""Whether Discord is connected now: real discord.py clients and a simulated Discord whose connection is cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import discord

from bot.discord_io import gateway_state
from bot.domain.health import Connection
from sandbox import discord_server, pikzels_server
from tests.integration.test_alerts import Webhook, webhook
from tests.support.discord_clients import becomes, simulated_discord
from tests.support.discord_clients import running as client_running
from tests.support.e2e import KEY, png, running, sharded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["webhook"]  # a fixture

HEARTBEAT = 0.2  # seconds


async def test_it_is_connected_from_the_first_acknowledged_heartbeat_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = discord.Client(intents=discord.Intents.none(), guild_ready_timeout=0)
    state = gateway_state.read(client)
    assert state.connection is Connection.NO_SESSION
    assert math.isnan(state.latency)
    async with simulated_discord(monkeypatch, heartbeat=HEARTBEAT) as server:
        async with client_running(server, client):
            await becomes(client, Connection.CONNECTED)
            assert 0 <= gateway_state.read(client).latency < 5
        assert gateway_state.read(client).connection is Connection.NO_SESSION


async def test_a_connection_on_which_packets_vanish_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    client = discord.Client(intents=discord.Intents.none(), guild_ready_timeout=0)
    async with simulated_discord(monkeypatch, heartbeat=HEARTBEAT) as server, client_running(server, client):
        await becomes(client, Connection.CONNECTED)
        server.freeze_gateway()
        await becomes(client, Connection.SILENT)
        assert client.is_ready()
        assert not client.is_closed()
        server.thaw_gateway()
        await becomes(client, Connection.CONNECTED)


async def test_with_several_shards_all_of_them_must_be_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path, monkeypatch, shards=2) as live:
        await live.discord.wait(lambda simulated: simulated.shards == {0, 1})
        client = live.app.client
        await becomes(client, Connection.CONNECTED)
        live.discord.freeze_gateway()
        await live.discord.drop_gateway(1)
        await becomes(client, Connection.CLOSED)
        state = gateway_state.read(client)
        assert (state.away, state.shards) == (1, (Connection.CONNECTED, Connection.CLOSED))
        assert (await live.app.ready())["gateway"] == (
            "1 of 2 connections to Discord: the connection to Discord is closed"
        )


async def test_a_cut_connection_is_alerted_after_two_minutes_and_so_is_its_return(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    webhook: Webhook,
) -> None:
    seconds = [0.0]
    async with (
        discord_server.serve(heartbeat=HEARTBEAT) as simulated,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
        running(
            tmp_path,
            monkeypatch,
            around=(simulated, api),
            seconds=lambda: seconds[0],
            alerts={"webhook": webhook.url},
        ) as live,
    ):
        await becomes(live.app.client, Connection.CONNECTED)
        simulated.freeze_gateway()
        await becomes(live.app.client, Connection.SILENT)
        live.app.gateway_watch.look()
        assert webhook.received == []
        seconds[0] += 121
        [alert] = await webhook.wait(1)
        assert "(Discord does not acknowledge heartbeats): nobody can use the bot" in alert
        simulated.thaw_gateway()
        assert await webhook.wait(2) == [alert, "Discord is connected again, after 2 min 1 s"]
