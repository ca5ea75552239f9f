"""The nouns: a request, the job it becomes, the picture that comes out, and what a member may still spend."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

T = TypeVar("T")

DEFAULT_UPLOAD_LIMIT = 10 * 1024 * 1024  # bytes that Discord accepts in one file anywhere
TOKEN_LIFE = timedelta(minutes=14)  # Discord accepts an interaction's token for 15
CLAIM_LIFE = timedelta(days=7)  # how long a picture that could not be delivered waits for its requester


class Model(StrEnum):
    """The generators of the published contract."""

    PKZ_2 = "pkz_2"
    PKZ_3 = "pkz_3"
    PKZ_4 = "pkz_4"
    PKZ_4_5 = "pkz_4_5"


class Format(StrEnum):
    """Width to height of the result."""

    WIDE = "16:9"
    TALL = "9:16"
    SQUARE = "1:1"


class Weight(StrEnum):
    """How closely pkz_2 follows the image."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """One call of create-from-image; built by `validation.build_request`, so it fits the provider's schema."""

    image_url: str = field(repr=False)  # a signed URL: anyone who reads it can fetch the image
    model: Model
    format: Format
    prompt: str | None = None
    support_image_url: str | None = field(default=None, repr=False)
    image_weight: Weight | None = None
    persona: str | None = None
    style: str | None = None
    image_hash: str | None = None  # of the bytes in the source store
    support_hash: str | None = None
    image_base64: str | None = field(default=None, repr=False)  # a data URL, sent in place of the address
    support_base64: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """What Discord says about an attached file. `size` is in bytes, `width` and `height` in pixels; what may be None is
    unknown then.
    """

    url: str = field(repr=False)
    filename: str
    size: int | None
    content_type: str | None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Oversized:
    """A request that would be valid if its `images` had fewer bytes or pixels."""

    request: ThumbnailRequest
    images: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class Postponed:
    """A request that waits until its requester agrees to smaller copies of its images."""

    request: ThumbnailRequest
    private: bool  # as in `Requester`


@dataclass(frozen=True, slots=True)
class Requester:
    """Who made a request, where, and by which interaction or reaction. The ids are Discord's snowflakes."""

    user_id: int
    guild_id: int | None
    channel_id: int
    interaction_id: int | None  # None for a reaction
    token: str = field(repr=False)  # anyone can reply as the bot with it for 15 minutes; empty for a reaction
    asked_at: datetime
    upload_limit: int  # bytes Discord accepts here in one file
    private: bool = False  # only the requester may see the result
    reacted_to: int | None = None  # the message whose reaction made the request
    locale: str = "en-US"  # of the messages about this job: the requester's if private, else the server's
    spoiler: bool = False  # the image is hidden until somebody clicks it
    # What Discord says of the person at the time of the request; not stored.
    roles: frozenset[int] = field(default=frozenset(), compare=False)
    joined_at: datetime | None = field(default=None, compare=False)
    parent_channel_id: int | None = field(default=None, compare=False)  # of a thread


AGAIN = "🔁"  # the reaction that generates another image


class State(StrEnum):
    """The states of a job, in order. They are stored, so they are never renamed."""

    RESERVED = "reserved"
    ACKED = "acked"
    SENDING = "sending"
    GENERATED = "generated"
    SPOOLED = "spooled"
    DELIVERED = "delivered"
    RELEASED = "released"


OPEN_STATES = (State.RESERVED, State.ACKED, State.SENDING, State.GENERATED, State.SPOOLED)


class Step(StrEnum):
    """What can happen to a job. The names are stored in the journal, so they are never renamed."""

    ACKED = "acked"
    SENDING = "sending"
    GENERATED = "generated"
    SPOOLED = "spooled"
    PARKED = "parked"
    DELIVERED = "delivered"
    RELEASED = "released"
    NOTIFIED = "told"


@dataclass(frozen=True, slots=True)
class Transition:
    """A step is allowed from any of `sources` and leads to `target`."""

    sources: Sequence[State]
    target: State


