"""What the operator's log says of an ordinary day."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

import pytest

from bot import supervisor
from bot.domain.errors import StorageUnavailable
from tests.support.e2e import running

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_delivered_job_is_one_line_with_its_requester_cost_and_seconds_but_no_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path, monkeypatch) as bot:
        message = await bot.made(prompt="A secret plan", model="pkz_4", user_id=7)
        job = await bot.job(message)
        [line] = [record for record in caplog.records if "delivered" in record.getMessage()]
        assert re.fullmatch(
            rf"job {job.id} delivered to user 7 in server {job.requester.guild_id}: PKZ 4, 16:9, 1 credit;"
            r" \d+\.\d s waiting, \d+\.\d s generating, \d+\.\d s delivering",
            line.getMessage(),
        )
        facts = line.__dict__["facts"]
        assert (facts["user"], facts["model"], facts["credits"]) == ("7", "pkz_4", 1)
        seconds = sum(value for name, value in facts.items() if name.startswith("seconds_"))
        assert job.ended_at is not None
        assert seconds == pytest.approx((job.ended_at - job.created_at).total_seconds(), abs=0.01)
    assert "secret plan" not in caplog.text


async def test_an_image_that_is_handed_over_later_has_the_same_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path, monkeypatch) as bot:
        await bot.park(user_id=7)
        assert "delivered to user" not in caplog.text
        answer = await bot.discord.slash("recover", user_id=7)
        await answer.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        await bot.app.use_case.recovery.idle(10)
    assert caplog.text.count("delivered to user 7") == 1


class Awaited(logging.Handler):
    """The first record with a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.line: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage() and not self.line.done():
            self.line.set_result(record.getMessage())


async def test_the_line_of_a_connection_says_as_whom_where_and_how_to_invite_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    awaited = Awaited("connected to Discord")
    monkeypatch.setattr(logging.getLogger("bot"), "handlers", [awaited])
    async with running(tmp_path, monkeypatch) as bot, asyncio.timeout(10):
        line = await awaited.line
        user, application_id = bot.app.client.user, bot.app.client.application_id
        assert user is not None
        assert line == (
            f"connected to Discord as {user} ({user.id}), in 1 server; to invite the bot:"
            f" https://discord.com/oauth2/authorize?client_id={application_id}"
            "&scope=bot+applications.commands&permissions=274878008384"
        )


@pytest.mark.parametrize("expected", [StorageUnavailable("disk full"), ConnectionResetError()])
async def test_trouble_that_passes_is_one_sentence_without_a_traceback(
    caplog: pytest.LogCaptureFixture, expected: Exception
) -> None:
    async def step() -> None:
        raise expected

    await supervisor._attempt(step)
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage() == f"housekeeping failed ({type(expected).__name__}); trying again in an hour"
