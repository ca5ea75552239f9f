"""Roles, members, overwrites and closed doors on the wire, as an unmodified discord.py sees them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import discord
import pytest

from sandbox import discord_server
from tests.integration.test_discord_server import point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROLE, THREAD = 55, 66
MEBIBYTE = 1024 * 1024


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    monkeypatch.setattr(discord.VoiceClient, "warn_nacl", False)
    monkeypatch.setattr(discord.VoiceClient, "warn_dave", False)
    async with discord_server.serve(file_limit=25 * MEBIBYTE) as served:
        point(monkeypatch, served)
        yield served


@asynccontextmanager
async def running(served: discord_server.DiscordServer) -> AsyncIterator[discord.Client]:
    bot = discord.Client(intents=discord.Intents(guilds=True, guild_reactions=True), guild_ready_timeout=0.05)
    task = asyncio.create_task(bot.start("any"))
    try:
        await served.ready()
        await bot.wait_until_ready()
        yield bot
    finally:
        await bot.close()
        await task


@pytest.fixture
async def bot(served: discord_server.DiscordServer) -> AsyncIterator[discord.Client]:
    async with running(served) as bot:
        yield bot


async def test_a_guild_shows_its_owner_and_what_its_roles_may_do(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    served.society.owner = 7
    served.society.everyone = 1 << 10
    served.society.roles[ROLE] = discord_server.MANAGE_MESSAGES
    guild = await bot.fetch_guild(discord_server.GUILD_ID)
    assert guild.owner_id == 7
    held = {role.id: role.permissions.value for role in guild.roles}
    assert held == {discord_server.GUILD_ID: 1 << 10, ROLE: discord_server.MANAGE_MESSAGES}
    assert "channels" not in await bot.http.get_guild(discord_server.GUILD_ID)


async def test_a_member_has_roles_and_may_be_a_bot_or_gone(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    served.society.roles[ROLE] = 0
    served.society.members[80] = (ROLE,)
    served.society.bots.add(81)
    served.society.gone.add(82)
    guild = await bot.fetch_guild(discord_server.GUILD_ID)
    one, another = await guild.fetch_member(80), await guild.fetch_member(81)
    assert ([role.id for role in one.roles], one.bot) == ([discord_server.GUILD_ID, ROLE], False)
    assert another.bot
    with pytest.raises(discord.NotFound) as unknown:
        await guild.fetch_member(82)
    assert unknown.value.code == 10007


async def test_a_channel_shows_its_overwrites_and_a_thread_its_parent(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    served.society.overwrite(discord_server.CHANNEL_ID, discord_server.GUILD_ID, deny=discord_server.MANAGE_MESSAGES)
    served.society.overwrite(discord_server.CHANNEL_ID, 80, allow=discord_server.MANAGE_MESSAGES, of_member=True)
    served.society.threads[THREAD] = discord_server.CHANNEL_ID
    shown: Any = await bot.http.get_channel(discord_server.CHANNEL_ID)
    assert shown["permission_overwrites"] == [
        {"id": str(discord_server.GUILD_ID), "type": 0, "allow": "0", "deny": str(discord_server.MANAGE_MESSAGES)},
        {"id": "80", "type": 1, "allow": str(discord_server.MANAGE_MESSAGES), "deny": "0"},
    ]
    thread: Any = await bot.http.get_channel(THREAD)
    assert (thread["type"], thread["parent_id"]) == (11, str(discord_server.CHANNEL_ID))
    assert "permission_overwrites" not in thread


async def test_roles_and_bots_go_along_with_reactions_and_commands(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    served.society.members[80] = (ROLE,)
    served.society.bots.add(81)
    heard: asyncio.Queue[discord.RawReactionActionEvent] = asyncio.Queue()

    @bot.event
    async def on_raw_reaction_add(event: discord.RawReactionActionEvent) -> None:
        heard.put_nowait(event)

    message = served.messages[(await bot.get_partial_messageable(discord_server.CHANNEL_ID).send("Result")).id]
    for user_id in (80, 81):
        await served.react(message, "🔁", user_id=user_id)
    one, another = [(await asyncio.wait_for(heard.get(), 10)).member for _ in range(2)]
    assert one is not None
    assert another is not None
    assert (list(one._roles), one.bot, another.bot) == ([ROLE], False, True)


async def test_who_has_closed_their_direct_messages_gets_none(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    served.society.closed.add(80)
    closed, open_ = await bot.create_dm(discord.Object(80)), await bot.create_dm(discord.Object(81))
    with pytest.raises(discord.Forbidden) as refused:
        await closed.send("Hello")
    assert refused.value.code == 50007
    await open_.send("Hello")
    served.society.closed.clear()
    await closed.send("Hello again")
    assert [message.content for message in served.direct(80)] == ["Hello again"]
    assert [message.content for message in served.direct(81)] == ["Hello"]


async def test_a_server_may_have_raised_the_size_of_files_but_direct_messages_have_not(
    served: discord_server.DiscordServer, bot: discord.Client
) -> None:
    large = bytes(11 * MEBIBYTE)
    await bot.get_partial_messageable(discord_server.CHANNEL_ID).send(file=discord.File(BytesIO(large), "large.bin"))
    direct = await bot.create_dm(discord.Object(80))
    with pytest.raises(discord.HTTPException) as refused:
        await direct.send(file=discord.File(BytesIO(large), "large.bin"))
    assert refused.value.code == 40005
