"""What the operator is alerted about: how loudly, under which key, and in which words."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from bot.domain.errors import (
    JobFailed,
    OutcomeUnknown,
    OutputUnreachable,
    ProviderMoved,
    ProviderRefused,
    StorageUnavailable,
    Undeliverable,
)
from bot.domain.health import Connection, Gateway
from bot.domain.models import AlertLevel, Circuit, FailurePolicy
from bot.jobs.notices import Notices
from bot.text import operator
from tests.support.factories import NOON, a_job
from tests.support.recorded_alerts import RecordedAlerts

PAGE, WARN, COUNT = AlertLevel.PAGE, AlertLevel.WARN, AlertLevel.COUNT
LATER = NOON + timedelta(minutes=10)
JOB = a_job()
CLOSED = Gateway(Connection.CLOSED, math.nan)


@pytest.fixture
def alerts() -> RecordedAlerts:
    return RecordedAlerts()


@pytest.fixture
def notices(alerts: RecordedAlerts) -> Notices:
    return Notices(alerts)


CIRCUITS = [
    (Circuit.KEY, PAGE),
    (Circuit.MOVED, PAGE),
    (Circuit.BALANCE, PAGE),
    (Circuit.MAINTENANCE, WARN),
    (Circuit.FAILURES, WARN),
]


@pytest.mark.parametrize(("circuit", "level"), CIRCUITS)
@pytest.mark.parametrize("until", [LATER, None])
def test_an_open_circuit_pages_unless_it_may_end_by_itself(
    alerts: RecordedAlerts, notices: Notices, circuit: Circuit, level: AlertLevel, until: object
) -> None:
    when = LATER if until else None
    notices.circuit_opened(circuit, when)
    alert = (level, f"circuit:{circuit}", operator.circuit_opened(circuit, when))
    assert alerts.sent == [alert]
    notices.remind(circuits={circuit: when}, unavailable=None)
    assert alerts.repeated == [alert]


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (OutcomeUnknown("reset", request_id="req-1"), WARN),
        (OutputUnreachable("reset"), PAGE),
        (ProviderRefused("CONTENT_POLICY", 400), COUNT),
        (ProviderRefused("INVALID_API_KEY", 401), COUNT),  # the circuit has been reported
        (ProviderMoved("redirect"), COUNT),
    ],
)
def test_a_failed_job_is_reported_under_the_kind_of_its_failure(
    alerts: RecordedAlerts, notices: Notices, failure: JobFailed, level: AlertLevel
) -> None:
    notices.job_failed(JOB, failure)
    assert alerts.sent == [(level, failure.kind, operator.job_line(JOB, failure))]


def test_a_failure_that_has_been_judged_is_not_judged_again(alerts: RecordedAlerts, notices: Notices) -> None:
    failure = ProviderRefused("CONTENT_POLICY", 400)
    failure.policy = FailurePolicy(0, None, PAGE)
    notices.job_failed(JOB, failure)
    assert alerts.sent[0][0] is PAGE


def test_what_happens_once_is_sent_with_its_facts(alerts: RecordedAlerts, notices: Notices) -> None:
    undeliverable, unavailable = Undeliverable("403"), StorageUnavailable("disk full")
    notices.job_parked(JOB, undeliverable)
    notices.internal_error(JOB)
    notices.storage_unavailable(unavailable)
    notices.spool_unwritable("spool: OSError 28")
    notices.commands_not_synced("status 403")
    notices.older_database()
    assert alerts.sent == [
        (WARN, "undeliverable", operator.job_parked(JOB, undeliverable)),
        (PAGE, "unforeseen", operator.internal_error(JOB)),
        (PAGE, "books", operator.storage_unavailable(unavailable)),
        (PAGE, "spool", "spool: OSError 28"),
        (WARN, "commands", operator.commands_not_synced("status 403")),
        (PAGE, "restored", operator.OLDER_DATABASE),
    ]
    assert alerts.repeated == []


def test_a_backup_that_fails_is_reported_at_once_and_then_once_a_day(alerts: RecordedAlerts, notices: Notices) -> None:
    notices.backup_made()
    for _ in range(3):
        notices.backup_failed("disk full", last=NOON)
    notices.backup_made()
    notices.backup_failed("disk full", last=None)
    line = "the database was not backed up (disk full); the last one is of 2026-11-22 12:00 UTC"
    assert alerts.repeated == [(WARN, "backup", line)] * 2
    assert alerts.sent == [(WARN, "backup", line), (WARN, "backup", operator.backup_failed("disk full", None))]


def test_what_ends_is_told_under_the_key_of_its_beginning(alerts: RecordedAlerts, notices: Notices) -> None:
    notices.disconnected(CLOSED, since=NOON)
    notices.connected_again(timedelta(minutes=7))
    assert alerts.sent == [(PAGE, "gateway", operator.disconnected(CLOSED, NOON))]
    assert alerts.ended == [(WARN, "gateway", operator.connected_again(timedelta(minutes=7)))]


def test_only_what_lasts_is_repeated(alerts: RecordedAlerts, notices: Notices) -> None:
    notices.remind(circuits={}, unavailable=None)
    assert alerts.repeated == []
    unavailable = StorageUnavailable("disk full")
    notices.older_database()
    notices.remind(circuits={Circuit.KEY: None, Circuit.BALANCE: LATER}, unavailable=unavailable)
    assert [(level, key) for level, key, _ in alerts.repeated] == [
        (PAGE, "circuit:key"),
        (PAGE, "circuit:balance"),
        (PAGE, "books"),
        (PAGE, "restored"),
    ]
    assert alerts.repeated[2][2] == operator.storage_unavailable(unavailable)
    assert alerts.repeated[3][2] == operator.OLDER_DATABASE
