"""Rules that must hold on any day. They are checked after each committed entry and when the bot is idle."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from bot.domain.models import require
from tests.support.simulated_world import Reachability
from tests.support.totals import unexplained

if TYPE_CHECKING:
    import sqlite3

    from bot.domain.quota import QuotaRules
    from tests.support.simulated_world import Submission, World

_MAX_CHARGE_DELAY = 10.0  # seconds between a confirmed picture and its charge

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
    """Checks every entry when it is committed."""

    def __init__(self, world: World, rules: QuotaRules) -> None:
        self._world = world
        self._daily = require(rules.member.daily)
        self._last = 0
        self._used: defaultdict[tuple[int, int], int] = defaultdict(int)  # keyed by member and day

    def __call__(self) -> None:
        for row in self._world.raw.execute(_NEW_ENTRIES, (self._last,)):
            self._last = row["id"]
            submission = self._world.by_address(row["image_url"])
            self._count(submission, row)
            getattr(self, f"_{row['kind']}")(submission)
            self._world.note(row["kind"], submission)

    def _count(self, submission: Submission, row: sqlite3.Row) -> None:
        key = (row["user_id"], row["counted_at"] // 86_400_000)
        self._used[key] += row["held"] + row["spent"]
        if not 0 <= self._used[key] <= self._daily:
            self._world.report_violation(f"{self._used[key]} of {self._daily} credits are used", submission)

    def _hold(self, _: Submission) -> None:
        self._world.counts["jobs"] += 1

    def _charge(self, submission: Submission) -> None:
        if not submission.shown:
            self._world.report_violation("charged without a picture", submission)
        if submission.charged or submission.released:
            self._world.report_violation("ended twice", submission)
        submission.charged = True

    def _release(self, submission: Submission) -> None:
        if submission.charged or submission.released:
            self._world.report_violation("ended twice", submission)
        submission.released = True
        if submission in self._awaiting_charge():
            self._world.report_violation("released although its picture was confirmed", submission)

    def check_charges(self, *, since: float) -> None:
        """Check that the bot soon charged for each picture that Discord confirmed.

        The bot has been running since `since`. The limit starts later if the database was down.
        """
        now, world = self._world.loop.time(), self._world
        for submission in self._awaiting_charge():
            if submission.handed_over and now > world.journal_failed_at > -math.inf:
                # The claim could not be written anywhere, then the process crashed. The member is not charged.
                submission.exempt = True
                world.counts["claimed but not charged immediately"] += 1
            elif now > max(submission.confirmed_at or 0, world.database_down_until, since) + _MAX_CHARGE_DELAY:
                world.report_violation("confirmed long ago but not charged", submission)
                submission.exempt = True

    def process_ended(self) -> None:
        """Exempt recent confirmations. The next process shows those pictures again and charges for them."""
        now, world = self._world.loop.time(), self._world
        for submission in self._awaiting_charge():
            submission.exempt = now <= max(submission.confirmed_at or 0, world.journal_failed_at) + _MAX_CHARGE_DELAY

    def _awaiting_charge(self) -> list[Submission]:
        self._world.uncharged = [
            submission for submission in self._world.uncharged if not (submission.charged or submission.exempt)
        ]
        return self._world.uncharged

    # --- final state -------------------------------------------------------------------------------------------------

    def check_final_state(self) -> None:
        for row in self._world.raw.execute(_JOBS):
            submission = self._world.by_address(row["image_url"])
            self._world.note("ended", submission, f"{row['state']} {row['reason']}")
            for what in self._violations(submission, row):
                self._world.report_violation(what, submission)
        [held] = self._world.raw.execute("SELECT COALESCE(SUM(held), 0) FROM entries").fetchone()
        if held:
            self._world.report_violation(f"{held} credits are still held")
        for total in unexplained(self._world.raw):
            self._world.report_violation(f"a total is not the sum of its entries: {total}")
        if self._world.files:
            self._world.report_violation(f"{len(self._world.files)} files are left in the spool")

    def _violations(self, submission: Submission, row: sqlite3.Row) -> list[str]:
        state, kinds = row["state"], row["kinds"]
        reachability = self._world.reachability_of(submission)
        violations = {
            f"still {state}": row["ended_at"] is None,
            f"has entries {kinds}": kinds != {"delivered": "hold,charge", "released": "hold,release"}.get(state),
            "charged but never shown": submission.charged and not submission.shown,
            "the notice did not match the state": bool(submission.notified) and state != "released",
            "the final notice was not recorded": row["notified_at"] is None,
            "the token was not deleted": row["token"] is not None,
            "the requester was not notified": state == "released"
            and not submission.notified
            and submission.message is not None
            and reachability is Reachability.EDITABLE
            and not self._world.had_long_outage,
            f"a paid picture ended as {row['reason']}": row["generated_at"] is not None
            and str(row["reason"]).startswith(("not_started", "outcome_unknown")),
        }
        if submission.shown and not submission.charged:
            self._world.counts["shown but not charged"] += 1
        return [what for what, is_so in violations.items() if is_so]
