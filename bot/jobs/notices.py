"""What the operator is told: the one place that decides on alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.errors import InternalError
from bot.domain.failure_policy import policy_of
from bot.domain.models import AlertLevel, Circuit
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from typing import TypeAlias

    from bot.domain.errors import JobFailed, StorageUnavailable, Undeliverable
    from bot.domain.health import Gateway
    from bot.domain.models import Allowance, Job, Limit
    from bot.domain.protocols import Alerts

    Alert: TypeAlias = tuple[AlertLevel, str, str]  # how loud, the key of its repeats, the line

_MAY_END_BY_ITSELF = (Circuit.MAINTENANCE, Circuit.FAILURES)
_ALL_AWAY, _SOME_AWAY = "gateway", "gateway:some"  # the loss of all is told soon after that of some, too
_OLDER_DATABASE_ALERT = (AlertLevel.PAGE, "restored", operator.OLDER_DATABASE)


class Notices:
    """Turns events into alerts: a level, a key by which repeats are recognized, and a line."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._has_older_database = False
        self._backups_fail = False
        self._disconnected: Alert | None = None  # while it lasts
        self._budgets: set[str] = set()  # what has been said of the budgets of this day and this month

    def circuit_opened(self, circuit: Circuit, until: datetime | None, *, waiting: int = 0) -> None:
        """A circuit opened while so many people were `waiting`: they have been told."""
        level, key, line = _circuit_alert(circuit, until)
        self._alerts.send(level, key, operator.with_waiting(line, waiting))

    def budget_used(self, budget: Allowance) -> None:
        """At least 80 % of a budget are used. Said once at 80 and once at 100 %, of each day and month."""
        limit, full = budget.limit, budget.used >= budget.limit.amount
        level = AlertLevel.PAGE if full else AlertLevel.WARN
        key = f"budget:{limit.window.period}:{limit.window.first}:{'full' if full else 'soon'}"
        if key not in self._budgets:
            self._budgets = {*(known for known in self._budgets if _same_period(known, limit)), key}
            self._alerts.send(level, key, operator.budget_used(budget))

    def remind(self, *, circuits: Mapping[Circuit, datetime | None], unavailable: StorageUnavailable | None) -> None:
        """Repeat, once a day, what still lasts: open `circuits` with their next trials, a database that can't be
        written, one that is damaged, an older one, no connection to Discord. Call it now and then.
        """
        for circuit, until in circuits.items():
            self._alerts.repeat(*_circuit_alert(circuit, until))
        if unavailable is not None:
            self._alerts.repeat(*_storage_alert(unavailable))
        if self._has_older_database:
            self._alerts.repeat(*_OLDER_DATABASE_ALERT)
        if self._disconnected is not None:
            self._alerts.repeat(*self._disconnected)

    def disconnected(self, state: Gateway, *, since: datetime) -> None:
        """Discord has not been connected for some minutes, or some of the connections have not."""
        key = _ALL_AWAY if state.are_all_away else _SOME_AWAY
        self._disconnected = (AlertLevel.PAGE, key, operator.disconnected(state, since))
        self._alerts.send(*self._disconnected)

    def connected_again(self, after: timedelta) -> None:
        """What `disconnected` has told is over."""
        if self._disconnected is not None:
            _, key, _ = self._disconnected
            self._disconnected = None
            self._alerts.end(AlertLevel.WARN, key, operator.connected_again(after))

    def job_failed(self, job: Job, failure: JobFailed) -> None:
        """A job was released; if its failure opened a circuit, that has been reported already."""
        policy = policy_of(failure)
        level = policy.alert_level if policy.pause is None else AlertLevel.COUNT
        # The same line as in `internal_error`, which comes next: of the two, only the first is posted.
        line = operator.internal_error(job) if isinstance(failure, InternalError) else operator.job_line(job, failure)
        self._alerts.send(level, failure.kind, line)

    def job_parked(self, job: Job, failure: Undeliverable) -> None:
        self._alerts.send(AlertLevel.WARN, failure.kind, operator.job_parked(job, failure))

    def interaction_failed(self, observed: str) -> None:
        """An internal error before a job exists, of the class `observed`."""
        self._alerts.send(AlertLevel.PAGE, f"interaction:{observed}", operator.interaction_failed(observed))

    def internal_error(self, job: Job) -> None:
        self._alerts.send(AlertLevel.PAGE, InternalError.kind, operator.internal_error(job))

    def storage_unavailable(self, unavailable: StorageUnavailable) -> None:
        self._alerts.send(*_storage_alert(unavailable))

    def spool_unwritable(self, observed: str) -> None:
        self._alerts.send(AlertLevel.PAGE, "spool", observed)

    def commands_not_synced(self, observed: str) -> None:
        self._alerts.send(AlertLevel.WARN, "commands", operator.commands_not_synced(observed))

    def backup_failed(self, problem: str, *, last: datetime | None) -> None:
        """No backup was made; the `last` good one is of that time. Said at the first failure, and then once a day."""
        alert = self._alerts.repeat if self._backups_fail else self._alerts.send
        self._backups_fail = True
        alert(AlertLevel.WARN, "backup", operator.backup_failed(problem, last))

    def backup_made(self) -> None:
        """There is a good backup again."""
        self._backups_fail = False

    def older_database(self) -> None:
        self._has_older_database = True
        self._alerts.send(*_OLDER_DATABASE_ALERT)


def _circuit_alert(circuit: Circuit, until: datetime | None) -> Alert:
    level = AlertLevel.WARN if circuit in _MAY_END_BY_ITSELF else AlertLevel.PAGE
    return level, f"circuit:{circuit}", operator.circuit_opened(circuit, until)


def _same_period(key: str, limit: Limit) -> bool:
    """Whether a key is of the other kind of period, or of this very one: what was said of earlier ones is forgotten."""
    _, period, first, _ = key.split(":")
    return period != limit.window.period or int(first) == limit.window.first


def _storage_alert(unavailable: StorageUnavailable) -> Alert:
    key = "damage" if unavailable.damaged else "books"
    return AlertLevel.PAGE, key, operator.storage_unavailable(unavailable)
