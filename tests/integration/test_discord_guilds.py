"""The simulated Discord's roles, members, overwrites and closed DMs, as an unmodified discord.py sees them."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING, Any

import discord
import pytest

from sandbox import discord_server
from tests.support.discord_clients import channel, running, simulated_discord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROLE, THREAD = 55, 66


def client() -> discord.Client:
    return discord.Client(intents=discord.Intents(guilds=True, guild_reactions=True), guild_ready_timeout=0.05)


@pytest.fixture
async def bot(server: discord_server.DiscordServer) -> AsyncIterator[discord.Client]:
    async with running(server, client()) as bot:
        yield bot


async def test_a_guild_shows_its_owner_and_the_permissions_of_its_roles(
    server: discord_server.DiscordServer, bot: discord.Client
) -> None:
    server.guilds.owner = 7
    server.guilds.everyone = 1 << 10
    server.guilds.roles[ROLE] = discord_server.MANAGE_MESSAGES
    guild = await bot.fetch_guild(discord_server.GUILD_ID)
    assert guild.owner_id == 7
    held = {role.id: role.permissions.value for role in guild.roles}
    assert held == {discord_server.GUILD_ID: 1 << 10, ROLE: discord_server.MANAGE_MESSAGES}
    assert "channels" not in await bot.http.get_guild(discord_server.GUILD_ID)


async def test_a_member_has_roles_and_can_be_a_bot_or_have_left(
    server: discord_server.DiscordServer, bot: discord.Client
) -> None:
    server.guilds.roles[ROLE] = 0
    server.guilds.members[80] = (ROLE,)
    server.guilds.bots.add(81)
    server.guilds.departed.add(82)
    guild = await bot.fetch_guild(discord_server.GUILD_ID)
    one, another = await guild.fetch_member(80), await guild.fetch_member(81)
    assert ([role.id for role in one.roles], one.bot) == ([discord_server.GUILD_ID, ROLE], False)
    assert another.bot
    with pytest.raises(discord.NotFound) as unknown:
        await guild.fetch_member(82)
    assert unknown.value.code == 10007


async def test_a_channel_shows_its_overwrites_and_a_thread_shows_its_parent(
    server: discord_server.DiscordServer, bot: discord.Client
) -> None:
    server.guilds.overwrite(discord_server.CHANNEL_ID, discord_server.GUILD_ID, deny=discord_server.MANAGE_MESSAGES)
    server.guilds.overwrite(discord_server.CHANNEL_ID, 80, allow=discord_server.MANAGE_MESSAGES, of_member=True)
    server.guilds.threads[THREAD] = discord_server.CHANNEL_ID
    shown: Any = await bot.http.get_channel(discord_server.CHANNEL_ID)
    assert shown["permission_overwrites"] == [
        {"id": str(discord_server.GUILD_ID), "type": 0, "allow": "0", "deny": str(discord_server.MANAGE_MESSAGES)},
        {"id": "80", "type": 1, "allow": str(discord_server.MANAGE_MESSAGES), "deny": "0"},
    ]
    thread: Any = await bot.http.get_channel(THREAD)
    assert (thread["type"], thread["parent_id"]) == (11, str(discord_server.CHANNEL_ID))
    assert "permission_overwrites" not in thread


async def test_reaction_events_include_roles_and_bot_status(
    server: discord_server.DiscordServer, bot: discord.Client
) -> None:
    server.guilds.members[80] = (ROLE,)
    server.guilds.bots.add(81)
    received: asyncio.Queue[discord.RawReactionActionEvent] = asyncio.Queue()

    @bot.event
    async def on_raw_reaction_add(event: discord.RawReactionActionEvent) -> None:
        received.put_nowait(event)

    message = server.messages[(await channel(bot).send("Result")).id]
    for user_id in (80, 81):
        await server.react(message, "🔁", user_id=user_id)
    one, another = [(await asyncio.wait_for(received.get(), 10)).member for _ in range(2)]
    assert one is not None
    assert another is not None
    assert (list(one._roles), one.bot, another.bot) == ([ROLE], False, True)


async def test_a_user_with_closed_direct_messages_receives_none(
    server: discord_server.DiscordServer, bot: discord.Client
) -> None:
    server.guilds.dms_closed.add(80)
    closed, opened = await bot.create_dm(discord.Object(80)), await bot.create_dm(discord.Object(81))
    with pytest.raises(discord.Forbidden) as refused:
        await closed.send("Hello")
    assert refused.value.code == 50007
    await opened.send("Hello")
    server.guilds.dms_closed.clear()
    await closed.send("Hello again")
    assert [message.content for message in server.direct(80)] == ["Hello again"]
    assert [message.content for message in server.direct(81)] == ["Hello"]


async def test_a_higher_file_limit_of_a_server_does_not_apply_to_direct_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = bytes(11 * discord_server.MIB)
    async with (
        simulated_discord(monkeypatch, file_limit=25 * discord_server.MIB) as server,
        running(server, client()) as bot,
    ):
        await channel(bot).send(file=discord.File(BytesIO(large), "large.bin"))
        direct = await bot.create_dm(discord.Object(80))
        with pytest.raises(discord.HTTPException) as refused:
            await direct.send(file=discord.File(BytesIO(large), "large.bin"))
        assert refused.value.code == 40005
