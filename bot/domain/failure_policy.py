"""What each way of failing means: may it be tried again, does it stop everything, how loud is it. A table.

The codes are those of the provider's contract; what follows from them is this project's decision (docs/codes.md).
`release` has no column: a job that ends without a delivered picture always releases its hold.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.errors import (
    AnswerUnusable,
    OutcomeUnknown,
    OutputGone,
    OutputUnreachable,
    PictureUnusable,
    ProviderMoved,
    ProviderRefused,
    ProviderUnreachable,
    Undeliverable,
    Unforeseen,
)
from bot.domain.models import Circuit, Loudness, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.domain.errors import Failed

_MEMBERS = Verdict(retries=0, pause=None, loudness=Loudness.COUNT)  # the member can mend it
_OURS = Verdict(retries=0, pause=None, loudness=Loudness.WARN)  # our own checks should have caught it
_FOREIGN = Verdict(retries=0, pause=None, loudness=Loudness.WARN)  # belongs to another endpoint: the API drifted
_KEY = Verdict(retries=0, pause=Circuit.KEY, loudness=Loudness.PAGE)
_BALANCE = Verdict(retries=0, pause=Circuit.BALANCE, loudness=Loudness.PAGE)
_SERVER = Verdict(retries=0, pause=None, loudness=Loudness.COUNT, counts=True)
_FOREIGN_SERVER = Verdict(retries=0, pause=None, loudness=Loudness.WARN, counts=True)
_MAINTENANCE = Verdict(retries=0, pause=Circuit.MAINTENANCE, loudness=Loudness.WARN, pause_for=timedelta(minutes=1))
_THROTTLED = Verdict(retries=2, pause=None, loudness=Loudness.COUNT, throttle=True)

CODES: Mapping[str, Verdict] = MappingProxyType(
    {
        "VALIDATION_ERROR": _OURS,
        "INVALID_PERSONA": _OURS,
        "INVALID_STYLE": _OURS,
        "INVALID_AMOUNT": _FOREIGN,
        "CONTENT_POLICY": _MEMBERS,
        "CANNOT_DELETE_PROCESSING": _FOREIGN,
        "SUPPORT_IMAGE_NOT_SUPPORTED": _OURS,
        "IMAGE_TOO_LARGE": _OURS,
        "MISSING_API_KEY": _KEY,
        "INVALID_API_KEY_FORMAT": _KEY,
        "INVALID_API_KEY": _KEY,
        "API_KEY_INACTIVE": _KEY,
        "API_KEY_DELETED": _KEY,
        "INSUFFICIENT_CREDITS": _BALANCE,
        "SMART_BALANCE_PAYMENT_FAILED": _BALANCE,
        "API_ACCESS_NOT_ENABLED": _KEY,
        "ACCOUNT_SUSPENDED": _KEY,
        "NOT_FOUND": Verdict(retries=0, pause=None, loudness=Loudness.WARN, counts=True),  # the route may have moved
        "NAME_RESERVED": _FOREIGN,
        "NAME_ALREADY_EXISTS": _FOREIGN,
        "CONFLICT": _MEMBERS,
        "GENERATION_REJECTED": _MEMBERS,
        "CANCELLED": _MEMBERS,
        "GENERATION_FAILED": _SERVER,
        "INVALID_IMAGE": _MEMBERS,
        "INTERNAL_ERROR": _SERVER,
        "SERVICE_UNDER_MAINTENANCE": _MAINTENANCE,
        "GENERATION_TIMEOUT": _SERVER,  # may finish later: never sent again
        "SCORING_TIMEOUT": _FOREIGN_SERVER,
        "TITLE_TIMEOUT": _FOREIGN_SERVER,
        "TOO_MANY_REQUESTS": _THROTTLED,
    }
)

# Retried only where the operator says so: the price list speaks of successful requests, nobody has confirmed it.
SERVER_CODES = ("GENERATION_FAILED", "INTERNAL_ERROR")

_UNREACHABLE = Verdict(retries=2, pause=None, loudness=Loudness.COUNT, counts=True)
_UNKNOWN_OUTCOME = Verdict(retries=0, pause=None, loudness=Loudness.WARN, counts=True)
_UNUSABLE = Verdict(retries=0, pause=None, loudness=Loudness.PAGE, counts=True)
_MOVED = Verdict(retries=0, pause=Circuit.MOVED, loudness=Loudness.PAGE)
_UNKNOWN_4XX = Verdict(retries=0, pause=None, loudness=Loudness.WARN)
_UNKNOWN_5XX = Verdict(retries=0, pause=None, loudness=Loudness.WARN, counts=True)
_OUR_SIDE = Verdict(retries=0, pause=None, loudness=Loudness.COUNT)


def judge(failure: Failed, *, retry_server_errors: bool = False) -> Verdict:
    """Say what `failure` of a provider call means; anything that is not one costs no retry and opens nothing."""
    match failure:
        case ProviderRefused():
            return _judge_code(failure.code, failure.status, retry_server_errors=retry_server_errors)
        case ProviderUnreachable():
            return _UNREACHABLE
        case AnswerUnusable():
            return _UNUSABLE
        case OutcomeUnknown():
            return _UNKNOWN_OUTCOME
        case ProviderMoved():
            return _MOVED
        case _:
            return _OUR_SIDE


def _judge_code(code: str, status: int, *, retry_server_errors: bool) -> Verdict:
    if retry_server_errors and code in SERVER_CODES:
        return Verdict(retries=1, pause=None, loudness=Loudness.COUNT, counts=True)
    known = CODES.get(code)
    if known is not None:
        return known
    return _by_class(status)


def _by_class(status: int) -> Verdict:
    """A code the contract does not name: its HTTP class decides, and it is never tried again."""
    by_status = {401: _KEY, 402: _BALANCE, 403: _KEY}
    return by_status.get(status) or (_UNKNOWN_5XX if status >= 500 else _UNKNOWN_4XX)  # noqa: PLR2004 - HTTP's classes


def fetch_again(failure: Failed, tries: int) -> bool:
    """Whether a finished picture may still come after `failure` of so many tries to fetch it."""
    match failure:
        case OutputGone():
            return tries < 3  # noqa: PLR2004 - a moment's inconsistency of a CDN, not more
        case PictureUnusable():
            return tries < 2  # noqa: PLR2004 - damaged on the way, perhaps
        case _:
            return isinstance(failure, OutputUnreachable)


def loudness(failure: Failed, verdict: Verdict) -> Loudness:
    """How the operator hears of a job that ended with `failure`."""
    match failure:
        case OutputUnreachable() | PictureUnusable() | Unforeseen():
            return Loudness.PAGE  # a paid picture did not arrive
        case Undeliverable():
            return Loudness.WARN
        case _:
            return verdict.loudness if verdict.pause is None else Loudness.COUNT  # its circuit has told already
