"""What admins write and choose, turned into rules, and which of the limits counts for a member."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.errors import InvalidSetting
from bot.domain.models import Format, Model, Period
from bot.domain.server_rules import (
    MOST_CREDITS,
    NOTHING_SET,
    UNLIMITED,
    Amounts,
    LimitKind,
    Preferences,
    ServerRules,
    amount,
    chosen,
    merged_presets,
)

AMOUNT = st.none() | st.just(UNLIMITED) | st.integers(0, 100)
AMOUNTS = st.builds(Amounts, AMOUNT, AMOUNT)
PERIODS = st.sampled_from((Period.DAY, Period.MONTH))


def rules(
    own: Amounts = NOTHING_SET, everyone: Amounts = NOTHING_SET, roles: dict[int, Amounts] | None = None
) -> ServerRules:
    of_roles = {(LimitKind.ROLE, role): amounts for role, amounts in (roles or {}).items()}
    return ServerRules({(LimitKind.MEMBER, 42): own, (LimitKind.EVERYONE, 0): everyone, **of_roles})


def best(amounts: list[int]) -> int | None:
    return max(amounts, key=lambda amount: float("inf") if amount == UNLIMITED else amount, default=None)


def test_an_amount_is_per_day_or_per_month() -> None:
    both = Amounts(3, 40)
    assert (both.of(Period.DAY), both.of(Period.MONTH)) == (3, 40)
    assert Amounts(None, None) == NOTHING_SET


def test_a_server_without_rules_sets_nothing() -> None:
    assert ServerRules().server == NOTHING_SET
    assert ServerRules().of_member(42, (1, 2), Period.DAY) is None
    assert ServerRules({(LimitKind.SERVER, 0): Amounts(9)}).server == Amounts(9)
    assert ServerRules({(LimitKind.SERVER, 0): Amounts(9)}).of_member(42, (), Period.DAY) is None


@given(AMOUNTS, AMOUNTS, st.dictionaries(st.integers(1, 5), AMOUNTS), st.sets(st.integers(1, 5)), PERIODS)
def test_a_members_own_limit_counts_and_otherwise_the_best_of_roles_and_everyone(
    own: Amounts, everyone: Amounts, roles: dict[int, Amounts], has: set[int], period: Period
) -> None:
    found = rules(own, everyone, roles).of_member(42, has, period)
    if own.of(period) is not None:
        assert found == own.of(period)
        return
    set_ = [everyone.of(period), *(roles[role].of(period) for role in has & set(roles))]
    assert found == best([amount for amount in set_ if amount is not None])


@given(st.dictionaries(st.integers(1, 5), AMOUNTS), st.sets(st.integers(1, 5)), st.integers(1, 5), PERIODS)
def test_one_more_role_is_never_worse_once_any_limit_is_set(
    roles: dict[int, Amounts], has: set[int], more: int, period: Period
) -> None:
    before, after = (rules(roles=roles).of_member(42, all_, period) for all_ in (has, has | {more}))
    assert before is None or best([before, after if after is not None else before]) == after


@pytest.mark.parametrize("kind", [LimitKind.MEMBER, LimitKind.ROLE])
def test_a_limit_of_somebody_else_does_not_count(kind: LimitKind) -> None:
    assert ServerRules({(kind, 43): Amounts(1)}).of_member(42, (44,), Period.DAY) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [(None, 7), ("0", 0), (" 12 ", 12), (str(MOST_CREDITS), MOST_CREDITS), ("No limit", UNLIMITED), ("remove", None)],
)
def test_an_amount_is_a_number_or_a_word(written: str | None, expected: int | None) -> None:
    assert amount(written, 7) == expected


@pytest.mark.parametrize("written", ["", "-1", "+1", "1_000", "1e3", "٣", str(MOST_CREDITS + 1), "1" * 5000])
def test_anything_else_is_no_amount(written: str) -> None:
    with pytest.raises(InvalidSetting):
        amount(written, 7)


def test_the_servers_preset_stands_in_for_the_operators_of_the_same_name() -> None:
    assert merged_presets({"Bob": "1", "Zoe": "2"}, {"BOB": "3"}) == {"Zoe": "2", "BOB": "3"}


def test_what_is_chosen_first_counts() -> None:
    own, others = Preferences(private=False), Preferences(Model.PKZ_2, Format.TALL, private=True)
    assert own.or_else(others) == Preferences(Model.PKZ_2, Format.TALL, private=False)


def test_a_choice_left_out_stays_and_the_default_takes_it_back() -> None:
    before = Preferences(Model.PKZ_2, Format.TALL, private=True)
    assert chosen(before, model=None, format_=None, private=None) == before
    assert chosen(before, model="pkz_3", format_="default", private="no") == Preferences(Model.PKZ_3, None, False)
    assert chosen(before, model=None, format_="1:1", private="default").private is None
