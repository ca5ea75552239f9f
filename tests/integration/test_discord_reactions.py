"""Reactions and deletions on the wire, as a bot with and without the intents hears of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import discord
import pytest
from discord.ext import commands

from sandbox import discord_server
from tests.integration.test_discord_server import channel, point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REACTIONS = discord.Intents(guilds=True, guild_reactions=True)
Reacted = discord.RawReactionActionEvent


class Ear(commands.Cog):
    """A note of every event about messages."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[object] = asyncio.Queue()

    @commands.Cog.listener("on_raw_reaction_add")
    @commands.Cog.listener("on_raw_reaction_remove")
    @commands.Cog.listener("on_raw_reaction_clear")
    @commands.Cog.listener("on_raw_reaction_clear_emoji")
    @commands.Cog.listener("on_raw_message_delete")
    @commands.Cog.listener("on_interaction")
    async def note(self, event: object) -> None:
        self.events.put_nowait(event)


class Bot(commands.Bot):
    def __init__(self, intents: discord.Intents) -> None:
        super().__init__("!", intents=intents, guild_ready_timeout=0.05)
        self.ear = Ear()

    async def setup_hook(self) -> None:
        await self.add_cog(self.ear)

    async def hears(self) -> object:
        return await asyncio.wait_for(self.ear.events.get(), 10)

    async def reaction(self) -> Reacted:
        event = await self.hears()
        assert isinstance(event, Reacted)
        return event


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    monkeypatch.setattr(discord.VoiceClient, "warn_nacl", False)
    monkeypatch.setattr(discord.VoiceClient, "warn_dave", False)
    async with discord_server.serve() as served:
        point(monkeypatch, served)
        yield served


@asynccontextmanager
async def running(served: discord_server.DiscordServer, intents: discord.Intents) -> AsyncIterator[Bot]:
    bot = Bot(intents)
    task = asyncio.create_task(bot.start("any"))
    try:
        await served.ready()
        await bot.wait_until_ready()
        yield bot
    finally:
        await bot.close()
        await task


@pytest.fixture
async def bot(served: discord_server.DiscordServer) -> AsyncIterator[Bot]:
    async with running(served, REACTIONS) as bot:
        yield bot


async def posted(served: discord_server.DiscordServer, bot: Bot) -> discord_server.Message:
    return served.messages[(await channel(bot).send("Result")).id]


async def test_a_reaction_says_who_reacted_to_what(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot)
    await served.react(message, "🔁", user_id=80, roles=(5, 6))
    event = await bot.reaction()
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


async def test_bots_react_too(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot)
    await served.react(message, "party:4711", user_id=81, bot=True)
    event = await bot.reaction()
    assert event.member is not None
    assert event.member.bot
    assert (event.emoji.name, event.emoji.id) == ("party", 4711)


