"""/history: a member's own results, newest first, page by page; only they see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import discord
from discord import app_commands

from bot.discord_io import buttons
from bot.discord_io.buttons import Action
from bot.domain.errors import ResultGone
from bot.text import formatting, results
from cogs import interactions, responses
from cogs.error_handler import answer_failure

if TYPE_CHECKING:
    import re

    from bot.discord_io.client import Client, Services
    from bot.domain.models import Job
    from bot.jobs.results import Page

_LOOK_SECONDS = 5.0  # for the images of one page; a list without them is better than none


async def setup(bot: Client) -> None:
    bot.tree.add_command(history_command(bot.services))
    bot.add_dynamic_items(PageButton)


def history_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="history", description="Your results, newest first (only you see them)")
    @app_commands.guild_only()
    async def history(interaction: discord.Interaction[Client]) -> None:
        with services.recovery.waited_for():
            await responses.defer(interaction, ephemeral=True)
            await show(interaction, await services.results.newest(interaction.user.id))

    return history


class PageButton(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]],
    template=r"history:(?P<way>older|newer):(?P<job_id>[0-9a-z]{4,12})",
):
    """Turns the page to what is older or newer than a job, so that new results do not move it."""

    def __init__(self, way: str, job_id: str) -> None:
        label = {"older": "Older", "newer": "Newer"}[way]
        super().__init__(discord.ui.Button(label=label, custom_id=f"history:{way}:{job_id}", row=4))
        self.way = way
        self.job_id = job_id

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(match["way"], match["job_id"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        services = interaction.client.services
        pages = services.results
        turn = pages.older if self.way == "older" else pages.newer
        try:
            if not interactions.is_private(interaction):
                raise ResultGone  # forged: the list that it would replace is on a public message
            with services.recovery.waited_for():
                await responses.defer(interaction)
                await show(interaction, await turn(interaction.user.id, self.job_id))
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            await answer_failure(interaction, error, interaction.client.services)


async def show(interaction: discord.Interaction[Client], page: Page) -> None:
    """Put `page` in place of what the interaction shows."""
    if not page.jobs:
        await interaction.edit_original_response(
            content=results.no_results(locale=interactions.locale(interaction)), embeds=[], view=None
        )
        return
    locale = interactions.locale(interaction)
    embeds = await asyncio.gather(*(_entry(interaction.client, job, locale) for job in page.jobs))
    await interaction.edit_original_response(content=None, embeds=embeds, view=_view(page))


async def _entry(bot: Client, job: Job, locale: str) -> discord.Embed:
    """One result: its text, and its image if its message still exists."""
    link, picture = await _look(bot, job)
    embed = discord.Embed(description=results.history_entry(job, link, locale=locale))
    if picture:
        embed.set_thumbnail(url=picture)
    return embed


async def _look(bot: Client, job: Job) -> tuple[str | None, str | None]:
    """The link to a result's message and the URL of its image, as far as they are available."""
    message_id = job.shared_id or (None if job.requester.private else job.message_id)
    if message_id is None:
        return None, None
    link = formatting.message_link(job.requester.guild_id, job.requester.channel_id, message_id)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            message = await bot.http.get_message(job.requester.channel_id, message_id)
    except discord.NotFound:
        return None, None
    except (discord.DiscordException, aiohttp.ClientError, OSError):
        return link, None
    attached = message["attachments"]
    return link, attached[0]["url"] if attached else None


def _view(page: Page) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for row, job in enumerate(page.jobs):
        for action in (Action.AGAIN, Action.EDIT):
            made = buttons.button(action, job.id, row=row)
            made.label = f"{made.label} #{job.id}"
            view.add_item(made)
    if page.newer:
        view.add_item(PageButton("newer", page.jobs[0].id).item)
    if page.older:
        view.add_item(PageButton("older", page.jobs[-1].id).item)
    view.stop()  # for sending only: its buttons are recognized by their ids
    return view
