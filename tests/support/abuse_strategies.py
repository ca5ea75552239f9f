"""A dozen ways to get more than one's share, and the honest way, for `tests.support.abuse_game`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from bot.domain.models import Model

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

COMMUNITIES = (11, 12, 13, 14)
OWN_SERVER = 66  # an attacker is its admin
MEMBER_ROLE, SUPPORTER_ROLE, VIP_ROLE = 31, 32, 33
DAY = timedelta(days=1)
_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)


class End(StrEnum):
    """How a job ends: the reason of its release, or a picture in Discord."""

    PICTURE = "delivered"
    CANCELLED = "not_started:cancelled"
    REFUSED = "provider_refused:VALIDATION_ERROR"
    POLICY = "provider_refused:CONTENT_POLICY"
    UNKNOWN = "outcome_unknown"
    UNDELIVERABLE = "undeliverable"  # the image was made, and its message is gone


PAID = (End.PICTURE, End.UNKNOWN, End.UNDELIVERABLE)  # what the provider sends a bill for, at worst


@dataclass(frozen=True, slots=True)
class Account:
    user_id: int
    strategy: str
    home: int
    wants: int  # requests a day of an honest member


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, at a moment that other requests may share. `forged` repeats an id that was used before."""

    account: Account
    at: datetime
    end: End
    guild_id: int | None
    model: Model = Model.PKZ_4
    seconds: float = 20
    reacted_to: int | None = None
    forged: bool = False
    roles: frozenset[int] = frozenset({MEMBER_ROLE})
    user_id: int = 0  # of another account made for this request


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days of a game. `midnights` are those of the operator's time zone."""

    start: datetime
    days: int
    midnights: tuple[datetime, ...]

    def moment(self, chance: random.Random) -> datetime:
        return self.start + timedelta(seconds=chance.randrange(self.days * 86_400))


def account_id(created: datetime, number: int) -> int:
    """A snowflake of that moment."""
    return ((created - _EPOCH) // timedelta(milliseconds=1) << 22) | number


def account_made(user_id: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=user_id >> 22)


def honest(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """A few requests a day in one server, most of which succeed; at most one of a day costs money for nothing."""
    for number in range(calendar.days):
        unlucky = chance.choice((End.UNKNOWN, End.UNDELIVERABLE, End.REFUSED, End.POLICY))
        ends = [unlucky if chance.random() < 0.05 else End.PICTURE, *[End.PICTURE] * (who.wants - 1)]
        for end in ends:
            at = calendar.start + number * DAY + timedelta(seconds=chance.randrange(86_400))
            yield Attempt(who, at, end, who.home, chance.choice(tuple(Model)))


def bursts(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for _ in range(15):
            yield Attempt(who, at, End.PICTURE, who.home, chance.choice(tuple(Model)))


def cancel_storms(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(14):
            yield Attempt(who, at + timedelta(seconds=number), End.CANCELLED, who.home, seconds=0.5)


def forged_ids(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(6 * calendar.days):
        yield Attempt(who, calendar.moment(chance), End.PICTURE, who.home, forged=chance.random() < 0.8)


def reaction_farms(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """The same reaction is taken back and given again, under the same few results."""
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(13):
            end = chance.choice((End.PICTURE, End.CANCELLED))
            yield Attempt(who, at + timedelta(seconds=number), end, who.home, reacted_to=chance.randint(1, 6))


def role_hopping(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """The best role for every request, a worse one for the next."""
    for _ in range(8 * calendar.days):
        roles = frozenset(chance.sample((MEMBER_ROLE, SUPPORTER_ROLE, VIP_ROLE, 34), chance.randint(0, 3)))
        yield Attempt(who, calendar.moment(chance), End.PICTURE, who.home, roles=roles)


def many_servers(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(8 * calendar.days):
        guild = chance.choice((*COMMUNITIES, None, 71, 72, 73))
        yield Attempt(who, calendar.moment(chance), End.PICTURE, guild)


def own_server(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """The game lifts every limit there that an admin can lift."""
    for _ in range(8 * calendar.days):
        yield Attempt(who, calendar.moment(chance), End.PICTURE, OWN_SERVER, chance.choice(tuple(Model)))


def provoked_failures(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(13):
            yield Attempt(who, at + timedelta(seconds=30 * number), End.REFUSED, who.home, seconds=5)


def forbidden_prompts(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(7 * calendar.days):
        yield Attempt(who, calendar.moment(chance), End.POLICY, who.home, seconds=5)


def unknown_outcomes(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(9):
            yield Attempt(who, at + timedelta(minutes=number), End.UNKNOWN, who.home, seconds=chance.choice((20, 200)))


def deleted_messages(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """Each image is paid for and never charged: its message is deleted while it is made."""
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(13):
            yield Attempt(who, at + timedelta(minutes=number), End.UNDELIVERABLE, who.home)


def fresh_accounts(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    for number in range(6 * calendar.days):
        at = calendar.moment(chance)
        made = at - timedelta(hours=chance.randint(0, 400))
        yield Attempt(who, at, End.PICTURE, who.home, user_id=account_id(made, who.user_id % 1000 * 512 + number))


def month_end(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """As much as possible in the last and the first moments of a day."""
    for midnight in calendar.midnights:
        for before in (timedelta(seconds=-1), timedelta(milliseconds=-1), timedelta(0), timedelta(seconds=1)):
            for _ in range(2):
                yield Attempt(who, midnight + before, End.PICTURE, who.home, chance.choice(tuple(Model)))


def extra_credits(who: Account, calendar: Calendar, chance: random.Random) -> Iterator[Attempt]:
    """Holds that come back, among holds that do not: the game grants these members credits and takes some back."""
    for _ in range(calendar.days):
        at = calendar.moment(chance)
        for number in range(9):
            end = chance.choice((End.PICTURE, End.CANCELLED, End.REFUSED))
            yield Attempt(who, at + timedelta(seconds=number // 3), end, who.home, seconds=chance.choice((1, 2, 30)))


STRATEGIES = {
    one.__name__.replace("_", " "): one
    for one in (
        honest,
        bursts,
        cancel_storms,
        forged_ids,
        reaction_farms,
        role_hopping,
        many_servers,
        own_server,
        provoked_failures,
        forbidden_prompts,
        unknown_outcomes,
        deleted_messages,
        fresh_accounts,
        month_end,
        extra_credits,
    )
}
