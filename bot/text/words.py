"""Every sentence a person reads: the only place where a failure or a state becomes words.

The rules: short, plain, no blame; what happened, what to do next, and always whether it cost anything. The provider's
own error text is never echoed, and what a member typed appears only inside a code block.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain import errors
from bot.domain.models import Circuit, Format, Job, Model, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from bot.domain.models import Allowance

CONTENT_LENGTH = 2000  # Discord: characters in one message
ALT_LENGTH = 1024  # Discord: characters in an attachment's description
_SHOWN_PROMPT = 900

FREE = "You were not charged."

MODELS: Mapping[Model, str] = MappingProxyType(
    {Model.PKZ_2: "PKZ 2", Model.PKZ_3: "PKZ 3", Model.PKZ_4: "PKZ 4", Model.PKZ_4_5: "PKZ 4.5"}
)
FORMATS: Mapping[Format, str] = MappingProxyType(
    {Format.WIDE: "16:9 · YouTube", Format.TALL: "9:16 · Shorts", Format.SQUARE: "1:1 · square"}
)

OPTION_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "wrong_model": "works only with {models}. Choose one of those, or leave `{option}` out.",
        "unknown_choice": "must be one of {choices}.",
        "wrong_type": "must be a PNG, JPEG or WebP picture.",
        "too_large": "is {size}; the image service takes at most {limit}. Make it smaller and try again.",
        "empty": "is empty. Attach the picture again.",
        "no_address": "came without a usable address. Attach the picture again.",
        "too_long": "is {length} characters long; at most {limit} are allowed.",
        "has_link": 'may not contain a link or the letters "http". Describe it in words instead.',
        "unknown_preset": "is neither a name this server knows nor an id.",
    }
)

_NO_PRESETS = "must be an id like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d; this bot has no named ones."
_GENERIC = "The image service refused this request."
_BROKE = "The image service failed to make this image. Try again."
_SLOW = "The image service took too long. Try again."

PROVIDER: Mapping[str, str] = MappingProxyType(
    {
        "VALIDATION_ERROR": "The image service did not accept one of the options.",
        "INVALID_PERSONA": "That persona id is not valid. Leave `persona` out or choose another.",
        "INVALID_STYLE": "That style id is not valid. Leave `style` out or choose another.",
        "INVALID_AMOUNT": _GENERIC,
        "CONTENT_POLICY": "The image service does not allow this picture or prompt. Try a different one.",
        "CANNOT_DELETE_PROCESSING": _GENERIC,
        "SUPPORT_IMAGE_NOT_SUPPORTED": "A reference picture needs PKZ 4 or PKZ 4.5.",
        "IMAGE_TOO_LARGE": "That picture is over the image service's 10 MB limit. Make it smaller and try again.",
        "MISSING_API_KEY": "The bot is not set up correctly; its operator has been told.",
        "INVALID_API_KEY_FORMAT": "The bot is not set up correctly; its operator has been told.",
        "INVALID_API_KEY": "The bot is not set up correctly; its operator has been told.",
        "API_KEY_INACTIVE": "The bot is not set up correctly; its operator has been told.",
        "API_KEY_DELETED": "The bot is not set up correctly; its operator has been told.",
        "INSUFFICIENT_CREDITS": "The bot has run out of image credits; its operator has been told.",
        "SMART_BALANCE_PAYMENT_FAILED": "The bot has run out of image credits; its operator has been told.",
        "API_ACCESS_NOT_ENABLED": "The bot is not set up correctly; its operator has been told.",
        "ACCOUNT_SUSPENDED": "The image service is not available until further notice; the operator has been told.",
        "NOT_FOUND": "The image service does not know that persona or style, or has moved.",
        "NAME_RESERVED": _GENERIC,
        "NAME_ALREADY_EXISTS": _GENERIC,
        "CONFLICT": "The image service was busy with something conflicting. Try again.",
        "GENERATION_REJECTED": "The image service could not work with this picture or prompt. Try another.",
        "CANCELLED": "The image service cancelled this generation. Try again.",
        "GENERATION_FAILED": _BROKE,
        "INVALID_IMAGE": "The image service could not read that picture. Use a PNG, JPEG or WebP file.",
        "INTERNAL_ERROR": _BROKE,
        "SERVICE_UNDER_MAINTENANCE": "The image service is under maintenance. Try again later.",
        "GENERATION_TIMEOUT": _SLOW,
        "SCORING_TIMEOUT": _SLOW,
        "TITLE_TIMEOUT": _SLOW,
        "TOO_MANY_REQUESTS": "The image service is taking no more requests right now. Try again in a few minutes.",
    }
)

CIRCUITS: Mapping[Circuit, str] = MappingProxyType(
    {
        Circuit.KEY: "The bot is not set up correctly; its operator has been told.",
        Circuit.MOVED: "The image service has moved; the operator has been told.",
        Circuit.BALANCE: "The bot has run out of image credits; its operator has been told.",
        Circuit.MAINTENANCE: "The image service is under maintenance.",
        Circuit.FAILURES: "The image service keeps failing, so nothing is sent to it for a while.",
    }
)

# --- small parts ---------------------------------------------------------------------------------------------------


def credits_(amount: int) -> str:
    return f"{amount} credit" if amount == 1 else f"{amount} credits"


def megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MB"


def moment(at: datetime) -> str:
    """Discord shows this in each reader's own time zone, and counts it down by itself."""
    return f"<t:{int(at.timestamp())}:R>"


def ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


_KEPT_CATEGORIES = re.compile(r"[LMNPSZ].|Co")


def harmless(text: str) -> str:
    """Text of a member, safe inside a code block: no back-ticks, no control, bidi or zero-width characters."""
    kept = (" " if character in "\u2028\u2029" else character for character in text.replace("`", "ˋ"))
    return "".join(c for c in kept if _KEPT_CATEGORIES.match(unicodedata.category(c)))


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# --- a job on its way ----------------------------------------------------------------------------------------------


def queued(job: Job, position: int) -> str:
    return f"Queued · #{job.id} · {'next' if position == 1 else ordinal(position)} in line{_note(job)}"


def generating(job: Job, since: datetime) -> str:
    return f"Generating · #{job.id} · started {moment(since)}{_note(job)}"


def _note(job: Job) -> str:
    if job.request.model is Model.PKZ_2 and job.request.prompt:
        return "\n-# PKZ 2 works from the picture alone and ignores the prompt."
    return ""


def result(job: Job, *, with_prompt: bool = True) -> str:
    """The line above the picture; the prompt in a code block, where nothing in it can mention or link."""
    request = job.request
    line = f"<@{job.asker.user_id}> · {MODELS[request.model]} · {request.format} · {credits_(job.cost)} · #{job.id}"
    shown = shortened(harmless(request.prompt or ""), _SHOWN_PROMPT).strip() if with_prompt else ""
    return f"{line}{_note(job)}\n```\n{shown}\n```" if shown else line + _note(job)


def result_elsewhere(job: Job, *, with_prompt: bool = True) -> str:
    """The same in a direct message, which says why it is there."""
    why = f"-# It could not be posted in <#{job.asker.channel_id}>, so here it is."
    return f"{result(job, with_prompt=with_prompt)}\n{why}"


BUTTONS: Mapping[str, str] = MappingProxyType(
    {"again": "Again", "edit": "Edit", "info": "Info", "share": "Share", "delete": "Delete", "cancel": "Cancel"}
)


def kept(job: Job) -> str:
    """On the message of a job whose picture could not be shown there."""
    return f"The picture is finished, but Discord did not take it here. `/recover` gives it to you. · #{job.id}"


NOTHING_KEPT = "Nothing is waiting for you: every finished picture was delivered."


def alt(job: Job) -> str:
    """What the picture is, for people who cannot see it."""
    request = job.request
    text = f"Thumbnail {request.format}, made by {MODELS[request.model]}"
    prompt = harmless(request.prompt or "").strip()
    return shortened(f"{text} from the prompt: {prompt}" if prompt else f"{text} from the attached picture", ALT_LENGTH)


def filename(job: Job, suffix: str) -> str:
    return f"thumbnail-{job.id}{suffix}"


def info(job: Job) -> str:
    """Everything about a result, for whoever asks; nothing in it can mention or link."""
    request = job.request
    facts = {
        "Job": f"#{job.id}" + (f", made again from #{job.parent_id}" if job.parent_id else ""),
        "Asked for by": f"<@{job.asker.user_id}>",
        "Asked": f"<t:{int(job.asker.asked_at.timestamp())}:f>",
        "Model": MODELS[request.model],
        "Format": request.format,
        "Reference picture": "yes" if request.support_image_url else None,
        "Weight": request.image_weight,
        "Persona": request.persona,
        "Style": request.style,
        "Cost": credits_(job.cost),
        "Took": _took(job),
        "Request id at Pikzels": job.output and job.output.request_id,
    }
    lines = [f"**{name}**: {value}" for name, value in facts.items() if value]
    prompt = harmless(request.prompt or "").strip()
    shown = f"\n```\n{shortened(prompt, _SHOWN_PROMPT)}\n```" if prompt else ""
    return "\n".join(lines) + shown


