"""What each failure means: may it be retried, does it open a circuit, how does the operator learn of it. A table.

The codes are those of the provider's contract; what follows from them is this project's decision (docs/codes.md).
`release` has no column: a job that ends without a delivered image always releases its hold.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.errors import (
    AnswerUnusable,
    InternalError,
    JobFailed,
    MessageDeleted,
    NotStarted,
    OutcomeUnknown,
    OutputGone,
    OutputRefused,
    OutputUnreachable,
    PictureUnusable,
    ProviderMoved,
    ProviderRefused,
    ProviderUnreachable,
    Undeliverable,
)
from bot.domain.models import AlertLevel, Circuit, FailurePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMBERS = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.COUNT)  # the member can fix it
_OURS = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN)  # our own validation should have caught it
_FOREIGN = FailurePolicy(
    retries=0, pause=None, alert_level=AlertLevel.WARN
)  # belongs to another endpoint: the API drifted
_KEY = FailurePolicy(retries=0, pause=Circuit.KEY, alert_level=AlertLevel.PAGE)
_BALANCE = FailurePolicy(retries=0, pause=Circuit.BALANCE, alert_level=AlertLevel.PAGE)
_SERVER = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.COUNT, counts=True)
_FOREIGN_SERVER = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN, counts=True)
_MAINTENANCE = FailurePolicy(
    retries=0, pause=Circuit.MAINTENANCE, alert_level=AlertLevel.WARN, pause_for=timedelta(minutes=1)
)
_UNKNOWN_PRESET = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN)  # says nothing about the service
_THROTTLED = FailurePolicy(retries=2, pause=None, alert_level=AlertLevel.COUNT, throttle=True)

# Reasons of a release: of a call that may have been paid for, and of one for which its member has to answer.
UNKNOWN_REASONS = (OutcomeUnknown.kind, AnswerUnusable.kind)
# An image that was paid for and that nobody claimed: whoever deletes messages must not get it for free again and again.
GIVEN_UP_REASONS = (Undeliverable.kind, MessageDeleted.kind)
BALANCE_REASONS = (
    f"{NotStarted.kind}:{Circuit.BALANCE.value}",
    f"{ProviderRefused.kind}:INSUFFICIENT_CREDITS",
    f"{ProviderRefused.kind}:SMART_BALANCE_PAYMENT_FAILED",
)
STRIKE_REASON = f"{ProviderRefused.kind}:CONTENT_POLICY"

CODES: Mapping[str, FailurePolicy] = MappingProxyType(
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
        "NOT_FOUND": FailurePolicy(
            retries=0, pause=None, alert_level=AlertLevel.WARN, counts=True
        ),  # the route may have moved
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

# Retried only if the operator allows it: the price list speaks of successful requests, but nobody has confirmed it.
SERVER_CODES = ("GENERATION_FAILED", "INTERNAL_ERROR")

_UNREACHABLE = FailurePolicy(retries=2, pause=None, alert_level=AlertLevel.COUNT, counts=True)
_UNKNOWN_OUTCOME = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN, counts=True)
_UNUSABLE = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.PAGE, counts=True)
_MOVED = FailurePolicy(retries=0, pause=Circuit.MOVED, alert_level=AlertLevel.PAGE)
_UNKNOWN_4XX = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN)
_FORBIDDEN = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN, counts=True)
_UNKNOWN_5XX = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN, counts=True)
_PAID_AND_LOST = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.PAGE)  # a paid image did not arrive
_UNDELIVERABLE = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.WARN)
_OUR_SIDE = FailurePolicy(retries=0, pause=None, alert_level=AlertLevel.COUNT)

_BY_CLASS: Mapping[type[BaseException], FailurePolicy] = MappingProxyType(  # looked up by ancestry
    {
        ProviderUnreachable: _UNREACHABLE,
        OutcomeUnknown: _UNKNOWN_OUTCOME,
        AnswerUnusable: _UNUSABLE,
        ProviderMoved: _MOVED,
        OutputRefused: _PAID_AND_LOST,
        OutputUnreachable: _PAID_AND_LOST,
        PictureUnusable: _PAID_AND_LOST,
        InternalError: _PAID_AND_LOST,
        Undeliverable: _UNDELIVERABLE,
        JobFailed: _OUR_SIDE,
    }
)


def policy_of(failure: JobFailed, *, retry_server_errors: bool = False, preset: bool = False) -> FailurePolicy:
    """What `failure` means: decided where it is first seen, and carried along by it from then on."""
    if failure.policy is None:
        failure.policy = policy_for(failure, retry_server_errors=retry_server_errors, preset=preset)
    return failure.policy


def policy_for(failure: JobFailed, *, retry_server_errors: bool = False, preset: bool = False) -> FailurePolicy:
    """Look up what `failure` means; one that is not of a provider call allows no retry and opens no circuit. `preset`
    says that the request named a persona or a style: then that may be what was not found, and not the route.
    """
    if isinstance(failure, ProviderRefused):
        if preset and failure.code == "NOT_FOUND":
            return _UNKNOWN_PRESET
        return _policy_for_code(failure.code, failure.status, retry_server_errors=retry_server_errors)
    return next(_BY_CLASS[ancestor] for ancestor in type(failure).__mro__ if ancestor in _BY_CLASS)


def _policy_for_code(code: str, status: int, *, retry_server_errors: bool) -> FailurePolicy:
    if retry_server_errors and code in SERVER_CODES:
        return FailurePolicy(retries=1, pause=None, alert_level=AlertLevel.COUNT, counts=True)
    known = CODES.get(code)
    if known is not None:
        return known
    return _policy_for_status(status)


def _policy_for_status(status: int) -> FailurePolicy:
    """A code the contract does not name: its HTTP class decides, and it is never retried."""
    by_status = {401: _KEY, 402: _BALANCE, 403: _FORBIDDEN}  # a 403 may be about a region or a single request
    return by_status.get(status) or (_UNKNOWN_5XX if status >= 500 else _UNKNOWN_4XX)  # noqa: PLR2004 - HTTP's classes


def may_download_again(failure: JobFailed, tries: int) -> bool:
    """Whether an output may still arrive after `failure` of the `tries`-th download."""
    match failure:
        case OutputGone():
            return tries < 3  # noqa: PLR2004 - a CDN's brief inconsistency, not more
        case PictureUnusable():
            return tries < 2  # noqa: PLR2004 - perhaps damaged in transit
        case _:
            return isinstance(failure, OutputUnreachable)
