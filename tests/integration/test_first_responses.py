"""The first response to an interaction when the network loses it, refuses it, or never answers."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.discord_server.condition import Condition
from sandbox.discord_server.files import Form
from tests.support.e2e import PHOTO, Live, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from sandbox import discord_server

    Use = Callable[[Live, discord_server.Message, discord_server.Message], Awaitable[discord_server.Interaction]]

CALLBACK = "/interactions/*"
LOST = ("lost on its way", "lost on its way back")
TROUBLE: dict[str, dict[str, Any]] = {
    "lost on its way": {"reset": True},
    "lost on its way back": {"reset": True, "after": True},
    "refused by an overloaded Discord": {"status": 503},
    "carried out by an overloaded Discord": {"status": 504, "after": True},
    "never answered": {"hang": True},
    "carried out and never answered": {"hang": True, "after": True},
}


def click(action: str, *, private: bool = False) -> Use:
    async def use(
        live: Live, public: discord_server.Message, only_mine: discord_server.Message
    ) -> discord_server.Interaction:
        message = only_mine if private else public
        return await live.discord.click(message, f"job:{action}:{job_id_of(message)}", user_id=1)

    return use


def slash(name: str, **options: Any) -> Use:
    async def use(live: Live, *_: discord_server.Message) -> discord_server.Interaction:
        return await live.discord.slash(name, options=options, user_id=1)

    return use


async def menu(live: Live, *_: discord_server.Message) -> discord_server.Interaction:
    await live.discord.commands_synced()
    return await live.discord.context_menu("Make thumbnail", live.discord.say(files=[PHOTO]), user_id=1)


def shows(text: str) -> Callable[[discord_server.Interaction], bool]:
    return lambda i: any(text in one.content for one in [i.message, *i.followups] if one)


def shows_image(interaction: discord_server.Interaction) -> bool:
    return any(one.attachments for one in [interaction.message, *interaction.followups] if one and not one.deleted)


def shows_form(interaction: discord_server.Interaction) -> bool:
    return interaction.modal is not None


USES: dict[str, tuple[Use, Callable[[discord_server.Interaction], bool]]] = {
    "/thumbnail": (slash("thumbnail", image=PHOTO), shows_image),
    "/thumbnail, refused": (slash("thumbnail", image=PHOTO, prompt="http://a.example"), shows("can't contain a link")),
    "/quota": (slash("quota"), shows("You, today")),
    "/history": (slash("history"), lambda i: i.message is not None and len(i.message.embeds) == 2),
    "/recover": (slash("recover"), shows("There is nothing to recover")),
    "Make thumbnail": (menu, shows_form),
    "Again": (click("again"), shows_image),
    "Edit": (click("edit"), shows_form),
    "Info": (click("info"), shows("**Job**")),
    "Share": (click("share", private=True), lambda i: bool(i.followups) and bool(i.followups[0].attachments)),
    "Delete": (click("delete"), lambda i: i.source is not None and i.source.deleted),
}


def job_id_of(message: discord_server.Message) -> str:
    return message.content.partition("#")[2].split()[0]


class Warnings(logging.Handler):
    """Every warning and error of the program, to wait for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self._condition = Condition()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("discord."):  # it warns of the guilds intent at every start
            self.records.append(record)
            self._condition.notify()

    async def wait(self, count: int) -> None:
        await self._condition.wait_for(lambda: len(self.records) >= count, 10, about=self.records)


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    handler = Warnings()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def texts(live: Live) -> str:
    return "\n".join(message.content for message in live.discord.messages.values())


@pytest.mark.parametrize(
    ("name", "trouble"),
    [*product(USES, LOST), *product(("/thumbnail", "Share"), (one for one in TROUBLE if one not in LOST))],
)
async def test_a_response_is_sent_again_while_discord_waits_for_it(
    live: Live, name: str, trouble: str, warnings: Warnings
) -> None:
    results = await live.made(), await live.made(private=True)
    await live.app.use_case.recovery.idle(10)
    use, is_served = USES[name]
    shown, calls = len(live.discord.messages), len(live.api.calls)
    live.discord.fail("POST", CALLBACK, **TROUBLE[trouble])
    interaction = await use(live, *results)
    await live.discord.wait(lambda _: is_served(interaction), 10)
    await live.app.use_case.recovery.idle(10)
    made = name in ("/thumbnail", "Again")
    assert (len(live.api.calls) - calls, await live.left()) == (made, 1 - made)
    assert len(live.discord.messages) - shown <= 1
    assert warnings.records == []


