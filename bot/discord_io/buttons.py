"""The buttons under a job's message. Their ids say everything, so they keep working, also after a restart."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import discord

from bot.domain.models import Queued
from bot.text import results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.domain.models import Job, Status


class Action(StrEnum):
    """What a button does. It is a part of the button's id, so it is never renamed."""

    AGAIN = "again"
    EDIT = "edit"
    INFO = "info"
    SHARE = "share"
    DELETE = "delete"
    CANCEL = "cancel"


TEMPLATE = rf"job:(?P<action>{'|'.join(Action)}):(?P<job_id>[0-9a-z]{{4,12}})"

OF_RESULT = (Action.AGAIN, Action.EDIT, Action.INFO, Action.DELETE)
OF_PRIVATE_RESULT = (Action.AGAIN, Action.EDIT, Action.INFO, Action.SHARE, Action.DELETE)
OF_ENDED = (Action.AGAIN, Action.EDIT)
OF_QUEUED = (Action.CANCEL,)

_STYLES = {Action.DELETE: discord.ButtonStyle.danger, Action.SHARE: discord.ButtonStyle.primary}


def custom_id(action: Action, job_id: str) -> str:
    return f"job:{action}:{job_id}"


def button(action: Action, job_id: str, *, row: int | None = None) -> discord.ui.Button[discord.ui.View]:
    style = _STYLES.get(action, discord.ButtonStyle.secondary)
    return discord.ui.Button(label=results.BUTTONS[action], custom_id=custom_id(action, job_id), style=style, row=row)


def view(job: Job, actions: Sequence[Action]) -> discord.ui.View:
    """The row of `actions`, for sending only: nothing of it stays in memory, since the cog that answers the buttons
    recognizes them by their ids.
    """
    row = discord.ui.View(timeout=None)
    for action in actions:
        row.add_item(button(action, job.id))
    row.stop()
    return row


def of_status(job: Job, status: Status) -> discord.ui.View:
    """A job can be cancelled only while it is queued."""
    return view(job, OF_QUEUED if isinstance(status, Queued) else ())


def of_result(job: Job) -> discord.ui.View:
    return view(job, OF_PRIVATE_RESULT if job.requester.private else OF_RESULT)
