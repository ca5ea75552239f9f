"""Everything stored about a person can be handed out, and can be deleted without a trace and without a refill."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import shutil
import sqlite3
import stat
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import NotAllowed, ResultGone, StorageUnavailable
from bot.domain.models import Format, Model, Picture, Postponed, ThumbnailRequest
from bot.domain.privacy import RetentionRules
from bot.domain.server_rules import Amounts, Block, Change, LimitKind, Preferences
from bot.storage import files, opening, personal_data, stores, verification
from bot.storage.personal_tables import TABLES
from bot.storage.pseudonyms import member_key
from bot.text import privacy
from sandbox.discord_server import GUILD_ID
from sandbox.failpoints import Wrapped
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import PHOTO, Killed, Live, books, killed_at, running
from tests.support.factories import NOON, request, requester, reservation
from tests.support.journaled import OUTPUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sandbox import discord_server

ME, OTHER, ADMIN = 987_654_321_012_345_678, 876_543_210_123_456_789, 765_432_101_234_567_890
PROMPT = "a-prompt-like-no-other"
REASON = "because-of-something-special"
DATABASE = "pikzels-bot.sqlite3"


@asynccontextmanager
async def bot(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> AsyncIterator[Live]:
    async with running(folder, monkeypatch, quota={"member_daily": 20}, **sections) as live:
        yield live


# --- a life with the bot -------------------------------------------------------------------------------------------


async def live_a_life(live: Live) -> set[str]:
    """A person does everything, and everything is done to them; returns what may be found nowhere after a deletion."""
    public = await live.made(user_id=ME, prompt="repeated by another person, who keeps it")
    shared = await share(live, await live.made(user_id=ME, prompt=PROMPT, private=True))
    others = await live.made(user_id=OTHER, prompt="another prompt")
    await live.discord.react(others, "🔁", user_id=ME)
    await live.discord.react(public, "🔁", user_id=OTHER)
    reacted = await of(live, ME, replied_to=others)
    await of(live, OTHER, replied_to=public)
    await live.park(user_id=ME, prompt=PROMPT)
    live.api.script(Reply.error("CONTENT_POLICY"))
    await live.said(user_id=ME, prompt=PROMPT)
    await live.discord.context_menu("Make thumbnail", live.discord.say(files=[PHOTO]), user_id=ME)
    await judge(live)
    await live.app.use_case.recovery.idle(10)
    await live.app.storage.backups.make()
    return {PROMPT, str(shared.id), str(reacted.id)}  # and not what the other person has repeated


async def share(live: Live, private: discord_server.Message) -> discord_server.Message:
    job = await live.job(private)
    click = await live.discord.click(private, f"job:share:{job.id}", user_id=ME)
    await click.wait(lambda i: bool(i.followups), 10)
    return click.followups[0]


async def of(live: Live, user_id: int, *, replied_to: discord_server.Message) -> discord_server.Message:
    """The result that a reaction to a message has made."""

    def made() -> list[discord_server.Message]:
        messages = live.discord.messages.values()
        return [m for m in messages if m.attachments and m.replied_to is replied_to and f"<@{user_id}>" in m.content]

    await live.discord.wait(lambda _: bool(made()), 20)
    return made()[0]


async def judge(live: Live) -> None:
    """An admin decides about the person; the person is an admin too; and everything else that can be stored."""
    services = live.app.client.services
    policies, now = services.policies, services.clock()
    about, by = (Change(ADMIN, GUILD_ID, "test", now, target=ME), Change(ME, GUILD_ID, "test", now, target=OTHER))
    await policies.grant(about, ME, 3, f"{REASON} <@{ME}>")
    await policies.set_limit(about, LimitKind.MEMBER, ME, Amounts(daily=20))
    await policies.block(about, Block(GUILD_ID, False, ME, REASON, now + timedelta(days=9), ADMIN, now))
    await policies.grant(by, OTHER, 4, f"a gift of <@{ME}>")
    await policies.block(by, Block(7, False, OTHER, "rude", None, ME, now))
    await policies.set_limit(by, LimitKind.MEMBER, OTHER, Amounts(daily=1))
    await policies.set_preferences(ME, Preferences(model=Model.PKZ_4))
    await policies.set_preferences(OTHER, Preferences(model=Model.PKZ_3))
    request = ThumbnailRequest("https://cdn.example/x.png", Model.PKZ_4, Format.WIDE, prompt=PROMPT)
    await services.results.postpone(ME, Postponed(request, private=True))
    run = live.app.storage.database.run
    await run("INSERT INTO waiting_for_balance VALUES (?, ?, 5, 'de', 1)", (ME, GUILD_ID))
    [[job_id]] = await run("SELECT id FROM jobs WHERE user_id = ? LIMIT 1", (OTHER,))
    await run("INSERT INTO carried VALUES (?, 20261122, ?, 'pkz_4', 1, 1, 1)", (GUILD_ID, ME))
    await run("INSERT INTO settlements VALUES (?, 'paid', ?, 1)", (job_id, ME))


def everywhere(folder: Path, wanted: set[str]) -> list[tuple[str, str]]:
    """In which files something is found: ids also as SQLite and others store integers."""
    forms = {(what, what.encode()) for what in wanted}
    for number in (int(what) for what in wanted if what.isdigit()):
        forms |= {(f"{number} in binary", form) for form in binary(number)}
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [(path.name, what) for path in files for what, form in forms if form in path.read_bytes()]


def binary(number: int) -> list[bytes]:
    """A large number as SQLite stores it in a column, as others would, and as SQLite stores a rowid: eight groups of
    seven bits, and one byte.
    """
    groups = [(number >> (8 + 7 * n)) & 0x7F | 0x80 for n in range(7, -1, -1)]
    return [number.to_bytes(8, "big"), number.to_bytes(8, "little"), bytes([*groups, number & 0xFF])]


def rows(folder: Path, table: str, *, where: str = "TRUE") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE {where}")]


def used(folder: Path, user_id: int) -> list[tuple[str, int]]:
    [[salt]] = [row.values() for row in rows(folder, "pseudonyms")]
    found = rows(folder, "totals", where=f"subject = {member_key(salt, user_id)}")
    return [(row["scope"], row["used"]) for row in found]


async def delete(live: Live, user_id: int = ME) -> str:
    """Use /my-data delete when nothing is in progress, and confirm; returns the answer."""
    await live.app.use_case.recovery.idle(10)
    return await delete_at_once(live, user_id)


async def delete_at_once(live: Live, user_id: int = ME) -> str:
    asked = await live.discord.slash("my-data delete", user_id=user_id)
    await asked.wait(lambda i: i.message is not None, 10)
    assert asked.message is not None
    assert asked.message.ephemeral
    click = await live.discord.click(asked.message, f"delete-data:{user_id}", user_id=user_id)
    await click.wait(lambda i: i.message is not None and not i.message.loading, 10)
    assert click.message is not None
    assert click.message.ephemeral
    return click.message.content


async def export(live: Live, user_id: int = ME, **origin: Any) -> dict[str, Any]:
    """Use /my-data export; returns what is in the file."""
    asked = await live.discord.slash("my-data export", user_id=user_id, **origin)
    await asked.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert asked.message is not None
    assert asked.message.ephemeral
    [file] = asked.message.attachments
    assert (file.filename, file.data is None) == ("my-data.json", False)
    return dict(json.loads(file.data or b""))


# --- the promise ---------------------------------------------------------------------------------------------------


async def test_after_a_deletion_nothing_is_found_and_nothing_is_refilled_even_in_a_restored_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    async with bot(folder, monkeypatch) as live:
        gone = await live_a_life(live)
    found = {what.removesuffix(" in binary") for _, what in everywhere(folder, {str(ME), *gone})}
    assert found == {str(ME), *gone}
    before, others = used(folder, ME), of_others(folder)
    assert ("member", 4) in before
    backup = shutil.copy(folder / DATABASE, tmp_path / "backup")

    async with bot(folder, monkeypatch) as live:
        answer = await delete(live)
        assert "1 image waiting for `/recover` went with it." in answer
        assert everywhere(folder, {str(ME), *gone}) == []  # at once, not only after a stop
        [copy] = (folder / "backups").iterdir()  # it is still there, with everybody else
        assert verification.examined(copy).problem is None
    check_deleted(folder, gone, others)
    after = {scope: 3 if scope.startswith("member") else amount for scope, amount in before}
    after["unknown"] = 1  # the image that waited for a claim was paid for
    assert used(folder, ME) == sorted(after.items())

    (folder / f"{DATABASE}-wal").unlink(missing_ok=True)
    shutil.copy(backup, folder / DATABASE)
    assert everywhere(folder, {str(ME)}) != []
    async with bot(folder, monkeypatch):
        assert everywhere(folder, {str(ME), *gone}) == []
    check_deleted(folder, gone, others)


def of_others(folder: Path) -> list[Any]:
    """What is stored about another person."""
    tables = {"jobs": "user_id", "entries": "user_id", "member_settings": "user_id", "drafts": "user_id"}
    found: list[Any] = [rows(folder, table, where=f"{column} = {OTHER}") for table, column in tables.items()]
    found.append([(row["amount"], row["member"]) for row in rows(folder, "grants", where=f"user_id = {OTHER}")])
    found.append(rows(folder, "server_limits", where=f"subject = {OTHER}"))
    found.append([row["reason"] for row in rows(folder, "blocks", where=f"shown_id = {OTHER}")])
    found.append(used(folder, OTHER))
    hashes = {json.loads(row["request"]).get("image_sha256") for row in found[0]}
    found.append(sorted(name for name in hashes if (folder / "sources" / str(name)).exists()))
    assert all(found[0:3])
    assert found[-1]
    return found


def check_deleted(folder: Path, gone: set[str], others: list[Any]) -> None:
    assert everywhere(folder, {str(ME), *gone}) == []
    assert of_others(folder) == others
    stripped = rows(folder, "jobs", where="user_id = 0")
    assert len(stripped) == 5
    assert [len(rows(folder, table, where="user_id = 0")) for table in ("entries", "grants")] == [10, 1]
    assert {row["reason"] for row in rows(folder, "blocks", where="shown_id = 0")} == {REASON}
    assert list((folder / "spool").iterdir()) == []
    for job in stripped:
        assert job["interaction_id"] < 0
        assert set(json.loads(job["request"])) == {"image_url", "model", "format"}
    problems = [rows(folder, pragma) for pragma in ("pragma_integrity_check", "pragma_foreign_key_check")]
    assert problems == [[{"integrity_check": "ok"}], []]


async def test_source_images_that_only_the_person_used_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        first = await live.job(await live.made(user_id=ME))
        again = await live.made(user_id=ME)
        await live.discord.react(again, "🔁", user_id=OTHER)
        await of(live, OTHER, replied_to=again)
        await live.app.use_case.recovery.idle(10)
        assert len(list((tmp_path / "sources").iterdir())) == 2
        await delete(live)
        [left] = (tmp_path / "sources").iterdir()
    jobs, _ = books(tmp_path)
    assert [json.loads(job["request"]).get("image_sha256") for job in jobs if job["user_id"] == OTHER] == [left.name]
    assert first.request.image_hash != left.name


async def test_nothing_stays_in_the_gaps_of_pages(tmp_path: Path) -> None:
    """SQLite's `secure_delete` leaves copies of rows behind when it balances the pages of a tree."""
    people, chosen = [ME + n * 10**9 for n in range(20)], random.Random(5)  # noqa: S311
    async with stores.opened(tmp_path, spool=tmp_path, clock=lambda: NOON, on_unavailable=print) as opened:
        ledger, data = opened.repository, opened.personal_data

        async def use(number: int) -> None:
            user_id = chosen.choice(people)
            prompt = f"{user_id} {'x' * chosen.randrange(3000 if number % 7 == 0 else 300)}"
            job = await ledger.reserve(reservation(requester(user_id), what=request(prompt=prompt)))
            job = await ledger.acked(job, message_id=chosen.randrange(10**18))
            ended = await ledger.released(job, reason="undeliverable", request_id=None, now=NOON)
            await ledger.notified(ended, now=NOON)
            await opened.history.set_sources(job, image="ab" * 32, support=None)

        await asyncio.gather(*map(use, range(1500)))
        for user_id in people[:10]:
            await data.erase(user_id)
        await data.remember(people[0], now=NOON)
        found = everywhere(tmp_path, {str(user_id) for user_id in people})
    assert {what.split()[0] for _, what in found} == {str(user_id) for user_id in people[10:]}