@pytest.mark.parametrize("name", ["/thumbnail", "/quota", "Edit", "Info", "Share", "Delete"])
async def test_a_response_that_cannot_be_sent_is_one_line_in_the_log(live: Live, name: str, warnings: Warnings) -> None:
    results = await live.made(), await live.made(private=True)
    await live.app.use_case.recovery.idle(10)
    calls = len(live.api.calls)
    live.discord.fail("POST", CALLBACK, reset=True, times=100)
    interaction = await USES[name][0](live, *results)
    await warnings.wait(1)
    await live.app.use_case.recovery.idle(10)
    assert interaction.ack is None
    [warning] = warnings.records
    assert (warning.name, warning.levelname, warning.exc_info) == ("cogs.error_handler", "WARNING", None)
    assert "operator" not in texts(live)
    assert (len(live.api.calls), await live.left()) == (calls, 1)
    assert not results[0].deleted


@pytest.mark.parametrize("name", ["/thumbnail", "/history", "Edit", "Info"])
async def test_an_interaction_that_discord_no_longer_knows_is_not_answered_again(
    live: Live, name: str, warnings: Warnings
) -> None:
    results = await live.made(), await live.made(private=True)
    await live.app.use_case.recovery.idle(10)
    before = callbacks(live)
    live.discord.fail("POST", CALLBACK, code=10062, times=100)
    await USES[name][0](live, *results)
    await warnings.wait(1)
    await live.app.use_case.recovery.idle(10)
    assert (callbacks(live) - before, len(warnings.records), await live.left()) == (1, 1, 1)


def callbacks(live: Live) -> int:
    return sum(request.path.startswith("/interactions/") for request in live.discord.requests)


async def test_an_answer_by_another_process_is_not_taken_for_our_own(live: Live, warnings: Warnings) -> None:
    """Two bots with one token get the same interaction, and each of them would pay for an image."""
    live.discord.fail("POST", CALLBACK, reset=True)
    interaction = await live.thumbnail()
    await live.discord.wait(lambda _: live.discord.requests[-1].path.startswith("/interactions/"), 10)
    theirs = Form({"type": 4, "data": {"content": "Queued · #zzzz · next in line"}}, {})
    live.discord._state.interactions.respond(interaction.id, interaction.token, theirs, arrived=interaction.sent_at)
    await warnings.wait(1)
    await live.app.use_case.recovery.idle(10)
    assert (len(live.api.calls), await live.left(), len(warnings.records)) == (0, 3, 1)


async def test_trouble_after_the_response_is_no_internal_error(live: Live, warnings: Warnings) -> None:
    live.discord.fail("PATCH", "/webhooks/*", reset=True)
    interaction = await live.discord.slash("history", user_id=1)
    await interaction.wait(shows("Something went wrong. Try again. You were not charged."), 10)
    assert [record.exc_info for record in warnings.records] == [None]


async def test_an_answer_that_is_refused_for_its_form_is_an_internal_error_and_the_operator_is_told(
    live: Live, warnings: Warnings
) -> None:
    live.discord.fail("POST", CALLBACK, code=50035)
    interaction = await live.discord.slash("quota", user_id=1)
    await interaction.wait(shows("Something went wrong inside the bot"), 10)
    error, told = warnings.records
    assert (error.levelname, error.exc_info is not None) == ("ERROR", True)
    assert told.getMessage() == "operator: an interaction hit an internal error (HTTPException), see the log"


# --- responses that hang ----------------------------------------------------------------------------------------------


async def test_responses_that_are_never_answered_free_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Warnings
) -> None:
    """Four of them would otherwise stop everything, for as long as Discord keeps the connections open."""
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 4}) as live:
        live.discord.fail("POST", CALLBACK, hang=True, times=100)
        for user_id in range(101, 105):
            await live.thumbnail(user_id=user_id)
        await warnings.wait(4)
        live.discord.heal()
        await live.made(user_id=1)
        await live.app.use_case.recovery.idle(10)
        assert [await live.left(user_id) for user_id in range(101, 105)] == [10] * 4
        assert len(live.api.calls) == 1


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(hours=1)])
async def test_a_wrong_clock_leaves_time_for_a_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Warnings, ahead: timedelta
) -> None:
    async with running(tmp_path, monkeypatch, clock=lambda: datetime.now(UTC) + ahead) as live:
        await live.made()
        live.discord.fail("POST", CALLBACK, hang=True, times=100)
        async with asyncio.timeout(8):
            await live.thumbnail(user_id=2)
            await warnings.wait(1)
            await live.app.use_case.recovery.idle(10)
        assert await live.left(2) == 10
