"""How long the bot pauses before it tries again."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta

import pytest

from bot.domain.errors import Interrupted, JobFailed, OutputUnreachable, ProviderRefused, StorageUnavailable
from bot.jobs.retry import Retry, _seconds, requested_pause
from bot.ops.logs import job_id
from tests.support.virtual_clock import Loop

UNREACHABLE = OutputUnreachable("reset")


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


def test_the_pauses_of_many_jobs_are_not_the_same() -> None:
    assert len({_seconds(UNREACHABLE, 5) for _ in range(10)}) > 5
    assert len({_seconds(refused(timedelta(seconds=7)), 5) for _ in range(10)}) > 5


def test_only_the_provider_may_ask_for_a_pause() -> None:
    assert requested_pause(refused(timedelta(seconds=7))) == timedelta(seconds=7)
    assert requested_pause(refused(None)) is None
    assert requested_pause(UNREACHABLE) is None


# --- on virtual time ------------------------------------------------------------------------------------------------


def on_virtual_time(scenario: Callable[[Retry], Coroutine[None, None, None]]) -> None:
    async def work() -> None:
        await scenario(Retry())

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_pause_lasts_as_long_as_it_announces() -> None:
    async def scenario(retry: Retry) -> None:
        announced: list[float] = []
        for tries in (1, 5, 9):
            before = now()
            await retry.pause(UNREACHABLE, tries, announce=announced.append)
            assert now() - before == pytest.approx(announced[-1])
        assert 0.5 <= announced[0] <= 1
        assert 8 <= announced[1] <= 16
        assert 128 <= announced[2] <= 256

    on_virtual_time(scenario)


def test_a_pause_needs_no_listener_and_is_logged_with_its_job(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(retry: Retry) -> None:
        token = job_id.set("k3f9")
        await retry.pause(UNREACHABLE, 2)
        job_id.reset(token)
        [record] = caplog.records
        expected = f"job k3f9: try 2: output_unreachable (observed=reset); again in {now():.1f} s"
        assert record.getMessage() == expected

    on_virtual_time(scenario)


def test_a_stop_ends_every_pause_and_allows_no_other() -> None:
    async def scenario(retry: Retry) -> None:
        pauses = [asyncio.create_task(retry.pause(UNREACHABLE, 9)) for _ in range(3)]
        await asyncio.sleep(1)
        retry.stop()
        for pause in pauses:
            with pytest.raises(Interrupted) as interrupted:
                await pause
            assert interrupted.value.failure is UNREACHABLE
        with pytest.raises(Interrupted):
            await retry.pause(UNREACHABLE, 1)
        assert now() == 1

    on_virtual_time(scenario)


def test_a_write_is_repeated_with_pauses_that_double_up_to_five_seconds_until_it_is_accepted() -> None:
    async def scenario(retry: Retry) -> None:
        times: list[float] = []

        async def write(number: int, *, name: str) -> str:
            times.append(now())
            if len(times) < 20:
                raise StorageUnavailable("disk full")
            return f"{name}{number}"

        assert await retry.commit(write, 7, name="job") == "job7"
        pauses = [round(later - sooner, 3) for sooner, later in itertools.pairwise(times)]
        assert pauses == [0.4, 0.8, 1.6, 3.2] + [5.0] * 15

    on_virtual_time(scenario)


def test_a_write_goes_on_after_a_stop_and_any_other_error_ends_it() -> None:
    async def scenario(retry: Retry) -> None:
        errors: list[Exception] = [StorageUnavailable("disk full"), RuntimeError("a bug")]

        async def write() -> None:
            raise errors.pop(0)

        retry.stop()
        with pytest.raises(RuntimeError):
            await retry.commit(write)
        assert errors == []

    on_virtual_time(scenario)


def test_a_write_that_is_refused_for_hours_still_pauses_for_five_seconds() -> None:
    async def scenario(retry: Retry) -> None:
        left = 2000

        async def write() -> None:
            nonlocal left
            left -= 1
            if left:
                raise StorageUnavailable("disk full")

        await retry.commit(write)
        assert now() == pytest.approx(0.4 + 0.8 + 1.6 + 3.2 + 1995 * 5)

    on_virtual_time(scenario)
