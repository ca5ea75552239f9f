"""Runs bots that are really killed: forks one life after another, kills them at random, looks at what is left.

`python -m tests.support.crash_driver FIRST COUNT` plays COUNT runs from seed FIRST on and prints one JSON
object: counts, and what was broken by which seed. A process of its own, because a fork needs one without threads.
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
from tests.support.crashable_bot import JOBS, KINDS, SHOWABLE, UNREACHABLE, Loop, Order, effects_in, live

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEMORY = Path("/dev/shm")  # noqa: S108 - a place of folders with names of their own, where a flush costs nothing
_STEPS = 120  # more than a life of three requests usually has
_LIFE = 0.05  # seconds of such a life
_AGAIN = ("failed: unreachable once", "failed: slowed down once")

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
    """Three requests, as many lives as it takes, and what is left of them."""

    def __init__(self, seed: int, folder: Path, content: bytes) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a course of events, not a secret
        self._folder = folder
        self._content = content
        self._kinds = tuple(self._chance.choice(KINDS) for _ in range(JOBS))
        self.counts: Counter[str] = Counter(self._kinds)
        self.broken: list[str] = []

    def play(self) -> None:
        self._killed(self._kinds)
        while self._chance.random() < 0.3:
            self._killed(())
        if code := self.life(()):
            self.broken.append(f"the last life ended with {code}: {(self._folder / 'log').read_text()[-2000:]}")
        self._check()

    def _killed(self, asked: Sequence[str]) -> None:
        """A life that is killed at some moment, or kills itself at some step, if it does not end before."""
        if self._chance.random() < 0.5:
            code = self.life(asked, fuse=self._chance.randint(1, _STEPS))
            self.counts["killed by itself"] += code == -signal.SIGKILL
        else:
            code = self.life(asked, seconds=self._chance.uniform(0, _LIFE))
            self.counts["killed from outside"] += code == -signal.SIGKILL

    def life(self, asked: Sequence[str], *, fuse: int = 0, seconds: float | None = None) -> int:
        """Fork a life that is asked for so much first; kills it after `seconds`. Returns how it ended."""
        order = Order(self._folder, self._kinds, len(asked), fuse, self._content)
        pid = os.fork()
        if pid == 0:
            _be(order, self._chance)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        self.counts["lives"] += 1
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # --- what is left ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        effects = effects_in(self._folder / "effects")
        with closing(sqlite3.connect(self._folder / "bot.sqlite3")) as books:
            books.row_factory = sqlite3.Row
            jobs = list(books.execute(_JOBS))
            [held] = books.execute("SELECT COALESCE(SUM(held), 0) FROM entries").fetchone()
        self.counts["jobs"] += len(jobs)
        known = {int(job["image_url"].rpartition("/")[2]): job for job in jobs}
        for number in range(JOBS):
            done, job = effects[number], known.get(number)
            wrong = self._wrong_job(number, done, job) if job is not None else {"effects without a job": bool(done)}
            self._note(wrong, f"request {number} ({self._kinds[number]}) {done}")
        spool = self._folder / "spool"
        OutputSpool(spool)._sweep(
            datetime.now(UTC) + timedelta(days=8), frozenset()
        )  # what a kill left lying goes in a week
        left = [path.name for path in spool.iterdir()]
        records = Journal(self._folder / "journal", size=4096).records()
        self._note({f"{held} held": bool(held), f"spool {left}": bool(left), f"{records}": bool(records)}, "at rest")

    def _wrong_job(self, number: int, done: list[str], job: sqlite3.Row) -> dict[str, bool]:
        charged, shown, kind = job["state"] == "delivered", "shown" in done, self._kinds[number]
        self.counts["delivered"] += charged
        wanted = {"delivered": "hold,charge", "released": "hold,release"}.get(job["state"])
        paid = job["generated_at"] is not None and kind in SHOWABLE
        return {
            f"{job['state']} with {job['kinds']}": job["kinds"] != wanted,
            "charged and not shown, or shown and not charged": charged != shown,
            "answered twice": done.count("answered") > 1,
            "called again": list(_called_again(done)) != [],
            "a paid picture was lost": paid and not charged,
            "told of a free end, and charged": charged and "told free" in done,
            "not told": not charged and "answered" in done and "told free" not in done and kind not in UNREACHABLE,
            "its end was not recorded as shown": job["notified_at"] is None,
            "its token was kept": job["token"] is not None,
        }

    def _note(self, wrong: dict[str, bool], where: str) -> None:
        self.broken.extend(f"{what}: {where}" for what, is_so in wrong.items() if is_so)


def _called_again(done: list[str]) -> Iterator[int]:
    """Where a call follows one that may have been carried out."""
    calls = [place for place, what in enumerate(done) if what == "called"]
    for first, second in pairwise(calls):
        if not any(what in _AGAIN for what in done[first:second]):
            yield second


def _be(order: Order, chance: random.Random) -> NoReturn:
    """Be the child, to its end."""
    log = os.open(order.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    code = 1
    try:
        Loop().run_until_complete(live(order, chance))  # nothing is put away: the process ends here
        code = 0
    except BaseException:  # noqa: BLE001 - the parent hears of it by the code, and of the rest by the log
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _played(seed: int, folder: Path, empty: Path, content: bytes) -> Run:
    """A run in a copy of the `empty` database's folder: to make its tables takes longer than a life."""
    shutil.copytree(empty, folder)
    run = Run(seed, folder, content)
    run.play()
    shutil.rmtree(folder)
    return run


def main(first: int, count: int) -> None:
    gc.freeze()  # what stands now is shared with every child
    content, counts = picture(), Counter[str]()
    broken: dict[int, list[str]] = {}
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        empty = Path(folder) / "empty"
        empty.mkdir()
        Run(0, empty, content).life(())
        for seed in range(first, first + count):
            run = _played(seed, Path(folder) / f"{seed}", empty, content)
            counts += run.counts
            if run.broken:
                broken[seed] = run.broken
    print(json.dumps({"counts": counts, "broken": broken}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
