"""How a job ended without an image: on its message, with its id.

The provider's own error text is never repeated, and every sentence is followed by whether it cost anything.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain import errors, image_problems
from bot.domain.errors import NotStartedCause
from bot.domain.models import Circuit, State
from bot.text import results
from bot.text.formatting import NOT_CHARGED
from bot.text.locales import translator
from bot.text.refusals import CIRCUITS, option_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.domain.models import Job

_GENERIC = "The image service refused this request."
_BROKE = "The image service failed to generate this image. Try again."
_SLOW = "The image service took too long. Try again."

PROVIDER: Mapping[str, str] = MappingProxyType(
    {
        "VALIDATION_ERROR": "The image service did not accept one of the options.",
        "INVALID_PERSONA": "That persona id is not valid. Leave `persona` out or choose another.",
        "INVALID_STYLE": "That style id is not valid. Leave `style` out or choose another.",
        "INVALID_AMOUNT": _GENERIC,
        "CONTENT_POLICY": "The image service does not allow this image or prompt. Try a different one.",
        "CANNOT_DELETE_PROCESSING": _GENERIC,
        "SUPPORT_IMAGE_NOT_SUPPORTED": "Only PKZ 4 and PKZ 4.5 support a reference image.",
        "IMAGE_TOO_LARGE": "That image is over the image service's 10 MB limit. Make it smaller and try again.",
        "MISSING_API_KEY": CIRCUITS[Circuit.KEY],
        "INVALID_API_KEY_FORMAT": CIRCUITS[Circuit.KEY],
        "INVALID_API_KEY": CIRCUITS[Circuit.KEY],
        "API_KEY_INACTIVE": CIRCUITS[Circuit.KEY],
        "API_KEY_DELETED": CIRCUITS[Circuit.KEY],
        "INSUFFICIENT_CREDITS": CIRCUITS[Circuit.BALANCE],
        "SMART_BALANCE_PAYMENT_FAILED": CIRCUITS[Circuit.BALANCE],
        "API_ACCESS_NOT_ENABLED": CIRCUITS[Circuit.KEY],
        "ACCOUNT_SUSPENDED": "The image service is not available until further notice; the operator has been told.",
        "NOT_FOUND": "The image service does not know that persona or style, or it has moved.",
        "NAME_RESERVED": _GENERIC,
        "NAME_ALREADY_EXISTS": _GENERIC,
        "CONFLICT": "The image service was busy with a conflicting request. Try again.",
        "GENERATION_REJECTED": "The image service could not work with this image or prompt. Try another.",
        "CANCELLED": "The image service cancelled this request. Try again.",
        "GENERATION_FAILED": _BROKE,
        "INVALID_IMAGE": "The image service could not read that image. Use a PNG, JPEG or WebP file.",
        "INTERNAL_ERROR": _BROKE,
        "SERVICE_UNDER_MAINTENANCE": "The image service is under maintenance. Try again later.",
        "GENERATION_TIMEOUT": _SLOW,
        "SCORING_TIMEOUT": _SLOW,
        "TITLE_TIMEOUT": _SLOW,
        "TOO_MANY_REQUESTS": "The image service is accepting no more requests right now. Try again in a few minutes.",
    }
)

FAILURES: Mapping[str, str] = MappingProxyType(
    {
        errors.JobFailed.kind: "Something went wrong. Try again.",
        errors.NotStarted.kind: "This request was not started. Try again.",
        errors.ProviderUnreachable.kind: "The image service could not be reached. Try again in a few minutes.",
        errors.OutcomeUnknown.kind: "The bot lost contact with the image service. Try again.",
        errors.AnswerUnusable.kind: "The image service returned something unusable. Try again.",
        errors.ProviderMoved.kind: "The image service has moved; the operator has been told.",
        errors.OutputRefused.kind: "The image service returned something unusable. Try again.",
        errors.OutputUnreachable.kind: "The finished image could not be downloaded.",
        errors.OutputGone.kind: "The finished image is no longer available.",
        errors.PictureUnusable.kind: "The image service returned something that is not a usable image. Try again.",
        errors.Undeliverable.kind: "Discord did not accept the finished image here.",
        errors.MessageDeleted.kind: "The message of this request was deleted.",
        errors.DeliveryDelayed.kind: "Discord did not accept the finished image.",
        errors.InternalError.kind: "Something went wrong inside the bot; its operator has been told. Try again.",
    }
)

NOT_STARTED: Mapping[str, str] = MappingProxyType(
    {
        NotStartedCause.CANCELLED: "Cancelled.",
        NotStartedCause.SOURCE_EXPIRED: "The source image is no longer stored. Attach it again with /thumbnail.",
        NotStartedCause.RESTARTING: "The bot restarted before this request started. Try again.",
        **{circuit: f"{sentence} This request was not started." for circuit, sentence in CIRCUITS.items()},
    }
)

_INTERNAL_ERROR = "Something went wrong inside the bot; its operator has been told."


def outcome(job: Job) -> str:
    """What the message of a job says that has no image to show: released, or kept for its requester. Where others see
    it too, it names the requester.
    """
    said = _ended(job)
    public = job.state is State.RELEASED and not job.requester.private
    return f"<@{job.requester.user_id}> {said}" if public else said


def outcome_by_direct_message(job: Job) -> str:
    """The same in a direct message, which says what it is about."""
    _ = translator(job.requester.locale)
    about = _("This is about your request in {channel}.").format(channel=f"<#{job.requester.channel_id}>")
    return f"{_ended(job)}\n-# {about}"


def _ended(job: Job) -> str:
    return failure(job) if job.state is State.RELEASED else results.parked(job)


def failure(job: Job) -> str:
    """How a released job ended, and that it cost nothing."""
    _ = translator(job.requester.locale)
    return f"{why(job)} {_(NOT_CHARGED)} · #{job.id}"


def why(job: Job) -> str:
    """Why a job was released, from its stored reason: the same words now and after a restart."""
    _ = translator(job.requester.locale)
    kind, _separator, detail = (job.reason or errors.JobFailed.kind).partition(":")
    sentence = FAILURES.get(kind, FAILURES[errors.JobFailed.kind])
    if kind == errors.ProviderRefused.kind:
        sentence = PROVIDER.get(detail, _GENERIC)
    elif kind == errors.NotStarted.kind:
        sentence = NOT_STARTED.get(detail, sentence)
    problem = image_problems.from_reason(job.reason)
    return _(sentence) if problem is None else option_problem(problem, _)


def something_failed(*, locale: str) -> str:
    """For a reaction that could not be followed, for a reason that passes."""
    _ = translator(locale)
    return f"{_(FAILURES[errors.JobFailed.kind])} {_(NOT_CHARGED)}"


def internal_error(*, locale: str) -> str:
    """For whatever nobody foresaw, before a job exists."""
    _ = translator(locale)
    return f"{_(_INTERNAL_ERROR)} {_(NOT_CHARGED)}"
