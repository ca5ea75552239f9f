"""/history on real sockets: a member's own results, page by page."""

from __future__ import annotations

import re
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from bot.app import utc_now
from bot.jobs.results import PAGE
from bot.storage import history as stored_history
from bot.storage.job_rows import ms
from bot.text.results import no_results
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, Live, png, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from bot.storage.database import Transaction

MANY = 10_000


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 100}) as started:
        yield started


async def history(live: Live, *, user_id: int = 1) -> discord_server.Message:
    """Type /history; returns the list once it is there."""
    interaction = await live.discord.slash("history", user_id=user_id)
    await interaction.wait(lambda i: i.message is not None and not i.message.loading, 10)
    assert interaction.message is not None
    assert interaction.message.ephemeral
    return interaction.message


async def turn(live: Live, shown: discord_server.Message, way: str, *, user_id: int = 1) -> discord_server.Message:
    """Press Older or Newer, and wait for the other page."""
    [custom_id] = [one for one in ids(shown) if one.startswith(f"history:{way}:")]
    before = len(shown.history)
    await live.discord.click(shown, custom_id, user_id=user_id)
    await shown.wait(lambda message: len(message.history) > before, 10)
    return shown


async def results(live: Live, count: int, *, user_id: int = 1) -> list[str]:
    """Make some; returns their jobs' ids, newest first."""
    made = [(await live.job(await live.made(user_id=user_id, prompt=f"number {n}"))).id for n in range(count)]
    return made[::-1]


def ids(message: discord_server.Message) -> list[str]:
    return [one["custom_id"] for row in message.components for one in row["components"]]


def ways(message: discord_server.Message) -> list[str]:
    return [one.split(":")[1] for one in ids(message) if one.startswith("history:")]


def listed(message: discord_server.Message) -> list[str]:
    """The jobs of a page, as they stand there."""
    return [re.findall(r"\*\*#(\w+)\*\*", embed["description"])[0] for embed in message.embeds]


def links(message: discord_server.Message) -> list[str]:
    """For each result the id of the message it leads to, or nothing."""
    found = [
        re.search(r"\(https://discord\.com/channels/\d+/\d+/(\d+)\)", one["description"]) for one in message.embeds
    ]
    return [one[1] if one else "" for one in found]


def pictures(message: discord_server.Message) -> list[str]:
    """For each result the name of the picture beside it, or nothing."""
    addresses = [embed.get("thumbnail", {}).get("url", "") for embed in message.embeds]
    return [address.partition("?")[0].rpartition("/")[2] for address in addresses]


# --- what is in it ------------------------------------------------------------------------------------------------


