"""The nouns: what is asked for, the job it becomes, the picture that comes out, what a member may still spend."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from pathlib import Path

T = TypeVar("T")


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
    """How strongly pkz_2 holds on to the picture."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """One call of create-from-image; built by `options.checked`, so it fits the provider's schema."""

    image_url: str = field(repr=False)  # a signed URL: whoever reads it can fetch the picture
    model: Model
    format: Format
    prompt: str | None = None
    support_image_url: str | None = field(default=None, repr=False)
    image_weight: Weight | None = None
    persona: str | None = None
    style: str | None = None
    image_kept: str | None = None  # SHA-256 of the bytes that `Sources` keeps of it
    support_kept: str | None = None
    image_base64: str | None = field(default=None, repr=False)  # a data URL, sent in place of the address
    support_base64: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """What Discord says of a picture given to a command; `size` in bytes, it and `content_type` None when unknown."""

    url: str = field(repr=False)
    filename: str
    size: int | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, where, and by which interaction or reaction; Discord's ids (snowflakes)."""

    user_id: int
    guild_id: int | None
    channel_id: int
    interaction_id: int | None  # None for a reaction
    token: str = field(repr=False)  # lets anyone answer in the bot's name for 15 minutes; empty for a reaction
    asked_at: datetime
    upload_limit: int  # bytes Discord takes here in one file
    private: bool = False  # only the asker may see it
    reacted_to: int | None = None  # the message whose reaction asked


AGAIN = "🔁"  # the reaction that makes another


class State(StrEnum):
    """The life of a job, in order; `RELEASED` can follow any but `DELIVERED`."""

    RESERVED = "reserved"
    ACKED = "acked"
    SENDING = "sending"
    GENERATED = "generated"
    SPOOLED = "spooled"
    DELIVERED = "delivered"
    RELEASED = "released"


OPEN_STATES = (State.RESERVED, State.ACKED, State.SENDING, State.GENERATED, State.SPOOLED)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, known from its header alone; `size` in bytes, `width` and `height` in pixels."""

    path: Path
    type: str  # Pillow's name of the format: PNG, JPEG, WEBP
    width: int
    height: int
    size: int
    sha256: str
    content: bytes | None = field(default=None, repr=False)  # its bytes, where nothing lies at `path`

    @property
    def suffix(self) -> str:
        return {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[self.type]


@dataclass(frozen=True, slots=True)
class Output:
    """What the provider answered: where the picture waits (24 hours), and the call's id for support."""

    url: str = field(repr=False)
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way, as the database has it."""

    id: str
    state: State
    request: ThumbnailRequest
    asker: Asker
    cost: int  # credits of the member's allowance
    created_at: datetime
    message_id: int | None = None
    sent_at: datetime | None = None
    output: Output | None = None
    generated_at: datetime | None = None
    picture: Picture | None = None
    parked_at: datetime | None = None  # nobody could be given the picture: it waits for a claim
    ended_at: datetime | None = None
    reason: str | None = None  # why it was released
    parent_id: str | None = None  # the job it was made again from
    shared_id: int | None = None  # the public message a private result was shared in


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` credits in `window` for one `subject` (a Discord id) of a `scope`."""

    scope: Scope
    subject: int
    amount: int
    window: Window


class Scope(StrEnum):
    """Whose spending a limit adds up."""

    MEMBER = "member"
    GUILD = "guild"


@dataclass(frozen=True, slots=True)
class Allowance:
    """A limit and what of it is used, held credits included."""

    limit: Limit
    used: int

    @property
    def left(self) -> int:
        return max(0, self.limit.amount - self.used)


class Circuit(StrEnum):
    """Why nothing is sent to the provider at the moment."""

    KEY = "key"
    MOVED = "moved"
    BALANCE = "balance"
    MAINTENANCE = "maintenance"
    FAILURES = "failures"


class Loudness(StrEnum):
    """How the operator hears of it."""

    PAGE = "page"
    WARN = "warn"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one way of failing means: `retries` more calls allowed, a circuit to open, how loud to be."""

    retries: int
    pause: Circuit | None
    loudness: Loudness
    throttle: bool = False  # slow down: fewer calls at once
    counts: bool = False  # counts towards the circuit of too many failures
    pause_for: timedelta | None = None  # when the provider does not say itself


def having(value: T | None) -> T:
    """A fact that a job in this state always has; the database's checks say so."""
    if value is None:
        raise AssertionError("a job without the facts its state promises")
    return value
