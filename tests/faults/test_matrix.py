"""Every answer the provider may give, and every refusal of Discord's at every step: words, books, calls, circuits."""

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
from sandbox.pikzels_server import contract as offered
from sandbox.pikzels_server.replies import Reply
from tests.support import provider_contract
from tests.support.e2e import PHOTO, Live, books, running
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

STATUSES = {code: status for code, (status, _) in offered.CODES.items()}
UNKNOWN: dict[str, tuple[int, Circuit | None]] = {
    "TEAPOT_IS_SHORT": (418, None),
    "KEY_OF_ANOTHER_AGE": (401, Circuit.KEY),
    "INVOICE_UNPAID": (402, Circuit.BALANCE),
    "REGION_CLOSED": (403, Circuit.KEY),
    "SOMETHING_NEW_BROKE": (500, None),
    "SOMETHING_NEW_IS_AWAY": (503, None),
}
AGAIN = ("TOO_MANY_REQUESTS",)  # the only code after which the paid call may be made again as shipped


def envelopes(code: str) -> Iterator[tuple[int, str | None, Reply]]:
    """The ways a code may come: its HTTP status, the request id that can be read from it, and the reply."""
    status = STATUSES[code] if code in STATUSES else UNKNOWN[code][0]
    wait = 1 if code in AGAIN else 600
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
    if code in STATUSES:  # the code decides, whatever status a proxy gives it
        other = 500 if status < 500 else 400
        yield other, "in-the-body", envelope(other, plain)


def envelope(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    return Reply.raw(status, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})


def closes_for(circuit: Circuit, reply: Reply) -> timedelta | None:
    """How long a circuit that has just opened stays open."""
    assert reply.answer is not None
    asked = dict(reply.answer.headers).get("Retry-After", "")
    pause = timedelta(seconds=600) if asked == "600" or "GMT" in asked else timedelta(0)
    shortest = {Circuit.BALANCE: 600, Circuit.MAINTENANCE: 60, Circuit.FAILURES: 60}.get(circuit)
    return None if shortest is None else max(timedelta(seconds=shortest), pause)


def reset(queue: RequestQueue, *, calls: bool = False) -> None:
    """As after a restart: no circuit is open, nothing is slowed down, and with `calls` nothing is remembered either."""
    queue.circuits._breakers.clear()
    if queue._throttled is not None:
        queue._throttled.cancel()
        queue._resume()
    queue._slots = queue._concurrency
    if calls:
        queue.circuits._calls.clear()


def operator(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records if "operator:" in record.getMessage()]


def assert_told(levels: Sequence[int], verdict: FailurePolicy, *, opened: Iterable[Circuit]) -> None:
    """Once for the failure, unless its circuit speaks for it, and once for each circuit that opened."""
    own = [LEVELS[verdict.alert_level]] if verdict.pause is None and verdict.alert_level in LEVELS else []
    circuits = list(levels)
    for level in own:
        assert level in circuits
        circuits.remove(level)
    assert len(circuits) == len(list(opened))
    assert all(level >= LEVELS.get(verdict.alert_level, logging.WARNING) for level in circuits)


