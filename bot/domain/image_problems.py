"""What makes an image unusable before the paid call, and how the reason of a released job stores it."""

from __future__ import annotations

import re

from bot.domain.errors import InvalidOption, NotStarted, NotStartedCause

_UNREADABLE, _TOO_MANY_PIXELS = "unreadable", "too_many_pixels"  # problems of an option
_REASON = re.compile(
    rf"{NotStarted.kind}:(?:"
    rf"{NotStartedCause.IMAGE_UNREADABLE}:(?P<unreadable>image|reference)|"
    rf"{NotStartedCause.IMAGE_TOO_MANY_PIXELS}:(?P<option>image|reference):(?P<width>\d+):(?P<height>\d+):(?P<limit>\d+)"
    r"(?P<can_shrink>:smaller)?)"
)


def unreadable(option: str) -> InvalidOption:
    """The file is no image of a known type."""
    return InvalidOption(option, _UNREADABLE)


def too_many_pixels(
    option: str, *, width: int, height: int, limit: int, can_shrink: bool = False
) -> InvalidOption | None:
    """The problem of an image of more than `limit` pixels in all; None for any other. `can_shrink` says that the bot
    can make a smaller copy of it.
    """
    pixels = width * height
    if pixels <= limit:
        return None
    facts = {"width": width, "height": height, "pixels": pixels, "max_pixels": limit}
    return InvalidOption(option, _TOO_MANY_PIXELS, **facts, **({"can_shrink": True} if can_shrink else {}))


def not_started(problem: InvalidOption) -> NotStarted:
    """How a job ends for `problem`; `from_reason` understands its reason."""
    if problem.problem == _UNREADABLE:
        return NotStarted(NotStartedCause.IMAGE_UNREADABLE, (problem.option,))
    details = (problem.option, *(str(problem.facts[name]) for name in ("width", "height", "max_pixels")))
    smaller = ("smaller",) if problem.facts.get("can_shrink") else ()
    return NotStarted(NotStartedCause.IMAGE_TOO_MANY_PIXELS, details + smaller)


def from_reason(reason: str | None) -> InvalidOption | None:
    """The problem in a stored reason; None if the job ended for another one."""
    found = _REASON.fullmatch(reason or "")
    if found is None:
        return None
    if found["unreadable"]:
        return unreadable(found["unreadable"])
    width, height, limit = (int(found[name]) for name in ("width", "height", "limit"))
    return too_many_pixels(
        found["option"], width=width, height=height, limit=limit, can_shrink=found["can_shrink"] is not None
    )


def can_shrink(reason: str | None) -> bool:
    """Whether a job ended because of an image of which the bot can make a smaller copy."""
    problem = from_reason(reason)
    return problem is not None and bool(problem.facts.get("can_shrink"))