async def test_a_large_database_is_compacted_by_the_housekeeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal_data, "_COMPACT_AT_ONCE", 0)
    async with bot(tmp_path, monkeypatch) as live:
        await live.made(user_id=ME)
        await delete(live)
        assert await live.app.storage.database.run("SELECT * FROM facts WHERE name = 'erased'") != []
        await live.app.sweep()
        assert await live.app.storage.database.run("SELECT * FROM facts WHERE name = 'erased'") == []
        assert everywhere(tmp_path, {str(ME)}) == []


# --- the table -----------------------------------------------------------------------------------------------------


async def test_the_table_of_personal_data_names_every_column_of_the_schema(tmp_path: Path) -> None:
    async with opening.opened(tmp_path / DATABASE) as store:
        tables = await store.run("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        found = {row["name"]: not row["wr"] for row in tables if not row["name"].startswith("sqlite_")}
        assert {name: table.has_rowid for name, table in TABLES.items()} == found
        for name, table in TABLES.items():
            columns = [row["name"] for row in await store.run("SELECT name FROM pragma_table_info(?)", (name,))]
            assert sorted(table.columns) == sorted(columns), name


@pytest.mark.parametrize("name", TABLES)
def test_every_user_id_of_a_table_is_deleted_or_set_to_0(name: str) -> None:
    table = TABLES[name]
    handled = set[str]()
    for found in table.rows:
        handled.update(table.people.split() if found.change is None else found.change)
    assert set(table.people.split()) <= handled


@pytest.mark.parametrize("name", TABLES)
def test_a_column_that_sounds_like_a_person_is_declared_as_one(name: str) -> None:
    sounding = {"user_id", "actor", "target", "shown_id", "requester"}
    assert sounding & set(TABLES[name].columns) <= set(TABLES[name].people.split())


# --- what the commands do --------------------------------------------------------------------------------------------


async def test_an_export_has_every_table_without_secrets_and_without_other_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await live_a_life(live)
        found = await export(live)
        tokens = [i.token for i in live.discord.interactions.values()]
    assert {name for name, table in TABLES.items() if table.rows} <= {name for name, value in found.items() if value}
    text = json.dumps(found)
    assert [other for other in (OTHER, ADMIN, *tokens) if str(other) in text] == []
    assert [job["request"]["prompt"] for job in found["jobs"]].count(PROMPT) == 3
    assert all(datetime.fromisoformat(job["asked_at"]).tzinfo == UTC for job in found["jobs"])
    assert {image["stored"] for image in found["source_images"]} == {True}
    assert found["user_id"] == str(ME)
    assert [(block["shown_id"], block["reason"]) for block in found["blocks"] if block["actor"] != str(ME)] == [
        (str(ME), REASON)
    ]
    assert {"another person"} == {row["actor"] for row in found["grants"] if row["user_id"] == str(ME)}


async def test_a_stranger_gets_an_empty_export_and_can_delete_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        assert not any(value for name, value in (await export(live)).items() if name not in ("user_id", "exported_at"))
        assert (await delete(live)).startswith("Done:")


async def test_blocked_people_may_use_all_of_it_even_in_a_direct_message_and_while_the_bot_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await judge_before_anything(live)
        live.app.client.services.admission.paused = "a reason"
        assert (await export(live, guild_id=None))["blocks"]
        notice = await live.discord.slash("privacy", user_id=ME, guild_id=None)
        await notice.wait(lambda i: i.message is not None, 10)
        assert "Done:" in await delete(live)
        live.app.client.services.admission.paused = None
        refused = await live.thumbnail(user_id=ME)
        await refused.wait(lambda i: i.message is not None, 10)
        assert refused.message is not None
        assert "You can't use the bot" in refused.message.content  # the block has outlived the deletion


async def judge_before_anything(live: Live) -> None:
    services = live.app.client.services
    now = services.clock()
    change = Change(ADMIN, 0, "test", now, target=ME)
    await services.policies.block(change, Block(0, False, ME, REASON, None, ADMIN, now))


async def test_only_the_person_who_asked_can_confirm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await live.made(user_id=ME)
        asked = await live.discord.slash("my-data delete", user_id=ME)
        await asked.wait(lambda i: i.message is not None, 10)
        assert asked.message is not None
        click = await live.discord.click(asked.message, f"delete-data:{ME}", user_id=OTHER)
        await click.wait(lambda i: i.message is not i.source and i.message is not None, 10)
        assert click.message is not None
        assert click.message.content == "Only the person whose data this is can delete it."
        assert (await export(live))["jobs"]


async def test_a_deletion_waits_for_jobs_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        live.cdn.released.clear()
        interaction = await live.thumbnail(user_id=ME)
        await interaction.wait(lambda i: i.message is not None, 10)
        assert "still in progress" in await delete_at_once(live)
        live.cdn.released.set()
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
        assert "Done:" in await delete(live)
        assert (await export(live))["jobs"] == []


async def test_a_deletion_waits_for_tasks_that_know_an_ended_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        job = await live.job(await live.made(user_id=ME))
        done = asyncio.Event()

        async def keep() -> None:
            await done.wait()
            await live.app.storage.history.set_sources(job, image=None, support=None)

        live.app.use_case.tasks.start(keep(), job)
        assert "still in progress" in await delete_at_once(live)
        done.set()
        assert "Done:" in await delete(live)


async def test_nothing_comes_back_into_a_deleted_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        job = await live.job(await live.made(user_id=ME, prompt=PROMPT))
        await delete(live)
        history = live.app.storage.history
        await history.set_sources(job, image="ab" * 32, support=None)
        await history.sharing(job, since=NOON)
        await history.shared(job, message_id=5)
        stripped = await live.app.storage.ledger.job(job.id)
        assert stripped is not None
        assert (stripped.request.prompt, stripped.sharing_at, stripped.shared_id) == (None, None, None)


async def test_a_job_that_begins_during_a_deletion_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await live.app.storage.repository.reserve(reservation(requester(ME)))
        with pytest.raises(NotAllowed):
            await live.app.storage.personal_data.erase(ME)
        assert (await export(live))["jobs"]


async def test_buttons_of_a_deleted_result_say_that_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        shown = await live.made(user_id=ME)
        job = await live.job(shown)
        await delete(live)
        for action in ("again", "edit", "info", "delete"):
            for user_id in (ME, OTHER):
                click = await live.discord.click(shown, f"job:{action}:{job.id}", user_id=user_id)
                await click.wait(lambda i: i.message is not None and i.message is not i.source, 10)
                assert click.message is not None
                assert click.message.content.startswith("That result is no longer available.")
        assert await live.app.client.services.results.find_by_message(shown.id) is None
        assert (await live.app.client.services.results.newest(ME)).jobs == []
        with pytest.raises(ResultGone):
            await live.app.client.services.results.job(job.id, ME, message_id=None)
        stripped = await live.app.storage.ledger.job(job.id)
        assert stripped is not None
        assert (stripped.requester.user_id, stripped.request.image_url, stripped.message_id) == (0, "", None)


async def test_whoever_comes_back_after_a_deletion_keeps_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await live.made(user_id=ME)
        await delete(live)
        await live.made(user_id=ME)
    async with bot(tmp_path, monkeypatch) as live:
        assert len((await export(live))["jobs"]) == 1


async def test_a_backup_from_before_the_pseudonyms_is_deleted_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch) as live:
        await live.made(user_id=ME)
    backup = shutil.copy(tmp_path / DATABASE, tmp_path / "backup")
    with closing(sqlite3.connect(backup)) as connection:  # its migration would have drawn another salt
        connection.execute("UPDATE pseudonyms SET salt = lower(hex(randomblob(32)))")
        connection.commit()
    async with bot(tmp_path, monkeypatch) as live:
        await delete(live)
    shutil.copy(backup, tmp_path / DATABASE)
    backup = (tmp_path / "backup").rename(tmp_path.parent / f"{tmp_path.name}-backup")
    async with bot(tmp_path, monkeypatch):
        pass
    assert everywhere(tmp_path, {str(ME)}) == []


