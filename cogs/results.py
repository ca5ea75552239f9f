"""The buttons under results, which keep working: the id says what is meant, the database knows the rest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Self

import discord

from bot.discord_io import buttons
from bot.discord_io.buttons import Action
from bot.domain.errors import JobFailed, NotAllowed, ResultGone
from bot.text import results
from cogs import forms, interactions, responses, smaller_copies
from cogs.error_handler import UNREACHABLE, answer_failure

if TYPE_CHECKING:
    import re
    from typing import Any

    from bot.discord_io.client import Client
    from bot.domain.models import Job

    Press = discord.Interaction[Client]


async def setup(bot: Client) -> None:
    bot.add_dynamic_items(JobButton)


class JobButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=buttons.TEMPLATE):
    """Any button under a job's message."""

    def __init__(self, action: Action, job_id: str) -> None:
        super().__init__(buttons.button(action, job_id))
        self.action = action
        self.job_id = job_id

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(Action(match["action"]), match["job_id"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            with interaction.client.services.recovery.waited_for():
                await _PRESSED[self.action](interaction, await _job(interaction, self.job_id))
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            await answer_failure(interaction, error, interaction.client.services)


async def _job(interaction: Press, job_id: str) -> Job:
    message_id = interactions.message_id(interaction)
    return await interaction.client.services.results.job(job_id, interaction.user.id, message_id=message_id)


async def again(interaction: Press, job: Job) -> None:
    await interactions.accept(
        interaction, job.request, private=interactions.repeats_privately(interaction, job), parent=job
    )


async def edit(interaction: Press, job: Job) -> None:
    await responses.send_modal(interaction, forms.edit(job))


async def info(interaction: Press, job: Job) -> None:
    await responses.respond(interaction, results.info(job, locale=interactions.locale(interaction)), ephemeral=True)


async def share(interaction: Press, job: Job) -> None:
    if not interactions.is_private(interaction):
        raise ResultGone  # forged: everyone sees this result already

    async def post() -> int:
        await responses.defer(interaction)
        shown = interaction.message.attachments if interaction.message else []
        if not shown:
            raise ResultGone
        try:
            content = await interaction.client.services.fetch_image(shown[0].url)
        except JobFailed:
            raise ResultGone from None
        file = discord.File(BytesIO(content), shown[0].filename, description=results.alt(job))
        view = buttons.view(job, buttons.OF_RESULT)
        message = await interaction.followup.send(results.result(job), file=file, view=view, wait=True)
        return message.id

    services, message_id = interaction.client.services, interactions.message_id(interaction)

    async def find(job: Job) -> int | None:
        try:
            return await services.find_shared(job, interaction.channel_id or 0)
        except JobFailed:
            raise NotAllowed("unknown_share") from None

    shared_id = await services.results.share(job, interaction.user.id, post, message_id=message_id, find=find)
    with suppress(*UNREACHABLE):  # it is shared, whatever its buttons say
        await interaction.edit_original_response(view=buttons.view(job, buttons.OF_RESULT))
    # What was recovered may be shared in a channel other than that of its request.
    channel_id = interaction.channel_id or job.requester.channel_id
    shown = replace(job, requester=replace(job.requester, private=False, channel_id=channel_id))
    await services.add_again_reaction(shown, shared_id)


async def delete(interaction: Press, job: Job) -> None:
    async def remove() -> None:
        await responses.defer(interaction)
        with suppress(discord.NotFound):
            await interaction.delete_original_response()

    await interaction.client.services.results.delete(
        job,
        interaction.user.id,
        remove,
        message_id=interactions.message_id(interaction),
        moderator=interactions.is_moderator(interaction),
    )


async def cancel(interaction: Press, job: Job) -> None:
    services = interaction.client.services
    services.results.check_cancel(job, interaction.user.id, moderator=interactions.is_moderator(interaction))
    if not services.lifecycle.cancel(job.id):
        raise NotAllowed("started")
    await responses.defer(interaction)


_PRESSED = {
    Action.AGAIN: again,
    Action.EDIT: edit,
    Action.INFO: info,
    Action.SHARE: share,
    Action.DELETE: delete,
    Action.CANCEL: cancel,
    Action.SMALLER: smaller_copies.of_job,
}
