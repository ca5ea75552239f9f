"""Whether a database is older than the marker next to it."""

from __future__ import annotations

import pytest

from bot.storage.marker import Position, is_older


@pytest.mark.parametrize(
    ("marker", "older"),
    [
        ("7\nstart\n", False),  # its own
        ("6\nstart\n", False),  # written before the last entry
        ("8\nstart\n", True),  # an entry is missing
        ("7\nanother\n", True),  # a start is missing
        ("6\nanother\n", True),
        ("8\n", True),  # of an earlier version, without a start
        ("7\n", False),
        ("7", False),
        ("", False),  # no marker
        ("99\nfound\n", False),  # what this start found, whatever it says
        ("nonsense", False),
        ("nonsense\nanother\n", False),
        ("\nanother\n", False),
    ],
)
def test_a_database_is_older_if_it_lacks_an_entry_or_the_start_that_its_marker_names(
    marker: str, *, older: bool
) -> None:
    assert is_older(Position(7, "start", "99\nfound\n"), marker) is older


def test_a_database_without_entries_is_not_older_than_no_marker() -> None:
    assert not is_older(Position(0, "", ""), "nonsense")
    assert is_older(Position(0, "", ""), "1\n")