def _took(job: Job) -> str | None:
    if job.sent_at is None or job.ended_at is None:
        return None
    return f"{(job.ended_at - job.sent_at).total_seconds():.0f} s"


def copy_of(job: Job) -> str:
    """Above a copy that somebody asked for by reaction."""
    return f"{result(job)}\n-# A copy, as you asked by reaction."


DIRECT_CLOSED = "Your direct messages are closed, so the copy could not be sent."
NOTHING_MADE = "You have no results yet. Make one with /thumbnail."


def history(job: Job, link: str | None) -> str:
    """One result in a member's list."""
    prompt = shortened(harmless(job.request.prompt or "").strip(), 150).replace("\n", " ")
    when = f"<t:{int((job.ended_at or job.created_at).timestamp())}:f>"
    gone = "only you could see it" if job.asker.private else "not in the channel any more"
    where = f"[open it]({link})" if link else gone
    line = f"**#{job.id}** · {MODELS[job.request.model]} · {job.request.format} · {when} · {where}"
    return f"{line}\n```\n{prompt}\n```" if prompt else line


# --- refusals: private, before anything is stored ------------------------------------------------------------------


def refusal(error: errors.Refused, *, now: datetime) -> str:
    said = REFUSALS.get(type(error))
    told = said(error, now) if said else "This request was not taken."
    return told if isinstance(error, errors.Forbidden) and error.problem != "crowded" else f"{told} {FREE}"


def _busy(error: errors.MemberBusy, _: datetime) -> str:
    under_way = f"{error.limit} of your requests are" if error.limit > 1 else "One of your requests is"
    return f"{under_way} still under way. Wait for it and try again."


def _expired(error: errors.SourceExpired, _: datetime) -> str:
    which = "The reference picture" if error.option == "reference" else "The picture"
    return f"{which} this was made from is no longer kept. Attach it again with /thumbnail or Edit."


FORBIDDEN: Mapping[str, str] = MappingProxyType(
    {
        "share": "Only who asked for this picture may share it.",
        "shared": "You have shared this picture already.",
        "delete": "Only who asked for this picture, or who may manage messages here, may delete it.",
        "cancel": "Only who asked for this picture, or who may manage messages here, may cancel it.",
        "unfinished": "This picture is not finished yet.",
        "started": "It is being made already, and cannot be cancelled any more.",
        "crowded": "Several are being made from that picture already. React again when they are finished.",
    }
)


def circuit(error: errors.CircuitOpen, now: datetime) -> str:
    if error.until is None:
        return CIRCUITS[error.circuit]
    return f"{CIRCUITS[error.circuit]} Try again {moment(max(error.until, now + timedelta(seconds=1)))}."


def _quota_spent(error: errors.QuotaSpent, _: datetime) -> str:
    limit, used = error.allowance.limit, error.allowance.used
    whose = {Scope.MEMBER: "You have", Scope.GUILD: "This server has"}[limit.scope]
    costs = f" and this costs {error.cost}" if error.cost > 1 else ""
    back = moment(limit.window.end)
    return f"{whose} used {used} of {credits_(limit.amount)} for today{costs}. More {back}."


def allowances(found: Sequence[Allowance]) -> str:
    """What is used and left, the limit that binds first of all last."""
    return "\n".join(_allowance(allowance) for allowance in sorted(found, key=lambda one: -one.left))


def _allowance(allowance: Allowance) -> str:
    limit = allowance.limit
    whose = {Scope.MEMBER: "You", Scope.GUILD: "This server"}[limit.scope]
    line = f"{whose}, today: {allowance.used} of {credits_(limit.amount)} used, **{allowance.left} left**."
    return f"{line} All {limit.amount} again {moment(limit.window.end)}." if allowance.used else line


def _option_problem(error: errors.OptionInvalid, _: datetime) -> str:
    if error.problem == "unknown_preset" and not error.facts.get("known"):
        return f"`{error.option}` {_NO_PRESETS}"
    shown = {name: _fact(name, value) for name, value in error.facts.items()}
    return f"`{error.option}` {OPTION_PROBLEMS[error.problem].format(option=error.option, **shown)}"


