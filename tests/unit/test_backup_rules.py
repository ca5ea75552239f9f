"""Which backups are kept, and how long the pause after one is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.domain.backups import Backup, BackupRules, kept, pause_after
from tests.support.factories import NOON

RULES = BackupRules(interval=timedelta(minutes=5), recent=3, hourly=4, daily=2)
MB = 1024 * 1024


def made(minutes: int, size: int = MB) -> Backup:
    return Backup(Path(f"{minutes}"), size, NOON - timedelta(minutes=minutes))


def ages(backups: set[Backup]) -> list[int]:
    return sorted(int(backup.path.name) for backup in backups)


def test_the_newest_are_kept_and_the_last_of_each_hour_and_day() -> None:
    every_five_minutes = [made(minutes) for minutes in range(0, 3 * 24 * 60, 5)]
    # the last ones of 11, 10, and 9 o'clock, and of the day before
    assert ages(kept(every_five_minutes, RULES)) == [0, 5, 10, 65, 125, 725]


def test_hours_and_days_without_a_backup_count_for_nothing() -> None:
    assert ages(kept([made(0), made(3000), made(9000), made(20_000), made(90_000)], RULES)) == [0, 3000, 9000, 20_000]


def test_what_was_kept_once_leads_to_the_same_as_if_everything_had_been_kept() -> None:
    staying, everything = set[Backup](), list[Backup]()
    for minutes in range(4 * 24 * 60, -1, -5):
        everything.append(made(minutes))
        staying = kept([*staying, everything[-1]], RULES)
    assert staying == kept(everything, RULES)


def test_of_backups_that_are_too_large_together_some_of_every_kind_stay() -> None:
    rules = replace(RULES, recent=12, hourly=24, daily=14, most_bytes=4 * MB)
    found = ages(kept([made(minutes) for minutes in range(0, 20 * 24 * 60, 60)], rules))
    assert len(found) == 4
    assert found[0] == 0
    assert found[-1] > 24 * 60


@pytest.mark.parametrize("rules", [replace(RULES, most_bytes=1), BackupRules(recent=1, hourly=0, daily=0)])
def test_the_newest_one_always_stays(rules: BackupRules) -> None:
    assert ages(kept([made(0), made(5), made(2000)], rules)) == [0]
    assert kept([], rules) == set()


def test_a_backup_that_takes_long_or_is_large_is_made_less_often() -> None:
    assert pause_after(RULES, seconds=0.1, size=4 * MB) == timedelta(minutes=5)
    assert pause_after(RULES, seconds=20, size=4 * MB) == timedelta(seconds=1000)
    assert pause_after(RULES, seconds=20, size=1024 * MB) == timedelta(seconds=2048)