@pytest.mark.parametrize("code", [*sorted(provider_contract.CODES), *UNKNOWN])
async def test_every_code_in_every_envelope_ends_as_its_verdict_says(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cases = list(envelopes(code))[:: size(3, 1) if code in AGAIN else 1]  # two more calls take two seconds
    sentence = failures.PROVIDER[code] if code in STATUSES else "The image service refused this request."
    counted = 0
    async with running(tmp_path, monkeypatch, quota={"member_daily": 1}) as live:
        for member, (status, _, reply) in enumerate(cases, 1):
            caplog.clear()
            reset(live.app.queue)
            live.api.always(reply)
            before = len(live.api.calls)
            verdict = policy_for(ProviderRefused(code, status))
            counted += verdict.counts
            assert code in STATUSES or verdict.pause is UNKNOWN[code][1]
            message = await live.said(user_id=member)
            await live.app.use_case.recovery.idle(10)

            assert message.content.startswith(f"{sentence} You were not charged. · #")
            assert "in-the" not in message.content
            assert (message.ephemeral, message.attachments) == (False, [])
            calls = len(live.api.calls) - before
            assert calls == 1 + verdict.retries
            assert calls == 1 or code in AGAIN
            assert await live.left(member) == 1
            wanted = {verdict.pause} if verdict.pause else {Circuit.FAILURES} if counted >= 5 else set()
            assert set(live.app.queue.circuits.open) == wanted
            for circuit, until in live.app.queue.circuits.open.items():
                pause = closes_for(circuit, reply if circuit is verdict.pause else Reply.raw(500))
                assert (until is None) == (pause is None)
                if until is not None and pause is not None:
                    assert abs((until - datetime.now(UTC) - pause).total_seconds()) < 5
            assert (live.app.queue._throttled is not None) == verdict.throttle
            assert_told(operator(caplog), verdict, opened=wanted)
            if wanted:  # the next member is turned away in private, and nothing is asked of the provider
                assert (await live.said(user_id=1000 + member)).ephemeral
                assert len(live.api.calls) == before + calls
    jobs, entries = books(tmp_path)
    assert [job["user_id"] for job in jobs] == list(range(1, len(cases) + 1))
    assert {job["reason"] for job in jobs} == {f"provider_refused:{code}"}
    assert [job["request_id"] for job in jobs] == [request_id for _, request_id, _ in cases]
    assert_settled(jobs, entries, "release")


def assert_settled(jobs: list[dict[str, Any]], entries: list[dict[str, Any]], kind: str) -> None:
    for job in jobs:
        assert kinds(job, entries) == ENDED[kind]
        assert job["notified_at"] is not None


def kinds(job: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(entry["kind"] for entry in entries if entry["job_id"] == job["id"])


# --- the provider: any status with anything but an answer --------------------------------------------------------

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
async def test_a_status_without_an_answer_is_asked_once_and_never_charged(
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
            assert message.content.startswith(f"{failures.FAILURES[kind]} You were not charged. · #")
            assert (len(live.api.calls), await live.left(member)) == (member, 1)
            assert operator(caplog) == [level]
            assert set(live.app.queue.circuits.open) == ({Circuit.MOVED} if kind == "provider_moved" else set())
    jobs, entries = books(tmp_path)
    assert [job["reason"] for job in jobs] == [kind] * len(GARBAGE)
    assert_settled(jobs, entries, "release")


# --- Discord: every refusal at every step ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """What Discord does with a request instead of carrying it out, or require carried it out."""

    status: int  # 0: a TCP reset
    code: int = 0
    times: int = 1

    @property
    def passes(self) -> bool:
        return self.status in (0, 429) or self.status >= 500

    def order(self, live: Live, method: str, path: str, *, after: bool = False) -> None:
        live.discord.fail(
            method,
            path,
            status=self.status or None,
            code=self.code,
            times=self.times,
            reset=self.status == 0,
            after=after,
        )

    def __str__(self) -> str:
        return f"{self.status or 'reset'}/{self.code}"


CLOSED = (
    *(Trouble(404, code) for code in (10003, 10004, 10008, 10015, 10062)),
    *(Trouble(403, code) for code in (40001, 50001, 50005, 50007, 50013, 160005, 400001)),
    *(Trouble(400, code) for code in (0, 20009, 40060, 50006, 50035, 50045, 50083, 200000, 240000)),
    Trouble(413, 40005),
    Trouble(401, 50027),
    Trouble(401),
)
# discord.py sleeps 1, 3, 5… seconds over server errors; a reset it hands on at once.
PASSING = (
    *(Trouble(status, times=size(1, 2)) for status in (500, 502, 503, 504)),
    Trouble(503, 130000, times=size(1, 2)),
    Trouble(429, times=size(2, 3)),
    Trouble(429, 30046, times=size(2, 3)),
    Trouble(0, times=size(2, 4)),
)
DELETED = 10008
OF_THE_WORDS = (50035, 200000, 240000)


class Place(Enum):
    """Where a picture can end."""

    ORIGINAL = "the answer to the command"
    NEW = "a new message in the channel"
    DIRECT = "a direct message"
    NOWHERE = "nowhere"


class Step(Enum):
    """What is going on when the trouble comes; the ways before it are closed."""

    BY_TOKEN = "edit by token"
    BY_BOT = "edit by bot"
    ANEW = "new message"
    DIRECT = "direct message"

    @property
    def place(self) -> Place:
        return {Step.ANEW: Place.NEW, Step.DIRECT: Place.DIRECT}.get(self, Place.ORIGINAL)

    @property
    def after(self) -> Place:
        """Where the picture goes when this way is closed for good."""
        ways = {Step.BY_TOKEN: Place.ORIGINAL, Step.BY_BOT: Place.NEW, Step.ANEW: Place.DIRECT}
        return ways.get(self, Place.NOWHERE)


def expected(step: Step, trouble: Trouble) -> Place:
    if trouble.passes:
        return step.place
    if trouble.code == DELETED and step is not Step.DIRECT:
        return Place.DIRECT
    return step.place if trouble.code in OF_THE_WORDS else step.after


FIRST_CHANNEL = 5_000_000
FOR_EVER = 100_000


def channel_of(member: int) -> int:
    return FIRST_CHANNEL + member


async def asked(live: Live, member: int) -> discord_server.Interaction:
    """A request of its own member in a channel of its own."""
    return await live.discord.slash(
        "thumbnail",
        options={"image": PHOTO, "prompt": f"of member {member}"},
        user_id=member,
        channel_id=channel_of(member),
    )


def arrange(live: Live, interaction: discord_server.Interaction, step: Step, trouble: Trouble, *, after: bool) -> None:
    """Close every way before `step`, and put the trouble there."""
    channel = interaction.origin.channel_id
    closed = Trouble(403, 50001, times=FOR_EVER)
    edit, post = f"/channels/{channel}/messages/*", f"/channels/{channel}/messages"
    if step is Step.BY_TOKEN:
        trouble.order(live, "PATCH", f"/webhooks/*/{interaction.token}/messages/@original", after=after)
        return
    live.discord.expire_token(interaction)
    if step is Step.BY_BOT:
        trouble.order(live, "PATCH", edit, after=after)
        return
    closed.order(live, "PATCH", edit)
    if step is Step.ANEW:
        trouble.order(live, "POST", post, after=after)
        return
    closed.order(live, "POST", post)
    direct = live.discord._state.channels.direct(interaction.origin.user_id)
    trouble.order(live, "POST", f"/channels/{direct}/messages", after=after)


async def delivered_through(
    live: Live, step: Step, troubles: Sequence[Trouble], *, after: bool = False
) -> dict[int, discord_server.Interaction]:
    """Let every trouble meet a picture of its own member at `step`, all at once; returns when all has come to rest."""
    live.api.always(Reply.hold())
    interactions = {member: await asked(live, member) for member in range(1, len(troubles) + 1)}
    await live.api.called(len(troubles), 20)
    for interaction, trouble in zip(interactions.values(), troubles, strict=True):
        assert interaction.message is not None
        arrange(live, interaction, step, trouble, after=after)
    live.api.release()
    await live.app.use_case.recovery.idle(90)
    return interactions


@dataclass(slots=True)
class Found:
    """What is left of one member's request."""

    place: Place
    message_id: int | None
    job: dict[str, Any]
    kinds: tuple[str, ...]
    spent: int
    posts: int


def found(live: Live, folder: Path, interactions: dict[int, discord_server.Interaction]) -> dict[int, Found]:
    """What Discord shows and the books say, by member; fails where a picture is shown twice."""
    jobs, entries = books(folder)
    posts = Counter(call.body["prompt"] for call in live.api.calls)
    shown: dict[int, Found] = {}
    for job in jobs:
        member = job["user_id"]
        carriers = [
            message
            for message in live.discord.messages.values()
            if message.attachments and message.content.startswith(f"<@{member}> ")
        ]
        assert len(carriers) <= 1, f"member {member} has the picture twice"
        place, message_id = Place.NOWHERE, None
        for carrier in carriers:
            message_id = carrier.id
            place = where(carrier, interactions[member])
        shown[member] = Found(
            place=place,
            message_id=message_id,
            job=job,
            kinds=kinds(job, entries),
            spent=sum(entry["spent"] for entry in entries if entry["job_id"] == job["id"]),
            posts=posts[f"of member {member}"],
        )
    return shown


def where(carrier: discord_server.Message, interaction: discord_server.Interaction) -> Place:
    if carrier is interaction.message:
        return Place.ORIGINAL
    return Place.DIRECT if carrier.guild_id is None else Place.NEW


def assert_fair(one: Found) -> None:
    """Paid for at most once, charged once for a picture that is there, and for nothing else."""
    assert one.posts <= 1
    if one.place is Place.NOWHERE:
        assert one.spent == 0
        assert one.kinds in (("hold", "release"), ("hold",))  # given back, or kept for its member to fetch
    else:
        assert (one.kinds, one.spent, one.job["state"]) == (ENDED["charge"], 1, "delivered")
        assert one.job["message_id"] == one.message_id


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A bot that calls for everybody at once."""
    return lambda: running(tmp_path, monkeypatch, pikzels={"concurrency": 200, "timeout": 60})


@pytest.mark.parametrize("step", Step, ids=lambda step: step.value)
async def test_whatever_discord_says_while_a_picture_is_delivered_the_charge_follows_the_picture(
    step: Step, start: Callable[[], Any], tmp_path: Path
) -> None:
    troubles = [*CLOSED, *PASSING]
    async with start() as live:
        interactions = await delivered_through(live, step, troubles)
        left = {member: await live.left(member) for member in interactions}
    shown = found(live, tmp_path, interactions)
    got, wanted = {}, {}
    for (member, one), trouble in zip(shown.items(), troubles, strict=True):
        assert_fair(one)
        assert one.posts == 1
        assert left[member] == (9 if one.kinds != ENDED["release"] else 10)
        got[str(trouble)], wanted[str(trouble)] = one.place, expected(step, trouble)
    assert got == wanted


@pytest.mark.parametrize("step", Step, ids=lambda step: step.value)
async def test_a_picture_that_discord_took_without_saying_so_is_shown_and_charged_once(
    step: Step, start: Callable[[], Any], tmp_path: Path
) -> None:
    troubles = [trouble for trouble in PASSING if trouble.status != 429]
    async with start() as live:
        interactions = await delivered_through(live, step, troubles, after=True)
    shown = found(live, tmp_path, interactions)
    for one in shown.values():
        assert_fair(one)
    assert {one.place for one in shown.values()} == {step.place}


async def test_a_direct_channel_that_cannot_be_opened_costs_nothing_and_one_that_can_later_delivers(
    tmp_path: Path, start: Callable[[], Any]
) -> None:
    troubles = (Trouble(403, 50007), Trouble(400, 40060), Trouble(401), Trouble(503), Trouble(429), Trouble(0, times=2))
    interactions: dict[int, discord_server.Interaction] = {}
    async with start() as live:
        for member, trouble in enumerate(troubles, 1):
            live.api.script(Reply.hold())
            interactions[member] = await asked(live, member)
            await live.api.called(member)
            arrange(live, interactions[member], Step.DIRECT, Trouble(200, times=0), after=False)
            trouble.order(live, "POST", "/users/@me/channels")
            live.api.release()
            await live.app.use_case.recovery.idle(20)
    shown = found(live, tmp_path, interactions)
    for one, trouble in zip(shown.values(), troubles, strict=True):
        assert_fair(one)
        assert one.place is (Place.DIRECT if trouble.passes else Place.NOWHERE)


@pytest.mark.parametrize("after", [False, True], ids=["not taken", "taken but not said"])
@pytest.mark.parametrize("passing", [False, True], ids=["refused", "in trouble"])
async def test_a_first_answer_that_discord_does_not_confirm_is_never_paid_for(
    tmp_path: Path, start: Callable[[], Any], *, passing: bool, after: bool
) -> None:
    interactions: dict[int, discord_server.Interaction] = {}
    troubles = PASSING if passing else CLOSED
    async with start() as live:
        for member, trouble in enumerate(troubles, 1):
            once = Trouble(trouble.status, trouble.code)
            once.order(live, "POST", "/interactions/*", after=after)
            interactions[member] = await asked(live, member)
            await came_to_rest(live, interactions[member])
        await live.app.use_case.recovery.idle(20)
    shown = found(live, tmp_path, interactions)
    assert len(shown) == len(troubles)
    for one, trouble, interaction in zip(shown.values(), troubles, interactions.values(), strict=True):
        assert_fair(one)
        # what did not arrive is sent again; a reset is not, and what has arrived is refused the second time
        arrives = trouble.passes and trouble.status != 0 and not after
        assert one.place is (Place.ORIGINAL if arrives else Place.NOWHERE), trouble
        assert one.posts == (1 if arrives else 0), trouble
        if not arrives:
            assert one.kinds == ENDED["release"]
            assert interaction.message is None or "You were not charged." in interaction.message.content, trouble


async def came_to_rest(live: Live, interaction: discord_server.Interaction) -> None:
    """Until the request has its picture, or its hold is released and that was told or found impossible to tell."""
    sql = "SELECT 1 FROM jobs WHERE interaction_id = ? AND ended_at IS NOT NULL AND notified_at IS NOT NULL"
    async with asyncio.timeout(20):
        while not await live.app.storage.ledger._database.run(sql, (interaction.id,)):  # noqa: ASYNC110 - the books ring no bell
            await asyncio.sleep(0.01)
