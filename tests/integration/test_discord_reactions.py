"""Reaction and deletion events of the simulated Discord, for bots with and without the intents."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import discord
import pytest
from discord.ext import commands

from sandbox import discord_server
from tests.support.discord_clients import channel, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REACTIONS = discord.Intents(guilds=True, guild_reactions=True)
Reacted = discord.RawReactionActionEvent


class EventRecorder(commands.Cog):
    """Records every event about messages."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[object] = asyncio.Queue()

    @commands.Cog.listener("on_raw_reaction_add")
    @commands.Cog.listener("on_raw_reaction_remove")
    @commands.Cog.listener("on_raw_reaction_clear")
    @commands.Cog.listener("on_raw_reaction_clear_emoji")
    @commands.Cog.listener("on_raw_message_delete")
    @commands.Cog.listener("on_interaction")
    async def record(self, event: object) -> None:
        self.events.put_nowait(event)


class Bot(commands.Bot):
    def __init__(self, intents: discord.Intents) -> None:
        super().__init__("!", intents=intents, guild_ready_timeout=0.05)
        self.recorder = EventRecorder()

    async def setup_hook(self) -> None:
        await self.add_cog(self.recorder)

    async def next_event(self) -> object:
        return await asyncio.wait_for(self.recorder.events.get(), 10)

    async def next_reaction(self) -> Reacted:
        event = await self.next_event()
        assert isinstance(event, Reacted)
        return event


@pytest.fixture
async def bot(server: discord_server.DiscordServer) -> AsyncIterator[Bot]:
    async with running(server, Bot(REACTIONS)) as bot:
        yield bot


async def post_result(server: discord_server.DiscordServer, bot: Bot) -> discord_server.Message:
    return server.messages[(await channel(bot).send("Result")).id]


async def test_a_reaction_event_has_its_user_message_and_emoji(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot)
    await server.react(message, "🔁", user_id=80, roles=(5, 6))
    event = await bot.next_reaction()
    assert (event.event_type, event.user_id, str(event.emoji)) == ("REACTION_ADD", 80, "🔁")
    assert (event.guild_id, event.channel_id, event.message_id) == (
        discord_server.GUILD_ID,
        discord_server.CHANNEL_ID,
        message.id,
    )
    assert event.message_author_id == discord_server.APPLICATION_ID
    assert event.member is not None
    assert not event.member.bot
    assert list(event.member._roles) == [5, 6]
    fetched = await channel(bot).fetch_message(message.id)
    assert [(str(reaction.emoji), reaction.count, reaction.me) for reaction in fetched.reactions] == [("🔁", 1, False)]
    assert [user.id async for user in fetched.reactions[0].users()] == [80]


async def test_bots_can_react(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot)
    await server.react(message, "party:4711", user_id=81, bot=True)
    event = await bot.next_reaction()
    assert event.member is not None
    assert event.member.bot
    assert (event.emoji.name, event.emoji.id) == ("party", 4711)


async def test_the_bots_own_reaction_sends_one_event_and_can_be_removed(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot)
    partial = channel(bot).get_partial_message(message.id)
    await partial.add_reaction("🔁")
    await partial.add_reaction("🔁")
    own = await bot.next_reaction()
    assert own.member is not None
    assert (own.user_id, own.member.bot) == (discord_server.APPLICATION_ID, True)
    await partial.remove_reaction("🔁", discord.Object(discord_server.APPLICATION_ID))
    removed = await bot.next_reaction()
    assert (removed.event_type, removed.user_id, removed.type) == (
        "REACTION_REMOVE",
        discord_server.APPLICATION_ID,
        own.type,
    )
    assert message.reactions == {}


async def test_repeated_reactions_send_events_but_repeated_removals_do_not(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot)
    for _ in range(2):
        await server.react(message, "🔁", user_id=80)
    for _ in range(2):
        await server.unreact(message, "🔁", user_id=80)
    await server.react(message, "❤️", user_id=80)
    events = [(event.event_type, str(event.emoji)) for event in [await bot.next_reaction() for _ in range(4)]]
    assert events == [("REACTION_ADD", "🔁"), ("REACTION_ADD", "🔁"), ("REACTION_REMOVE", "🔁"), ("REACTION_ADD", "❤️")]
    assert message.reactions == {"❤️": {80}}


