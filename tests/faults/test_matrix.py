"""Every answer of the provider and every Discord error at every step: messages, ledger, calls, and circuits."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import ProviderRefused
from bot.domain.failure_policy import policy_for
from bot.domain.models import AlertLevel, Circuit, FailurePolicy
from bot.pikzels.client import BODY_BYTES
from bot.text import failures
from sandbox.pikzels_server import contract as simulated_contract
from sandbox.pikzels_server.replies import Reply
from tests.support import provider_contract
from tests.support.e2e import PHOTO, Live, running
from tests.support.e2e import books as stored_rows
from tests.support.fault_injection import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from bot.jobs.queue import RequestQueue
    from sandbox import discord_server

pytestmark = pytest.mark.faults

LEVELS = {AlertLevel.PAGE: logging.ERROR, AlertLevel.WARN: logging.WARNING}
ENDED = {"charge": ("hold", "charge"), "release": ("hold", "release")}


# --- the provider: every code in every envelope ------------------------------------------------------------------

STATUSES = {code: status for code, (status, _) in simulated_contract.CODES.items()}
UNKNOWN: dict[str, tuple[int, Circuit | None]] = {
    "TEAPOT_IS_SHORT": (418, None),
    "KEY_OF_ANOTHER_AGE": (401, Circuit.KEY),
    "INVOICE_UNPAID": (402, Circuit.BALANCE),
    "REGION_CLOSED": (403, None),
    "SOMETHING_NEW_BROKE": (500, None),
    "SOMETHING_NEW_IS_AWAY": (503, None),
}
RETRIED = ("TOO_MANY_REQUESTS",)  # the only code that is retried by default


def envelopes(code: str) -> Iterator[tuple[int, str | None, Reply]]:
    """The forms in which a code can arrive: its HTTP status, the readable request id, and the reply."""
    status = STATUSES[code] if code in STATUSES else UNKNOWN[code][0]
    wait = 1 if code in RETRIED else 600
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=wait + 1), usegmt=True)
    plain: dict[str, Any] = {"error": {"code": code, "message": "m <@1> `x`"}, "request_id": "in-the-body"}
    details = [{"field": "prompt", "message": "m"}, {"message": "no field"}, {"field": 7}, "not even an object"]
    detailed = {"error": {**plain["error"], "details": details}, "request_id": "in-the-body"}
    extended = {"error": {**plain["error"], "hint": [1]}, "request_id": "in-the-body", "output": None, "credits": 3}
    yield status, "in-the-body", envelope(status, plain)
    yield status, "in-the-body", envelope(status, detailed)
    yield status, "in-the-body", envelope(status, extended, {"X-Request-Id": "in-the-header"})
    yield status, "in-the-header", envelope(status, {"error": plain["error"]}, {"X-Request-Id": "in-the-header"})
    yield status, None, envelope(status, {"error": plain["error"], "request_id": {"not": "text"}})
    yield status, "in-the-body", envelope(status, plain, {"Retry-After": str(wait)})
    yield status, "in-the-body", envelope(status, plain, {"Retry-After": date})
    yield status, "in-the-body", envelope(status, plain, {"Retry-After": "when it suits"})
    if code in STATUSES:  # the code decides, whatever status a proxy sets
        other = 500 if status < 500 else 400
        yield other, "in-the-body", envelope(other, plain)


def envelope(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    return Reply.raw(status, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})


def expected_pause(circuit: Circuit, reply: Reply) -> timedelta | None:
    """How long a circuit that has just opened must stay open."""
    assert reply.answer is not None
    request_thumbnail = dict(reply.answer.headers).get("Retry-After", "")
    pause = timedelta(seconds=600) if request_thumbnail == "600" or "GMT" in request_thumbnail else timedelta(0)
    shortest = {Circuit.BALANCE: 600, Circuit.MAINTENANCE: 60, Circuit.FAILURES: 60}.get(circuit)
    return None if shortest is None else max(timedelta(seconds=shortest), pause)


def reset(queue: RequestQueue, *, calls: bool = False) -> None:
    """Close all circuits and end throttling, as after a restart; with `calls`, forget the recent calls too."""
    queue.circuits._breakers.clear()
    if queue._throttled is not None:
        queue._throttled.cancel()
        queue._resume()
    queue._slots = queue._concurrency
    if calls:
        queue.circuits._calls.clear()


def operator_levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records if "operator:" in record.getMessage()]


def assert_alerted(levels: Sequence[int], policy: FailurePolicy, *, opened: Iterable[Circuit]) -> None:
    """Check for one alert per failure, unless its circuit sends the alert, and one per circuit that opened."""
    own = [LEVELS[policy.alert_level]] if policy.pause is None and policy.alert_level in LEVELS else []
    circuits = list(levels)
    for level in own:
        assert level in circuits
        circuits.remove(level)
    assert len(circuits) == len(list(opened))
    assert all(level >= LEVELS.get(policy.alert_level, logging.WARNING) for level in circuits)


@pytest.mark.parametrize("code", [*sorted(provider_contract.CODES), *UNKNOWN])
async def test_every_code_in_every_envelope_ends_as_its_policy_says(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cases = list(envelopes(code))[:: size(3, 1) if code in RETRIED else 1]  # its two retries take two seconds
    sentence = failures.PROVIDER[code] if code in STATUSES else "The image service refused this request."
    counted = 0
    async with running(tmp_path, monkeypatch, quota={"member_daily": 1}) as live:
        for member, (status, _, reply) in enumerate(cases, 1):
            caplog.clear()
            reset(live.app.queue)
            live.api.always(reply)
            before = len(live.api.calls)
            policy = policy_for(ProviderRefused(code, status))
            counted += policy.counts
            assert code in STATUSES or policy.pause is UNKNOWN[code][1]
            message = await live.said(user_id=member)
            await live.app.use_case.recovery.idle(10)

            assert message.content.startswith(f"<@{member}> {sentence} You were not charged. · #")
            assert "in-the" not in message.content
            assert (message.ephemeral, message.attachments) == (False, [])
            calls = len(live.api.calls) - before
            assert calls == 1 + policy.retries
            assert calls == 1 or code in RETRIED
            assert await live.left(member) == 1
            expected_circuits = {policy.pause} if policy.pause else {Circuit.FAILURES} if counted >= 5 else set()
            assert set(live.app.queue.circuits.open) == expected_circuits
            for circuit, until in live.app.queue.circuits.open.items():
                pause = expected_pause(circuit, reply if circuit is policy.pause else Reply.raw(500))
                assert (until is None) == (pause is None)
                if until is not None and pause is not None:
                    assert abs((until - datetime.now(UTC) - pause).total_seconds()) < 5
            assert (live.app.queue._throttled is not None) == policy.throttle
            assert_alerted(operator_levels(caplog), policy, opened=expected_circuits)
            if expected_circuits:  # the next member is refused in private, and no call is made
                assert (await live.said(user_id=1000 + member)).ephemeral
                assert len(live.api.calls) == before + calls
    jobs, entries = stored_rows(tmp_path)
    assert [job["user_id"] for job in jobs] == list(range(1, len(cases) + 1))
    assert {job["reason"] for job in jobs} == {f"provider_refused:{code}"}
    assert [job["request_id"] for job in jobs] == [request_id for _, request_id, _ in cases]
    assert_settled(jobs, entries, "release")


def assert_settled(jobs: list[dict[str, Any]], entries: list[dict[str, Any]], kind: str) -> None:
    for job in jobs:
        assert entry_kinds(job, entries) == ENDED[kind]
        assert job["notified_at"] is not None


def entry_kinds(job: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(entry["kind"] for entry in entries if entry["job_id"] == job["id"])


# --- the provider: any status without a valid answer ---------------------------------------------------------------

GARBAGE: dict[str, tuple[bytes, dict[str, str]]] = {
    "nothing": (b"", {}),
    "a page": (b"<!doctype html><h1>Bad gateway</h1>", {"Content-Type": "text/html"}),
    "null": (b"null", {}),
    "a list": (b'[{"error": {"code": "CONFLICT", "message": "m"}, "output": "https://a.example/x.png"}]', {}),
    "half an answer": (b'{"request_id": "r", "output": "https://a.exam', {}),
    "an error that is text": (b'{"error": "CONFLICT", "code": "CONFLICT", "request_id": "r"}', {}),
    "a code that is none": (b'{"error": {"code": "too many requests", "message": "m"}, "request_id": "r"}', {}),
    "not text": (b'\xff\xfe{"error": {"code": "CONFLICT"}}', {}),
    "more than an answer": (
        b'{"error": {"code": "CONFLICT", "message": "m"}, "x": "' + b"x" * BODY_BYTES + b'"}',
        {},
    ),
    "packed": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff", {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("status", [200, 201, 204, 301, 307, 400, 401, 402, 404, 429, 500, 502, 504])
async def test_a_status_without_a_valid_answer_is_called_once_and_never_charged(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if status == 200:
        kind, level = "answer_unusable", logging.ERROR
    elif status in (301, 307):
        kind, level = "provider_moved", logging.ERROR
    else:
        kind, level = "outcome_unknown", logging.WARNING
    async with running(tmp_path, monkeypatch, quota={"member_daily": 1}) as live:
        for member, (body, headers) in enumerate(GARBAGE.values(), 1):
            caplog.clear()
            reset(live.app.queue, calls=True)
            moved = {"Location": f"{live.api.base_url}/v2/thumbnail/image"}
            live.api.always(Reply.raw(status, body, {"Retry-After": "1", **headers, **moved}))
            message = await live.said(user_id=member)
            await live.app.use_case.recovery.idle(10)
            assert message.content.startswith(f"<@{member}> {failures.FAILURES[kind]} You were not charged. · #")
            assert (len(live.api.calls), await live.left(member)) == (member, 1)
            assert operator_levels(caplog) == [level]
            assert set(live.app.queue.circuits.open) == ({Circuit.MOVED} if kind == "provider_moved" else set())
    jobs, entries = stored_rows(tmp_path)
    assert [job["reason"] for job in jobs] == [kind] * len(GARBAGE)
    assert_settled(jobs, entries, "release")


# --- Discord: every error at every step ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DiscordError:
    """The error that Discord gives a request in place of, or after, its normal effect."""

    status: int  # 0: a TCP reset
    code: int = 0
    times: int = 1

    @property
    def is_temporary(self) -> bool:
        return self.status in (0, 429) or self.status >= 500

    def inject(self, live: Live, method: str, path: str, *, applied: bool = False) -> None:
        live.discord.fail(
            method,
            path,
            status=self.status or None,
            code=self.code,
            times=self.times,
            reset=self.status == 0,
            after=applied,
        )

    def __str__(self) -> str:
        return f"{self.status or 'reset'}/{self.code}"


PERMANENT = (
    *(DiscordError(404, code) for code in (10003, 10004, 10008, 10015, 10062)),
    *(DiscordError(403, code) for code in (40001, 50001, 50005, 50007, 50013, 160005, 400001)),
    *(DiscordError(400, code) for code in (0, 20009, 40060, 50006, 50035, 50045, 50083, 200000, 240000)),
    DiscordError(413, 40005),
    DiscordError(401, 50027),
    DiscordError(401),
)
# discord.py waits 1, 3, 5… seconds after server errors; it raises a reset at once.
TEMPORARY = (
    *(DiscordError(status, times=size(1, 2)) for status in (500, 502, 503, 504)),
    DiscordError(503, 130000, times=size(1, 2)),
    DiscordError(429, times=size(2, 3)),
    DiscordError(429, 30046, times=size(2, 3)),
    DiscordError(0, times=size(2, 4)),
)
DELETED = 10008
ALREADY_ACKNOWLEDGED = 40060
CAUSED_BY_THE_TEXT = (50035, 200000, 240000)


class Destination(Enum):
    """Where an image can be delivered."""

    ORIGINAL = "the answer to the command"
    NEW = "a new message in the channel"
    DIRECT = "a direct message"
    NOWHERE = "nowhere"


class DeliveryMethod(Enum):
    """The method that meets the error; the methods before it always fail."""

    BY_TOKEN = "edit by token"
    BY_BOT = "edit by bot"
    NEW_MESSAGE = "new message"
    DIRECT = "direct message"

    @property
    def destination(self) -> Destination:
        return {DeliveryMethod.NEW_MESSAGE: Destination.NEW, DeliveryMethod.DIRECT: Destination.DIRECT}.get(
            self, Destination.ORIGINAL
        )

    @property
    def fallback(self) -> Destination:
        """Where the image goes when this method fails permanently."""
        fallbacks = {
            DeliveryMethod.BY_TOKEN: Destination.ORIGINAL,
            DeliveryMethod.BY_BOT: Destination.NEW,
            DeliveryMethod.NEW_MESSAGE: Destination.DIRECT,
        }
        return fallbacks.get(self, Destination.NOWHERE)


def expected(method: DeliveryMethod, error: DiscordError) -> Destination:
    if error.is_temporary:
        return method.destination
    if error.code == DELETED and method is not DeliveryMethod.DIRECT:
        return Destination.DIRECT
    return method.destination if error.code in CAUSED_BY_THE_TEXT else method.fallback


FIRST_CHANNEL = 5_000_000
UNLIMITED = 100_000


def channel_of(member: int) -> int:
    return FIRST_CHANNEL + member


async def request_thumbnail(live: Live, member: int) -> discord_server.Interaction:
    """Send a request by `member` in a channel of its own."""
    return await live.discord.slash(
        "thumbnail",
        options={"image": PHOTO, "prompt": f"of member {member}"},
        user_id=member,
        channel_id=channel_of(member),
    )


def inject_at(
    live: Live, interaction: discord_server.Interaction, method: DeliveryMethod, error: DiscordError, *, applied: bool
) -> None:
    """Make every method before `method` fail, and inject the error there."""
    channel = interaction.origin.channel_id
    closed = DiscordError(403, 50001, times=UNLIMITED)
    edit, post = f"/channels/{channel}/messages/*", f"/channels/{channel}/messages"
    if method is DeliveryMethod.BY_TOKEN:
        error.inject(live, "PATCH", f"/webhooks/*/{interaction.token}/messages/@original", applied=applied)
        return
    live.discord.expire_token(interaction)
    if method is DeliveryMethod.BY_BOT:
        error.inject(live, "PATCH", edit, applied=applied)
        return
    closed.inject(live, "PATCH", edit)
    if method is DeliveryMethod.NEW_MESSAGE:
        error.inject(live, "POST", post, applied=applied)
        return
    closed.inject(live, "POST", post)
    direct = live.discord._state.channels.direct(interaction.origin.user_id)
    error.inject(live, "POST", f"/channels/{direct}/messages", applied=applied)


async def deliver_with_errors(
    live: Live, method: DeliveryMethod, errors: Sequence[DiscordError], *, applied: bool = False
) -> dict[int, discord_server.Interaction]:
    """Inject each error at `method` for a member of its own, all at once; return when everything has ended."""
    live.api.always(Reply.hold())
    interactions = {member: await request_thumbnail(live, member) for member in range(1, len(errors) + 1)}
    await live.api.called(len(errors), 20)
    for interaction, error in zip(interactions.values(), errors, strict=True):
        assert interaction.message is not None
        inject_at(live, interaction, method, error, applied=applied)
    live.api.release()
    await live.app.use_case.recovery.idle(90)
    return interactions


@dataclass(slots=True)
class Delivery:
    """The result of one member's request."""

    destination: Destination
    message_id: int | None
    job: dict[str, Any]
    entry_kinds: tuple[str, ...]
    spent: int
    posts: int