# The only place that says what may follow what: the ledger's statements and the journal's replay both read it.
TRANSITIONS: Mapping[Step, Transition] = MappingProxyType(
    {
        Step.ACKED: Transition((State.RESERVED,), State.ACKED),
        # from reserved when the job need not wait: its message is recorded by the same commit
        Step.SENDING: Transition((State.RESERVED, State.ACKED), State.SENDING),
        Step.GENERATED: Transition((State.SENDING,), State.GENERATED),
        # again from spooled when the file was lost from the spool
        Step.SPOOLED: Transition((State.GENERATED, State.SPOOLED), State.SPOOLED),
        Step.PARKED: Transition((State.SPOOLED,), State.SPOOLED),
        # from generated when the disk was full and the picture stayed in memory
        Step.DELIVERED: Transition((State.GENERATED, State.SPOOLED), State.DELIVERED),
        Step.RELEASED: Transition(OPEN_STATES, State.RELEASED),
        Step.NOTIFIED: Transition((State.RELEASED,), State.RELEASED),
    }
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as its header describes it; `size` in bytes, `width` and `height` in pixels."""

    path: Path
    type: str  # Pillow's name of the format: PNG, JPEG, WEBP
    width: int
    height: int
    size: int
    content: bytes | None = field(default=None, repr=False)  # its bytes, if there is no file at `path`

    @property
    def suffix(self) -> str:
        return {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[self.type]


@dataclass(frozen=True, slots=True)
class Output:
    """What the provider answered: the URL of the picture, valid for 24 hours, and the call's id for support."""

    url: str = field(repr=False)
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A request for a kept picture: the interaction whose answer shall carry it."""

    user_id: int
    token: str = field(repr=False)
    upload_limit: int  # bytes Discord accepts there in one file
    at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """How many pictures a claim was given, and how many wait; `earlier` says that the answer to an earlier claim has
    the picture.
    """

    handed_over: int
    left: int
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One request and how far it is, as the database has it."""

    id: str
    state: State
    request: ThumbnailRequest
    requester: Requester
    cost: int  # credits of the member's allowance
    created_at: datetime
    message_id: int | None = None
    sent_at: datetime | None = None
    output: Output | None = None
    generated_at: datetime | None = None
    picture: Picture | None = None
    parked_at: datetime | None = None  # the picture could not be delivered and waits for a claim
    ended_at: datetime | None = None
    reason: str | None = None  # why it was released
    parent_id: str | None = None  # the job it repeats
    shared_id: int | None = None  # the public message that shows a shared private result
    sharing_at: datetime | None = None  # since when such a message is being posted
    claim: Claim | None = None  # where the kept picture is being handed over


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits for its turn; `position` 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class Generating:
    """The provider is working on the job since `since`."""

    since: datetime


@dataclass(frozen=True, slots=True)
class Downloading:
    """The output is ready, but fetching it takes long; `next_try` is None while a try is under way."""

    next_try: datetime | None


Status: TypeAlias = Queued | Generating | Downloading  # what a message shows before the job ends


class Period(StrEnum):
    """What a limit is per: a calendar day or month of the configured time zone, or an hour of the clock."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` (inclusive) to `end` (exclusive). What counts in it is stored by number: `first` to `last` are days
    like 20261127, or hours since 1970.
    """

    start: datetime
    end: datetime
    period: Period
    first: int
    last: int


class Scope(StrEnum):
    """What a limit adds up. The names are stored with the totals, so they are never renamed."""

    MEMBER = "member"  # credits of one member, in all servers together
    MEMBER_HERE = "member_here"  # credits of one member in one server
    GUILD = "guild"  # credits of one server
    BOT = "bot"  # credits of everyone
    MONEY = "money"  # millionths of a dollar, of everyone
    ATTEMPTS = "attempts"  # requests of one member, whatever became of them
    UNKNOWN = "unknown"  # requests of one member that may have been paid for without a charge
    STRIKES = "strike"  # requests of one member that the provider's content policy refused


OF_MEMBERS = (Scope.MEMBER, Scope.MEMBER_HERE)  # what extra credits go on from
OF_CREDITS = (*OF_MEMBERS, Scope.GUILD, Scope.BOT)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` in `window` for one `subject` (a Discord id, or 0) of a `scope`. `place` is the server of the
    request, where a member's extra credits are.
    """

    scope: Scope
    subject: int
    amount: int
    window: Window
    place: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """A limit and what of it is used, held credits included; `extra` credits go on where a member's limit ends."""

    limit: Limit
    used: int
    extra: int = 0

    @property
    def left(self) -> int:
        return max(0, self.limit.amount - self.used) + self.extra


@dataclass(frozen=True, slots=True)
class Reservation:
    """A job to be stored with a hold of `cost` credits, if every one of `limits` has room for it. `price` is what the
    operator pays, in millionths of a dollar; `counted_on` the day it counts in, as 20261127.
    """

    request: ThumbnailRequest
    requester: Requester
    cost: int
    limits: Sequence[Limit]
    now: datetime
    parent_id: str | None = None
    price: int = 0
    counted_on: int = 0


class Circuit(StrEnum):
    """Why no calls are sent to the provider at the moment. Stored in release reasons, so never renamed."""

    KEY = "key"
    MOVED = "moved"
    BALANCE = "balance"
    MAINTENANCE = "maintenance"
    FAILURES = "failures"


class AlertLevel(StrEnum):
    """How the operator learns of something."""

    PAGE = "page"
    WARN = "warn"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What a failure means: `retries` more calls allowed, a circuit to open, how the operator learns of the job."""

    retries: int
    pause: Circuit | None
    alert_level: AlertLevel
    throttle: bool = False  # slow down: fewer calls at once
    counts: bool = False  # counts toward the circuit of too many failures
    pause_for: timedelta | None = None  # when the provider does not say


def require(value: T | None) -> T:
    """A value that a job in this state always has: the database's checks guarantee it."""
    if value is None:
        raise AssertionError("a job lacks a value that its state guarantees")
    return value
