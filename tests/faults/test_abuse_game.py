"""A hundred accounts, most of them up to something: the money stays within its caps, and honest members get theirs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.support.abuse_books import Row, table
from tests.support.abuse_game import HONEST, Game
from tests.support.abuse_strategies import STRATEGIES
from tests.support.fault_injection import seed, size
from tests.support.inline_database import empty_database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults]

FILE = "tests/faults/test_abuse_game.py"
BLOCKS = 2
GAMES = size(24, 1_000) // BLOCKS  # in each block


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A new database; every game starts with a copy of it."""
    with empty_database(tmp_path_factory.mktemp("template")) as empty:
        yield empty


@pytest.mark.timeout(size(120, 7200))
@pytest.mark.parametrize("block", range(BLOCKS))
def test_nobody_gets_more_than_their_share_and_honest_members_get_theirs(
    template: sqlite3.Connection, block: int
) -> None:
    name = "test_nobody_gets_more_than_their_share_and_honest_members_get_theirs"
    first = seed(f"'{FILE}::{name}[{block}]'") + block * GAMES
    rows = {strategy: Row() for strategy in STRATEGIES}
    by_others: defaultdict[bool, int] = defaultdict(int)
    for number in range(first, first + GAMES):
        game = Game(number, template).play()
        assert not game.broken, f"{_repeat(number)}\n" + "\n".join(game.broken[:20])
        for strategy, row in game.rows.items():
            rows[strategy].add(row)
        refused = game.rows[HONEST].refused
        by_others[game.setting.roomy] += sum(
            refused[why] for why in refused if why.startswith(("guild", "bot", "money"))
        )
    assert all(row.requests for row in rows.values())
    assert by_others[True] == 0
    print(f"{GAMES} games", *table(rows), sep="\n")  # noqa: T201 - for the test report


def _repeat(number: int) -> str:
    return f"seed {number}; repeat with: TORTURE_SEED={number} .venv/bin/python -m pytest '{FILE}' -k one_game"


def test_one_game_is_reproducible_from_its_seed(template: sqlite3.Connection) -> None:
    number = seed(f"{FILE} -k one_game")
    game = Game(number, template).play()
    assert not game.broken, "\n".join(game.broken)
    assert Game(number, template).play().rows == game.rows
    assert Game(number + 1, template).play().rows != game.rows