async def test_what_a_restored_copy_calls_unfinished_is_ended_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot(tmp_path, monkeypatch, pikzels={"timeout": 10}) as live:
        job = await live.app.storage.repository.reserve(reservation(requester(ME)))
        job = await live.app.storage.repository.acked(job, message_id=5)
        await live.app.storage.repository.sending(job, now=NOON)
        await live.app.storage.database.checkpoint()
        backup = shutil.copy(tmp_path / DATABASE, tmp_path.parent / f"{tmp_path.name}-backup")
    async with bot(tmp_path, monkeypatch) as live:
        await live.app.use_case.recovery.idle(10)
        await delete(live)
    shutil.copy(backup, tmp_path / DATABASE)
    async with bot(tmp_path, monkeypatch):
        pass
    [stored] = rows(tmp_path, "jobs")
    assert (stored["user_id"], stored["state"], stored["reason"]) == (0, "released", "outcome_unknown")


# --- the notice ----------------------------------------------------------------------------------------------------


def test_the_notice_names_the_real_settings_and_fits_into_a_message() -> None:
    rules = RetentionRules(jobs=timedelta(days=90), left_servers=timedelta(days=1), sources=timedelta(days=7))
    text = privacy.notice(rules, locale="en-US")
    assert text.count("90 days") == 2
    assert "7 days after they were last used" in text
    assert "has left: 1 day." in text
    assert len(text) <= 2000
    assert "not kept" in privacy.notice(RetentionRules(sources=timedelta(0)), locale="en-US")


