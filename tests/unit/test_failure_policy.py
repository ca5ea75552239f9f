"""What each way of failing means, and that each has words."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import errors, failure_policy
from bot.domain.failure_policy import judge
from bot.domain.models import Allowance, Circuit, Limit, Loudness, Scope, Verdict, Window
from bot.text import words
from tests.conftest import a_job
from tests.support.factories import NOON
from tests.support.provider_contract import CODES

PAGE, WARN, COUNT = Loudness.PAGE, Loudness.WARN, Loudness.COUNT

# Retries, circuit, loudness, whether it counts as a failure of the service; by default none, none, counted, no.
ROWS: dict[str, Verdict] = {
    "VALIDATION_ERROR": Verdict(0, None, WARN),
    "INVALID_PERSONA": Verdict(0, None, WARN),
    "INVALID_STYLE": Verdict(0, None, WARN),
    "INVALID_AMOUNT": Verdict(0, None, WARN),
    "CONTENT_POLICY": Verdict(0, None, COUNT),
    "CANNOT_DELETE_PROCESSING": Verdict(0, None, WARN),
    "SUPPORT_IMAGE_NOT_SUPPORTED": Verdict(0, None, WARN),
    "IMAGE_TOO_LARGE": Verdict(0, None, WARN),
    "MISSING_API_KEY": Verdict(0, Circuit.KEY, PAGE),
    "INVALID_API_KEY_FORMAT": Verdict(0, Circuit.KEY, PAGE),
    "INVALID_API_KEY": Verdict(0, Circuit.KEY, PAGE),
    "API_KEY_INACTIVE": Verdict(0, Circuit.KEY, PAGE),
    "API_KEY_DELETED": Verdict(0, Circuit.KEY, PAGE),
    "INSUFFICIENT_CREDITS": Verdict(0, Circuit.BALANCE, PAGE),
    "SMART_BALANCE_PAYMENT_FAILED": Verdict(0, Circuit.BALANCE, PAGE),
    "API_ACCESS_NOT_ENABLED": Verdict(0, Circuit.KEY, PAGE),
    "ACCOUNT_SUSPENDED": Verdict(0, Circuit.KEY, PAGE),
    "NOT_FOUND": Verdict(0, None, WARN, counts=True),
    "NAME_RESERVED": Verdict(0, None, WARN),
    "NAME_ALREADY_EXISTS": Verdict(0, None, WARN),
    "CONFLICT": Verdict(0, None, COUNT),
    "GENERATION_REJECTED": Verdict(0, None, COUNT),
    "CANCELLED": Verdict(0, None, COUNT),
    "GENERATION_FAILED": Verdict(0, None, COUNT, counts=True),
    "INVALID_IMAGE": Verdict(0, None, COUNT),
    "INTERNAL_ERROR": Verdict(0, None, COUNT, counts=True),
    "SERVICE_UNDER_MAINTENANCE": Verdict(0, Circuit.MAINTENANCE, WARN, pause_for=timedelta(minutes=1)),
    "GENERATION_TIMEOUT": Verdict(0, None, COUNT, counts=True),
    "SCORING_TIMEOUT": Verdict(0, None, WARN, counts=True),
    "TITLE_TIMEOUT": Verdict(0, None, WARN, counts=True),
    "TOO_MANY_REQUESTS": Verdict(2, None, COUNT, throttle=True),
}
UNSENT = errors.ProviderUnreachable("refused")
UNKNOWN = (errors.OutcomeUnknown("reset"), errors.AnswerUnusable("empty", status=200), errors.ProviderMoved("307"))
OURS = (errors.OutputRefused("x"), errors.OutputGone("x"), errors.PictureUnusable("x"), errors.Undeliverable("x"))


def refused(code: str, status: int = 500) -> errors.ProviderRefused:
    return errors.ProviderRefused(code, status)


def test_the_table_has_the_codes_of_the_contract_and_no_other() -> None:
    assert len(CODES) == 31
    assert set(failure_policy.CODES) == CODES == set(ROWS)


@pytest.mark.parametrize("code", sorted(ROWS))
def test_each_code_means_what_was_decided(code: str) -> None:
    assert judge(refused(code)) == ROWS[code]


@pytest.mark.parametrize("code", sorted(CODES))
def test_only_two_server_errors_are_tried_again_once_where_the_operator_says_so(code: str) -> None:
    retried = judge(refused(code), retry_server_errors=True)
    if code in ("GENERATION_FAILED", "INTERNAL_ERROR"):
        assert retried == Verdict(1, None, COUNT, counts=True)
    else:
        assert retried == ROWS[code]


@pytest.mark.parametrize("retrying", [False, True])
@pytest.mark.parametrize(
    "failure", [*UNKNOWN, *map(refused, ("GENERATION_TIMEOUT", "CANCELLED", "BRAND_NEW"))], ids=repr
)
def test_what_may_have_been_carried_out_is_never_sent_again(failure: errors.Failed, *, retrying: bool) -> None:
    assert judge(failure, retry_server_errors=retrying).retries == 0


@given(st.text(max_size=20) | st.sampled_from(sorted(CODES)), st.integers(100, 599))
def test_no_answer_but_a_full_queue_is_tried_again_by_default(code: str, status: int) -> None:
    assert judge(refused(code, status)).retries == (2 if code == "TOO_MANY_REQUESTS" else 0)


def test_a_call_that_never_left_is_tried_again_and_counts() -> None:
    assert judge(UNSENT) == Verdict(2, None, COUNT, counts=True)


def test_a_moved_service_stops_everything_and_an_unusable_answer_pages() -> None:
    unknown, unusable, moved = map(judge, UNKNOWN)
    assert unknown == Verdict(0, None, WARN, counts=True)
    assert unusable == Verdict(0, None, PAGE, counts=True)
    assert moved == Verdict(0, Circuit.MOVED, PAGE)


@pytest.mark.parametrize("failure", OURS, ids=repr)
def test_trouble_after_the_answer_says_nothing_of_the_service(failure: errors.Failed) -> None:
    assert judge(failure) == Verdict(0, None, COUNT)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict(0, None, WARN)),
        (401, Verdict(0, Circuit.KEY, PAGE)),
        (402, Verdict(0, Circuit.BALANCE, PAGE)),
        (403, Verdict(0, Circuit.KEY, PAGE)),
        (404, Verdict(0, None, WARN)),
        (418, Verdict(0, None, WARN)),
        (429, Verdict(0, None, WARN)),
        (499, Verdict(0, None, WARN)),
        (500, Verdict(0, None, WARN, counts=True)),
        (503, Verdict(0, None, WARN, counts=True)),
        (599, Verdict(0, None, WARN, counts=True)),
    ],
)
def test_a_code_the_contract_does_not_name_is_judged_by_its_class(status: int, verdict: Verdict) -> None:
    assert judge(refused("BRAND_NEW", status)) == judge(refused("", status), retry_server_errors=True) == verdict


# --- words for everything -----------------------------------------------------------------------------------------


def below(kind: type[errors.BotError]) -> Iterator[type[errors.BotError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_code_has_words_of_its_own() -> None:
    assert set(words.PROVIDER) == CODES
    assert all(words.failure(a_job(reason=refused(code).reason)).startswith(words.PROVIDER[code]) for code in CODES)


@pytest.mark.parametrize("kind", [errors.Failed, *below(errors.Failed)], ids=lambda kind: kind.__name__)
def test_every_way_of_failing_has_words(kind: type[errors.Failed]) -> None:
    told = words.failure(a_job(reason=kind.kind))
    assert words.FREE in told
    assert kind.kind in words.FAILURES or kind is errors.ProviderRefused
    assert "kind" in vars(kind), "a kind of its own, or the words of its parent are told"


def test_no_two_ways_of_failing_share_a_name() -> None:
    kinds = [vars(kind)["kind"] for kind in (errors.Failed, *below(errors.Failed))]
    assert len(set(kinds)) == len(kinds)


REFUSALS = (
    errors.OptionInvalid("prompt", "has_link"),
    errors.QuotaSpent(Allowance(Limit(Scope.MEMBER, 1, 10, Window(NOON, NOON)), used=10), cost=1),
    errors.QueueFull(100),
    errors.MemberBusy(1),
    errors.AlreadyTaken(),
    errors.CircuitOpen(Circuit.KEY, None),
    errors.BooksUnavailable("database or disk is full"),
    errors.Restarting(),
    errors.SourceExpired("image"),
    errors.Forbidden("delete"),
    errors.ResultGone(),
    errors.NoPicture(),
    errors.PlaceClosed(),
    errors.Cancelled(),
)


def test_every_refusal_has_words_of_its_own() -> None:
    assert {type(refusal) for refusal in REFUSALS} == set(below(errors.Refused))
    assert len({words.refusal(refusal, now=NOON) for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("circuit", list(Circuit))
def test_every_circuit_has_words_for_members_and_for_the_operator(circuit: Circuit) -> None:
    assert words.refusal(errors.CircuitOpen(circuit, None), now=NOON).startswith(words.CIRCUITS[circuit])
    assert words.failure(a_job(reason=errors.NotStarted(errors.CircuitOpen(circuit, None)).reason)).startswith(
        words.CIRCUITS[circuit]
    )
    assert "until the operator acts" in words.opened(circuit, None)
    assert f"{NOON:%Y-%m-%d} 12:00:00 UTC" in words.opened(circuit, NOON)
