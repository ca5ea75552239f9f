"""Which limit binds is said twice: by the pure rules, for people, and by the ledger's statement, for the decision."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.errors import QuotaExceeded
from bot.domain.models import Job, Limit, Scope, Window
from bot.domain.quota import binding_limit, day, from_extra, hour, month
from bot.domain.server_rules import Change
from bot.storage.ledger import Ledger
from bot.storage.policies import Policies
from tests.support.factories import NOON, requester, reservation
from tests.support.inline_database import InlineDatabase, copied, empty_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.domain.models import Reservation

GUILD = 7
SUBJECTS = {Scope.GUILD: GUILD, Scope.BOT: 0, Scope.MONEY: 0}
DAY, MONTH = day(NOON), month(NOON)
WINDOWS = {Scope.ATTEMPTS: (hour(NOON),), Scope.UNKNOWN: (DAY,), Scope.STRIKES: (DAY,)}
OFFERED = tuple((scope, window) for scope in Scope for window in WINDOWS.get(scope, (DAY, MONTH)))


@dataclass(frozen=True, slots=True)
class Earlier:
    """A request of the past, and how it ended; None: it has not."""

    cost: int
    member: int
    days_ago: int
    end: str | None


EARLIER = st.builds(
    Earlier,
    st.integers(0, 4),
    st.sampled_from((1, 1, 1, 2)),
    st.sampled_from((0, 0, 0, 1)),
    st.sampled_from((None, None, "unforeseen", "outcome_unknown", "provider_refused:CONTENT_POLICY")),
)
# None: there is no such limit
AMOUNTS = st.fixed_dictionaries({key: st.none() | st.integers(0, 12) for key in OFFERED})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with empty_database(tmp_path_factory.mktemp("template")) as empty:
        yield empty


def _limits(amounts: dict[tuple[Scope, Window], int | None], guild_id: int | None) -> list[Limit]:
    return [
        Limit(scope, SUBJECTS.get(scope, 1), amount, window, guild_id or 0)
        for (scope, window), amount in amounts.items()
        if amount is not None and (guild_id is not None or scope not in (Scope.GUILD, Scope.MEMBER_HERE))
    ]


def _terms(earlier: Earlier, limits: Sequence[Limit], guild_id: int | None = GUILD) -> Reservation:
    at = NOON - timedelta(days=earlier.days_ago)
    by = replace(requester(earlier.member, at=at), guild_id=guild_id)
    return replace(reservation(by, cost=earlier.cost, limits=limits), price=earlier.cost * 2)


@given(
    st.lists(EARLIER, max_size=5),
    AMOUNTS,
    st.integers(0, 6),
    st.integers(0, 4),
    st.sampled_from((GUILD, GUILD, GUILD, None)),
)
def test_the_ledger_refuses_exactly_what_the_rules_say_and_takes_as_much_extra(
    template: sqlite3.Connection,
    earlier: list[Earlier],
    amounts: dict[tuple[Scope, Window], int | None],
    extra: int,
    cost: int,
    guild_id: int | None,
) -> None:
    with closing(copied(template)) as raw:
        raw.row_factory = sqlite3.Row
        store = InlineDatabase(raw)
        ledger, policies = Ledger(store, spool=None), Policies(store)  # type: ignore[arg-type]  # no picture is made
        if extra:
            store.together(policies.grant(Change(9, GUILD, "grant", NOON), 1, extra, "thanks"))
        for one in earlier:
            [job] = store.together(ledger.reserve(_terms(one, [])))
            if one.end is not None:
                store.together(ledger.released(job, reason=one.end, request_id=None, now=NOON))

        limits = _limits(amounts, guild_id)
        terms = _terms(Earlier(cost, 1, 0, None), limits, guild_id)
        [allowances] = store.together(ledger.allowances(limits))
        [outcome] = store.together(ledger.reserve(terms))
        [[left]] = [store.together(policies.grant(Change(9, GUILD, "grant", NOON), 1, 0, "none"))]

        binding = binding_limit(allowances, cost, terms.price)
        if binding is None:
            assert isinstance(outcome, Job), outcome
            taken = _extra_of(raw, outcome)
            assert taken == from_extra(allowances, cost)
            assert left == extra - taken >= 0
        else:
            assert isinstance(outcome, QuotaExceeded), outcome
            assert (outcome.allowance, outcome.cost) == (binding, cost)
            assert left == extra


def _extra_of(raw: sqlite3.Connection, job: Job) -> Any:
    [[extra]] = raw.execute("SELECT extra FROM jobs WHERE id = ?", (job.id,))
    return extra
