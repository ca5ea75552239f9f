"""When a circuit opens, for how long, and whose call closes it again."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from bot.domain.errors import CircuitOpen, JobFailed, OutcomeUnknown, ProviderMoved, ProviderRefused
from bot.domain.failure_policy import policy_for
from bot.domain.models import AlertLevel, Circuit, FailurePolicy
from bot.jobs.circuits import Circuits
from tests.support.factories import NOON

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
BALANCE = ProviderRefused("INSUFFICIENT_CREDITS", 402)
MAINTENANCE = ProviderRefused("SERVICE_UNDER_MAINTENANCE", 503)
FAILURE = OutcomeUnknown("reset")


class CircuitsHarness:
    """Circuits with a clock that only a test moves; `reported` is what the operator is told."""

    def __init__(self) -> None:
        self.now = NOON
        self.reported: list[tuple[Circuit, datetime | None]] = []
        self.circuits = Circuits(clock=lambda: self.now, on_open=lambda *opened: self.reported.append(opened))

    def fail(
        self,
        failure: JobFailed = FAILURE,
        *,
        caller: object = None,
        times: int = 1,
        retry_after: timedelta | None = None,
    ) -> list[tuple[Circuit, datetime | None]]:
        opened: list[CircuitOpen] = []
        for _ in range(times):
            opened += self.circuits.failed(caller or object(), policy_for(failure), retry_after=retry_after)
        return [(one.circuit, one.until) for one in opened]

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.circuits.succeeded(object())

    def trial(self) -> object:
        """A caller whose call decides about every open circuit."""
        caller = object()
        for breaker in self.circuits.awaiting_trial():
            breaker.trial = caller
        return caller

    @property
    def open_for(self) -> dict[Circuit, timedelta | None]:
        return {circuit: None if until is None else until - self.now for circuit, until in self.circuits.open.items()}


# --- too many failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worked", "failed", "opens"),
    [(0, 4, False), (0, 5, True), (5, 5, True), (6, 5, False), (10, 9, False), (10, 10, True)],
)
def test_the_circuit_opens_at_five_failures_that_are_at_least_half_of_the_calls(
    worked: int, failed: int, *, opens: bool
) -> None:
    harness = CircuitsHarness()
    harness.succeed(worked)
    opened = harness.fail(times=failed)
    assert opened == ([(Circuit.FAILURES, NOON + MINUTE)] if opens else [])
    assert harness.reported == opened


def test_only_the_last_twenty_calls_count() -> None:
    harness = CircuitsHarness()
    harness.succeed(100)
    assert harness.fail(times=9) == []
    assert harness.fail() == [(Circuit.FAILURES, NOON + MINUTE)]
    harness = CircuitsHarness()
    harness.fail(times=4)
    harness.succeed(17)
    assert harness.fail(times=5) == []  # three of the four are forgotten, and eight of twenty are too few


@pytest.mark.parametrize(("later", "opens"), [(2 * MINUTE, True), (2 * MINUTE + SECOND, False)])
def test_only_the_last_two_minutes_count(later: timedelta, *, opens: bool) -> None:
    harness = CircuitsHarness()
    harness.fail(times=4)
    harness.now += later
    assert bool(harness.fail()) is opens


def test_successes_of_long_ago_do_not_outnumber_failures() -> None:
    harness = CircuitsHarness()
    harness.succeed(10)
    harness.now += 2 * MINUTE + SECOND
    assert harness.fail(times=5)


def test_failures_that_say_nothing_about_the_service_do_not_count() -> None:
    harness = CircuitsHarness()
    assert harness.fail(ProviderRefused("CONTENT_POLICY", 400), times=20) == []


def test_what_failed_before_the_circuit_closed_does_not_open_it_again() -> None:
    harness = CircuitsHarness()
    harness.fail(times=5)
    harness.now += MINUTE
    harness.circuits.succeeded(harness.trial())
    assert harness.open_for == {}
    assert harness.fail(times=4) == []
    assert harness.fail() == [(Circuit.FAILURES, harness.now + MINUTE)]
    assert len(harness.reported) == 2


def test_the_last_failures_of_an_open_circuit_do_not_prolong_it() -> None:
    harness = CircuitsHarness()
    assert len(harness.fail(times=9)) == 1
    assert harness.open_for == {Circuit.FAILURES: MINUTE}


# --- how long -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "minutes"),
    [
        (BALANCE, [10, 60, 60, 60]),
        (MAINTENANCE, [1, 2, 4, 8, 15, 15]),
        (ProviderRefused("INVALID_API_KEY", 401), [None]),
        (ProviderMoved("redirect"), [None]),
    ],
)
def test_a_circuit_stays_open_longer_after_each_failed_trial(failure: JobFailed, minutes: list[int | None]) -> None:
    harness = CircuitsHarness()
    harness.fail(failure)
    for expected in minutes:
        [pause] = harness.open_for.values()
        assert pause == (None if expected is None else expected * MINUTE)
        if pause is not None:
            harness.now += pause
            harness.fail(failure, caller=harness.trial())
    assert len(harness.reported) == 1


def test_too_many_failures_close_the_door_longer_after_each_failed_trial() -> None:
    harness = CircuitsHarness()
    harness.fail(times=5)
    minutes = []
    for _ in range(6):
        [pause] = harness.open_for.values()
        assert pause is not None
        minutes.append(pause / MINUTE)
        harness.now += pause
        assert len(harness.fail(caller=harness.trial())) == 1
    assert minutes == [1, 2, 4, 8, 15, 15]


@pytest.mark.parametrize(
    ("failure", "asked", "open_for"),
    [
        (MAINTENANCE, 7 * MINUTE, 7 * MINUTE),
        (MAINTENANCE, SECOND, MINUTE),
        (MAINTENANCE, timedelta(days=30), 15 * MINUTE),
        (BALANCE, 30 * MINUTE, 30 * MINUTE),
        (BALANCE, timedelta(days=30), 60 * MINUTE),
        (ProviderRefused("INVALID_API_KEY", 401), SECOND, None),
    ],
)
def test_what_the_provider_asks_for_is_respected_between_the_usual_pause_and_the_longest(
    failure: JobFailed, asked: timedelta, open_for: timedelta | None
) -> None:
    harness = CircuitsHarness()
    harness.fail(failure, retry_after=asked)
    assert list(harness.open_for.values()) == [open_for]


def test_what_a_policy_says_about_the_pause_counts_if_the_provider_says_nothing() -> None:
    harness = CircuitsHarness()
    policy = FailurePolicy(0, Circuit.MAINTENANCE, AlertLevel.WARN, pause_for=5 * MINUTE)
    harness.circuits.failed(object(), policy, retry_after=None)
    assert harness.open_for == {Circuit.MAINTENANCE: 5 * MINUTE}


def test_a_pause_that_the_provider_asks_for_does_not_apply_to_too_many_failures() -> None:
    harness = CircuitsHarness()
    harness.fail(times=5, retry_after=10 * MINUTE)
    assert harness.open_for == {Circuit.FAILURES: MINUTE}


def test_one_failure_may_open_two_circuits() -> None:
    harness = CircuitsHarness()
    policy = FailurePolicy(0, Circuit.MAINTENANCE, AlertLevel.WARN, counts=True)
    for _ in range(4):
        harness.fail()
    opened = harness.circuits.failed(object(), policy, retry_after=None)
    assert [one.circuit for one in opened] == [Circuit.MAINTENANCE, Circuit.FAILURES]
    assert harness.reported == [(Circuit.MAINTENANCE, NOON + MINUTE), (Circuit.FAILURES, NOON + MINUTE)]


def test_nobody_needs_to_listen() -> None:
    circuits = Circuits(clock=lambda: NOON)
    circuits.failed(object(), policy_for(BALANCE), retry_after=None)
    assert circuits.open == {Circuit.BALANCE: NOON + 10 * MINUTE}


# --- trials ---------------------------------------------------------------------------------------------------------


def test_a_trial_is_allowed_to_the_second_and_to_one_caller() -> None:
    harness = CircuitsHarness()
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE - SECOND
    with pytest.raises(CircuitOpen) as refused:
        harness.circuits.awaiting_trial()
    assert (refused.value.circuit, refused.value.until) == (Circuit.BALANCE, NOON + 10 * MINUTE)
    harness.now += SECOND
    harness.trial()
    with pytest.raises(CircuitOpen):
        harness.circuits.awaiting_trial()


def test_one_trial_may_close_several_circuits_and_only_its_own() -> None:
    harness = CircuitsHarness()
    harness.fail(MAINTENANCE)
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE
    caller = harness.trial()
    harness.fail(ProviderRefused("INVALID_API_KEY", 401))
    harness.circuits.succeeded(caller)
    assert harness.open_for == {Circuit.KEY: None}


def test_a_circuit_that_closes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    harness = CircuitsHarness()
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE
    harness.circuits.succeeded(harness.trial())
    assert [record.getMessage() for record in caplog.records] == ["circuit closed: balance"]


def test_the_success_of_another_caller_closes_nothing() -> None:
    harness = CircuitsHarness()
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE
    harness.trial()
    harness.succeed()
    assert list(harness.open_for) == [Circuit.BALANCE]


def test_a_caller_that_gives_up_lets_another_one_try_if_the_trial_was_its_own() -> None:
    harness = CircuitsHarness()
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE
    caller = harness.trial()
    harness.circuits.abandon(object())
    with pytest.raises(CircuitOpen):
        harness.circuits.awaiting_trial()
    harness.circuits.abandon(caller)
    assert [breaker.trial for breaker in harness.circuits.awaiting_trial()] == [None]


def test_a_trial_that_fails_for_another_reason_opens_that_circuit_too() -> None:
    harness = CircuitsHarness()
    harness.fail(BALANCE)
    harness.now += 10 * MINUTE
    assert harness.fail(MAINTENANCE, caller=harness.trial()) == [(Circuit.MAINTENANCE, harness.now + MINUTE)]
    assert list(harness.open_for) == [Circuit.BALANCE, Circuit.MAINTENANCE]
