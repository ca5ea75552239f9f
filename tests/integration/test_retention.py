"""What has been kept long enough is deleted; what still counts is not."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import discord
import pytest

from bot.domain.privacy import RetentionRules
from bot.domain.server_rules import Amounts, Block, Change, LimitKind, PresetKind, ServerRules
from bot.storage import stores
from bot.storage.job_rows import ms
from bot.supervisor import _attempt
from sandbox.discord_server import GUILD_ID
from tests.support.e2e import running
from tests.support.factories import NOON, limit, requester, reservation
from tests.support.many_entries import fill_jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.stores import Stores

RULES = RetentionRules(jobs=timedelta(days=90), left_servers=timedelta(days=30))
OLD, LATER = NOON - timedelta(days=100), NOON + timedelta(days=100)


@asynccontextmanager
async def opened(folder: Path, rules: RetentionRules = RULES) -> AsyncIterator[Stores]:
    async with stores.opened(folder, spool=folder, clock=lambda: NOON, on_unavailable=print, retention=rules) as found:
        yield found


async def ended(found: Stores, at: datetime, *, parent: Job | None = None) -> Job:
    by = reservation(requester(at=at), now=at, parent_id=None if parent is None else parent.id)
    job = await found.repository.reserve(by)
    return await found.repository.released(job, reason="outcome_unknown", request_id=None, now=at)


async def count(found: Stores, table: str) -> int:
    return int((await found.database.run(f"SELECT COUNT(*) FROM {table}"))[0][0])


async def test_old_jobs_go_with_everything_that_refers_to_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        old = [await ended(found, OLD) for _ in range(500)]
        young = await ended(found, NOON, parent=old[0])
        unfinished = await found.repository.reserve(reservation(requester(at=OLD), now=OLD))
        await ended(found, NOON)
        await found.database.run("INSERT INTO settlements VALUES (?, 'free', 1, 1)", (old[0].id,))
        used = await found.repository.allowances([limit()])
        assert await found.retention.sweep(now=NOON) == 500
        assert [row[0] for row in await found.database.run("SELECT id FROM jobs ORDER BY rowid LIMIT 2")] == [
            young.id,
            unfinished.id,
        ]
        assert (await count(found, "entries"), await count(found, "settlements")) == (5, 0)
        again = await found.ledger.job(young.id)
        assert again is not None
        assert again.parent_id is None
        assert await found.repository.allowances([limit()]) == used
        assert await found.database.run("SELECT * FROM pragma_foreign_key_check") == []
        assert await found.retention.sweep(now=NOON) == 0


async def test_of_too_many_jobs_the_oldest_that_have_ended_go_before_their_time(tmp_path: Path) -> None:
    async with opened(tmp_path, replace(RULES, most_jobs=120)) as found:
        unfinished = await found.repository.reserve(reservation(requester(), now=NOON))
        jobs = [await ended(found, NOON) for _ in range(230)]
        used = await found.repository.allowances([limit()])
        assert await found.retention.sweep(now=NOON) == 110
        left = [row[0] for row in await found.database.run("SELECT id FROM jobs ORDER BY rowid")]
        assert left == [unfinished.id, *(job.id for job in jobs[110:])]
        assert await found.repository.allowances([limit()]) == used
        assert await found.retention.sweep(now=NOON) == 0
        with pytest.raises(Exception, match="append-only"):
            await found.database.run("DELETE FROM entries")


async def test_the_file_stops_growing_when_as_much_is_deleted_as_is_added(tmp_path: Path) -> None:
    path, pages, deleted = tmp_path / "pikzels-bot.sqlite3", list[int](), 0
    async with opened(tmp_path):
        pass
    for number in range(24):
        now = NOON + timedelta(days=10 * number)
        fill_jobs(path, 300, now=now, days=9)
        async with opened(tmp_path, replace(RULES, jobs=timedelta(days=25))) as found:
            deleted += await found.retention.sweep(now=now)
            pages.append((await found.database.run("PRAGMA page_count"))[0][0])
    steady = pages[10:]  # by then, the sums of the last two months are complete
    assert max(steady) <= 1.02 * steady[0]
    assert deleted > 300 * 20


async def test_the_last_entry_stays_so_that_the_next_start_raises_no_false_alarm(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        await ended(found, OLD)
        last = await ended(found, OLD)
        await found.database.mark()
        assert await found.retention.sweep(now=NOON) == 1
        assert await found.ledger.job(last.id) is not None
        await found.database._connection.execute_fetchall("PRAGMA wal_checkpoint")  # and then the program is killed
        marker = tmp_path / "pikzels-bot.sqlite3.marker"
        before = marker.read_text()
    marker.write_text(before)
    async with opened(tmp_path) as found:
        assert not found.database.restored


async def test_entries_that_are_not_swept_cannot_be_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        for _ in range(2):
            await ended(found, NOON)
        await found.retention.sweep(now=NOON)
        with pytest.raises(Exception, match="append-only"):
            await found.database.run("DELETE FROM entries")


async def test_totals_stay_for_two_months_and_used_extra_credits_for_good(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        insert = "INSERT INTO totals VALUES (?, ?, 0, ?, 1)"
        hours = ms(NOON) // 3_600_000
        for row in (
            *(("member", 1, 20260920), ("member", 1, 20260922), ("bot", 0, 20260101), ("extra", 1, 0)),
            *(("attempts", 1, hours - 62 * 24 - 1), ("attempts", 1, hours)),
        ):
            await found.database.run(insert, row)
        await found.database.run(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO totals SELECT 'guild', i, 0, 20260101, 1 FROM n"
        )
        await found.retention.sweep(now=NOON)
        left = [tuple(row)[:4] for row in await found.database.run("SELECT * FROM totals")]
    assert left == [("attempts", 1, 0, hours), ("extra", 1, 0, 0), ("member", 1, 0, 20260922)]


async def test_old_records_expired_blocks_and_long_waits_go(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        for subject, until in ((1, NOON - timedelta(seconds=1)), (2, NOON + timedelta(days=1)), (3, None)):
            block = Block(7, is_server=False, subject=subject, reason="x", until=until, actor=5, at=OLD)
            await found.policies.block(Change(5, 7, "block", OLD if subject == 1 else NOON), block)
        for user_id, at in ((1, NOON - timedelta(hours=2)), (2, NOON)):
            await found.database.run("INSERT INTO waiting_for_balance VALUES (?, 7, 8, 'en-US', ?)", (user_id, ms(at)))
        await found.retention.sweep(now=NOON)
        left = {block.subject for block in await found.policies.active_blocks(7, now=OLD)}
        assert left == {2, 3}
        assert [await count(found, table) for table in ("audit", "waiting_for_balance")] == [2, 1]


# --- servers -------------------------------------------------------------------------------------------------------


async def set_up(found: Stores, guild_id: int) -> None:
    change = Change(5, guild_id, "test", NOON)
    await found.policies.set_limit(change, LimitKind.SERVER, 0, Amounts(daily=1))
    await found.policies.set_rules(change, ServerRules(spoiler=True))
    await found.policies.add_preset(change, PresetKind.STYLE, "comic", "x")
    await found.policies.block(
        change, Block(guild_id, is_server=False, subject=1, reason="x", until=None, actor=5, at=NOON)
    )


async def of_server(found: Stores, guild_id: int) -> list[int]:
    tables = ("server_limits", "servers", "presets", "blocks", "audit")
    return [await count(found, f"{table} WHERE guild_id = {guild_id}") for table in tables]


async def test_what_a_server_has_set_is_deleted_a_month_after_the_bot_has_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as found:
        for guild_id in (7, 8):
            await set_up(found, guild_id)
        await found.policies.set_limit(Change(5, 9, "test", NOON), LimitKind.SERVER, 0, Amounts(daily=1))
        everywhere = Block(0, is_server=True, subject=8, reason="x", until=None, actor=5, at=NOON)
        await found.policies.block(Change(5, 0, "test", NOON), everywhere)
        assert await found.retention.note_servers([7], now=NOON + timedelta(days=30)) == 0
        assert await of_server(found, 8) == [1, 1, 1, 1, 4]
        assert await found.retention.note_servers([7], now=NOON + timedelta(days=31)) == 1
        assert (await of_server(found, 7), await of_server(found, 8)) == ([1, 1, 1, 1, 4], [0] * 5)
        assert await found.policies.server_rules(8) == ServerRules(presets={kind: {} for kind in PresetKind})
        assert (await of_server(found, 9))[0] == 1  # its month began when it was first missed
        assert len(await found.policies.active_blocks(0, now=NOON)) == 1
        assert await found.retention.note_servers([7], now=LATER) == 1
        assert await of_server(found, 9) == [0] * 5


async def test_once_a_day_discord_is_asked_which_servers_the_bot_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOON]
    async with running(tmp_path, monkeypatch, clock=lambda: now[0]) as live:
        found = live.app.storage
        for guild_id in (GUILD_ID, 8):
            await set_up(found, guild_id)

        def asked() -> int:
            return sum(request.path.endswith("/users/@me/guilds") for request in live.discord.requests)

        for hours, times in ((0, 1), (23, 1), (24, 2)):
            now[0] = NOON + timedelta(hours=hours)
            await live.app.note_servers()
            assert asked() == times
        now[0] = LATER
        await live.app.note_servers()
        assert (await of_server(found, GUILD_ID), await of_server(found, 8)) == ([1, 1, 1, 1, 4], [0] * 5)


async def test_nothing_is_deleted_if_discord_does_not_list_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [NOON]
    async with running(tmp_path, monkeypatch, clock=lambda: now[0]) as live:
        await set_up(live.app.storage, GUILD_ID)
        now[0] = LATER
        live.discord.fail("GET", "/users/@me/guilds*", status=403, times=10)
        with pytest.raises(discord.Forbidden):
            await live.app.note_servers()
        await _attempt(live.app.note_servers)
        assert await of_server(live.app.storage, GUILD_ID) == [1, 1, 1, 1, 4]
        live.discord.heal()
        await live.app.note_servers()
        assert await of_server(live.app.storage, GUILD_ID) == [1, 1, 1, 1, 4]
    assert "housekeeping failed" in caplog.text


async def test_the_sweep_of_the_housekeeping_follows_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = [NOON]
    sections: dict[str, Any] = {"privacy": {"job_days": 2}}
    async with running(tmp_path, monkeypatch, clock=lambda: now[0], connect=False, **sections) as live:
        for at in (NOON, NOON, NOON + timedelta(days=4)):
            await ended(live.app.storage, at)
        now[0] = NOON + timedelta(days=4)
        await live.app.sweep()
        assert await count(live.app.storage, "jobs") == 1
    assert "2 old jobs deleted" in caplog.text
