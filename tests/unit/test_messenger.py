"""Which way of delivery is open, for how long, up to which size, and what the failure of one means for the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import discord
import pytest

from bot.discord_io.attempts import MethodFailed, Next, tried
from bot.discord_io.delivery_methods import Content, DeliveryMethods
from bot.discord_io.messenger import Messenger, _carrier
from bot.domain.errors import DeliveryDelayed, MessageDeleted, Undeliverable
from bot.domain.models import Picture
from tests.support.factories import NOON, a_job
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from datetime import datetime

    from bot.domain.models import Job

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
PICTURE = Picture(Path("x.png"), "PNG", 64, 36, 5)
SHOWN = Content("text", PICTURE)
MEGABYTE = 1024 * 1024


class RecordingMethods(DeliveryMethods):
    """Records how large a picture may be, and then has none that is small enough. There is no connection."""

    def __init__(self, now: datetime) -> None:
        client = SimpleNamespace(is_closed=lambda: False, application_id=5, _connection=None, http=SimpleNamespace())
        client.http._HTTPClient__session = None
        super().__init__(client=lambda: cast("discord.Client", client), clock=lambda: now)
        self.limits: list[int] = []

    async def attachment(self, _job: Job, _picture: Picture, limit: int) -> discord.File:
        self.limits.append(limit)
        raise Undeliverable("too large")


def asking(**changes: Any) -> Job:
    """A job with a message; `changes` apply to its requester."""
    job = a_job()
    return replace(job, message_id=101, requester=replace(job.requester, asked_at=NOON, **changes))


def refusal(status: int, code: int = 0) -> discord.HTTPException:
    response = SimpleNamespace(status=status, reason="refused")
    return discord.HTTPException(cast("aiohttp.ClientResponse", response), {"code": code, "message": "no"})


async def failing(error: BaseException) -> None:
    raise error


# --- which way is open -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "open_"), [(0 * MINUTE, True), (14 * MINUTE, True), (14 * MINUTE + SECOND, False), (20 * MINUTE, False)]
)
async def test_a_token_is_used_for_fourteen_minutes(after: timedelta, *, open_: bool) -> None:
    methods = RecordingMethods(NOON + after)
    with pytest.raises(MethodFailed) as failed:
        await methods.by_token(asking(upload_limit=MEGABYTE), SHOWN)
    assert failed.value.then is Next.TRY_NEXT
    assert (failed.value.observed == "token: expired") is not open_
    assert methods.limits == ([MEGABYTE] if open_ else [])


async def test_a_request_without_a_token_has_none_to_use() -> None:
    methods = RecordingMethods(NOON)
    with pytest.raises(MethodFailed, match="token: expired"):
        await methods.by_token(asking(token=""), SHOWN)


@pytest.mark.parametrize("limit", [5 * MEGABYTE, 10 * MEGABYTE, 100 * MEGABYTE])
async def test_only_the_interactions_token_may_upload_more_than_discord_accepts_anywhere(limit: int) -> None:
    methods = RecordingMethods(NOON)
    for method in (methods.by_token, methods.by_bot):
        with pytest.raises(MethodFailed):
            await method(asking(upload_limit=limit), SHOWN)
    assert methods.limits == [limit, min(limit, 10 * MEGABYTE)]


@pytest.mark.parametrize("answer", [{"id": "5"}, {"id": "5", "attachments": []}])
async def test_a_message_without_the_image_is_no_delivery(answer: dict[str, object]) -> None:
    with pytest.raises(DeliveryDelayed):
        _carrier(answer)


async def test_the_message_that_carries_the_image_is_named() -> None:
    assert _carrier({"id": "5", "attachments": [{"id": "6"}]}) == 5


# --- what a failure means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (refusal(429), Next.LATER),
        (refusal(500), Next.LATER),
        (refusal(503), Next.LATER),
        (refusal(404, 10008), Next.DELETED),
        (refusal(404, 10015), Next.TRY_NEXT),
        (refusal(403, 50001), Next.TRY_NEXT),
        (refusal(400), Next.TRY_NEXT),
        (refusal(499), Next.TRY_NEXT),
        (aiohttp.ServerDisconnectedError(), Next.LATER),
        (ConnectionResetError(), Next.LATER),
        (TimeoutError(), Next.LATER),
        (RuntimeError("Session is closed"), Next.LATER),
    ],
)
async def test_a_failure_says_whether_the_same_may_work_later(error: Exception, then: Next) -> None:
    with pytest.raises(MethodFailed) as failed:
        await tried("edit", failing(error))
    assert failed.value.then is then


@pytest.mark.parametrize(("code", "for_its_text"), [(50035, True), (200000, True), (240000, True), (50001, False)])
async def test_a_refused_text_is_known_by_its_code(code: int, *, for_its_text: bool) -> None:
    with pytest.raises(MethodFailed) as failed:
        await tried("edit", failing(refusal(400, code)))
    assert failed.value.for_its_text is for_its_text
    assert failed.value.observed == f"edit: 400/{code}"


def test_a_try_that_discord_never_answers_ends_after_two_minutes_and_may_work_later() -> None:
    async def scenario() -> None:
        with pytest.raises(MethodFailed) as failed:
            await tried("edit", asyncio.Event().wait())
        assert failed.value.then is Next.LATER
        assert asyncio.get_running_loop().time() == 120

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


class Ways(DeliveryMethods):
    """The first way fails as `first` says, the second one will not work, a new message would, and the requester takes
    no direct messages.
    """

    def __init__(self, first: Next) -> None:
        super().__init__(client=lambda: cast("discord.Client", None), clock=lambda: NOON)
        self.first = first
        self.tried: list[str] = []

    async def by_token(self, _job: Job, _content: Content) -> dict[str, object]:
        self.tried.append("token")
        raise MethodFailed(self.first, "token")

    async def by_bot(self, _job: Job, _content: Content) -> dict[str, object]:
        self.tried.append("bot")
        raise MethodFailed(Next.TRY_NEXT, "bot")

    async def as_new_message(self, _job: Job, _content: Content) -> dict[str, object]:
        self.tried.append("new")
        return {"id": "7", "attachments": [{}]}

    async def by_direct_message(self, _job: Job, _content: Content) -> dict[str, object]:
        self.tried.append("direct")
        raise MethodFailed(Next.TRY_NEXT, "direct")


@pytest.mark.parametrize(
    ("first", "raised", "tried"),
    [(Next.LATER, DeliveryDelayed, ["token", "bot"]), (Next.DELETED, MessageDeleted, ["token", "direct"])],
)
async def test_an_image_that_may_be_accepted_later_or_whose_message_was_deleted_is_not_posted_anew(
    first: Next, raised: type[Exception], tried: list[str]
) -> None:
    ways = Ways(first)
    with pytest.raises(raised):
        await Messenger(ways, clock=lambda: NOON).deliver(asking(), PICTURE)
    assert ways.tried == tried


async def test_an_image_is_posted_anew_only_if_no_edit_will_work() -> None:
    ways = Ways(Next.TRY_NEXT)
    assert await Messenger(ways, clock=lambda: NOON).deliver(asking(), PICTURE) == 7
    assert ways.tried == ["token", "bot", "new"]