def deliveries(live: Live, folder: Path, interactions: dict[int, discord_server.Interaction]) -> dict[int, Delivery]:
    """What Discord shows and the ledger contains, by member; fails if an image is shown twice."""
    jobs, entries = stored_rows(folder)
    posts = Counter(call.body["prompt"] for call in live.api.calls)
    results: dict[int, Delivery] = {}
    for job in jobs:
        member = job["user_id"]
        carriers = [
            message
            for message in live.discord.messages.values()
            if message.attachments and message.content.startswith(f"<@{member}> ")
        ]
        assert len(carriers) <= 1, f"member {member} has the image twice"
        destination, message_id = Destination.NOWHERE, None
        for carrier in carriers:
            message_id = carrier.id
            destination = destination_of(carrier, interactions[member])
        results[member] = Delivery(
            destination=destination,
            message_id=message_id,
            job=job,
            entry_kinds=entry_kinds(job, entries),
            spent=sum(entry["spent"] for entry in entries if entry["job_id"] == job["id"]),
            posts=posts[f"of member {member}"],
        )
    return results


def destination_of(carrier: discord_server.Message, interaction: discord_server.Interaction) -> Destination:
    if carrier is interaction.message:
        return Destination.ORIGINAL
    return Destination.DIRECT if carrier.guild_id is None else Destination.NEW


