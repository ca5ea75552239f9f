"""The one line about an ended job that a server's admins may read in their log channel."""

from __future__ import annotations

from bot.domain.models import Job, State
from bot.text import failures, results
from bot.text.formatting import MODELS, credits_, message_link
from bot.text.locales import translator


def line(job: Job) -> str:
    """Which job, whose, what it was, what it cost, how long it took, and where it is or why there is no image.

    The prompt is left out: a private result is nobody else's business.
    """
    request = job.request
    facts = [f"#{job.id}", f"<@{job.requester.user_id}>", MODELS[request.model], request.format]
    return " · ".join([*facts, *(_delivered(job) if job.state is State.DELIVERED else _released(job))])


def _delivered(job: Job) -> list[str]:
    _ = translator(job.requester.locale)
    hidden = job.requester.private or job.claim is not None or job.message_id is None
    where = (
        _("visible only to them")
        if hidden
        else message_link(job.requester.guild_id, job.requester.channel_id, job.message_id or 0)
    )
    return [credits_(job.cost), *_took(job), where]


def _released(job: Job) -> list[str]:
    _ = translator(job.requester.locale)
    return [_("not charged"), *_took(job), failures.why(job)]


def _took(job: Job) -> list[str]:
    seconds = results.seconds(job)
    return [] if seconds is None else [seconds]
