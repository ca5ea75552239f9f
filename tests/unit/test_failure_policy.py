"""The policy for each kind of failure, and a message for each."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import errors, failure_policy
from bot.domain.failure_policy import may_download_again, policy_for, policy_of
from bot.domain.models import AlertLevel, Allowance, Circuit, FailurePolicy, Limit, Scope
from bot.domain.quota import day
from bot.domain.server_rules import Block
from bot.text import failures, formatting, operator, refusals
from tests.support.factories import NOON, a_job
from tests.support.provider_contract import CODES

PAGE, WARN, COUNT = AlertLevel.PAGE, AlertLevel.WARN, AlertLevel.COUNT

# Each policy: retries, circuit, alert level, and whether it counts as a failure of the service.
ROWS: dict[str, FailurePolicy] = {
    "VALIDATION_ERROR": FailurePolicy(0, None, WARN),
    "INVALID_PERSONA": FailurePolicy(0, None, WARN),
    "INVALID_STYLE": FailurePolicy(0, None, WARN),
    "INVALID_AMOUNT": FailurePolicy(0, None, WARN),
    "CONTENT_POLICY": FailurePolicy(0, None, COUNT),
    "CANNOT_DELETE_PROCESSING": FailurePolicy(0, None, WARN),
    "SUPPORT_IMAGE_NOT_SUPPORTED": FailurePolicy(0, None, WARN),
    "IMAGE_TOO_LARGE": FailurePolicy(0, None, WARN),
    "MISSING_API_KEY": FailurePolicy(0, Circuit.KEY, PAGE),
    "INVALID_API_KEY_FORMAT": FailurePolicy(0, Circuit.KEY, PAGE),
    "INVALID_API_KEY": FailurePolicy(0, Circuit.KEY, PAGE),
    "API_KEY_INACTIVE": FailurePolicy(0, Circuit.KEY, PAGE),
    "API_KEY_DELETED": FailurePolicy(0, Circuit.KEY, PAGE),
    "INSUFFICIENT_CREDITS": FailurePolicy(0, Circuit.BALANCE, PAGE),
    "SMART_BALANCE_PAYMENT_FAILED": FailurePolicy(0, Circuit.BALANCE, PAGE),
    "API_ACCESS_NOT_ENABLED": FailurePolicy(0, Circuit.KEY, PAGE),
    "ACCOUNT_SUSPENDED": FailurePolicy(0, Circuit.KEY, PAGE),
    "NOT_FOUND": FailurePolicy(0, None, WARN, counts=True),
    "NAME_RESERVED": FailurePolicy(0, None, WARN),
    "NAME_ALREADY_EXISTS": FailurePolicy(0, None, WARN),
    "CONFLICT": FailurePolicy(0, None, COUNT),
    "GENERATION_REJECTED": FailurePolicy(0, None, COUNT),
    "CANCELLED": FailurePolicy(0, None, COUNT),
    "GENERATION_FAILED": FailurePolicy(0, None, COUNT, counts=True),
    "INVALID_IMAGE": FailurePolicy(0, None, COUNT),
    "INTERNAL_ERROR": FailurePolicy(0, None, COUNT, counts=True),
    "SERVICE_UNDER_MAINTENANCE": FailurePolicy(0, Circuit.MAINTENANCE, WARN, pause_for=timedelta(minutes=1)),
    "GENERATION_TIMEOUT": FailurePolicy(0, None, COUNT, counts=True),
    "SCORING_TIMEOUT": FailurePolicy(0, None, WARN, counts=True),
    "TITLE_TIMEOUT": FailurePolicy(0, None, WARN, counts=True),
    "TOO_MANY_REQUESTS": FailurePolicy(2, None, COUNT, throttle=True),
}
UNSENT = errors.ProviderUnreachable("refused")
UNKNOWN = (errors.OutcomeUnknown("reset"), errors.AnswerUnusable("empty", status=200), errors.ProviderMoved("307"))
AFTER_DOWNLOAD = (
    errors.OutputRefused("x"),
    errors.OutputGone("x"),
    errors.PictureUnusable("x"),
    errors.Undeliverable("x"),
)
AFTER_THE_ANSWER: dict[type[errors.JobFailed], AlertLevel] = {
    errors.OutputRefused: PAGE,
    errors.OutputGone: PAGE,
    errors.PictureUnusable: PAGE,
    errors.Undeliverable: WARN,
}


def refused(code: str, status: int = 500) -> errors.ProviderRefused:
    return errors.ProviderRefused(code, status)


def test_the_table_has_exactly_the_codes_of_the_contract() -> None:
    assert len(CODES) == 31
    assert set(failure_policy.CODES) == CODES == set(ROWS)


@pytest.mark.parametrize("code", sorted(ROWS))
def test_each_code_has_its_expected_policy(code: str) -> None:
    assert policy_for(refused(code)) == ROWS[code]


@pytest.mark.parametrize("code", sorted(CODES))
def test_only_two_server_errors_are_retried_once_when_the_operator_enables_it(code: str) -> None:
    retried = policy_for(refused(code), retry_server_errors=True)
    if code in ("GENERATION_FAILED", "INTERNAL_ERROR"):
        assert retried == FailurePolicy(1, None, COUNT, counts=True)
    else:
        assert retried == ROWS[code]


@pytest.mark.parametrize("retrying", [False, True])
@pytest.mark.parametrize(
    "failure", [*UNKNOWN, *map(refused, ("GENERATION_TIMEOUT", "CANCELLED", "BRAND_NEW"))], ids=repr
)
def test_a_request_that_may_have_succeeded_is_never_sent_again(failure: errors.JobFailed, *, retrying: bool) -> None:
    assert policy_for(failure, retry_server_errors=retrying).retries == 0


@given(st.text(max_size=20) | st.sampled_from(sorted(CODES)), st.integers(100, 599))
def test_by_default_only_too_many_requests_is_retried(code: str, status: int) -> None:
    assert policy_for(refused(code, status)).retries == (2 if code == "TOO_MANY_REQUESTS" else 0)


def test_a_call_that_was_never_sent_is_retried_and_counts() -> None:
    assert policy_for(UNSENT) == FailurePolicy(2, None, COUNT, counts=True)


def test_a_moved_service_opens_a_circuit_and_an_unusable_answer_pages() -> None:
    unknown, unusable, moved = map(policy_for, UNKNOWN)
    assert unknown == FailurePolicy(0, None, WARN, counts=True)
    assert unusable == FailurePolicy(0, None, PAGE, counts=True)
    assert moved == FailurePolicy(0, Circuit.MOVED, PAGE)


@pytest.mark.parametrize("failure", AFTER_DOWNLOAD, ids=repr)
def test_a_failure_after_the_answer_does_not_count_against_the_service(failure: errors.JobFailed) -> None:
    assert policy_for(failure) == FailurePolicy(0, None, AFTER_THE_ANSWER[type(failure)])


def test_a_paid_image_that_is_lost_pages_the_operator() -> None:
    lost = (errors.OutputUnreachable("x"), errors.OutputGone("x"), errors.PictureUnusable("x"), errors.InternalError())
    assert {policy_for(failure).alert_level for failure in lost} == {PAGE}


def test_an_unnamed_403_counts_like_a_server_error_and_never_condemns_the_key() -> None:
    assert policy_for(refused("REGION_CLOSED", 403)).pause is None
    assert policy_for(refused("REGION_CLOSED", 403)).counts


def test_what_is_not_found_counts_against_the_service_only_without_a_persona_or_style() -> None:
    assert policy_for(refused("NOT_FOUND", 404), preset=True) == FailurePolicy(0, None, WARN)
    assert policy_for(refused("NOT_FOUND", 404)).counts
    assert policy_for(refused("INTERNAL_ERROR"), preset=True).counts


def test_what_a_failure_means_depends_on_the_request_and_on_the_operator() -> None:
    not_found = errors.ProviderRefused("NOT_FOUND", 404)
    assert policy_of(not_found, preset=True) == policy_for(not_found, preset=True) == FailurePolicy(0, None, WARN)
    assert policy_of(errors.ProviderRefused("NOT_FOUND", 404)).counts
    failed = errors.ProviderRefused("INTERNAL_ERROR", 500)
    assert policy_of(failed, retry_server_errors=True).retries == 1
    assert policy_of(errors.ProviderRefused("INTERNAL_ERROR", 500)).retries == 0


@pytest.mark.parametrize(
    ("failure", "downloads"),
    [
        (errors.OutputGone("404"), 3),
        (errors.PictureUnusable("cut off"), 2),
        (errors.OutputUnreachable("reset"), None),
        (errors.OutputRefused("private address"), 1),
        (errors.OutcomeUnknown("reset"), 1),
    ],
)
def test_how_often_an_output_is_downloaded(failure: errors.JobFailed, downloads: int | None) -> None:
    allowed = [tries for tries in range(1, 100) if may_download_again(failure, tries)]
    assert allowed == list(range(1, 100 if downloads is None else downloads))


def test_a_policy_is_decided_once_and_stored_on_the_failure() -> None:
    failure = refused("INTERNAL_ERROR")
    decided = policy_of(failure, retry_server_errors=True)
    assert decided.retries == 1
    assert policy_of(failure) is decided


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, FailurePolicy(0, None, WARN)),
        (401, FailurePolicy(0, Circuit.KEY, PAGE)),
        (402, FailurePolicy(0, Circuit.BALANCE, PAGE)),
        (403, FailurePolicy(0, None, WARN, counts=True)),
        (404, FailurePolicy(0, None, WARN)),
        (418, FailurePolicy(0, None, WARN)),
        (429, FailurePolicy(0, None, WARN)),
        (499, FailurePolicy(0, None, WARN)),
        (500, FailurePolicy(0, None, WARN, counts=True)),
        (503, FailurePolicy(0, None, WARN, counts=True)),
        (599, FailurePolicy(0, None, WARN, counts=True)),
    ],
)
def test_a_code_outside_the_contract_gets_the_policy_of_its_status(status: int, expected: FailurePolicy) -> None:
    assert (
        policy_for(refused("BRAND_NEW", status))
        == policy_for(refused("", status), retry_server_errors=True)
        == expected
    )


# --- a message for everything --------------------------------------------------------------------------------------


def subclasses(kind: type[errors.BotError]) -> Iterator[type[errors.BotError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_code_has_its_own_message() -> None:
    assert set(failures.PROVIDER) == CODES
    assert all(
        failures.failure(a_job(reason=refused(code).reason)).startswith(failures.PROVIDER[code]) for code in CODES
    )


@pytest.mark.parametrize("kind", [errors.JobFailed, *subclasses(errors.JobFailed)], ids=lambda kind: kind.__name__)
def test_every_kind_of_failure_has_a_message(kind: type[errors.JobFailed]) -> None:
    text = failures.failure(a_job(reason=kind.kind))
    assert formatting.NOT_CHARGED in text
    assert kind.kind in failures.FAILURES or kind is errors.ProviderRefused
    assert "kind" in vars(kind), "without a kind of its own it would show the message of its parent class"


def test_no_two_kinds_of_failure_share_a_name() -> None:
    kinds = [vars(kind)["kind"] for kind in (errors.JobFailed, *subclasses(errors.JobFailed))]
    assert len(set(kinds)) == len(kinds)


REFUSALS = (
    errors.InvalidOption("prompt", "has_link"),
    errors.QuotaExceeded(Allowance(Limit(Scope.MEMBER, 1, 10, day(NOON)), used=10), cost=1),
    errors.ServerNotAllowed(),
    errors.Blocked(Block(0, False, 1, "spam", None, 2, NOON)),
    errors.TooNew("account", NOON),
    errors.ChannelNotAllowed((5, 6)),
    errors.Paused("moving to another account"),
    errors.InvalidSetting("amount"),
    errors.QueueFull(100),
    errors.TooManyActiveJobs(1),
    errors.DuplicateRequest(),
    errors.CircuitOpen(Circuit.KEY, None),
    errors.StorageUnavailable("database or disk is full"),
    errors.Restarting(),
    errors.SourceExpired("image"),
    errors.NotAllowed("delete"),
    errors.ResultGone(),
    errors.NoImageFound(),
    errors.ChannelNotWritable(),
    errors.Cancelled(),
)


def test_every_refusal_has_its_own_message() -> None:
    assert {type(refusal) for refusal in REFUSALS} == set(subclasses(errors.RequestRejected))
    assert len({refusals.refusal(refusal, now=NOON, locale="en-US") for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("circuit", list(Circuit))
def test_every_circuit_has_a_message_for_members_and_one_for_the_operator(circuit: Circuit) -> None:
    assert refusals.refusal(errors.CircuitOpen(circuit, None), now=NOON, locale="en-US").startswith(
        refusals.CIRCUITS[circuit]
    )
    assert failures.failure(a_job(reason=errors.NotStarted(circuit).reason)).startswith(refusals.CIRCUITS[circuit])
    assert "until the operator acts" in operator.circuit_opened(circuit, None)
    assert f"{NOON:%Y-%m-%d} 12:00:00 UTC" in operator.circuit_opened(circuit, NOON)