def test_a_deletion_says_what_goes_and_what_stays() -> None:
    assert "1 image you haven't collected" in privacy.confirm_deletion(waiting=1, locale="en-US")
    assert "collected" not in privacy.confirm_deletion(waiting=0, locale="en-US")
    assert "messages in Discord" in privacy.confirm_deletion(waiting=0, locale="en-US")
    assert "/recover" not in privacy.deleted(given_up=0, locale="en-US")


# --- interrupted -----------------------------------------------------------------------------------------------------

PORTS = {
    "repository": ("released",),
    "sources": ("remove_all",),
    "spool": ("remove_all",),
    "store": ("files", "erase", "remember"),
}


async def test_a_deletion_that_a_kill_interrupts_anywhere_can_be_repeated_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = tmp_path / "life"
    async with bot(life, monkeypatch) as live:
        gone = await live_a_life(live)
    others = of_others(life)
    calls = [f"{port}.{call}" for port, names in PORTS.items() for call in names]
    for point in (point for call in calls for point in (call, f"{call} done")):
        folder = shutil.copytree(life, tmp_path / point)
        async with bot(folder, monkeypatch) as live:
            personal = live.app.client.services.personal_data
            for port in PORTS:
                wrapped = Wrapped(port, getattr(personal, f"_{port}"), killed_at(point))
                monkeypatch.setattr(personal, f"_{port}", wrapped)
            with pytest.raises(Killed):
                await personal.delete(ME)
        async with bot(folder, monkeypatch) as live:
            await live.app.client.services.personal_data.delete(ME)
            assert everywhere(folder, {str(ME), *gone}) == [], point
        check_deleted(folder, gone, others)


