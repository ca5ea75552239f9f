"""What can go wrong, as one tree. Errors carry fields; the sentences are in `bot.text`.

BotError
├── RequestRejected           before a job exists: nothing stored, nothing spent, the requester is told privately
│   ├── InvalidOption         ├── QuotaExceeded        ├── QueueFull          ├── TooManyActiveJobs
│   ├── DuplicateRequest      ├── CircuitOpen          ├── StorageUnavailable ├── SourceExpired
│   ├── NotAllowed            ├── ResultGone           ├── NoImageFound       ├── ChannelNotWritable
│   ├── ServerNotAllowed      ├── Blocked              ├── TooNew             ├── ChannelNotAllowed
│   ├── Paused                ├── InvalidSetting       ├── Cancelled          └── Restarting
├── JobFailed                 a job ends without a delivered image: its hold is released, its message says so
│   ├── ProviderRefused       ├── ProviderUnreachable  ├── ProviderMoved
│   ├── OutcomeUnknown        └── AnswerUnusable       (an unknown outcome too)
│   ├── OutputRefused         ├── OutputUnreachable    └── OutputGone         (unreachable for good)
│   ├── PictureUnusable       ├── Undeliverable        └── MessageDeleted     (undeliverable there)
│   └── DeliveryDelayed       ├── NotStarted           └── InternalError
├── Interrupted               the program stops while a failure was to be retried
└── InvalidConfiguration, DatabaseUnusable, BackupFailed, TransitionRefused, IdentifyLimitReached,
    ShardsRecommended         the program itself
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from bot.domain.models import Allowance, Circuit, FailurePolicy, Oversized
    from bot.domain.server_rules import Block


class BotError(Exception):
    """The root of everything this program raises on purpose."""


# --- before a job exists -------------------------------------------------------------------------------------------


class RequestRejected(BotError):
    """The request is not accepted. `kind` names the class in the metrics."""

    kind: ClassVar[str] = "rejected"


class InvalidOption(RequestRejected):
    """The provider would refuse an option. `problem` is a key of `refusals.OPTION_PROBLEMS`, `facts` fill it in.
    `oversized` is the whole request if smaller copies of its images would do.
    """

    kind = "invalid_option"
    oversized: Oversized | None = None

    def __init__(self, option: str, problem: str, **facts: object) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem
        self.facts = facts


@dataclass(eq=False, repr=False)
class QuotaExceeded(RequestRejected):
    """The allowance that binds has no room for `cost` credits."""

    kind = "quota_exceeded"
    allowance: Allowance
    cost: int


@dataclass(eq=False, repr=False)
class QueueFull(RequestRejected):
    """As many requests are waiting as may wait."""

    kind = "queue_full"
    length: int


@dataclass(eq=False, repr=False)
class TooManyActiveJobs(RequestRejected):
    """This member has as many jobs in progress as one member may have."""

    kind = "too_many_active_jobs"
    limit: int


class DuplicateRequest(RequestRejected):
    """The same interaction was dispatched before; the first dispatch answers it."""

    kind = "duplicate"


@dataclass(eq=False, repr=False)
class CircuitOpen(RequestRejected):
    """No calls are sent to the provider at the moment; `until` is None if only the operator can change that."""

    kind = "circuit_open"
    circuit: Circuit
    until: datetime | None


@dataclass(eq=False, repr=False)
class StorageUnavailable(RequestRejected):
    """Nothing can be written at the moment: the disk is full, or gone. `problem` is SQLite's clause. If the database is
    `damaged`, nothing new should be written.
    """

    kind = "storage_unavailable"
    problem: str
    damaged: bool = field(default=False, kw_only=True)


@dataclass(eq=False, repr=False)
class SourceExpired(RequestRejected):
    """A source image is neither kept nor at its URL any more. `option` is image or reference."""

    kind = "source_expired"
    option: str


@dataclass(eq=False, repr=False)
class NotAllowed(RequestRejected):
    """This person may not do this, or not now. `problem` is a key of `refusals.NOT_ALLOWED`."""

    kind = "not_allowed"
    problem: str


@dataclass(eq=False, repr=False)
class InvalidSetting(RequestRejected):
    """An admin wants to set something impossible. `problem` is a key of `refusals.SETTING_PROBLEMS`."""

    kind = "invalid_setting"
    problem: str


class ResultGone(RequestRejected):
    """A button or a form belongs to something the database no longer knows."""

    kind = "result_gone"


class NoImageFound(RequestRejected):
    """The chosen message has no image."""

    kind = "no_image"


class ServerNotAllowed(RequestRejected):
    """The operator does not offer the bot in this server."""

    kind = "server_not_allowed"


@dataclass(eq=False, repr=False)
class Blocked(RequestRejected):
    """This member or this server may not use the bot."""

    kind = "blocked"
    block: Block


@dataclass(eq=False, repr=False)
class TooNew(RequestRejected):
    """The account, or its membership of the server, is not old enough until then. `what` is account or member."""

    kind = "too_new"
    what: str
    until: datetime


@dataclass(eq=False, repr=False)
class ChannelNotAllowed(RequestRejected):
    """Public results may go to `channels` only; the server's admins say so."""

    kind = "channel_not_allowed"
    channels: tuple[int, ...]


@dataclass(eq=False, repr=False)
class Paused(RequestRejected):
    """The operator has paused the bot, for a reason that members may read."""

    kind = "paused"
    why: str


class ChannelNotWritable(RequestRejected):
    """The bot may not post in the channel of the request."""

    kind = "channel_not_writable"


