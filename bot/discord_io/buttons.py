"""The buttons under a job's message. Their ids say everything, so they keep working, also after a restart."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import discord

from bot.domain import image_problems
from bot.domain.errors import NotStarted, NotStartedCause, ProviderRefused
from bot.domain.models import Queued, State
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
    SMALLER = "smaller"


TEMPLATE = rf"job:(?P<action>{'|'.join(Action)}):(?P<job_id>[0-9a-z]{{4,12}})"

OF_RESULT = (Action.AGAIN, Action.EDIT, Action.INFO, Action.DELETE)
OF_PRIVATE_RESULT = (Action.AGAIN, Action.EDIT, Action.INFO, Action.SHARE, Action.DELETE)
OF_KEPT = (Action.AGAIN, Action.EDIT)  # the image waits for /recover
OF_ENDED = (Action.AGAIN, Action.EDIT, Action.DELETE)
OF_BAD_INPUT = (Action.EDIT, Action.DELETE)  # the same request would end the same way
OF_TOO_LARGE = (Action.SMALLER,)
OF_QUEUED = (Action.CANCEL,)

# Reasons for which the request itself has to change.
_BAD_INPUT = frozenset(
    {
        *(
            f"{ProviderRefused.kind}:{code}"
            for code in (
                "VALIDATION_ERROR",
                "INVALID_PERSONA",
                "INVALID_STYLE",
                "CONTENT_POLICY",
                "SUPPORT_IMAGE_NOT_SUPPORTED",
                "IMAGE_TOO_LARGE",
                "INVALID_IMAGE",
                "GENERATION_REJECTED",
            )
        ),
        f"{NotStarted.kind}:{NotStartedCause.SOURCE_EXPIRED}",
    }
)

_STYLES = {Action.DELETE: discord.ButtonStyle.danger, Action.SHARE: discord.ButtonStyle.primary}

POSTPONED_TEMPLATE = r"smaller:(?P<draft_id>[\w-]{16})"  # a request that is no job yet


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


def of_ended(job: Job) -> discord.ui.View:
    """Under a message that has no image to show: what helps its requester."""
    if job.state is not State.RELEASED:
        return view(job, OF_KEPT)
    if image_problems.can_shrink(job.reason):
        return view(job, OF_TOO_LARGE + OF_BAD_INPUT)
    bad = job.reason in _BAD_INPUT or image_problems.from_reason(job.reason) is not None
    return view(job, OF_BAD_INPUT if bad else OF_ENDED)


def postponed_button(draft_id: str) -> discord.ui.Button[discord.ui.View]:
    return discord.ui.Button(label=results.BUTTONS[Action.SMALLER], custom_id=f"smaller:{draft_id}")


def of_postponed(draft_id: str) -> discord.ui.View:
    """Under the refusal of a request whose images are too large."""
    row = discord.ui.View(timeout=None)
    row.add_item(postponed_button(draft_id))
    row.stop()
    return row