async def test_the_bots_own_reactions_are_told_once_and_taken_back(
    served: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await posted(served, bot)
    partial = channel(bot).get_partial_message(message.id)
    await partial.add_reaction("🔁")
    await partial.add_reaction("🔁")
    own = await bot.reaction()
    assert own.member is not None
    assert (own.user_id, own.member.bot) == (discord_server.APPLICATION_ID, True)
    await partial.remove_reaction("🔁", discord.Object(discord_server.APPLICATION_ID))
    gone = await bot.reaction()
    assert (gone.event_type, gone.user_id, gone.type) == ("REACTION_REMOVE", discord_server.APPLICATION_ID, own.type)
    assert message.reactions == {}


async def test_a_reaction_is_taken_back_once_and_made_as_often_as_wanted(
    served: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await posted(served, bot)
    for _ in range(2):
        await served.react(message, "🔁", user_id=80)
    for _ in range(2):
        await served.unreact(message, "🔁", user_id=80)
    await served.react(message, "❤️", user_id=80)
    told = [(event.event_type, str(event.emoji)) for event in [await bot.reaction() for _ in range(4)]]
    assert told == [("REACTION_ADD", "🔁"), ("REACTION_ADD", "🔁"), ("REACTION_REMOVE", "🔁"), ("REACTION_ADD", "❤️")]
    assert message.reactions == {"❤️": {80}}


async def test_a_reaction_to_what_a_person_wrote_names_its_author(
    served: discord_server.DiscordServer, bot: Bot
) -> None:
    await served.react(served.say("Look", user_id=9), "🔁", user_id=80)
    assert (await bot.reaction()).message_author_id == 9


async def test_others_reactions_are_the_moderators_to_remove(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot)
    partial = channel(bot).get_partial_message(message.id)
    await served.react(message, "🔁", user_id=80)
    await bot.hears()
    for attempt in (
        partial.remove_reaction("🔁", discord.Object(80)),
        partial.clear_reaction("🔁"),
        partial.clear_reactions(),
    ):
        with pytest.raises(discord.Forbidden) as refused:
            await attempt
        assert refused.value.code == 50013
    served.permissions[discord_server.APPLICATION_ID] = (
        discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
    )
    await partial.remove_reaction("🔁", discord.Object(80))
    assert (await bot.reaction()).user_id == 80
    await served.react(message, "🔁", user_id=80)
    await bot.hears()
    await partial.clear_reaction("🔁")
    assert isinstance(await bot.hears(), discord.RawReactionClearEmojiEvent)
    await partial.clear_reactions()
    assert isinstance(await bot.hears(), discord.RawReactionClearEvent)
    assert message.reactions == {}


async def test_a_bot_reacts_where_it_may_and_with_what_there_is(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot)
    partial = channel(bot).get_partial_message(message.id)
    with pytest.raises(discord.HTTPException) as refused:
        await partial.add_reaction("nonsense")
    assert refused.value.code == 10014
    for number in range(20):
        await served.react(message, f"e:{number}", user_id=80)
    with pytest.raises(discord.HTTPException) as refused:
        await partial.add_reaction("🔁")
    assert refused.value.code == 30010
    served.permissions[discord_server.APPLICATION_ID] = 0
    with pytest.raises(discord.Forbidden):
        await partial.add_reaction("🔁")
    served.fail("PUT", "/channels/*/reactions/*", code=90001)
    with pytest.raises(discord.Forbidden) as refused:
        await partial.add_reaction("🔁")
    assert refused.value.code == 90001


async def test_without_the_intents_nothing_is_told(served: discord_server.DiscordServer) -> None:
    async with running(served, discord.Intents(guilds=True, dm_reactions=True, dm_messages=True)) as bot:
        message = await posted(served, bot)
        await served.react(message, "🔁")
        await served.unreact(message, "🔁")
        await channel(bot).get_partial_message(message.id).add_reaction("🔁")
        await served.delete_message(message.id)
        await served.slash("marker")
        assert isinstance(await bot.hears(), discord.Interaction)


async def test_reactions_without_a_listener_are_kept(served: discord_server.DiscordServer) -> None:
    async with running(served, REACTIONS) as bot:
        message = await posted(served, bot)
    await served.gone()
    await served.react(message, "🔁", user_id=80)
    await served.delete_message(message.id)
    assert message.reactions == {"🔁": {80}}


async def test_direct_messages_have_intents_of_their_own(served: discord_server.DiscordServer) -> None:
    async with running(served, discord.Intents(dm_reactions=True, dm_messages=True)) as bot:
        direct = await (await bot.fetch_user(80)).create_dm()
        message = served.messages[(await direct.send("Result")).id]
        await served.react(message, "🔁", user_id=80)
        event = await bot.reaction()
        assert (event.guild_id, event.member, event.user_id) == (None, None, 80)
        with pytest.raises(discord.Forbidden) as refused:
            await direct.get_partial_message(message.id).remove_reaction("🔁", discord.Object(80))
        assert refused.value.code == 50003
        await served.delete_message(message.id)
        gone = await bot.hears()
        assert isinstance(gone, discord.RawMessageDeleteEvent)
        assert (gone.message_id, gone.guild_id) == (message.id, None)


async def test_deletions_are_told_to_those_who_read_messages(served: discord_server.DiscordServer) -> None:
    async with running(served, discord.Intents(guild_messages=True)) as bot:
        first, second = await posted(served, bot), await posted(served, bot)
        await served.delete_message(first.id)
        await channel(bot).get_partial_message(second.id).delete()
        asked = await served.slash("marker")
        told = [await bot.hears() for _ in range(3)]
        assert [getattr(event, "message_id", None) for event in told[:2]] == [first.id, second.id]
        heard = told[2]
        assert isinstance(heard, discord.Interaction)
        await heard.response.send_message("private", ephemeral=True)
        await heard.delete_original_response()
        await served.slash("marker")
        assert isinstance(await bot.hears(), discord.Interaction)
    assert asked.message is not None
    assert asked.message.deleted
