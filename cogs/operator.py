"""/operator: the commands of whoever pays, registered in one server only."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import discord
from discord import app_commands

from bot.domain.errors import NotAllowed
from bot.domain.server_rules import Block
from bot.domain.spending import Settlement
from bot.text import operations
from cogs import responses

if TYPE_CHECKING:
    from bot.discord_io.client import Client, Services

    Interaction = discord.Interaction[Client]

_REASON = app_commands.Range[str, 1, 200]
_ID = app_commands.Range[str, 15, 22]  # digits of a snowflake, or a mention
_EVERYWHERE = 0


async def setup(bot: Client) -> None:
    if bot.services.operator_server is not None:
        bot.tree.add_command(Operator(bot.services), guild=discord.Object(bot.services.operator_server))


class Operator(app_commands.Group):
    """Hidden from everyone but administrators of the server; what counts is that the config names the person."""

    def __init__(self, services: Services) -> None:
        super().__init__(
            name="operator",
            description="For the operator of this bot (only you see the answers)",
            guild_only=True,
            default_permissions=discord.Permissions(administrator=True),
        )
        self._services = services
        self._operations = services.operations

    async def interaction_check(self, interaction: discord.Interaction[Any], /) -> bool:
        """Checked at every call: what Discord shows to whom is up to the admins of the server."""
        if interaction.user.id not in self._services.operators:
            raise app_commands.CheckFailure from NotAllowed("operator")
        return True

    @app_commands.command(description="Circuits, queue, spending, unknown outcomes, and backups")
    async def status(self, interaction: Interaction) -> None:
        await _respond(interaction, operations.condition(await self._operations.condition()))

    @app_commands.command(description="Accept no more requests; what is in progress is finished")
    @app_commands.describe(reason="Why; members read this")
    async def pause(self, interaction: Interaction, reason: _REASON) -> None:
        await self._operations.pause(reason, actor=interaction.user.id)
        await _respond(interaction, operations.paused(reason))

    @app_commands.command(description="Accept requests again, and try the image service at once")
    async def resume(self, interaction: Interaction) -> None:
        closed = await self._operations.resume(actor=interaction.user.id)
        await _respond(interaction, operations.resumed(closed))

    @app_commands.command(description="Who has spent what")
    @app_commands.describe(period="Today or this month (default: today)")
    async def spend(self, interaction: Interaction, period: Literal["today", "month"] = "today") -> None:
        await _respond(interaction, operations.bill(await self._operations.bill(monthly=period == "month")))

    @app_commands.command(description="Jobs that may have been paid for; with job and outcome, record what you found")
    @app_commands.describe(job="The id of the job to record", outcome="Whether Pikzels charged for it")
    async def unknown(
        self, interaction: Interaction, job: str | None = None, outcome: Literal["paid", "free"] | None = None
    ) -> None:
        said = ""
        if job is not None and outcome is not None:
            found = await self._operations.settle(job, Settlement(outcome), actor=interaction.user.id)
            said = operations.settled(job, Settlement(outcome), found=found) + "\n"
        await _respond(interaction, said + operations.unknown_jobs(await self._operations.unknown_jobs()))

    @app_commands.command(description="Block a person or a server everywhere")
    @app_commands.describe(
        id="The id of a user or a server",
        kind="What the id is of",
        reason="Why; the blocked read this",
        days="For how long (default: until you lift it)",
    )
    async def block(
        self,
        interaction: Interaction,
        id: _ID,  # noqa: A002 - the option's name
        kind: Literal["member", "server"],
        reason: _REASON,
        days: app_commands.Range[int, 1, 3650] | None = None,
    ) -> None:
        subject, is_server, now = snowflake(id), kind == "server", self._services.clock()
        block = Block(
            guild_id=_EVERYWHERE,
            is_server=is_server,
            subject=subject,
            reason=reason,
            until=None if days is None else now + timedelta(days=days),
            actor=interaction.user.id,
            at=now,
        )
        change = self._operations.change("block", actor=interaction.user.id, target=0 if is_server else subject)
        await self._services.policies.block(change, block)
        await self._show_blocks(interaction, operations.blocked(subject, is_server=is_server))

    @app_commands.command(description="Lift a block")
    @app_commands.describe(id="The id of a user or a server", kind="What the id is of")
    async def unblock(
        self,
        interaction: Interaction,
        id: _ID,  # noqa: A002 - the option's name
        kind: Literal["member", "server"],
    ) -> None:
        subject, is_server = snowflake(id), kind == "server"
        change = self._operations.change("unblock", actor=interaction.user.id, target=0 if is_server else subject)
        found = await self._services.policies.unblock(change, _EVERYWHERE, subject, is_server=is_server)
        await self._show_blocks(interaction, operations.unblocked(subject, is_server=is_server, found=found))

    @app_commands.command(description="Delete everything that is stored about a person")
    @app_commands.describe(user="The id of the user")
    async def forget(self, interaction: Interaction, user: _ID) -> None:
        await responses.defer(interaction, ephemeral=True, thinking=True)
        given_up = await self._services.personal_data.delete(snowflake(user))
        await self._services.policies.record(self._operations.change("forget", actor=interaction.user.id))
        await interaction.edit_original_response(content=operations.forgotten(given_up))

    async def _show_blocks(self, interaction: Interaction, said: str) -> None:
        found = await self._services.policies.active_blocks(_EVERYWHERE, now=self._services.clock())
        await _respond(interaction, operations.blocks(found[-20:], said))


async def _respond(interaction: Interaction, text: str) -> None:
    await responses.respond(interaction, text[:2000], ephemeral=True)


def snowflake(text: str) -> int:
    """An id of Discord, alone or in a mention; raises `NotAllowed` for anything else."""
    digits = text.strip("<@!> ")
    if not (digits.isascii() and digits.isdigit() and int(digits) < 2**63):
        raise NotAllowed("id")
    return int(digits)
