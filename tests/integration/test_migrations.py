"""A database of an older version is migrated, and every job in it continues."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.models import Format, Model, Scope, State, ThumbnailRequest, Weight
from bot.domain.quota import QuotaRules
from bot.domain.server_rules import Amounts
from bot.pikzels.client import Pikzels
from bot.storage import opening
from bot.storage.job_rows import ms, request_from_json, request_to_json, time_of
from sandbox import discord_server, pikzels_server
from tests.support.e2e import KEY, png, running
from tests.support.e2e import books as stored_rows
from tests.support.factories import request, requester
from tests.support.limited_bot import limited_bot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path


FULL = ThumbnailRequest(
    image_url="https://cdn.example/1/7/cat.png",
    model=Model.PKZ_2,
    format=Format.TALL,
    prompt='a "cat" on the moon, naïve 猫 \\ 👍🏽',
    support_image_url="https://cdn.example/1/8/logo.png",
    image_weight=Weight.HIGH,
    persona="0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d",
    style="1b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d",
    image_hash="ab" * 32,
    support_hash="cd" * 32,
)
NOW = ms(datetime.now(UTC))
COMMON: dict[str, Any] = {
    "private": 0,
    "guild_id": discord_server.GUILD_ID,
    "channel_id": discord_server.CHANNEL_ID,
    "upload_limit": 10 * 1024 * 1024,
    "image_url": FULL.image_url,
    "model": "pkz_2",
    "format": "9:16",
    "prompt": FULL.prompt,
    "support_image_url": FULL.support_image_url,
    "image_kept": FULL.image_hash,
    "support_kept": FULL.support_hash,
    "image_weight": "high",
    "persona": FULL.persona,
    "style": FULL.style,
    "cost": 1,
    "asked_at": NOW,
    "created_at": NOW,
}


def create_schema_1(path: Path, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    """Create a database of version 0.1, with a hold for each job and an entry for its end."""
    script = resources.files("bot.storage").joinpath("migrations", "sqlite", "0001_jobs_and_entries.sql").read_text()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{script}\nPRAGMA user_version = 1;")
        for number, (job_id, columns) in enumerate(jobs.items(), 1):
            row = {**COMMON, "id": job_id, "interaction_id": 10**18 + number, "user_id": number, **columns}
            names = ", ".join(row)
            connection.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
            ends = {"delivered": ("charge", -1, 1), "released": ("release", -1, 0)}
            for kind, held, spent in (("hold", 1, 0), *filter(None, [ends.get(str(row["state"]))])):
                connection.execute(
                    "INSERT INTO entries (job_id, kind, user_id, held, spent, counted_at, at) VALUES (?,?,?,?,?,?,?)",
                    (job_id, kind, number, held, spent, NOW, NOW),
                )
        connection.commit()


async def test_a_job_in_every_state_continues_after_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png()
    async with (
        discord_server.serve(keep_files=True) as discord,
        pikzels_server.serve(api_key=KEY, output=content) as api,
    ):
        async with Pikzels(api_key=KEY, base_url=api.base_url, timeout=5) as client:
            output = await client.create(request())
        paid = {"sent_at": NOW, "generated_at": NOW, "output_url": output.url, "request_id": output.request_id}
        picture = {"picture_type": "PNG", "picture_width": 1280, "picture_height": 720, "picture_size": len(content)}
        spooled = {**paid, **picture, "state": "spooled", "picture_sha256": "ab"}
        (tmp_path / "spool").mkdir()
        for name in ("spld.png", "prkd.png"):
            (tmp_path / "spool" / name).write_bytes(content)
        jobs: dict[str, dict[str, Any]] = {
            "rsvd": {"state": "reserved"},
            "ackd": {"state": "acked"},
            "sndg": {"state": "sending", "sent_at": NOW},
            "gnrt": {**paid, "state": "generated"},
            "spld": {**spooled, "picture_file": "spld.png"},
            "prkd": {**spooled, "picture_file": "prkd.png", "parked_at": NOW},
            "dvrd": {**paid, "state": "delivered", "message_id": 5, "ended_at": NOW, "told_at": NOW},
            "rlsd": {"state": "released", "reason": "not_started:restarting", "ended_at": NOW},
        }
        create_schema_1(tmp_path / "pikzels-bot.sqlite3", jobs)
        async with running(tmp_path, monkeypatch, around=(discord, api)) as live:
            await live.app.use_case.recovery.idle(10)
            claim = await live.discord.slash("recover", user_id=1 + list(jobs).index("prkd"))
            await claim.wait(lambda i: i.message is not None and bool(i.message.attachments))
            await live.app.use_case.recovery.idle(10)
            assert (await live.app.use_case.recovery._ports.repository.open_jobs()) == []
            assert len(api.calls) == 1, "a job was paid for twice"
        rows, entries = stored_rows(tmp_path)
    assert {row["id"]: row["state"] for row in rows} == {
        "rsvd": "released",
        "ackd": "released",
        "sndg": "released",
        "gnrt": "delivered",
        "spld": "delivered",
        "prkd": "delivered",
        "dvrd": "delivered",
        "rlsd": "released",
    }
    assert {row["reason"] for row in rows} == {None, "not_started:restarting", "outcome_unknown"}
    for row in rows:
        kinds = [entry["kind"] for entry in entries if entry["job_id"] == row["id"]]
        assert kinds == ["hold", "charge" if row["state"] == State.DELIVERED else "release"]
        assert row["notified_at"] is not None
        assert (row["operation"], row["locale"]) == ("create_from_image", "en-US")
        # the stored image hashes of a continued job may change, because no such files exist here
        assert request_from_json(row["request"]).prompt == FULL.prompt


async def test_every_option_of_a_request_becomes_one_json_value(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite3"
    minimal = dict.fromkeys(
        ("prompt", "support_image_url", "image_kept", "support_kept", "image_weight", "persona", "style")
    )
    create_schema_1(path, {"full": {"state": "reserved"}, "minimal": {"state": "reserved", **minimal}})
    async with opening.opened(path) as store:
        rows = await store.run("SELECT id, request FROM jobs")
        assert await store.run("PRAGMA foreign_key_check") == []
        with pytest.raises(sqlite3.IntegrityError):
            await store.run("UPDATE jobs SET request = 'no request' WHERE id = 'full'")
    requests = {row["id"]: request_from_json(row["request"]) for row in rows}
    assert requests == {"full": FULL, "minimal": ThumbnailRequest(FULL.image_url, Model.PKZ_2, Format.TALL)}
    assert request_from_json(request_to_json(FULL)) == FULL


# --- limits ----------------------------------------------------------------------------------------------------------

# member, server, days before NOW, cost, and how it ended
OLD_JOBS = [
    (1, 7, 0, 1, "delivered"),
    (1, 7, 0, 2, "released"),
    (1, 8, 0, 3, "reserved"),
    (1, None, 0, 1, "delivered"),
    (1, 7, 1, 4, "delivered"),
    (1, 7, 40, 5, "delivered"),
    (2, 7, 0, 6, "reserved"),
    (2, 7, 1, 1, "released"),
]
DAY = 86_400_000


def create_schema_5(path: Path) -> None:
    """Create a database as the version before limits left it, with `OLD_JOBS`."""
    folder = resources.files("bot.storage").joinpath("migrations", "sqlite")
    scripts = sorted((file for file in folder.iterdir() if file.name[:4] < "0006"), key=lambda file: file.name)
    with closing(sqlite3.connect(path)) as connection:
        for script in scripts:
            connection.executescript(script.read_text())
        connection.execute("PRAGMA user_version = 5")
        for number, (member, guild, days, cost, state) in enumerate(OLD_JOBS):
            at = NOW - days * DAY
            ended, reason = (None if state == "reserved" else at), ("outcome_unknown" if state == "released" else None)
            connection.execute(
                "INSERT INTO jobs (id, interaction_id, private, state, user_id, guild_id, channel_id, upload_limit,"
                " operation, request, cost, asked_at, created_at, ended_at, notified_at, reason, locale)"
                " VALUES (?, ?, 0, ?, ?, ?, 8, 10, 'create_from_image', ?, ?, ?, ?, ?, ?, ?, 'en-US')",
                (f"j{number}", number, state, member, guild, request_to_json(FULL), cost, at, at, ended, ended, reason),
            )
            ends = {"delivered": ("charge", -cost, cost), "released": ("release", -cost, 0)}
            for kind, held, spent in (("hold", cost, 0), *filter(None, [ends.get(state)])):
                connection.execute(
                    "INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at)"
                    " VALUES (?,?,?,?,?,?,?,?)",
                    (f"j{number}", kind, member, guild, held, spent, at, at),
                )
        connection.commit()


def old_sum(members: Collection[int], guilds: Collection[int | None], days: Callable[[datetime], bool]) -> int:
    """The credits of `OLD_JOBS` that are held or spent, counted in days of UTC."""
    return sum(
        cost
        for member, guild, ago, cost, state in OLD_JOBS
        if member in members and guild in guilds and state != "released" and days(time_of(NOW - ago * DAY))
    )


async def test_what_was_used_before_limits_existed_counts_for_them(tmp_path: Path) -> None:
    create_schema_5(tmp_path / "bot.sqlite3")
    now = time_of(NOW)
    today = {now.date()}.__contains__
    rules = QuotaRules(Amounts(1000, 1000), {}, server=Amounts(1000, 1000), bot=Amounts(1000, 1000), attempts_hourly=99)
    everywhere, both = (7, 8, None), (1, 2)
    async with limited_bot(tmp_path, rules) as bot:
        assert {total[0] for total in await bot.unexplained()} == {"attempts"}, "only new requests count as attempts"
        for member in both:
            used = await bot.used(requester(member, at=now))
            for period, counts in {
                "day": lambda at: today(at.date()),
                "month": lambda at: (at.year, at.month) == (now.year, now.month),
            }.items():
                assert used[Scope.MEMBER, period] == old_sum([member], everywhere, counts)
                assert used[Scope.GUILD, period] == old_sum(both, [7], counts)
                assert used[Scope.BOT, period] == old_sum(both, everywhere, counts)
            assert used[Scope.ATTEMPTS, "hour"] == 0
        assert await bot.database.run("SELECT 1 FROM totals WHERE scope IN ('money', 'unknown', 'attempts')") == []
        assert await bot.database.run("PRAGMA foreign_key_check") == []


async def test_a_hold_from_before_limits_existed_is_settled_like_any_other(tmp_path: Path) -> None:
    create_schema_5(tmp_path / "bot.sqlite3")
    now = time_of(NOW)
    async with limited_bot(tmp_path, QuotaRules(Amounts(1000), {}, budget=Amounts(10))) as bot:
        held = {job.requester.user_id: job for job in await bot.ledger.open_jobs()}
        await bot.deliver(held[1])
        await bot.release(held[2])
        assert (await bot.used(requester(1, at=now)))[Scope.MEMBER, "day"] == 5
        assert (await bot.used(requester(2, at=now)))[Scope.MEMBER, "day"] == 0
        assert (await bot.used(requester(2, at=now)))[Scope.MONEY, "day"] == 0
        assert {total[0] for total in await bot.unexplained()} == {"attempts"}


async def test_the_entries_stay_append_only_after_the_migration(tmp_path: Path) -> None:
    create_schema_5(tmp_path / "bot.sqlite3")
    insert = "INSERT INTO entries (job_id, kind, user_id, held, spent, counted_at, at) VALUES"
    async with opening.opened(tmp_path / "bot.sqlite3") as store:
        for sql in (
            "UPDATE entries SET held = 0",
            "UPDATE entries SET user_id = 3",
            "UPDATE entries SET price = 1",
            "DELETE FROM entries",
            f"{insert} ('j0', 'hold', 1, 1, 0, 1, 1)",
            f"{insert} ('j0', 'release', 1, -1, 0, 1, 1)",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                await store.run(sql)
        await store.run("UPDATE entries SET user_id = 0")  # the deletion of a person's data
