"""Forks one bot process after another, kills them at random and checks the final state.

`python -m tests.support.crash_driver FIRST COUNT` plays COUNT runs, starting at seed FIRST, and prints one JSON
object with the counts and the violations of each seed. It runs in a separate process because forking requires one
without threads.
"""

from __future__ import annotations

import gc
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from PIL import Image

from bot.images.output_spool import OutputSpool
from bot.storage.journal import Journal
from tests.support.crashable_bot import JOBS, KINDS, SHOWABLE, UNREACHABLE, Loop, Scenario, effects_in, run_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEMORY = Path("/dev/shm")  # noqa: S108 - holds uniquely named folders; flushing is free there
_STEPS = 120  # more steps than a process with three requests usually performs
_LIFETIME = 0.05  # seconds that such a process usually runs
_RETRYABLE = ("failed: unreachable once", "failed: rate limited once")

_JOBS = """
    SELECT jobs.*, request ->> 'image_url' AS image_url, (
        SELECT group_concat(kind) FROM (SELECT kind FROM entries WHERE job_id = jobs.id ORDER BY id)
    ) AS kinds FROM jobs
"""


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 180), "navy").save(out, "PNG")
    return out.getvalue()


class Run:
    """Plays three requests in one or more processes, then checks the final state."""

    def __init__(self, seed: int, folder: Path, content: bytes) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a random scenario, not a secret
        self._folder = folder
        self._content = content
        self._kinds = tuple(self._chance.choice(KINDS) for _ in range(JOBS))
        self.counts: Counter[str] = Counter(self._kinds)
        self.broken: list[str] = []

    def play(self) -> None:
        self._kill_one(self._kinds)
        while self._chance.random() < 0.3:
            self._kill_one(())
        if code := self.run_process_once(()):
            self.broken.append(f"the last process exited with {code}: {(self._folder / 'log').read_text()[-2000:]}")
        self._check()

    def _kill_one(self, requests: Sequence[str]) -> None:
        """Run a process that is killed at a random time or kills itself at a random step, unless it exits first."""
        if self._chance.random() < 0.5:
            code = self.run_process_once(requests, crash_after=self._chance.randint(1, _STEPS))
            self.counts["killed by itself"] += code == -signal.SIGKILL
        else:
            code = self.run_process_once(requests, seconds=self._chance.uniform(0, _LIFETIME))
            self.counts["killed from outside"] += code == -signal.SIGKILL

    def run_process_once(self, requests: Sequence[str], *, crash_after: int = 0, seconds: float | None = None) -> int:
        """Fork a process that sends `requests` first, kill it after `seconds`, and return its exit code."""
        scenario = Scenario(self._folder, self._kinds, len(requests), crash_after, self._content)
        pid = os.fork()
        if pid == 0:
            _run_child(scenario, self._chance)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        self.counts["processes"] += 1
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # --- final state -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        effects = effects_in(self._folder / "effects")
        with closing(sqlite3.connect(self._folder / "bot.sqlite3")) as connection:
            connection.row_factory = sqlite3.Row
            jobs = list(connection.execute(_JOBS))
            [held] = connection.execute("SELECT COALESCE(SUM(held), 0) FROM entries").fetchone()
        self.counts["jobs"] += len(jobs)
        jobs_by_number = {int(job["image_url"].rpartition("/")[2]): job for job in jobs}
        for number in range(JOBS):
            done, job = effects[number], jobs_by_number.get(number)
            violations = (
                self._violations(number, done, job)
                if job is not None
                else {"there are effects without a job": bool(done)}
            )
            self._note(violations, f"request {number} ({self._kinds[number]}) {done}")
        spool = self._folder / "spool"
        # The spool deletes files left by a kill after a week.
        OutputSpool(spool)._sweep(datetime.now(UTC) + timedelta(days=8), frozenset())
        left = [path.name for path in spool.iterdir()]
        records = Journal(self._folder / "journal", size=4096).records()
        self._note(
            {
                f"{held} credits are still held": bool(held),
                f"files left in the spool: {left}": bool(left),
                f"records left in the journal: {records}": bool(records),
            },
            "final state",
        )

    def _violations(self, number: int, done: list[str], job: sqlite3.Row) -> dict[str, bool]:
        charged, shown, kind = job["state"] == "delivered", "shown" in done, self._kinds[number]
        self.counts["delivered"] += charged
        expected = {"delivered": "hold,charge", "released": "hold,release"}.get(job["state"])
        paid = job["generated_at"] is not None and kind in SHOWABLE
        return {
            f"a {job['state']} job has entries {job['kinds']}": job["kinds"] != expected,
            "charged but not shown, or shown but not charged": charged != shown,
            "the request was answered twice": done.count("replied") > 1,
            "the provider was called again": list(_called_again(done)) != [],
            "a paid picture was lost": paid and not charged,
            "charged, but the notice says not charged": charged and "notified: not charged" in done,
            "not notified": not charged
            and "replied" in done
            and "notified: not charged" not in done
            and kind not in UNREACHABLE,
            "called with a bad image": kind == "bad image" and "called" in done,
            "the final notice was not recorded": job["notified_at"] is None,
            "the token was not deleted": job["token"] is not None,
        }

    def _note(self, violations: dict[str, bool], where: str) -> None:
        self.broken.extend(f"{what}: {where}" for what, is_so in violations.items() if is_so)


def _called_again(done: list[str]) -> Iterator[int]:
    """Yield the position of each call after one that may have succeeded."""
    calls = [index for index, what in enumerate(done) if what == "called"]
    for first, second in pairwise(calls):
        if not any(what in _RETRYABLE for what in done[first:second]):
            yield second


def _run_child(scenario: Scenario, chance: random.Random) -> NoReturn:
    """Run the child process, then exit."""
    log = os.open(scenario.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    code = 1
    try:
        Loop().run_until_complete(run_process(scenario, chance))  # no cleanup: the process exits here
        code = 0
    except BaseException:  # noqa: BLE001 - the exit code and the log report it to the parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _play(seed: int, folder: Path, empty: Path, content: bytes) -> Run:
    """Play a run in a copy of the folder `empty`. Creating the tables takes longer than running a process."""
    shutil.copytree(empty, folder)
    run = Run(seed, folder, content)
    run.play()
    shutil.rmtree(folder)
    return run


def main(first: int, count: int) -> None:
    gc.freeze()  # every child shares the objects that exist now
    content, counts = picture(), Counter[str]()
    broken: dict[int, list[str]] = {}
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        empty = Path(folder) / "empty"
        empty.mkdir()
        Run(0, empty, content).run_process_once(())
        for seed in range(first, first + count):
            run = _play(seed, Path(folder) / f"{seed}", empty, content)
            counts += run.counts
            if run.broken:
                broken[seed] = run.broken
    print(json.dumps({"counts": counts, "broken": broken}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
