"""The one place that answers failures: a rejection becomes a sentence, and an internal error is logged and answered."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord import app_commands

from bot.discord_io import buttons
from bot.domain.errors import BotError, DuplicateRequest, InvalidOption, RequestRejected, StorageUnavailable
from bot.domain.models import Postponed
from bot.text import failures, refusals
from cogs import interactions, responses
from cogs.responses import NotAnswered

if TYPE_CHECKING:
    from datetime import datetime

    from bot.discord_io.client import Client, Services

log = logging.getLogger(__name__)

# discord.py lets resets and timeouts of aiohttp through, and a closed session is a RuntimeError.
UNREACHABLE = (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError)


async def setup(bot: Client) -> None:
    services = bot.services

    async def on_error(interaction: discord.Interaction[Client], error: app_commands.AppCommandError) -> None:
        await answer_failure(interaction, _cause(error), services)

    bot.tree.error(on_error)


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, app_commands.CheckFailure):
        return error.__cause__ or error  # why the check failed
    return error.original if isinstance(error, app_commands.CommandInvokeError) else error


async def answer_failure(interaction: discord.Interaction[Client], error: BaseException, services: Services) -> None:
    """Answer `interaction` privately for `error`. If that fails too, only the log knows."""
    try:
        if isinstance(error, NotAnswered):
            raise error
        locale = interactions.locale(interaction)
        text = explain(error, services, now=services.clock(), locale=locale, passing=responses.NETWORK)
        if text is not None:
            await responses.tell(interaction, text, view=await _offer(interaction, error, services))
    except (NotAnswered, *UNREACHABLE) as lost:
        log.warning(
            "an interaction could not be answered: %s", str(lost) if isinstance(lost, BotError) else type(lost).__name__
        )


async def _offer(
    interaction: discord.Interaction[Client], error: BaseException, services: Services
) -> discord.ui.View | None:
    """A button that goes on with smaller copies, if nothing but the size of the images was wrong."""
    oversized = error.oversized if isinstance(error, InvalidOption) else None
    if oversized is not None and services.smaller_copies.may_help(oversized):
        with suppress(StorageUnavailable):
            postponed = Postponed(oversized.request, await interactions.wants_private(interaction))
            return buttons.of_postponed(await services.results.postpone(interaction.user.id, postponed))
    return None


def explain(
    error: BaseException,
    services: Services,
    *,
    now: datetime,
    locale: str,
    passing: tuple[type[BaseException], ...] = (),
) -> str | None:
    """Count or log a failure, and say it in words; None if there is nothing to say. Errors of the classes `passing`
    are trouble that passes by itself.
    """
    match error:
        case DuplicateRequest():
            return None
        case RequestRejected():
            services.count_rejection(error.kind)
            return refusals.refusal(error, now=now, locale=locale)
        case _ if isinstance(error, passing):
            log.warning("an interaction failed: %s", type(error).__name__)
            return failures.something_failed(locale=locale)
        case _:
            log.error("an interaction hit an internal error", exc_info=error)
            services.notices.interaction_failed(type(error).__name__)
            return failures.internal_error(locale=locale)
