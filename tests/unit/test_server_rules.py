"""Which of a server's limits counts for a member."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.models import Period
from bot.domain.server_rules import NOTHING_SET, UNLIMITED, Amounts, LimitKind, ServerRules

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
