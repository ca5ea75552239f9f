"""Fills a ledger with jobs of the past and their entries, by SQL: a million rows take seconds."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from sqlite3 import connect
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.quota import DOLLAR, QuotaRules
from bot.domain.server_rules import Amounts
from bot.storage.job_rows import ms
from bot.storage.pseudonyms import member_key
from tests.support.totals import SUMMED

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

GUILD = 7
DAYS = 60
MEMBERS = 2_000
SERVERS = 50
_SNOWFLAKE = 1_300_000_000_000_000_000  # an id of Discord in 2024
_ENOUGH = 1_000_000_000  # of everything: what is measured is the check, not the refusal

# Every limit there is, each with a number.
EVERY_LIMIT = QuotaRules(
    member=Amounts(_ENOUGH, _ENOUGH),
    costs=dict.fromkeys(Model, 1),
    server=Amounts(_ENOUGH, _ENOUGH),
    bot=Amounts(_ENOUGH, _ENOUGH),
    budget=Amounts(_ENOUGH * DOLLAR, _ENOUGH * DOLLAR),
    prices=dict.fromkeys(Model, DOLLAR // 100),
    attempts_hourly=_ENOUGH,
    unknown_daily=_ENOUGH,
    strikes_daily=_ENOUGH,
)

# A delivered job as the bot leaves it; addresses and hashes are as long as real ones.
_JOBS = """
    WITH RECURSIVE numbers (n) AS (VALUES (:first) UNION ALL SELECT n + 1 FROM numbers WHERE n < :first + :jobs - 1)
    INSERT INTO jobs (
        id, interaction_id, private, state, user_id, guild_id, channel_id, message_id, locale, upload_limit, operation,
        request, cost, asked_at, created_at, sent_at, generated_at, ended_at, notified_at, request_id, member,
        counted_on, price
    )
    SELECT
        'x' || n, snowflake + n, 0, 'delivered', user_id, :guild + n / 7 % :servers, :snowflake + n % :members,
        snowflake + n, 'en-US', 10485760, 'create_from_image',
        json_object(
            'image_url', 'https://cdn.discordapp.com/ephemeral-attachments/' || snowflake || '/' || (snowflake + n)
                || '/photo.png?ex=6928d1c1&is=69278041&hm=' || hex(randomblob(32)),
            'model', 'pkz_4', 'format', '16:9', 'prompt', 'a cat on the moon, looking at the earth, in bright colors',
            'image_sha256', lower(hex(randomblob(32)))
        ),
        1, at, at, at + 200, at + 15000, at + 16000, at + 16000, lower(hex(randomblob(16))),
        member_key(:salt, user_id), CAST(strftime('%Y%m%d', at / 1000, 'unixepoch') AS INTEGER), 10000
    FROM (
        SELECT n, :now - (:first + :jobs - n) * :apart AS at, 1 + n % :members AS user_id, :snowflake AS snowflake
        FROM numbers
    )
"""
_ENTRIES = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at, member, counted_on, price)
    SELECT id, kind, user_id, guild_id, held, -held * (kind = 'charge'), asked_at, asked_at, member, counted_on,
        price * (kind = 'hold')
    FROM jobs, (SELECT 'hold' AS kind, 1 AS held UNION ALL SELECT 'charge', -1) WHERE jobs.rowid > :last
    ORDER BY jobs.rowid, kind = 'charge'
"""


def fill(path: Path, entries: int, *, now: datetime) -> None:
    """Add `entries` to the closed, empty database at `path`, for many members and servers, on the days before `now`."""
    fill_jobs(path, entries // 2, now=now)


def fill_jobs(path: Path, jobs: int, *, now: datetime, days: int = DAYS) -> None:
    """Add delivered jobs with their entries to the closed database at `path`, on the `days` before `now`."""
    with closing(connect(path)) as raw:
        raw.create_function("member_key", 2, member_key, deterministic=True)
        raw.execute("PRAGMA synchronous = OFF")
        [[salt]] = raw.execute("SELECT salt FROM pseudonyms")
        [[last]] = raw.execute("SELECT COALESCE(MAX(rowid), 0) FROM jobs")
        values = {
            "first": last + 1,
            "last": last,
            "jobs": jobs,
            "members": MEMBERS,
            "guild": GUILD,
            "servers": SERVERS,
            "snowflake": _SNOWFLAKE,
            "salt": salt,
            "now": ms(now),
            "apart": max(1, timedelta(days=days) // timedelta(milliseconds=max(1, jobs))),
        }
        if jobs:
            raw.execute(_JOBS, values)
        [[trigger]] = raw.execute("SELECT sql FROM sqlite_schema WHERE name = 'entries_total'")
        raw.execute("DROP TRIGGER entries_total")  # a sum at the end is faster
        raw.execute(_ENTRIES, values)
        raw.execute("DELETE FROM totals")
        raw.execute(f"INSERT INTO totals {SUMMED}")
        raw.execute(trigger)
        raw.commit()