# --- backups ---------------------------------------------------------------------------------------------------------


async def copied(folder: Path) -> Path:
    """A backup with a result of each of two people, and one in progress and one that waits for a claim of the first."""
    async with stored(folder) as opened:
        ledger = opened.repository
        for user_id, step in ((ME, "delivered"), (OTHER, "delivered"), (ME, "sending"), (ME, "parked")):
            job = await ledger.reserve(reservation(requester(user_id), what=request(prompt=f"{PROMPT} {user_id}")))
            job = await ledger.sending(await ledger.acked(job, message_id=user_id), now=NOON)
            if step != "sending":
                job = await ledger.generated(job, OUTPUT, now=NOON)
            if step == "delivered":
                await ledger.delivered(job, message_id=user_id, now=NOON)
            elif step == "parked":
                job = await ledger.spooled(job, Picture(folder / "x.png", "PNG", 1, 1, 1))
                await ledger.parked(job, now=NOON)
        backup = (await opened.backups.make()).path
        for job in await ledger.open_jobs():
            await ledger.released(job, reason="outcome_unknown", request_id=None, now=NOON)
    return backup


def stored(folder: Path) -> AbstractAsyncContextManager[stores.Stores]:
    return stores.opened(folder, spool=folder / "spool", clock=lambda: NOON, on_unavailable=print)


