"""What the nouns promise by themselves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from bot.domain.models import (
    CLAIM_LIFE,
    OPEN_STATES,
    TOKEN_LIFE,
    TRANSITIONS,
    Allowance,
    Claim,
    Output,
    Picture,
    State,
    Step,
    require,
)
from tests.support.factories import NOON, a_job, limit, request, requester


def test_a_value_that_a_state_guarantees_is_there_or_the_program_is_wrong() -> None:
    assert require(0) == 0
    with pytest.raises(AssertionError, match=r"^a job lacks a value that its state guarantees$"):
        require(None)


@pytest.mark.parametrize(("used", "left"), [(0, 5), (4, 1), (5, 0), (7, 0)])
def test_what_is_left_of_an_allowance_is_never_negative(used: int, left: int) -> None:
    assert Allowance(limit(5), used).left == left


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_a_pictures_suffix_is_that_of_its_type(kind: str, suffix: str) -> None:
    assert Picture(Path("x"), kind, 64, 36, 5).suffix == suffix


def test_a_token_is_used_for_a_minute_less_than_discord_accepts_it() -> None:
    assert timedelta(minutes=15) - TOKEN_LIFE == timedelta(minutes=1)


def test_an_image_waits_for_its_requester_for_as_long_as_the_texts_say() -> None:
    assert timedelta(days=7) == CLAIM_LIFE


def test_what_has_ended_stays_as_it_is() -> None:
    for step, transition in TRANSITIONS.items():
        assert State.DELIVERED not in transition.sources, step
        assert (State.RELEASED in transition.sources) == (step is Step.NOTIFIED)


def test_a_job_can_be_released_from_every_open_state_and_charged_only_with_an_image() -> None:
    assert TRANSITIONS[Step.RELEASED].sources == OPEN_STATES
    assert set(OPEN_STATES) == set(State) - {State.DELIVERED, State.RELEASED}
    assert TRANSITIONS[Step.DELIVERED].sources == (State.GENERATED, State.SPOOLED)


def test_no_noun_shows_a_token_or_a_signed_address_in_a_log() -> None:
    nouns = [
        request(),
        requester(),
        a_job(image_base64="data:secret"),
        Output("https://out.example/secret", "req-1"),
        Claim(1, "secret", 5, NOON),
        Picture(Path("x"), "PNG", 64, 36, 5, content=b"secret"),
    ]
    assert [noun for noun in map(repr, nouns) if "secret" in noun or "token" in noun or "https://" in noun] == []
