"""How long the bot pauses before it tries again."""

from datetime import timedelta

import pytest

from bot.domain.errors import JobFailed, OutputUnreachable, ProviderRefused
from bot.jobs.retry import _seconds


def refused(asked: timedelta | None) -> ProviderRefused:
    return ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=asked)


@pytest.mark.parametrize("tries", [1, 2, 9])
@pytest.mark.parametrize(
    ("asked", "shortest"),
    [
        (timedelta(seconds=7), 7.0),
        (timedelta(seconds=120), 120.0),
        (timedelta(hours=1), 120.0),
        (timedelta(days=1), 120.0),
    ],
)
def test_what_the_provider_asks_for_is_respected_up_to_two_minutes(
    asked: timedelta, shortest: float, tries: int
) -> None:
    assert all(shortest <= _seconds(refused(asked), tries) <= shortest * 1.25 for _ in range(100))


@pytest.mark.parametrize("failure", [refused(None), refused(timedelta(0)), OutputUnreachable("x")])
@pytest.mark.parametrize(("tries", "longest"), [(1, 1), (2, 2), (3, 4), (4, 8), (9, 256), (10, 300), (10**6, 300)])
def test_otherwise_the_pauses_double_up_to_five_minutes(failure: JobFailed, tries: int, longest: int) -> None:
    assert all(longest / 2 <= _seconds(failure, tries) <= longest for _ in range(100))
