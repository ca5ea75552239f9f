"""What can go wrong: one tree. Errors carry fields; the sentences are in `words`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from bot.domain.models import Allowance, Circuit


class BotError(Exception):
    """The root of everything this program raises on purpose."""


# --- before a job exists: nothing stored, nothing spent, told in private -------------------------------------------


class Refused(BotError):
    """The request is not taken."""


class OptionInvalid(Refused):
    """An option the provider would refuse. `problem` is a key of `words.OPTION_PROBLEMS`."""

    def __init__(self, option: str, problem: str, **facts: object) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem
        self.facts = facts


class QuotaSpent(Refused):
    """The allowance that binds is used up."""

    def __init__(self, allowance: Allowance, cost: int) -> None:
        super().__init__(allowance.limit.scope, allowance.limit.amount, allowance.used)
        self.allowance = allowance
        self.cost = cost


class QueueFull(Refused):
    """Too many requests are waiting already."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


class MemberBusy(Refused):
    """This member has as many requests under way as one may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class AlreadyTaken(Refused):
    """The same interaction was dispatched before; the first dispatch answers it."""


class CircuitOpen(Refused):
    """The provider is not being called at the moment; `until` is None when only the operator can end it."""

    def __init__(self, circuit: Circuit, until: datetime | None) -> None:
        super().__init__(circuit, until)
        self.circuit = circuit
        self.until = until


class BooksUnavailable(Refused):
    """Nothing can be written down at the moment: the disk is full, or gone. `problem` is SQLite's clause."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class SourceExpired(Refused):
    """A picture it was made from is neither kept any more nor at its address. `option` is image or reference."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


class Forbidden(Refused):
    """Only the asker, or somebody who may manage messages, may do this. `problem` is a key of `words.FORBIDDEN`."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class ResultGone(Refused):
    """A button or a form is about something the books do not know any more."""


class NoPicture(Refused):
    """The message somebody chose has no picture."""


class PlaceClosed(Refused):
    """The bot may not post where the request was made."""


class Cancelled(Refused):
    """Its asker took it back while it was waiting in line."""


class Restarting(Refused):
    """The bot is shutting down and takes nothing new."""


# --- a job ended without a delivered picture: its hold is released, told on its message ----------------------------


class Failed(BotError):
    """A job cannot go on. `kind` names the class in the database and the metrics, `reason` adds what the words need."""

    kind = "failed"

    @property
    def reason(self) -> str:
        return self.kind


class ProviderRefused(Failed):
    """The API answered with a well-formed error; `code` is one of the contract's, or unknown to it."""

    kind = "provider_refused"

    def __init__(
        self,
        code: str,
        status: int,
        *,
        request_id: str | None = None,
        retry_after: timedelta | None = None,
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(code, status, request_id)
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.fields = fields

    @property
    def reason(self) -> str:
        return f"{self.kind}:{self.code}"


class ProviderUnreachable(Failed):
    """The call provably never left: name not resolved, connection or TLS refused."""

    kind = "unreachable"


class OutcomeUnknown(Failed):
    """The call may have been carried out and paid: it left, and no well-formed answer came back."""

    kind = "outcome_unknown"

    def __init__(self, observed: str, *, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(observed, status, request_id)
        self.observed = observed
        self.status = status
        self.request_id = request_id


class AnswerUnusable(OutcomeUnknown):
    """The API said 200 and the answer names no picture: the money is probably spent."""

    kind = "answer_unusable"


class ProviderMoved(Failed):
    """The API answered with a redirect, which is never followed: the key would go along."""

    kind = "provider_moved"


class OutputRefused(Failed):
    """The output address is not one this bot fetches from. `rule` names the rule it breaks."""

    kind = "output_refused"

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class OutputUnreachable(Failed):
    """The finished picture could not be fetched this time; another try may succeed."""

    kind = "output_unreachable"

    def __init__(self, observed: str) -> None:
        super().__init__(observed)
        self.observed = observed


class OutputGone(OutputUnreachable):
    """The finished picture is no longer where the provider said it would be."""

    kind = "output_gone"


class PictureUnusable(Failed):
    """What came is not a picture this bot passes on: wrong type, too large, damaged, absurd dimensions."""

    kind = "picture_unusable"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Undeliverable(Failed):
    """Discord would not take the picture by any way there is."""

    kind = "undeliverable"

    def __init__(self, observed: str) -> None:
        super().__init__(observed)
        self.observed = observed


class MessageDeleted(Undeliverable):
    """The job's message was deleted: nobody posts what somebody took away."""

    kind = "message_deleted"


class DeliveryDelayed(Failed):
    """Discord did not take the picture this time; the same call may succeed later."""

    kind = "delivery_delayed"

    def __init__(self, observed: str) -> None:
        super().__init__(observed)
        self.observed = observed


class NotStarted(Failed):
    """The job ended before anything was sent: a restart, a circuit that opened, an answer Discord did not take."""

    kind = "not_started"

    def __init__(self, why: Refused | None = None) -> None:
        super().__init__(type(why).__name__)
        self.why = why

    @property
    def reason(self) -> str:
        match self.why:
            case CircuitOpen():
                return f"{self.kind}:{self.why.circuit}"
            case Restarting() | Cancelled() | SourceExpired():
                return f"{self.kind}:{type(self.why).__name__.lower()}"
            case _:
                return self.kind


class Unforeseen(Failed):
    """A fault in this program; the log has its cause."""

    kind = "unforeseen"


class Interrupted(BotError):
    """The program stops while `failure` was to be tried again; the next start goes on from the stored state."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.kind)
        self.failure = failure


# --- the program itself ------------------------------------------------------------------------------------------


class ConfigurationWrong(BotError):
    """A setting is missing or wrong; `setting` is its dotted name, `problem` one clause without its value."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class DatabaseTrouble(BotError):
    """The database cannot be used; `problem` says why in one clause."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class TransitionRefused(BotError):
    """A job was not in the state a transition starts from: somebody else moved it."""

    def __init__(self, job_id: str, expected: str) -> None:
        super().__init__(job_id, expected)
        self.job_id = job_id
        self.expected = expected


class IdentifiesSpent(BotError):
    """Another IDENTIFY now would come near Discord's limit of a day; `wait` says when the next is allowed."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(wait)
        self.wait = wait