async def test_who_has_made_nothing_is_told_how(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    await live.said()
    shown = await history(live)
    assert (shown.content, shown.embeds, shown.components) == (no_results(locale="en-US"), [], [])


async def test_one_result_is_shown_with_its_picture_its_message_and_its_buttons(live: Live) -> None:
    result = await live.made(prompt="a `cat` for @everyone", model="pkz_4", format="9:16")
    job = await live.job(result)
    shown = await history(live)
    assert (listed(shown), links(shown), pictures(shown)) == ([job.id], [str(result.id)], [result.filenames[0]])
    assert " · PKZ 4 · 9:16 · <t:" in shown.embeds[0]["description"]
    assert shown.embeds[0]["description"].endswith("```\na ˋcatˋ for @everyone\n```")
    assert ids(shown) == [f"job:again:{job.id}", f"job:edit:{job.id}"]


async def test_nobody_sees_what_somebody_else_has_made(live: Live) -> None:
    mine, _ = await results(live, 2), await results(live, 2, user_id=2)
    assert listed(await history(live)) == mine
    assert listed(await history(live, user_id=3)) == []
    page = await history(live)
    [foreign, *_] = await results(live, 6, user_id=2)
    await results(live, 4)
    page.components = (await history(live)).components
    for row in page.components:
        for one in row["components"]:
            one["custom_id"] = re.sub(r"(history:older):\w+", rf"\1:{foreign}", one["custom_id"])
    await turn(live, page, "older")
    assert set(mine) <= set(listed(page)), "a page told off from another's job is still one's own"


async def test_what_was_deleted_is_left_out(live: Live) -> None:
    first, second = await live.made(), await live.made()
    gone, stays = await live.job(first), await live.job(second)
    await live.discord.click(first, f"job:delete:{gone.id}", user_id=1)
    await live.discord.wait(lambda _: first.deleted, 10)
    await live.app.use_case.recovery.idle(10)
    assert listed(await history(live)) == [stays.id]


async def test_a_message_that_is_gone_has_neither_link_nor_picture(live: Live) -> None:
    result = await live.made()
    job = await live.job(result)
    await live.discord.delete_message(result.id)
    shown = await history(live)
    assert (listed(shown), links(shown), pictures(shown)) == ([job.id], [""], [""])
    assert "no longer in the channel" in shown.embeds[0]["description"]
    assert ids(shown) == [f"job:again:{job.id}", f"job:edit:{job.id}"], "another can still be made of it"


async def test_a_private_result_has_a_link_once_it_is_shared(live: Live) -> None:
    private = await live.made(private=True)
    job = await live.job(private)
    shown = await history(live)
    assert (listed(shown), links(shown), pictures(shown)) == ([job.id], [""], [""])
    assert "visible only to you" in shown.embeds[0]["description"]
    clicked = await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await clicked.wait(lambda i: bool(i.followups), 10)
    await private.wait(lambda message: f"job:share:{job.id}" not in ids(message), 10)
    shown = await history(live)
    assert (links(shown), pictures(shown)) == ([str(clicked.followups[0].id)], [private.filenames[0]])


async def test_a_channel_that_the_bot_may_not_read_costs_the_pictures_only(live: Live) -> None:
    result = await live.made()
    live.discord.fail("GET", "/channels/*/messages/*", code=50001)
    shown = await history(live)
    assert (links(shown), pictures(shown)) == ([str(result.id)], [""])


# --- its pages ----------------------------------------------------------------------------------------------------


async def test_pages_go_both_ways_and_new_results_do_not_shift_them(live: Live) -> None:
    made = await results(live, 2 * PAGE + 1)
    first, second, third = made[:PAGE], made[PAGE : 2 * PAGE], made[2 * PAGE :]
    shown = await history(live)
    assert (listed(shown), ways(shown)) == (first, ["older"])
    newer = await results(live, 2)
    assert listed(await turn(live, shown, "older")) == second
    assert ways(shown) == ["newer", "older"]
    newest = await results(live, 1)
    assert listed(await turn(live, shown, "older")) == third
    assert ways(shown) == ["newer"]
    assert listed(await turn(live, shown, "newer")) == second
    assert listed(await turn(live, shown, "newer")) == first
    assert ways(shown) == ["newer", "older"]
    assert listed(await turn(live, shown, "newer")) == [*newest, *newer, *first][:PAGE]
    assert ways(shown) == ["older"]


async def test_a_full_last_page_has_none_after_it(live: Live) -> None:
    made = await results(live, 2 * PAGE)
    shown = await history(live)
    assert listed(await turn(live, shown, "older")) == made[PAGE:]
    assert ways(shown) == ["newer"]


async def test_a_page_whose_results_were_deleted_meanwhile_becomes_the_newest(live: Live) -> None:
    made = await results(live, PAGE + 1)
    shown = await history(live)
    await live.app.storage.database.run("UPDATE jobs SET deleted_at = 1 WHERE id = ?", (made[-1],))
    assert listed(await turn(live, shown, "older")) == made[:PAGE]
    assert ways(shown) == []


async def test_a_page_turns_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = {"member_daily": 100}
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        async with running(tmp_path, monkeypatch, around=(discord, api), quota=quota) as live:
            made = await results(live, PAGE + 1)
            shown = await history(live)
        async with running(tmp_path, monkeypatch, around=(discord, api), quota=quota) as live:
            assert listed(await turn(live, shown, "older")) == made[PAGE:]


# --- from the list ------------------------------------------------------------------------------------------------


async def test_again_and_edit_work_from_the_list_and_stay_as_private_as_it_is(live: Live) -> None:
    result = await live.made(prompt="a cat")
    job = await live.job(result)
    shown = await history(live)
    pressed = await live.discord.click(shown, f"job:again:{job.id}", user_id=1)
    await pressed.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    opened = await live.discord.click(shown, f"job:edit:{job.id}", user_id=1)
    await opened.wait(lambda i: i.modal is not None, 10)
    submitted = await live.discord.submit(opened, {"prompt": "a dog"})
    await submitted.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert pressed.message is not None
    assert submitted.message is not None
    assert [pressed.message.ephemeral, submitted.message.ephemeral] == [True, True]
    again, edited = await live.job(pressed.message), await live.job(submitted.message)
    assert [again.parent_id, edited.parent_id] == [job.id, job.id]
    assert [call.body["prompt"] for call in live.api.calls] == ["a cat", "a cat", "a dog"]
    assert (await live.left(), listed(shown)) == (97, [job.id])


# --- a long one ---------------------------------------------------------------------------------------------------


async def test_ten_thousand_results_are_paged_by_the_index(live: Live) -> None:
    result = await live.made(prompt="the newest")
    newest = await live.job(result)
    await live.app.storage.database.write(_copies(newest.id))
    found = live.app.client.services.results
    first, last = await found.newest(1), await found.older(1, f"{PAGE:06d}")
    assert [job.id for job in first.jobs] == [newest.id, "009999", "009998", "009997"]
    assert ([job.id for job in last.jobs], last.older) == (["000003", "000002", "000001", "000000"], False)
    assert (await found.newer(1, "000003")).jobs[-1].id == "000004"
    for sql in (stored_history._NEWEST, stored_history._OLDER, stored_history._NEWER):
        plan = await live.app.storage.database.run(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))
        steps = [str(row["detail"]) for row in plan]
        assert steps[0].startswith("SEARCH jobs USING INDEX jobs_history (user_id=?")
        assert not [step for step in steps if "TEMP B-TREE" in step or "SCAN" in step], (
            "nothing is sorted or read through"
        )
    near = await _seconds(lambda: found.newest(1))
    far = await _seconds(lambda: found.older(1, f"{PAGE:06d}"))
    assert far < 5 * near, f"the last page took {far / near:.1f} times as long as the first"
    shown = await history(live)
    assert (listed(shown), links(shown)[0], links(shown)[1]) == ([job.id for job in first.jobs], str(result.id), "")


def _copies(job_id: str) -> Callable[[Transaction], None]:
    """Ten thousand older results like this one, the oldest with the smallest id."""

    def steps(transaction: Transaction) -> None:
        [row] = transaction.run("SELECT * FROM jobs WHERE id = ?", (job_id,))
        names = row.keys()
        sql = f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"
        start = utc_now() - timedelta(days=1)
        for number in range(MANY):
            own = {"id": f"{number:06d}", "interaction_id": number + 1, "message_id": number + 1}
            transaction.run(sql, dict(row) | own | {"ended_at": ms(start) + number})

    return steps


async def _seconds(look: Callable[[], Awaitable[Any]]) -> float:
    """How long it takes, as a rule."""
    times = []
    for _ in range(25):
        started = perf_counter()
        await look()
        times.append(perf_counter() - started)
    return median(times)