async def forget(opened: stores.Stores) -> None:
    await opened.personal_data.erase(ME)
    await opened.personal_data.remember(ME, now=NOON)


async def test_a_deletion_reaches_every_copy_and_each_is_still_a_whole_backup(tmp_path: Path) -> None:
    backup = await copied(tmp_path)
    replaced = tmp_path / "replaced-20261122T120000Z" / DATABASE
    replaced.parent.mkdir()
    shutil.copy(backup, replaced)
    async with stored(tmp_path) as opened:
        await forget(opened)
        assert everywhere(tmp_path, {str(ME), f"{PROMPT} {ME}"}) == []
    for copy in (backup, replaced):
        found = verification.examined(copy)
        assert (found.problem, found.jobs) == (None, 4)
        with closing(sqlite3.connect(copy)) as connection:
            states = connection.execute("SELECT user_id, state, reason FROM jobs ORDER BY rowid").fetchall()
        assert states == [
            (0, "delivered", None),
            (OTHER, "delivered", None),
            (0, "released", "outcome_unknown"),
            (0, "released", "not_started:restarting"),
        ]
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.rglob("*.part")] == []


async def test_copies_without_the_person_stay_untouched(tmp_path: Path) -> None:
    backup = await copied(tmp_path)
    before = backup.stat()
    async with stored(tmp_path) as opened:
        await opened.personal_data.remember(5, now=NOON)
        assert (backup.stat().st_ino, backup.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        await forget(opened)
        await opened.personal_data.erase_copies()
        assert backup.stat().st_ino != before.st_ino


async def test_a_copy_in_which_nobody_can_be_deleted_is_deleted(tmp_path: Path) -> None:
    backup = await copied(tmp_path)
    other, damaged = backup.with_name(backup.name.replace("T12", "T11")), tmp_path / "replaced-20261122T120000Z"
    shutil.copy(backup, other)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA user_version = 6")
    damaged.mkdir()
    (damaged / DATABASE).write_bytes(b"beyond reading" * 1000)
    async with stored(tmp_path) as opened:
        await forget(opened)
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]
    assert not damaged.exists()


async def test_a_full_disk_deletes_no_copy_and_the_deletion_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await copied(tmp_path)
    async with stored(tmp_path) as opened:
        with monkeypatch.context() as full:

            def fail(*_: Path) -> None:
                raise OSError(errno.ENOSPC, "no space")

            full.setattr(files, "publish", fail)
            with pytest.raises(StorageUnavailable, match="the backups"):
                await forget(opened)
        assert {name for name, _ in everywhere(tmp_path, {str(ME)})} == {backup.name}
    async with stored(tmp_path) as opened:  # the housekeeping of the next start
        await opened.personal_data.erase_copies()
        assert everywhere(tmp_path, {str(ME)}) == []


async def test_large_backups_are_left_to_the_housekeeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await copied(tmp_path)
    monkeypatch.setattr(personal_data, "_COPIES_AT_ONCE", 0)
    async with stored(tmp_path) as opened:
        await forget(opened)
        assert everywhere(tmp_path, {str(ME)}) != []
        await opened.personal_data.erase_copies()
        assert everywhere(tmp_path, {str(ME)}) == []
