"""Alerts over real HTTP: posted until the webhook accepts them, and repeated while something lasts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from aiohttp import web

from bot import supervisor
from bot.app import utc_now
from bot.domain.models import AlertLevel
from bot.ops import alerts
from bot.ops.alerts import Alerts
from bot.ops.logs import Redactor, job_id
from bot.storage.journal import DiskReserve
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, Live, running
from tests.support.factories import NOON
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    import aiohttp

T = TypeVar("T")

PAGE, WARN, COUNT = AlertLevel.PAGE, AlertLevel.WARN, AlertLevel.COUNT


@dataclass(slots=True)
class Webhook:
    """A webhook that answers with `statuses` in turn, then with 204. 0 aborts the connection; `hangs` never answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    retry_after: str = "0.2"
    hangs: bool = False
    received: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        message = await request.json()
        assert message["allowed_mentions"] == {"parse": []}
        async with self.arrived:
            self.received.append(message["content"])
            self.times.append(monotonic())
            self.arrived.notify_all()
        if self.hangs:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0 and request.transport is not None:
            request.transport.abort()
        headers = {"Retry-After": self.retry_after} if status == 429 else {"Location": self.url}
        return web.Response(status=status or 204, headers=headers)

    async def wait(self, count: int) -> list[str]:
        """Wait until so many alerts have arrived; return their texts."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)
        return self.received


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    webhook = Webhook()
    application = web.Application()
    application.router.add_post("/", webhook.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    webhook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield webhook
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(alerts, "_CLOSING_SECONDS", 0.5)


@dataclass(slots=True)
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


async def settled(sender: Alerts) -> None:
    """Wait until everything has been posted."""
    async with asyncio.timeout(10):
        await asyncio.gather(*filter(None, [sender._posting]))


def alerts_of(live: Live) -> Alerts:
    return cast("Alerts", live.app.notices._alerts)


@asynccontextmanager
async def opened(webhook: Webhook | None, clock: Callable[[], datetime] = lambda: NOON) -> AsyncIterator[Alerts]:
    url = None if webhook is None else webhook.url
    async with Alerts(webhook=url, clock=clock, redact=Redactor(["swordfish"])) as sender:
        yield sender


# --- until the webhook has taken it -----------------------------------------------------------------------------------


async def test_an_alert_is_posted_without_secrets(webhook: Webhook) -> None:
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", f"the key {KEY} and the password swordfish were refused")
        assert await webhook.wait(1) == ["the key pkz_… and the password … were refused"]


async def test_an_end_is_posted_at_once_if_its_beginning_was(webhook: Webhook) -> None:
    clock = [NOON]
    async with opened(webhook, lambda: clock[0]) as sender:
        sender.end(WARN, "gateway", "nothing was lost")
        for text in ("lost", "lost again, a minute later"):
            sender.send(PAGE, "gateway", text)
            sender.end(WARN, "gateway", "back")
            assert await webhook.wait(2) == ["lost", "back"]
        clock[0] += timedelta(minutes=16)
        sender.send(PAGE, "gateway", "lost")
        assert await webhook.wait(3) == ["lost", "back", "lost"]


async def test_what_is_only_counted_is_not_posted(webhook: Webhook) -> None:
    async with opened(webhook) as sender:
        sender.send(COUNT, "a", "counted")
        sender.send(WARN, "b", "posted")
    assert webhook.received == ["posted"]


async def test_an_alert_is_posted_again_until_the_webhook_accepts_it(webhook: Webhook) -> None:
    webhook.statuses[:] = [500, 0, 302, 404, 204]
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "the disk is full")
        assert await webhook.wait(5) == ["the disk is full"] * 5
    assert len(webhook.received) == 5, "accepted once is enough"


async def test_an_alert_that_was_not_accepted_yet_is_posted_with_its_newest_text(webhook: Webhook) -> None:
    webhook.statuses[:] = [500]
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "first")
        await webhook.wait(1)
        sender.send(PAGE, "a", "second")
        sender.send(PAGE, "a", "third")
        assert await webhook.wait(2) == ["first", "third"]
    assert len(webhook.received) == 2


async def test_one_alert_that_is_refused_does_not_hold_up_the_others(webhook: Webhook) -> None:
    webhook.statuses[:] = [400, 204, 400, 204]
    async with opened(webhook) as sender:
        for key in "abc":
            sender.send(PAGE, key, key)
        assert await webhook.wait(5) == ["a", "b", "c", "a", "c"]


async def test_a_rate_limit_is_respected(webhook: Webhook) -> None:
    webhook.statuses[:] = [429]
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "a")
        await webhook.wait(1)
        sender.send(PAGE, "b", "b")
        await webhook.wait(3)
    assert webhook.times[1] - webhook.times[0] >= 0.2


@pytest.mark.parametrize("retry_after", ["soon", "-5", "nan"])
async def test_a_rate_limit_that_makes_no_sense_is_an_ordinary_failure(webhook: Webhook, retry_after: str) -> None:
    webhook.statuses[:], webhook.retry_after = [429], retry_after
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "a")
        await webhook.wait(2)


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [(429, "2.5", 2.5), (429, "0", None), (429, None, None), (503, "5", None)],
)
def test_only_a_rate_limit_says_when_to_try_again(status: int, retry_after: str | None, seconds: float | None) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    response = cast("aiohttp.ClientResponse", SimpleNamespace(status=status, headers=headers))
    assert alerts._retry_after(response) == seconds


class RefusedAlerts(Alerts):
    """Alerts that are posted in virtual time and refused, with the given answers; then they are accepted."""

    def __init__(self, *asked: float | None) -> None:
        super().__init__(webhook="https://webhook.example", clock=lambda: NOON)
        self._asked = list(asked)
        self.posts: list[tuple[float, str]] = []

    async def _post(self, webhook: str, text: str) -> None:
        assert webhook == "https://webhook.example"
        assert job_id.get() == "", "a line about this post must not have the id of the job that caused an alert"
        self.posts.append((asyncio.get_running_loop().time(), text))
        if self._asked and (asked := self._asked.pop(0)) != ACCEPTED:
            raise alerts._NotAccepted(asked)


ACCEPTED = -1.0


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    loop = Loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def test_the_pauses_between_two_tries_double_up_to_five_minutes_and_begin_anew_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> list[float]:
        answers = [*[None] * 11, ACCEPTED, None, 7.0, 7200.0]
        async with RefusedAlerts(*answers) as sender:
            sender.send(PAGE, "a", "a")
            sender.send(PAGE, "b", "b")
            await asyncio.sleep(8000)
            return [time for time, _ in sender.posts]

    monkeypatch.setattr(alerts, "_FIRST_PAUSE", 1.0)
    times = in_virtual_time(run())
    pauses = [round(after - before) for before, after in pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 0, 1, 7, 3600]


def test_a_new_text_of_an_alert_that_waits_is_posted_after_the_others() -> None:
    async def run() -> list[str]:
        job_id.set("k3f9")
        async with RefusedAlerts(None) as sender:
            sender.send(PAGE, "a", "old a")
            await asyncio.sleep(0)
            sender.send(PAGE, "b", "b")
            sender.send(PAGE, "a", "new a")
            await asyncio.sleep(100)
            return [text for _, text in sender.posts]

    assert in_virtual_time(run()) == ["old a", "b", "new a"]


def test_a_shutdown_counts_every_alert_that_it_could_not_post(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> list[str]:
        async with RefusedAlerts(*[None] * 9) as sender:
            for key in "abc":
                sender.send(PAGE, key, key)
            await asyncio.sleep(0)
        return [text for _, text in sender.posts]

    assert in_virtual_time(run()) == ["a", "b", "c", "a"], "each once more"
    assert "alerts that could not be posted before the shutdown: 3" in caplog.messages


async def test_a_webhook_that_redirects_or_disconnects_is_not_followed_but_named_in_the_log(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.statuses[:] = [307, 0]
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "a")
        await webhook.wait(3)
        await settled(sender)
    assert caplog.messages[1:] == [
        "the alert webhook answered 307",
        "the alert webhook could not be reached: ServerDisconnectedError",
    ]


async def test_a_long_alert_is_cut_to_what_discord_accepts(webhook: Webhook) -> None:
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "x" * 3000)
        await webhook.wait(1)
    assert webhook.received == ["x" * 1900]


async def test_a_bounded_number_of_alerts_waits_and_the_newest_are_kept(webhook: Webhook) -> None:
    webhook.hangs = True
    async with opened(webhook) as sender:
        for number in range(200):
            sender.send(PAGE, f"key {number}", f"text {number}")
        assert list(sender._unsent.values()) == [f"text {number}" for number in range(150, 200)]


async def test_a_shutdown_does_not_wait_for_a_webhook_that_hangs(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.hangs = True
    started = monotonic()
    async with opened(webhook) as sender:
        sender.send(PAGE, "a", "a")
        sender.send(PAGE, "b", "b")
        await webhook.wait(1)
    assert monotonic() - started < 5
    assert "alerts that could not be posted before the shutdown: 2" in caplog.messages


async def test_a_webhook_has_ten_seconds_to_answer() -> None:
    async with opened(None) as sender:
        assert sender._session.timeout.total == 10


async def test_a_shutdown_tries_once_more_what_is_unsent(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "_FIRST_PAUSE", 200.0)
    webhook.statuses[:] = [500, 204, 500, 204]
    refused, error = asyncio.Event(), alerts.log.error

    def note(*values: object) -> None:
        error(*values)
        refused.set()

    monkeypatch.setattr(alerts.log, "error", note)
    async with opened(webhook) as sender:
        for key in "abc":
            sender.send(PAGE, key, key)
        await refused.wait()
    assert webhook.received == ["a", "b", "c", "a"]
    assert "could not be posted before the shutdown: 1" in caplog.text


# --- repeats ----------------------------------------------------------------------------------------------------------


async def test_an_event_is_posted_once_in_fifteen_minutes_after_it_was_accepted(webhook: Webhook) -> None:
    clock = Clock()
    async with opened(webhook, clock) as sender:
        for minutes in (0, 14, 16, 17):
            clock.now = NOON + timedelta(minutes=minutes)
            sender.send(PAGE, "a", f"after {minutes} minutes")
            await settled(sender)
    assert webhook.received == ["after 0 minutes", "after 16 minutes"]


async def test_what_lasts_is_repeated_once_a_day(webhook: Webhook) -> None:
    clock = Clock()
    async with opened(webhook, clock) as sender:
        for hours in range(50):
            clock.now = NOON + timedelta(hours=hours)
            sender.repeat(PAGE, "a", f"after {hours} hours")
            await settled(sender)
    assert webhook.received == ["after 0 hours", "after 24 hours", "after 48 hours"]


async def test_a_clock_that_was_wrong_silences_no_alert(webhook: Webhook) -> None:
    clock = Clock(NOON.replace(year=2037))
    async with opened(webhook, clock) as sender:
        sender.send(PAGE, "a", "in 2037")
        await webhook.wait(1)
        await settled(sender)
        clock.now = NOON
        sender.send(PAGE, "a", "today")
        await webhook.wait(2)


async def test_without_a_webhook_the_log_has_every_event_and_a_reminder_a_day(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    with caplog.at_level(logging.WARNING, "bot.ops.alerts"):
        async with opened(None, clock) as sender:
            sender.send(PAGE, "a", "event")
            sender.send(PAGE, "a", "event")
            for hours in range(30):
                clock.now = NOON + timedelta(hours=hours)
                sender.repeat(PAGE, "a", "reminder")
    assert [record.getMessage() for record in caplog.records] == ["operator: event"] * 2 + ["operator: reminder"]


# --- the whole bot ----------------------------------------------------------------------------------------------------


async def test_a_refused_key_is_reported_again_every_day_by_the_housekeeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webhook: Webhook
) -> None:
    late = [timedelta()]
    async with running(
        tmp_path, monkeypatch, clock=lambda: utc_now() + late[0], alerts={"webhook": webhook.url}
    ) as live:
        live.api.script(Reply.error("INVALID_API_KEY"))
        await live.said()
        [first] = await webhook.wait(1)
        await settled(alerts_of(live))
        await live.app.remind()
        late[0] = timedelta(days=1)
        housekeeping = asyncio.create_task(supervisor._keep_house(live.app))
        again = await webhook.wait(2)
        housekeeping.cancel()
        await asyncio.wait([housekeeping])
        assert again == [first, first]
        assert "refuses the API key" in first


async def test_a_full_disk_is_reported_again_every_day_until_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webhook: Webhook
) -> None:
    late = [timedelta()]
    async with running(
        tmp_path,
        monkeypatch,
        clock=lambda: utc_now() + late[0],
        alerts={"webhook": webhook.url},
        backup={"minutes": 0},  # nothing makes them here, and that they are overdue would be another alert
    ) as live:
        connection = live.app.storage.database._connection
        await connection.execute_fetchall("PRAGMA query_only = ON")
        live.app.storage.repository._reserve = DiskReserve(tmp_path / "full" / "ballast")  # does not fit
        await live.said()
        await webhook.wait(1)
        await settled(alerts_of(live))
        for day in (1, 2):
            late[0] = timedelta(days=day, hours=day)
            await live.app.remind()
            await live.app.remind()
            assert "the disk is full" in (await webhook.wait(1 + day))[-1]
            await settled(alerts_of(live))
        (tmp_path / "full").mkdir()
        await connection.execute_fetchall("PRAGMA query_only = OFF")
        late[0] = timedelta(days=5)
        await live.app.remind()
    assert len(webhook.received) == 3


async def test_an_older_database_is_reported_again_every_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webhook: Webhook
) -> None:
    late = [timedelta()]
    async with running(tmp_path, monkeypatch):
        pass
    (tmp_path / "pikzels-bot.sqlite3.marker").write_text("1000\n")
    async with running(
        tmp_path, monkeypatch, clock=lambda: utc_now() + late[0], alerts={"webhook": webhook.url}
    ) as live:
        [first] = await webhook.wait(1)
        await settled(alerts_of(live))
        await live.app.remind()
        late[0] = timedelta(days=1, hours=1)
        await live.app.remind()
        assert await webhook.wait(2) == [first, first]
