"""What is counted and measured for the operator's monitoring, as plain numbers; `exposition` puts them into words."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bot.domain.errors import DeliveryDelayed, JobFailed, ProviderRefused, RequestRejected
from bot.domain.failure_policy import CODES, UNKNOWN_REASONS
from bot.domain.models import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bot.domain.models import Job

_CALL_SECONDS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
_REQUEST_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
_WAIT_SECONDS = (0.1, 1, 5, 10, 30, 60, 120, 300, 600, 1800)

DELIVERED, CLAIMED = "delivered", "claimed"
WORKED, OTHER_CODE, INTERRUPTED = "ok", "unknown_code", "interrupted"
STATUSES = ("101", "200", "201", "204", "400", "401", "403", "404", "429", "500", "502", "503", "504")
OTHER_STATUS, NO_ANSWER = "other", "none"


def _kinds(root: type[JobFailed | RequestRejected]) -> Iterator[str]:
    """The kinds of all errors below `root` that can be counted."""
    for error in root.__subclasses__():
        if error is not DeliveryDelayed:  # ends no job: the delivery is tried again, until it is undeliverable
            yield error.kind
        yield from _kinds(error)


def _call_results() -> Iterator[str]:
    """What can become of a call: "ok", a code of the contract, or one that is not, or the kind of another failure."""
    yield from (WORKED, *CODES, OTHER_CODE, INTERRUPTED)
    yield from ("unreachable", *UNKNOWN_REASONS, "provider_moved")


class Histogram:
    """How many values there were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last is for what is above every bound
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(frozen=True, slots=True)
class Gauge:
    """`value()` is read at every scrape: a number, or one for each value of `label`. It runs in a thread if it is
    `slow`, which it is if it touches a disk.
    """

    name: str
    help: str
    value: Callable[[], float | Mapping[str, float]]
    label: str | None = None
    slow: bool = False


class Metrics:
    """Everything since the start; every series that can occur is there from the start, at 0. `prices` are in millionths
    of a dollar.
    """

    def __init__(self, prices: Mapping[Model, int] | None = None) -> None:
        self._prices = prices or {}
        outcomes = (DELIVERED, CLAIMED, *_kinds(JobFailed))
        self.jobs_started = 0
        self.jobs_ended = Counter(dict.fromkeys(product(outcomes, map(str, Model)), 0))
        self.refusals = Counter(dict.fromkeys(_kinds(RequestRejected), 0))
        self.credits = Counter(held=0, charged=0, released=0)
        self.dollars = Counter(held=0, charged=0, released=0, spent=0)  # in millionths
        self.calls = Counter(dict.fromkeys(_call_results(), 0))
        self.call_seconds = {str(model): Histogram(_CALL_SECONDS) for model in Model}
        self.wait_seconds = Histogram(_WAIT_SECONDS)
        self.requests = Counter(dict.fromkeys((*STATUSES, OTHER_STATUS, NO_ANSWER), 0))
        self.request_seconds = Histogram(_REQUEST_SECONDS)
        self.connections = Counter(new=0, resumed=0)
        self.gauges: list[Gauge] = []

    # --- jobs and money ----------------------------------------------------------------------------------------------

    def held(self, job: Job) -> None:
        """Credits are held for a job that was accepted."""
        self.credits["held"] += job.cost
        self.dollars["held"] += self._price(job)

    def started(self) -> None:
        self.jobs_started += 1

    def ended(self, outcome: str, job: Job) -> None:
        """A job has ended: delivered, claimed, or released for a failure of the kind `outcome`."""
        self.jobs_ended[outcome, str(job.request.model)] += 1
        charged = outcome in (DELIVERED, CLAIMED)
        self.credits["charged" if charged else "released"] += job.cost
        if charged:
            self.dollars["charged"] += self._price(job)
        # As in the ledger: an image that was made is paid for, and one whose outcome is unknown may be.
        paid = charged or job.generated_at is not None or outcome in UNKNOWN_REASONS
        self.dollars["spent" if paid else "released"] += self._price(job)

    def _price(self, job: Job) -> int:
        return self._prices.get(job.request.model, 0)

    def rejected(self, reason: str) -> None:
        self.refusals[reason] += 1

    # --- others ------------------------------------------------------------------------------------------------------

    def waited(self, seconds: float) -> None:
        """A request has waited for its turn."""
        self.wait_seconds.add(seconds)

    def called(self, model: Model, failure: JobFailed | None, seconds: float) -> None:
        """A paid call has ended."""
        code = WORKED if failure is None else failure.kind
        if isinstance(failure, ProviderRefused):
            code = failure.code if failure.code in CODES else OTHER_CODE
        self._call_ended(model, code, seconds)

    def interrupted(self, model: Model, seconds: float) -> None:
        """A paid call was given up, because the bot stops."""
        self._call_ended(model, INTERRUPTED, seconds)

    def _call_ended(self, model: Model, code: str, seconds: float) -> None:
        self.calls[code] += 1
        self.call_seconds[str(model)].add(seconds)

    def requested(self, status: int | None, seconds: float) -> None:
        """Discord has answered a request with an HTTP status, or not."""
        shown = NO_ANSWER if status is None else str(status)
        self.requests[shown if shown in self.requests else OTHER_STATUS] += 1
        self.request_seconds.add(seconds)

    def connected(self, kind: str) -> None:
        """There is a connection to the gateway, with a new session or a resumed one."""
        self.connections[kind] += 1

    # --- what is read at every scrape --------------------------------------------------------------------------------

    def watch(
        self,
        name: str,
        help_: str,
        value: Callable[[], float | Mapping[str, float]],
        *,
        label: str | None = None,
        slow: bool = False,
    ) -> None:
        """Export `value()` as a gauge."""
        self.gauges.append(Gauge(name, help_, value, label, slow))

    def read(self, *, slow: bool) -> dict[str, float | Mapping[str, float]]:
        """The gauges that are slow, or the others, by name; NaN for one that cannot be read."""
        return {gauge.name: _value(gauge) for gauge in self.gauges if gauge.slow is slow}


def _value(gauge: Gauge) -> float | Mapping[str, float]:
    try:
        return gauge.value()
    except OSError:
        return math.nan