async def test_a_reaction_to_a_users_message_names_its_author(server: discord_server.DiscordServer, bot: Bot) -> None:
    await server.react(server.say("Look", user_id=9), "🔁", user_id=80)
    assert (await bot.next_reaction()).message_author_id == 9


async def test_removing_other_users_reactions_requires_manage_messages(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot)
    partial = channel(bot).get_partial_message(message.id)
    await server.react(message, "🔁", user_id=80)
    await bot.next_event()
    for attempt in (
        partial.remove_reaction("🔁", discord.Object(80)),
        partial.clear_reaction("🔁"),
        partial.clear_reactions(),
    ):
        with pytest.raises(discord.Forbidden) as refused:
            await attempt
        assert refused.value.code == 50013
    server.permissions[discord_server.APPLICATION_ID] = (
        discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
    )
    await partial.remove_reaction("🔁", discord.Object(80))
    assert (await bot.next_reaction()).user_id == 80
    await server.react(message, "🔁", user_id=80)
    await bot.next_event()
    await partial.clear_reaction("🔁")
    assert isinstance(await bot.next_event(), discord.RawReactionClearEmojiEvent)
    await partial.clear_reactions()
    assert isinstance(await bot.next_event(), discord.RawReactionClearEvent)
    assert message.reactions == {}


async def test_a_bot_needs_permission_and_a_valid_emoji_to_react(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot)
    partial = channel(bot).get_partial_message(message.id)
    with pytest.raises(discord.HTTPException) as refused:
        await partial.add_reaction("nonsense")
    assert refused.value.code == 10014
    for number in range(20):
        await server.react(message, f"e:{number}", user_id=80)
    with pytest.raises(discord.HTTPException) as refused:
        await partial.add_reaction("🔁")
    assert refused.value.code == 30010
    server.permissions[discord_server.APPLICATION_ID] = 0
    with pytest.raises(discord.Forbidden):
        await partial.add_reaction("🔁")
    server.fail("PUT", "/channels/*/reactions/*", code=90001)
    with pytest.raises(discord.Forbidden) as refused:
        await partial.add_reaction("🔁")
    assert refused.value.code == 90001


async def test_no_events_are_sent_without_the_intents(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot(discord.Intents(guilds=True, dm_reactions=True, dm_messages=True))) as bot:
        message = await post_result(server, bot)
        await server.react(message, "🔁")
        await server.unreact(message, "🔁")
        await channel(bot).get_partial_message(message.id).add_reaction("🔁")
        await server.delete_message(message.id)
        await server.slash("marker")
        assert isinstance(await bot.next_event(), discord.Interaction)


async def test_reactions_are_kept_while_no_bot_is_connected(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot(REACTIONS)) as bot:
        message = await post_result(server, bot)
    await server.gone()
    await server.react(message, "🔁", user_id=80)
    await server.delete_message(message.id)
    assert message.reactions == {"🔁": {80}}


async def test_direct_messages_have_their_own_intents(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot(discord.Intents(dm_reactions=True, dm_messages=True))) as bot:
        direct = await (await bot.fetch_user(80)).create_dm()
        message = server.messages[(await direct.send("Result")).id]
        await server.react(message, "🔁", user_id=80)
        event = await bot.next_reaction()
        assert (event.guild_id, event.member, event.user_id) == (None, None, 80)
        with pytest.raises(discord.Forbidden) as refused:
            await direct.get_partial_message(message.id).remove_reaction("🔁", discord.Object(80))
        assert refused.value.code == 50003
        await server.delete_message(message.id)
        deleted = await bot.next_event()
        assert isinstance(deleted, discord.RawMessageDeleteEvent)
        assert (deleted.message_id, deleted.guild_id) == (message.id, None)


async def test_deletion_events_are_sent_with_the_message_intent(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot(discord.Intents(guild_messages=True))) as bot:
        first, second = await post_result(server, bot), await post_result(server, bot)
        await server.delete_message(first.id)
        await channel(bot).get_partial_message(second.id).delete()
        interaction = await server.slash("marker")
        events = [await bot.next_event() for _ in range(3)]
        assert [getattr(event, "message_id", None) for event in events[:2]] == [first.id, second.id]
        received = events[2]
        assert isinstance(received, discord.Interaction)
        await received.response.send_message("private", ephemeral=True)
        await received.delete_original_response()
        await server.slash("marker")
        assert isinstance(await bot.next_event(), discord.Interaction)
    assert interaction.message is not None
    assert interaction.message.deleted