def assert_charged_correctly(one: Delivery) -> None:
    """Check that the provider was called at most once, and that exactly a shown image is charged, once."""
    assert one.posts <= 1
    if one.destination is Destination.NOWHERE:
        assert one.spent == 0
        assert one.entry_kinds in (("hold", "release"), ("hold",))  # released, or kept for /recover
    else:
        assert (one.entry_kinds, one.spent, one.job["state"]) == (ENDED["charge"], 1, "delivered")
        assert one.job["message_id"] == one.message_id


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Start a bot with enough concurrency for all requests at once."""
    return lambda: running(tmp_path, monkeypatch, pikzels={"concurrency": 200, "timeout": 60})


@pytest.mark.parametrize("method", DeliveryMethod, ids=lambda method: method.value)
async def test_whatever_discord_answers_only_a_delivered_image_is_charged(
    method: DeliveryMethod, start: Callable[[], Any], tmp_path: Path
) -> None:
    errors = [*PERMANENT, *TEMPORARY]
    async with start() as live:
        interactions = await deliver_with_errors(live, method, errors)
        left = {member: await live.left(member) for member in interactions}
    results = deliveries(live, tmp_path, interactions)
    actual, expected_destinations = {}, {}
    for (member, one), error in zip(results.items(), errors, strict=True):
        assert_charged_correctly(one)
        assert one.posts == 1
        assert left[member] == (9 if one.entry_kinds != ENDED["release"] else 10)
        actual[str(error)], expected_destinations[str(error)] = one.destination, expected(method, error)
    assert actual == expected_destinations


@pytest.mark.parametrize("method", DeliveryMethod, ids=lambda method: method.value)
async def test_an_image_that_discord_accepted_without_confirming_is_shown_and_charged_once(
    method: DeliveryMethod, start: Callable[[], Any], tmp_path: Path
) -> None:
    errors = [error for error in TEMPORARY if error.status != 429]
    async with start() as live:
        interactions = await deliver_with_errors(live, method, errors, applied=True)
    results = deliveries(live, tmp_path, interactions)
    for one in results.values():
        assert_charged_correctly(one)
    assert {one.destination for one in results.values()} == {method.destination}


async def test_a_direct_channel_error_costs_nothing_and_a_temporary_one_delays_delivery(
    tmp_path: Path, start: Callable[[], Any]
) -> None:
    errors = (
        DiscordError(403, 50007),
        DiscordError(400, 40060),
        DiscordError(401),
        DiscordError(503),
        DiscordError(429),
        DiscordError(0, times=2),
    )
    interactions: dict[int, discord_server.Interaction] = {}
    async with start() as live:
        for member, error in enumerate(errors, 1):
            live.api.script(Reply.hold())
            interactions[member] = await request_thumbnail(live, member)
            await live.api.called(member)
            inject_at(live, interactions[member], DeliveryMethod.DIRECT, DiscordError(200, times=0), applied=False)
            error.inject(live, "POST", "/users/@me/channels")
            live.api.release()
            await live.app.use_case.recovery.idle(20)
    results = deliveries(live, tmp_path, interactions)
    for one, error in zip(results.values(), errors, strict=True):
        assert_charged_correctly(one)
        assert one.destination is (Destination.DIRECT if error.is_temporary else Destination.NOWHERE)


@pytest.mark.parametrize("applied", [False, True], ids=["rejected", "accepted but not confirmed"])
@pytest.mark.parametrize("passing", [False, True], ids=["permanent", "temporary"])
async def test_a_lost_initial_response_is_sent_again_and_a_refused_one_never_leads_to_a_charge(
    tmp_path: Path, start: Callable[[], Any], *, passing: bool, applied: bool
) -> None:
    interactions: dict[int, discord_server.Interaction] = {}
    errors = TEMPORARY if passing else PERMANENT
    async with start() as live:
        for member, error in enumerate(errors, 1):
            once = DiscordError(error.status, error.code)
            once.inject(live, "POST", "/interactions/*", applied=applied)
            interactions[member] = await request_thumbnail(live, member)
            await wait_until_ended(live, interactions[member])
        await live.app.use_case.recovery.idle(20)
    results = deliveries(live, tmp_path, interactions)
    assert len(results) == len(errors)
    for one, error, interaction in zip(results.values(), errors, interactions.values(), strict=True):
        assert_charged_correctly(one)
        # What passes is tried again. "Already acknowledged" counts if the response that is there is the bot's own.
        arrives = error.is_temporary or (applied and error.code == ALREADY_ACKNOWLEDGED)
        assert one.destination is (Destination.ORIGINAL if arrives else Destination.NOWHERE), error
        assert one.posts == (1 if arrives else 0), error
        if not arrives:
            assert one.entry_kinds == ENDED["release"]
            assert interaction.message is None or "You were not charged." in interaction.message.content, error


async def wait_until_ended(live: Live, interaction: discord_server.Interaction) -> None:
    """Wait until the request has its image, or its hold is released and the member was told, if possible."""
    sql = "SELECT 1 FROM jobs WHERE interaction_id = ? AND ended_at IS NOT NULL AND notified_at IS NOT NULL"
    async with asyncio.timeout(20):
        while not await live.app.storage.ledger._database.run(sql, (interaction.id,)):  # noqa: ASYNC110 - the database sends no notification
            await asyncio.sleep(0.01)
