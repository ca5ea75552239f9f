"""/history over real sockets: a member's own results, page by page."""

from __future__ import annotations

import re
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import pytest

from bot.app import utc_now
from bot.domain.models import Postponed, Upload
from bot.jobs.results import PAGE
from bot.storage import history as stored_history
from bot.storage import opening
from bot.storage.history import History
from bot.storage.job_rows import ms
from bot.text.results import no_results
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import Live, running
from tests.support.factories import NOON, a_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.database import Database, Transaction
    from sandbox import discord_server
    from tests.support.servers import Servers

MANY = 10_000


@pytest.fixture
def daily_credits() -> int:
    return 100


async def history(live: Live, *, user_id: int = 1) -> discord_server.Message:
    """Use /history; return the list when it is shown."""
    interaction = await live.discord.slash("history", user_id=user_id)
    await interaction.wait(lambda i: i.message is not None and not i.message.loading, 10)
    assert interaction.message is not None
    assert interaction.message.ephemeral
    return interaction.message


async def turn_page(
    live: Live, shown: discord_server.Message, direction: str, *, user_id: int = 1
) -> discord_server.Message:
    """Press Older or Newer, and wait for that page."""
    [custom_id] = [one for one in ids(shown) if one.startswith(f"history:{direction}:")]
    before = len(shown.history)
    await live.discord.click(shown, custom_id, user_id=user_id)
    await shown.wait(lambda message: len(message.history) > before, 10)
    return shown


async def make_results(live: Live, count: int, *, user_id: int = 1) -> list[str]:
    """Create results; return their job ids, newest first."""
    made = [(await live.job(await live.made(user_id=user_id, prompt=f"number {n}"))).id for n in range(count)]
    return made[::-1]


def ids(message: discord_server.Message) -> list[str]:
    return [one["custom_id"] for row in message.components for one in row["components"]]


def directions(message: discord_server.Message) -> list[str]:
    return [one.split(":")[1] for one in ids(message) if one.startswith("history:")]


def listed(message: discord_server.Message) -> list[str]:
    """The job ids on a page, in order."""
    return [re.findall(r"\*\*#(\w+)\*\*", embed["description"])[0] for embed in message.embeds]


def links(message: discord_server.Message) -> list[str]:
    """For each result, the id of the linked message, or an empty string."""
    found = [
        re.search(r"\(https://discord\.com/channels/\d+/\d+/(\d+)\)", one["description"]) for one in message.embeds
    ]
    return [one[1] if one else "" for one in found]


def thumbnails(message: discord_server.Message) -> list[str]:
    """For each result, the file name of its thumbnail, or an empty string."""
    addresses = [embed.get("thumbnail", {}).get("url", "") for embed in message.embeds]
    return [address.partition("?")[0].rpartition("/")[2] for address in addresses]


# --- contents -------------------------------------------------------------------------------------------------------


