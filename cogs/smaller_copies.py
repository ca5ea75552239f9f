"""The button under a private refusal: go on with smaller copies of images that are too large."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

import discord

from bot.discord_io import buttons
from bot.domain.errors import NotAllowed
from bot.domain.models import Postponed
from bot.text import results
from cogs import interactions, responses
from cogs.error_handler import UNREACHABLE, answer_failure

if TYPE_CHECKING:
    import re
    from typing import Any

    from bot.discord_io.client import Client
    from bot.domain.models import Job, Status

    Press = discord.Interaction[Client]


async def setup(bot: Client) -> None:
    bot.add_dynamic_items(PostponedButton)


class PostponedButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=buttons.POSTPONED_TEMPLATE):
    """Goes on with a request that was refused before it became a job."""

    def __init__(self, draft_id: str) -> None:
        super().__init__(buttons.postponed_button(draft_id))
        self.draft_id = draft_id

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(match["draft_id"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        services = interaction.client.services
        try:
            with services.recovery.waited_for():
                postponed = await services.results.postponed(self.draft_id, interaction.user.id)
                await _go_on(interaction, postponed, button=self.draft_id)
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            await answer_failure(interaction, error, services)


async def of_job(interaction: Press, job: Job) -> None:
    """Goes on with a job that ended before its call."""
    if interaction.user.id != job.requester.user_id:
        raise NotAllowed("shrink")
    await _go_on(interaction, Postponed(job.request, job.requester.private), button=job.id, parent=job)


async def _go_on(interaction: Press, postponed: Postponed, *, button: str, parent: Job | None = None) -> None:
    """Make the copies, which takes longer than Discord waits for an answer, and request the image with them."""
    services = interaction.client.services

    async def reply(job: Job, status: Status) -> int:
        text, view = results.status(job, status), buttons.of_status(job, status)
        return (await interaction.edit_original_response(content=text, view=view)).id

    with services.results.shrinking(button):
        await responses.defer(interaction, thinking=True, ephemeral=postponed.private)
        try:
            request = await services.smaller_copies.make(postponed.request)
            requester = interactions.requester(interaction, private=postponed.private)
            await services.lifecycle.accept(request, requester, reply, parent=parent)
        except BaseException:
            with suppress(*UNREACHABLE):  # others may see it, but not why nothing comes of it
                await interaction.delete_original_response()
            raise
