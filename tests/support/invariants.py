"""What must hold on any day: watched with every entry that is committed, and when everything has come to rest."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.support.simulated_world import Way

if TYPE_CHECKING:
    import sqlite3

    from bot.domain.quota import QuotaRules
    from tests.support.simulated_world import Asked, World

_SETTLING = 10.0  # seconds between a confirmed picture and its charge, at most

_NEW_ENTRIES = """
    SELECT entries.id, kind, held, spent, entries.user_id, counted_at, request ->> 'image_url' AS image_url
    FROM entries JOIN jobs ON jobs.id = job_id WHERE entries.id > ? ORDER BY entries.id
"""
_JOBS = """
    SELECT jobs.*, request ->> 'image_url' AS image_url, (
        SELECT group_concat(kind) FROM (SELECT kind FROM entries WHERE job_id = jobs.id ORDER BY id)
    ) AS kinds FROM jobs ORDER BY rowid
"""


class Invariants:
    """Watches every entry as it is committed."""

    def __init__(self, world: World, rules: QuotaRules) -> None:
        self._world = world
        self._daily = rules.member_daily
        self._last = 0
        self._used: defaultdict[tuple[int, int], int] = defaultdict(int)  # by member and day

    def __call__(self) -> None:
        for row in self._world.raw.execute(_NEW_ENTRIES, (self._last,)):
            self._last = row["id"]
            asked = self._world.by_address(row["image_url"])
            self._count(asked, row)
            getattr(self, f"_{row['kind']}")(asked)
            self._world.note(row["kind"], asked)

    def _count(self, asked: Asked, row: sqlite3.Row) -> None:
        key = (row["user_id"], row["counted_at"] // 86_400_000)
        self._used[key] += row["held"] + row["spent"]
        if not 0 <= self._used[key] <= self._daily:
            self._world.forbidden(f"{self._used[key]} of {self._daily} credits are used", asked)

    def _hold(self, _: Asked) -> None:
        self._world.counts["jobs"] += 1

    def _charge(self, asked: Asked) -> None:
        if not asked.shown:
            self._world.forbidden("charged without a picture", asked)
        if asked.charged or asked.released:
            self._world.forbidden("ended twice", asked)
        asked.charged = True

    def _release(self, asked: Asked) -> None:
        if asked.charged or asked.released:
            self._world.forbidden("ended twice", asked)
        asked.released = True
        if asked in self._settling():
            self._world.forbidden("released though its picture was confirmed", asked)

    def settled(self, *, since: float) -> None:
        """What was confirmed is charged soon, by a bot that runs `since` then and can write."""
        now, world = self._world.loop.time(), self._world
        for asked in self._settling():
            if asked.handed_over and now > world.journal_failed_at > -math.inf:
                # claimed while nothing at all could be written, and the process died: for nothing
                asked.excused = True
                world.counts["claimed and not charged at once"] += 1
            elif now > max(asked.confirmed_at or 0, world.books_down_until, since) + _SETTLING:
                world.forbidden("confirmed long ago and not charged", asked)
                asked.excused = True

    def life_ended(self) -> None:
        """What a bot had no time to write down is shown again by the next one, and charged then."""
        now, world = self._world.loop.time(), self._world
        for asked in self._settling():
            asked.excused = now <= max(asked.confirmed_at or 0, world.journal_failed_at) + _SETTLING

    def _settling(self) -> list[Asked]:
        self._world.unsettled = [asked for asked in self._world.unsettled if not (asked.charged or asked.excused)]
        return self._world.unsettled

    # --- when everything has come to rest ----------------------------------------------------------------------------

    def at_rest(self) -> None:
        for row in self._world.raw.execute(_JOBS):
            asked = self._world.by_address(row["image_url"])
            self._world.note("ended", asked, f"{row['state']} {row['reason']}")
            for what in self._wrong(asked, row):
                self._world.forbidden(what, asked)
        [held] = self._world.raw.execute("SELECT COALESCE(SUM(held), 0) FROM entries").fetchone()
        if held:
            self._world.forbidden(f"{held} credits are still held")
        if self._world.files:
            self._world.forbidden(f"{len(self._world.files)} files are left in the spool")

    def _wrong(self, asked: Asked, row: sqlite3.Row) -> list[str]:
        state, kinds = row["state"], row["kinds"]
        way = self._world.way_of(asked)
        wrong = {
            f"still {state}": row["ended_at"] is None,
            f"has entries {kinds}": kinds != {"delivered": "hold,charge", "released": "hold,release"}.get(state),
            "charged and never shown": asked.charged and not asked.shown,
            "told of a free end though charged": bool(asked.told) and state != "released",
            "its end was not written down as told": row["notified_at"] is None,
            "its token was kept": row["token"] is not None,
            "its requester was not notified": state == "released"
            and not asked.told
            and asked.message is not None
            and way is Way.OPEN
            and not self._world.lasting,
            f"a paid picture ended as {row['reason']}": row["generated_at"] is not None
            and str(row["reason"]).startswith(("not_started", "outcome_unknown")),
        }
        if asked.shown and not asked.charged:
            self._world.counts["shown and free"] += 1
        return [what for what, is_so in wrong.items() if is_so]
