"""/thumbnail: reads the options, makes one call, sends one reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.domain import validation
from bot.domain.models import Format, Model, Weight
from bot.domain.server_rules import PresetKind
from bot.text import formatting
from cogs import interactions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from bot.discord_io.client import Client, Services

    Choices = list[app_commands.Choice[str]]

_SHOWN_CHOICES = 25  # Discord: choices in one answer


async def setup(bot: Client) -> None:
    bot.tree.add_command(thumbnail_command(bot.services))


def thumbnail_command(services: Services) -> app_commands.Command[Any, ..., None]:
    """Build the command: its choices show the operator's costs, so it cannot be made at import."""
    models = [
        app_commands.Choice(
            name=f"{formatting.MODELS[model]} · {formatting.credits_(services.costs[model])}", value=model.value
        )
        for model in Model
    ]
    formats = [app_commands.Choice(name=formatting.FORMATS[format_], value=format_.value) for format_ in Format]
    weights = [app_commands.Choice(name=weight.value, value=weight.value) for weight in Weight]

    @app_commands.command(name="thumbnail", description="Generate a thumbnail from an image (it is sent to Pikzels)")
    @app_commands.guild_only()
    @app_commands.describe(
        image="The image to start from: PNG, JPEG or WebP, up to 10 MB",
        model=f"The model (default: {formatting.MODELS[services.default_model]})",
        format=f"The format (default: {services.default_format})",
        prompt="What to change or add, in words; no links. PKZ 2 ignores it",
        reference="A second image to draw on (PKZ 4 and PKZ 4.5)",
        weight="How closely to follow the image (PKZ 2)",
        persona="A persona: its name or its id",
        style="A style: its name or its id",
        private="Only you see the result, until you share it (default: as in /settings)",
    )
    @app_commands.choices(model=models, format=formats, weight=weights)
    async def thumbnail(
        interaction: discord.Interaction[Client],
        image: discord.Attachment,
        model: str | None = None,
        format: str | None = None,  # noqa: A002 - the option's name is the contract's
        prompt: app_commands.Range[str, 1, validation.PROMPT_LENGTH] | None = None,
        reference: discord.Attachment | None = None,
        weight: str | None = None,
        persona: str | None = None,
        style: str | None = None,
        private: bool | None = None,  # noqa: FBT001 - Discord passes options by name
    ) -> None:
        usual = await services.choices.of(interaction.user.id, interaction.guild_id)
        request = validation.build_request(
            image=interactions.upload(image),
            model=model or usual.model,
            format=format or usual.format,
            prompt=prompt,
            reference=None if reference is None else interactions.upload(reference),
            weight=weight,
            persona=persona,
            style=style,
            personas=await services.choices.presets(PresetKind.PERSONA, interaction.guild_id),
            styles=await services.choices.presets(PresetKind.STYLE, interaction.guild_id),
            max_pixels=services.max_pixels,
        )
        await interactions.accept(interaction, request, private=usual.private if private is None else private)

    @thumbnail.autocomplete("persona")
    async def personas(interaction: discord.Interaction[Client], typed: str) -> Choices:
        return matching(await services.choices.presets(PresetKind.PERSONA, interaction.guild_id), typed)

    @thumbnail.autocomplete("style")
    async def styles(interaction: discord.Interaction[Client], typed: str) -> Choices:
        return matching(await services.choices.presets(PresetKind.STYLE, interaction.guild_id), typed)

    return thumbnail


def matching(presets: Iterable[str], typed: str) -> Choices:
    """The names that contain what somebody has typed, as many as Discord shows."""
    wanted = typed.casefold()
    names = sorted(name for name in presets if wanted in name.casefold())
    return [app_commands.Choice(name=name[:100], value=name[:100]) for name in names[:_SHOWN_CHOICES]]