class Cancelled(RequestRejected):
    """The requester cancelled the job while it was queued."""

    kind = "cancelled"


class Restarting(RequestRejected):
    """The bot is shutting down and accepts nothing new."""

    kind = "restarting"


# --- a job ended without a delivered image -------------------------------------------------------------------------


class JobFailed(BotError):
    """A job cannot go on. `kind` names the class in the database and the metrics, so it is never renamed; `reason`
    adds what the words need. `policy` is what the failure means, once that has been decided.
    """

    kind: ClassVar[str] = "failed"
    policy: FailurePolicy | None = None

    @property
    def reason(self) -> str:
        return self.kind


@dataclass(eq=False, repr=False)
class ProviderRefused(JobFailed):
    """The API answered with a well-formed error; `code` is one of the contract's, or unknown to it."""

    kind = "provider_refused"
    code: str
    status: int
    request_id: str | None = field(default=None, kw_only=True)
    retry_after: timedelta | None = field(default=None, kw_only=True)
    fields: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def reason(self) -> str:
        return f"{self.kind}:{self.code}"


@dataclass(eq=False, repr=False)
class _Observed:
    """Shared by the failures that are known only by what was observed: one clause without secrets."""

    observed: str = ""


class ProviderUnreachable(_Observed, JobFailed):
    """The call provably never left: the name was not resolved, or the connection or TLS was refused."""

    kind = "unreachable"


@dataclass(eq=False, repr=False)
class OutcomeUnknown(_Observed, JobFailed):
    """The call left and no well-formed answer came back: it may have been carried out and paid for."""

    kind = "outcome_unknown"
    status: int | None = field(default=None, kw_only=True)
    request_id: str | None = field(default=None, kw_only=True)


class AnswerUnusable(OutcomeUnknown):
    """The API answered 200 but named no output: it was probably paid for."""

    kind = "answer_unusable"


class ProviderMoved(_Observed, JobFailed):
    """The API answered with a redirect, which is never followed: the key would go along."""

    kind = "provider_moved"


class OutputRefused(_Observed, JobFailed):
    """The bot does not fetch from the output URL; `observed` names the rule it breaks."""

    kind = "output_refused"


class OutputUnreachable(_Observed, JobFailed):
    """The output could not be fetched this time; another try may succeed."""

    kind = "output_unreachable"


class OutputGone(OutputUnreachable):
    """The output is no longer at its URL."""

    kind = "output_gone"


class PictureUnusable(_Observed, JobFailed):
    """The bot does not pass this file on: wrong type, too large, damaged, absurd dimensions."""

    kind = "picture_unusable"


class Undeliverable(_Observed, JobFailed):
    """Discord accepted the picture by none of the delivery methods."""

    kind = "undeliverable"


class MessageDeleted(Undeliverable):
    """The job's message was deleted, so nothing is posted in its place."""

    kind = "message_deleted"


class DeliveryDelayed(_Observed, JobFailed):
    """Discord did not accept the picture this time; the same call may succeed later."""

    kind = "delivery_delayed"


class NotStartedCause(StrEnum):
    """Why a job ended before its call. Stored in release reasons, so never renamed."""

    RESTARTING = "restarting"
    CANCELLED = "cancelled"
    SOURCE_EXPIRED = "sourceexpired"
    IMAGE_UNREADABLE = "imageunreadable"
    IMAGE_TOO_MANY_PIXELS = "imagepixels"


@dataclass(eq=False, repr=False)
class NotStarted(JobFailed):
    """The job ended before anything was sent; without a cause, Discord did not accept the reply. `details` are what the
    words need (`image_problems`).
    """

    kind = "not_started"
    cause: NotStartedCause | Circuit | None = None
    details: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        return self.kind if self.cause is None else ":".join((self.kind, self.cause, *self.details))


class InternalError(JobFailed):
    """A fault in this program; the log has its cause."""

    kind = "unforeseen"


@dataclass(eq=False, repr=False)
class Interrupted(BotError):
    """The program stops while `failure` was to be retried; the next start goes on from the stored state."""

    failure: JobFailed


# --- the program itself --------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class InvalidConfiguration(BotError):
    """A setting is missing or invalid; `setting` is its dotted name, `problem` one clause without a value that may be
    secret. `others` are further ones, in the same form.
    """

    setting: str
    problem: str
    others: tuple[tuple[str, str], ...] = ()

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """Every setting that is wrong, and what is wrong with it."""
        return ((self.setting, self.problem), *self.others)

    def __str__(self) -> str:
        return f"{self.setting}: {self.problem}"


@dataclass(eq=False, repr=False)
class DatabaseUnusable(BotError):
    """The database cannot be used; `problem` says why in one clause."""

    problem: str


@dataclass(eq=False, repr=False)
class BackupFailed(BotError):
    """No backup was made, or none could be restored; `problem` says why in one clause."""

    problem: str


@dataclass(eq=False, repr=False)
class TransitionRefused(BotError):
    """A job was in none of the states that a step is allowed from: something else moved it."""

    job_id: str
    expected: str


@dataclass(eq=False, repr=False)
class IdentifyLimitReached(BotError):
    """One more IDENTIFY now would come near Discord's daily limit; `wait` is how long until the next."""

    wait: timedelta


@dataclass(eq=False, repr=False)
class ShardsRecommended(BotError):
    """Discord recommends more than one connection, each for a part of the servers: so many `shards`."""

    shards: int
