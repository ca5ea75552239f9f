"""What the admins of one server have set: limits, where results may go, and what is used when nothing is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from bot.domain.errors import InvalidSetting
from bot.domain.models import Format, Model, Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

UNLIMITED = -1  # a limit that somebody has been freed from
MOST_CREDITS = 10_000_000  # that one limit may allow
DEFAULT, YES, NO = "default", "yes", "no"  # the choices of a setting that are none of its values
NO_LIMIT, REMOVE = "no limit", "remove"  # what an admin may write in place of a number


class LimitKind(StrEnum):
    """Whom a limit of a server is for. Stored, so never renamed."""

    SERVER = "server"  # all members together
    EVERYONE = "everyone"  # each member that has no other limit
    ROLE = "role"
    MEMBER = "member"


class PresetKind(StrEnum):
    """What a preset names. Stored, so never renamed."""

    PERSONA = "persona"
    STYLE = "style"


@dataclass(frozen=True, slots=True)
class Amounts:
    """Credits per day and per month. None: not set here. UNLIMITED: no limit."""

    daily: int | None = None
    monthly: int | None = None

    def of(self, period: Period) -> int | None:
        return self.daily if period is Period.DAY else self.monthly


NOTHING_SET = Amounts()


@dataclass(frozen=True, slots=True)
class Preferences:
    """What is used when a member chooses nothing; None: not set."""

    model: Model | None = None
    format: Format | None = None
    private: bool | None = None

    def or_else(self, other: Preferences) -> Preferences:
        """These, and what `other` says where nothing is set."""
        return Preferences(
            self.model if self.model is not None else other.model,
            self.format if self.format is not None else other.format,
            self.private if self.private is not None else other.private,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Somebody who may not use the bot, in one server or (`guild_id` 0) everywhere. `subject` is a user or a server."""

    guild_id: int
    is_server: bool
    subject: int
    reason: str
    until: datetime | None
    actor: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, for the record. `guild_id` is 0 for what is everywhere; `target` the user it is about."""

    actor: int
    guild_id: int
    action: str
    at: datetime
    target: int = 0


@dataclass(frozen=True, slots=True)
class ServerRules:
    """The rules of one server. `presets` are names to the provider's ids."""

    limits: Mapping[tuple[LimitKind, int], Amounts] = field(default_factory=dict)
    channels: frozenset[int] = frozenset()  # where public results may go; empty: everywhere
    log_channel: int | None = None
    defaults: Preferences = Preferences()
    spoiler: bool = False
    presets: Mapping[PresetKind, Mapping[str, str]] = field(default_factory=dict)

    @property
    def server(self) -> Amounts:
        return self.limits.get((LimitKind.SERVER, 0), NOTHING_SET)

    def of_member(self, user_id: int, roles: Iterable[int], period: Period) -> int | None:
        """What one member may use: their own limit, else the best of their roles and of everyone's. None: not set."""
        own = self.limits.get((LimitKind.MEMBER, user_id), NOTHING_SET).of(period)
        if own is not None:
            return own
        keys = [(LimitKind.EVERYONE, 0), *((LimitKind.ROLE, role) for role in roles)]
        found = [self.limits.get(key, NOTHING_SET).of(period) for key in keys]
        set_ = [amount for amount in found if amount is not None]
        return UNLIMITED if UNLIMITED in set_ else max(set_, default=None)


def amount(text: str | None, current: int | None) -> int | None:
    """The limit that an admin has written; `current` if they have left it out. Raises `InvalidSetting`."""
    wanted = None if text is None else text.strip().lower()
    if wanted is None:
        return current
    if wanted in (NO_LIMIT, REMOVE):
        return UNLIMITED if wanted == NO_LIMIT else None
    if not wanted.isascii() or not wanted.isdigit() or len(wanted) > len(str(MOST_CREDITS)):
        raise InvalidSetting("amount")
    if int(wanted) > MOST_CREDITS:
        raise InvalidSetting("amount")
    return int(wanted)


def chosen(before: Preferences, *, model: str | None, format_: str | None, private: str | None) -> Preferences:
    """What somebody has chosen now, and before where they have left a choice out; DEFAULT takes one back."""
    return Preferences(
        before.model if model is None else None if model == DEFAULT else Model(model),
        before.format if format_ is None else None if format_ == DEFAULT else Format(format_),
        before.private if private is None else None if private == DEFAULT else private == YES,
    )


def merged_presets(operators: Mapping[str, str], servers: Mapping[str, str]) -> dict[str, str]:
    """The presets that a server knows, name to id: the server's own stand in for the operator's of the same name."""
    taken = {name.casefold() for name in servers}
    return {name: value for name, value in operators.items() if name.casefold() not in taken} | dict(servers)