async def test_a_member_without_results_is_told_how_to_start(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    await live.said()
    shown = await history(live)
    assert (shown.content, shown.embeds, shown.components) == (no_results(locale="en-US"), [], [])


async def test_a_result_is_listed_with_its_thumbnail_link_and_buttons(live: Live) -> None:
    result = await live.made(prompt="a `cat` for @everyone", model="pkz_4", format="9:16")
    job = await live.job(result)
    shown = await history(live)
    assert (listed(shown), links(shown), thumbnails(shown)) == ([job.id], [str(result.id)], [result.filenames[0]])
    assert " · PKZ 4 · 9:16 · <t:" in shown.embeds[0]["description"]
    assert shown.embeds[0]["description"].endswith("```\na ˋcatˋ for @everyone\n```")
    assert ids(shown) == [f"job:again:{job.id}", f"job:edit:{job.id}"]


async def test_nobody_sees_the_results_of_another_member(live: Live) -> None:
    mine, _ = await make_results(live, 2), await make_results(live, 2, user_id=2)
    assert listed(await history(live)) == mine
    assert listed(await history(live, user_id=3)) == []
    page = await history(live)
    [foreign, *_] = await make_results(live, 6, user_id=2)
    await make_results(live, 4)
    page.components = (await history(live)).components
    for row in page.components:
        for one in row["components"]:
            one["custom_id"] = re.sub(r"(history:older):\w+", rf"\1:{foreign}", one["custom_id"])
    await turn_page(live, page, "older")
    assert set(mine) <= set(listed(page)), (
        "a page that starts at another member's job still shows the member's own results"
    )


async def test_deleted_results_are_not_listed(live: Live) -> None:
    first, second = await live.made(), await live.made()
    gone, stays = await live.job(first), await live.job(second)
    await live.discord.click(first, f"job:delete:{gone.id}", user_id=1)
    await live.discord.wait(lambda _: first.deleted, 10)
    await live.app.use_case.recovery.idle(10)
    assert listed(await history(live)) == [stays.id]


async def test_a_result_without_its_message_has_no_link_and_no_thumbnail(live: Live) -> None:
    result = await live.made()
    job = await live.job(result)
    await live.discord.delete_message(result.id)
    shown = await history(live)
    assert (listed(shown), links(shown), thumbnails(shown)) == ([job.id], [""], [""])
    assert "no longer in the channel" in shown.embeds[0]["description"]
    assert ids(shown) == [f"job:again:{job.id}", f"job:edit:{job.id}"], "the result can still be repeated"


async def test_a_private_result_gets_a_link_when_it_is_shared(live: Live) -> None:
    private = await live.made(private=True)
    job = await live.job(private)
    shown = await history(live)
    assert (listed(shown), links(shown), thumbnails(shown)) == ([job.id], [""], [""])
    assert "visible only to you" in shown.embeds[0]["description"]
    clicked = await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await clicked.wait(lambda i: bool(i.followups), 10)
    await private.wait(lambda message: f"job:share:{job.id}" not in ids(message), 10)
    shown = await history(live)
    assert (links(shown), thumbnails(shown)) == ([str(clicked.followups[0].id)], [private.filenames[0]])


async def test_a_private_result_has_no_link_even_if_discord_does_not_say_that_it_is_gone(live: Live) -> None:
    job = await live.job(await live.made(private=True))
    live.discord.fail("GET", "/channels/*/messages/*", code=50001)
    before = len(live.discord.requests)
    shown = await history(live)
    assert (listed(shown), links(shown), thumbnails(shown)) == ([job.id], [""], [""])
    looked = [seen for seen in list(live.discord.requests)[before:] if seen.method == "GET"]
    assert looked == [], "nobody but its requester can read the message"


async def test_in_an_unreadable_channel_only_the_thumbnails_are_missing(live: Live) -> None:
    result = await live.made()
    live.discord.fail("GET", "/channels/*/messages/*", code=50001)
    shown = await history(live)
    assert (links(shown), thumbnails(shown)) == ([str(result.id)], [""])


# --- pages ----------------------------------------------------------------------------------------------------------


async def test_pages_turn_both_ways_and_new_results_do_not_shift_them(live: Live) -> None:
    made = await make_results(live, 2 * PAGE + 1)
    first, second, third = made[:PAGE], made[PAGE : 2 * PAGE], made[2 * PAGE :]
    shown = await history(live)
    assert (listed(shown), directions(shown)) == (first, ["older"])
    newer = await make_results(live, 2)
    assert listed(await turn_page(live, shown, "older")) == second
    assert directions(shown) == ["newer", "older"]
    newest = await make_results(live, 1)
    assert listed(await turn_page(live, shown, "older")) == third
    assert directions(shown) == ["newer"]
    assert listed(await turn_page(live, shown, "newer")) == second
    assert listed(await turn_page(live, shown, "newer")) == first
    assert directions(shown) == ["newer", "older"]
    assert listed(await turn_page(live, shown, "newer")) == [*newest, *newer, *first][:PAGE]
    assert directions(shown) == ["older"]


async def test_a_full_last_page_has_no_page_after_it(live: Live) -> None:
    made = await make_results(live, 2 * PAGE)
    shown = await history(live)
    assert listed(await turn_page(live, shown, "older")) == made[PAGE:]
    assert directions(shown) == ["newer"]


async def test_a_page_whose_results_were_deleted_shows_the_newest_instead(live: Live) -> None:
    made = await make_results(live, PAGE + 1)
    shown = await history(live)
    await live.app.storage.database.run("UPDATE jobs SET deleted_at = 1 WHERE id = ?", (made[-1],))
    assert listed(await turn_page(live, shown, "older")) == made[:PAGE]
    assert directions(shown) == []


async def test_pages_turn_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> None:
    quota = {"member_daily": 100}
    async with running(tmp_path, monkeypatch, around=servers, quota=quota) as live:
        made = await make_results(live, PAGE + 1)
        shown = await history(live)
    async with running(tmp_path, monkeypatch, around=servers, quota=quota) as live:
        assert listed(await turn_page(live, shown, "older")) == made[PAGE:]


# --- buttons in the list --------------------------------------------------------------------------------------------


async def again_from(
    live: Live, shown: discord_server.Message, job: Job, *, user_id: int = 1
) -> discord_server.Message:
    """Press Again of a result on a message; return the new result."""
    pressed = await live.discord.click(shown, f"job:again:{job.id}", user_id=user_id)
    return await image_of(pressed)


async def edited_from(live: Live, shown: discord_server.Message, job: Job) -> discord_server.Message:
    """Press Edit of a result on a message, and submit the form; return the new result."""
    opened = await live.discord.click(shown, f"job:edit:{job.id}", user_id=1)
    await opened.wait(lambda i: i.modal is not None, 10)
    return await image_of(await live.discord.submit(opened, {"prompt": "a dog"}))


async def image_of(interaction: discord_server.Interaction) -> discord_server.Message:
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert interaction.message is not None
    return interaction.message


async def test_again_and_edit_work_from_the_list_and_a_public_result_is_repeated_publicly(live: Live) -> None:
    job = await live.job(await live.made(prompt="a cat"))
    shown = await history(live)
    made = [await again_from(live, shown, job), await edited_from(live, shown, job)]
    assert [message.ephemeral for message in made] == [False, False]
    assert [(await live.job(message)).parent_id for message in made] == [job.id, job.id]
    assert [call.body["prompt"] for call in live.api.calls] == ["a cat", "a cat", "a dog"]
    assert (await live.left(), listed(shown)) == (97, [job.id])


async def test_a_private_result_is_repeated_privately_until_it_is_shared(live: Live) -> None:
    private = await live.made(private=True)
    job = await live.job(private)
    shown = await history(live)
    made = [await again_from(live, shown, job), await edited_from(live, shown, job)]
    assert [message.ephemeral for message in made] == [True, True]
    clicked = await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await clicked.wait(lambda i: bool(i.followups), 10)
    await live.app.use_case.recovery.idle(10)
    made = [await again_from(live, shown, job), await edited_from(live, shown, job)]
    assert [message.ephemeral for message in made] == [False, False]


async def test_again_and_edit_on_a_private_result_stay_private_after_it_is_shared(live: Live) -> None:
    private = await live.made(private=True)
    job = await live.job(private)
    clicked = await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await clicked.wait(lambda i: bool(i.followups), 10)
    await private.wait(lambda message: f"job:share:{job.id}" not in ids(message), 10)
    made = [await again_from(live, private, job), await edited_from(live, private, job)]
    assert [message.ephemeral for message in made] == [True, True]
    public = await again_from(live, clicked.followups[0], job, user_id=2)
    assert not public.ephemeral


async def test_again_on_a_recovered_result_that_only_its_requester_sees_stays_private(live: Live) -> None:
    await live.park()
    recovered = await image_of(await live.discord.slash("recover", user_id=1))
    job = await live.job(recovered)
    assert (await again_from(live, recovered, job)).ephemeral
    assert not (await again_from(live, await history(live), job)).ephemeral


# --- a long history -------------------------------------------------------------------------------------------------


async def test_ten_thousand_results_are_paged_by_index(live: Live) -> None:
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
            "the query sorts or scans the table"
        )
    near = await _seconds(lambda: found.newest(1))
    far = await _seconds(lambda: found.older(1, f"{PAGE:06d}"))
    assert far < 5 * near, f"the last page took {far / near:.1f} times as long as the first"
    shown = await history(live)
    assert (listed(shown), links(shown)[0], links(shown)[1]) == ([job.id for job in first.jobs], str(result.id), "")


