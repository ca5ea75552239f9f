"""Whole days on virtual time: despite faults and crashes, each job ends once and only images are charged."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_injection import seed, size
from tests.support.simulation import JOBS, play, silence

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults]

FILE = "tests/faults/test_simulated_days.py"
BLOCKS = 8
DAYS = size(200, 10_000) // BLOCKS  # in each block


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    state = random.getstate()
    with silence():
        yield
    random.setstate(state)  # a simulated day seeds the jitter


@pytest.mark.timeout(size(120, 7200))
@pytest.mark.parametrize("block", range(BLOCKS))
def test_after_any_day_the_ledger_agrees_with_what_was_shown(block: int) -> None:
    first = seed(f"'{FILE}::test_after_any_day_the_ledger_agrees_with_what_was_shown[{block}]'") + block * DAYS
    counts: Counter[str] = Counter()
    for number in range(first, first + DAYS):
        day = play(number)
        counts += day.counts
        assert not day.broken, f"{_repeat(number)}\n" + "\n".join(day.broken)
    assert counts["jobs"] > DAYS * JOBS // 4
    print(f"{DAYS} days: " + ", ".join(f"{what} {times}" for what, times in sorted(counts.items())))  # noqa: T201 - for the test report


def _repeat(number: int) -> str:
    return f"seed {number}; repeat with: TORTURE_SEED={number} .venv/bin/python -m pytest '{FILE}' -k one_day"


def test_one_day_is_reproducible_from_its_seed() -> None:
    number = seed(f"{FILE} -k one_day")
    day = play(number)
    assert not day.broken, "\n".join(day.broken)
    assert play(number).digest == day.digest
    assert play(number + 1).digest != day.digest
