"""Fills a ledger with entries of the past, by SQL: a million rows take seconds."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from sqlite3 import connect
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.quota import DOLLAR, QuotaRules
from bot.domain.server_rules import Amounts
from bot.storage.job_rows import ms, request_to_json
from bot.storage.pseudonyms import member_key
from tests.support.factories import request
from tests.support.totals import SUMMED

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

GUILD = 7
DAYS = 60
MEMBERS = 2_000
SERVERS = 50
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

_JOBS = """
    WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < :jobs)
    INSERT INTO jobs (
        id, interaction_id, private, state, user_id, guild_id, channel_id, locale, upload_limit, operation, request,
        cost, asked_at, created_at, ended_at, notified_at, member, counted_on, price
    )
    SELECT
        'x' || n, n, 0, 'delivered', 1 + n % :members, :guild + n / 7 % :servers, 8, 'en-US', 10485760,
        'create_from_image', :request, 1, at, at, at, at, member_key(:salt, 1 + n % :members),
        CAST(strftime('%Y%m%d', at / 1000, 'unixepoch') AS INTEGER), 10000
    FROM (SELECT n, :now - n * :apart AS at FROM numbers)
"""
_ENTRIES = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at, member, counted_on, price)
    SELECT id, 'hold', user_id, guild_id, 1, 0, asked_at, asked_at, member, counted_on, 10000 FROM jobs
    UNION ALL SELECT id, 'charge', user_id, guild_id, -1, 1, asked_at, asked_at, member, counted_on, 0 FROM jobs
"""


def fill(path: Path, entries: int, *, now: datetime) -> None:
    """Add `entries` to the closed, empty database at `path`, for many members and servers, on the days before `now`."""
    with closing(connect(path)) as raw:
        raw.create_function("member_key", 2, member_key, deterministic=True)
        raw.execute("PRAGMA synchronous = OFF")
        [[salt]] = raw.execute("SELECT salt FROM pseudonyms")
        jobs = entries // 2
        values = {
            "jobs": jobs,
            "members": MEMBERS,
            "guild": GUILD,
            "servers": SERVERS,
            "salt": salt,
            "request": request_to_json(request()),
            "now": ms(now),
            "apart": max(1, timedelta(days=DAYS) // timedelta(milliseconds=jobs)),
        }
        raw.execute(_JOBS, values)
        [[trigger]] = raw.execute("SELECT sql FROM sqlite_schema WHERE name = 'entries_total'")
        raw.execute("DROP TRIGGER entries_total")  # a sum at the end is faster
        raw.execute(_ENTRIES)
        raw.execute(f"INSERT INTO totals {SUMMED}")
        raw.execute(trigger)
        raw.commit()