REFUSALS: Mapping[type[errors.Refused], Callable[[Any, datetime], str]] = MappingProxyType(
    {
        errors.OptionInvalid: _option_problem,
        errors.QuotaSpent: _quota_spent,
        errors.QueueFull: lambda error, _: f"{error.length} requests are waiting already. Try again in a few minutes.",
        errors.MemberBusy: _busy,
        errors.CircuitOpen: circuit,
        errors.SourceExpired: _expired,
        errors.Forbidden: lambda error, _: FORBIDDEN[error.problem],
        errors.BooksUnavailable: lambda *_: (
            "The bot cannot take requests at the moment; its operator has been told. Try again later."
        ),
        errors.Cancelled: lambda *_: "Cancelled.",
        errors.Restarting: lambda *_: "The bot is restarting. Try again in a minute.",
        errors.ResultGone: lambda *_: "That is too long ago. Start again with /thumbnail.",
        errors.NoPicture: lambda *_: "That message has no picture.",
        errors.PlaceClosed: lambda *_: "The bot may not post in that channel.",
    }
)


def _fact(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return " or ".join(MODELS[item] if isinstance(item, Model) else str(item) for item in value)
    if name in ("size", "limit") and isinstance(value, int) and value > CONTENT_LENGTH * 10:
        return megabytes(value)
    return str(value)


# --- failures: on the job's message, with its id ------------------------------------------------------------------


def failure(job: Job) -> str:
    """How a released job ended, from its stored reason: the same words now and after a restart."""
    kind, _, detail = (job.reason or errors.Failed.kind).partition(":")
    match kind:
        case errors.ProviderRefused.kind:
            said = PROVIDER.get(detail, _GENERIC)
        case errors.NotStarted.kind if detail in tuple(Circuit):
            said = f"{CIRCUITS[Circuit(detail)]} This request was not started."
        case errors.NotStarted.kind if detail == "cancelled":
            said = "Cancelled."
        case errors.NotStarted.kind if detail == "sourceexpired":
            said = "The picture this was to be made from is no longer kept. Attach it again with /thumbnail."
        case errors.NotStarted.kind if detail:
            said = "The bot restarted before this was started. Try again."
        case _:
            said = FAILURES.get(kind, FAILURES[errors.Failed.kind])
    return f"{said} {FREE} · #{job.id}"


FAILURES: Mapping[str, str] = MappingProxyType(
    {
        errors.Failed.kind: "Something went wrong. Try again.",
        errors.NotStarted.kind: "This request was not started. Try again.",
        errors.ProviderUnreachable.kind: "The image service could not be reached. Try again in a few minutes.",
        errors.OutcomeUnknown.kind: "The bot lost contact with the image service. Try again.",
        errors.AnswerUnusable.kind: "The image service returned something unusable. Try again.",
        errors.ProviderMoved.kind: "The image service has moved; the operator has been told.",
        errors.OutputRefused.kind: "The image service returned something unusable. Try again.",
        errors.OutputUnreachable.kind: "The finished picture could not be fetched.",
        errors.OutputGone.kind: "The finished picture is no longer there.",
        errors.PictureUnusable.kind: "The image service returned something that is not a usable picture. Try again.",
        errors.Undeliverable.kind: "Discord did not take the finished picture here.",
        errors.MessageDeleted.kind: "The message of this request was deleted.",
        errors.DeliveryDelayed.kind: "Discord did not take the finished picture.",
        errors.Unforeseen.kind: "Something went wrong inside the bot; its operator has been told. Try again.",
    }
)

UNFORESEEN = f"Something went wrong inside the bot; its operator has been told. {FREE}"


# --- the operator's log and alerts: no member's words, no secrets -------------------------------------------------


def operator(error: errors.Failed) -> str:
    """One line for the operator: what kind, and what is needed to reconcile it with the provider."""
    facts = {name: value for name, value in vars(error).items() if value not in (None, ()) and name != "why"}
    described = ", ".join(f"{name}={value}" for name, value in facts.items())
    return f"{error.kind} ({described})" if described else error.reason


def books_unavailable(error: errors.BooksUnavailable) -> str:
    return f"the database cannot be written ({error.problem}): nothing new is taken until it can"


RESTORED = (
    "an older copy of the database took the place of the last one: charges made since are lost, and what was under way"
    " in it is released"
)


def opened(circuit_: Circuit, until: datetime | None) -> str:
    back = "until the operator acts" if until is None else f"next trial {until:%Y-%m-%d %H:%M:%S} UTC"
    what = {
        Circuit.KEY: "Pikzels refuses the API key or the account",
        Circuit.MOVED: "Pikzels answers with a redirect, which is never followed",
        Circuit.BALANCE: "the Pikzels balance is empty",
        Circuit.MAINTENANCE: "Pikzels is under maintenance",
        Circuit.FAILURES: "Pikzels keeps failing",
    }[circuit_]
    return f"{what}; new requests are refused, {back}"