# --- drafts ---------------------------------------------------------------------------------------------------------


IMAGES = [Upload(f"https://cdn.example/{number}.png", f"{number}.png", 1000, "image/png") for number in range(100)]


class WatchedDatabase:
    """The database, and how many drafts each statement has deleted."""

    def __init__(self, opened: Database) -> None:
        self._opened = opened
        self.deleted: list[int] = []

    async def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        before = await self._count()
        rows = await self._opened.run(sql, parameters)
        self.deleted.append(before - await self._count())
        return rows

    async def write(self, steps: Callable[[Transaction], Any]) -> Any:
        return await self._opened.write(steps)

    async def _count(self) -> int:
        return int((await self._opened.run("SELECT COUNT(*) FROM drafts"))[0][0])


@pytest.fixture
async def drafts(tmp_path: Path) -> AsyncIterator[tuple[History, WatchedDatabase]]:
    async with opening.opened(tmp_path / "bot.sqlite3") as opened:
        watched = WatchedDatabase(opened)
        yield History(cast("Database", watched), spool=tmp_path), watched


async def test_a_member_has_at_most_twenty_drafts_and_the_oldest_go_first(
    drafts: tuple[History, WatchedDatabase],
) -> None:
    history, _ = drafts
    others = await history.save_draft(2, IMAGES[:1], now=NOON - timedelta(minutes=1))
    mine = [await history.save_draft(1, IMAGES[:1], now=NOON + timedelta(seconds=n // 10)) for n in range(50)]
    now = NOON + timedelta(minutes=1)
    kept = [one for one in mine if await history.get_draft(one, 1, now=now)]
    assert kept == mine[-20:]
    assert await history.get_draft(others, 2, now=now) == IMAGES[:1]


async def test_a_draft_keeps_as_many_images_as_a_form_can_offer(drafts: tuple[History, WatchedDatabase]) -> None:
    history, _ = drafts
    draft_id = await history.save_draft(1, IMAGES, now=NOON)
    assert await history.get_draft(draft_id, 1, now=NOON) == IMAGES[:25]


async def test_a_request_that_waits_is_a_draft_of_its_member(drafts: tuple[History, WatchedDatabase]) -> None:
    history, _ = drafts
    for postponed in (Postponed(a_job().request, private=False), Postponed(a_job(prompt=None).request, private=True)):
        draft_id = await history.save_postponed(1, postponed, now=NOON)
        assert await history.get_postponed(draft_id, 1, now=NOON + timedelta(minutes=59)) == postponed
        assert await history.get_postponed(draft_id, 1, now=NOON + timedelta(minutes=61)) is None
        assert await history.get_postponed(draft_id, 2, now=NOON) is None
        assert await history.get_draft(draft_id, 1, now=NOON) == []
    form = await history.save_draft(1, IMAGES[:1], now=NOON)
    assert await history.get_postponed(form, 1, now=NOON) is None


async def test_expired_drafts_are_deleted_in_slices(drafts: tuple[History, WatchedDatabase]) -> None:
    history, watched = drafts
    for member in range(1000):
        await history.save_draft(member, IMAGES[:1], now=NOON)
    late = NOON + timedelta(hours=1, milliseconds=1)
    kept = await history.save_draft(1, IMAGES[:1], now=late)
    assert 600 < await watched._count() < 1000, "a member who waits for a form waits for a part of them"
    await history.delete_expired_drafts(now=late)
    assert await watched._count() == 1
    assert await history.get_draft(kept, 1, now=late) == IMAGES[:1]
    assert 1 < max(watched.deleted) <= 300


async def test_housekeeping_deletes_expired_drafts(live: Live) -> None:
    current = await live.app.storage.history.save_draft(1, IMAGES[:1], now=utc_now() - timedelta(minutes=50))
    await live.app.storage.history.save_draft(1, IMAGES[:1], now=utc_now() - timedelta(minutes=61))
    await live.app.client.services.results.tidy()
    assert [row["id"] for row in await live.app.storage.database.run("SELECT id FROM drafts")] == [current]


async def test_finding_the_drafts_of_a_member_scans_no_table(drafts: tuple[History, WatchedDatabase]) -> None:
    _, watched = drafts
    for sql, values in ((stored_history._BEYOND_THE_LIMIT, (1,)), (stored_history._EXPIRED, (1,))):
        steps = [str(row["detail"]) for row in await watched.run(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step], steps


def _copies(job_id: str) -> Callable[[Transaction], None]:
    """Insert ten thousand older copies of this result; the oldest has the smallest id."""

    def steps(transaction: Transaction) -> None:
        [row] = transaction.run("SELECT * FROM jobs WHERE id = ?", (job_id,))
        names = row.keys()
        sql = f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"
        start = utc_now() - timedelta(days=1)
        for number in range(MANY):
            own = {"id": f"{number:06d}", "interaction_id": number + 1, "message_id": number + 1}
            transaction.run(sql, dict(row) | own | {"ended_at": ms(start) + number})

    return steps


async def _seconds(query: Callable[[], Awaitable[Any]]) -> float:
    """The median time of a query."""
    times = []
    for _ in range(25):
        started = perf_counter()
        await query()
        times.append(perf_counter() - started)
    return median(times)
