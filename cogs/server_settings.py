"""The part of /thumbnail-admin that sets what results look like, what is known by name, and where results may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.domain.server_rules import PresetKind
from bot.jobs.administration import PRESET_NAME_LENGTH  # noqa: TC001 - discord.py evaluates the annotations
from bot.text import admin, settings
from cogs import interactions, responses
from cogs.settings import offered
from cogs.thumbnail import matching

if TYPE_CHECKING:
    from bot.discord_io.client import Client, Services

    Choices = list[app_commands.Choice[str]]

_MODELS, _FORMATS, _PRIVACY = offered(settings.AS_THE_OPERATOR)
_KINDS = [app_commands.Choice(name=kind.value, value=kind.value) for kind in PresetKind]


class Channel(app_commands.Transformer):
    """A channel that messages can be posted in. Threads count as their channel, so none can be chosen."""

    @property
    def type(self) -> discord.AppCommandOptionType:
        return discord.AppCommandOptionType.channel

    @property
    def channel_types(self) -> list[discord.ChannelType]:
        return [
            discord.ChannelType.text,
            discord.ChannelType.news,
            discord.ChannelType.voice,
            discord.ChannelType.stage_voice,
            discord.ChannelType.forum,
            discord.ChannelType.media,
        ]

    async def transform(self, _interaction: discord.Interaction[Any], value: Any, /) -> app_commands.AppCommandChannel:
        found: app_commands.AppCommandChannel = value
        return found


class LogChannel(Channel):
    """A channel for the lines of the log."""

    @property
    def channel_types(self) -> list[discord.ChannelType]:
        return [discord.ChannelType.text, discord.ChannelType.news]


def add_to(group: app_commands.Group, services: Services) -> None:
    group.add_command(presets(services))
    group.add_command(channels(services))
    add_log(group, services)
    add_defaults(group, services)


def presets(services: Services) -> app_commands.Group:
    group = app_commands.Group(name="preset", description="Names for personas and styles in this server")
    administration = services.administration

    @group.command(name="add", description="Give a name to the id of a persona or a style")
    @app_commands.describe(kind="What it is", name="The name that members choose", id="The id at Pikzels")
    @app_commands.choices(kind=_KINDS)
    async def add(
        interaction: discord.Interaction[Client],
        kind: str,
        name: app_commands.Range[str, 1, PRESET_NAME_LENGTH],
        id: str,  # noqa: A002 - the name of the option
    ) -> None:
        change = interactions.change(interaction)
        with services.recovery.waited_for():
            rules = await administration.add_preset(change, PresetKind(kind), name, id)
        await _show(interaction, admin.presets(rules, locale=interactions.locale(interaction)))

    @group.command(name="remove", description="Remove a name")
    @app_commands.describe(kind="What it is", name="The name to remove")
    @app_commands.choices(kind=_KINDS)
    async def remove(interaction: discord.Interaction[Client], kind: str, name: str) -> None:
        change = interactions.change(interaction)
        with services.recovery.waited_for():
            rules = await administration.remove_preset(change, PresetKind(kind), name)
        await _show(interaction, admin.presets(rules, locale=interactions.locale(interaction)))

    @remove.autocomplete("name")
    async def names(interaction: discord.Interaction[Client], typed: str) -> Choices:
        known = (await administration.rules(interaction.guild_id or 0)).presets
        kind = getattr(interaction.namespace, "kind", None)
        return matching([name for one, named in known.items() if kind in (None, one) for name in named], typed)

    @group.command(name="list", description="Show the names of this server")
    async def show(interaction: discord.Interaction[Client]) -> None:
        rules = await administration.rules(interactions.check_admin(interaction))
        await _show(interaction, admin.presets(rules, locale=interactions.locale(interaction)))

    return group


def channels(services: Services) -> app_commands.Group:
    group = app_commands.Group(name="channel", description="Where public results may go")
    administration = services.administration

    @group.command(name="add", description="Allow public results in a channel and its threads")
    @app_commands.describe(channel="The first one limits results to the channels in the list")
    async def add(
        interaction: discord.Interaction[Client],
        channel: app_commands.Transform[app_commands.AppCommandChannel, Channel],
    ) -> None:
        change = interactions.change(interaction)
        with services.recovery.waited_for():
            rules = await administration.add_channel(change, channel.id)
        await _show(interaction, admin.channels(rules, locale=interactions.locale(interaction)))

    @group.command(name="remove", description="Take a channel off the list; an empty list allows every channel")
    @app_commands.describe(channel="The channel to take off")
    async def remove(
        interaction: discord.Interaction[Client],
        channel: app_commands.Transform[app_commands.AppCommandChannel, Channel],
    ) -> None:
        change = interactions.change(interaction)
        with services.recovery.waited_for():
            rules = await administration.remove_channel(change, channel.id)
        await _show(interaction, admin.channels(rules, locale=interactions.locale(interaction)))

    @group.command(name="list", description="Show where public results may go")
    async def show(interaction: discord.Interaction[Client]) -> None:
        rules = await administration.rules(interactions.check_admin(interaction))
        await _show(interaction, admin.channels(rules, locale=interactions.locale(interaction)))

    return group


def add_log(group: app_commands.Group, services: Services) -> None:
    @group.command(name="log", description="Post one line per ended request in a channel")
    @app_commands.describe(channel="Where; leave it out to switch the log off")
    async def log(
        interaction: discord.Interaction[Client],
        channel: app_commands.Transform[app_commands.AppCommandChannel, LogChannel] | None = None,
    ) -> None:
        change = interactions.change(interaction)
        with services.recovery.waited_for():
            rules = await services.administration.set_log_channel(change, None if channel is None else channel.id)
        await _show(interaction, admin.log_channel(rules, locale=interactions.locale(interaction)))


def add_defaults(group: app_commands.Group, services: Services) -> None:
    @group.command(name="defaults", description="What members get who choose nothing; without options, show it")
    @app_commands.describe(
        model="The model",
        format="The format",
        private="Whether only the member sees the result, until they share it",
        spoiler="Whether results are hidden until somebody clicks them",
    )
    @app_commands.choices(model=_MODELS, format=_FORMATS, private=_PRIVACY)
    async def defaults(
        interaction: discord.Interaction[Client],
        model: str | None = None,
        format: str | None = None,  # noqa: A002 - the name of the option of /thumbnail
        private: str | None = None,
        spoiler: bool | None = None,  # noqa: FBT001 - Discord passes options by name
    ) -> None:
        change, administration = interactions.change(interaction), services.administration
        with services.recovery.waited_for():
            if any(one is not None for one in (model, format, private, spoiler)):
                rules = await administration.set_defaults(
                    change, model=model, format_=format, private=private, spoiler=spoiler
                )
            else:
                rules = await administration.rules(change.guild_id)
        text = admin.defaults(rules, services.choices.operators, locale=interactions.locale(interaction))
        await _show(interaction, text)


async def _show(interaction: discord.Interaction[Client], text: str) -> None:
    await responses.respond(interaction, text, ephemeral=True)
