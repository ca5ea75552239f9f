"""The benchmarks still run. What they measure here means nothing."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from benchmarks import checks, many_servers
from benchmarks.measurement import Load, Plan, measure
from benchmarks.programs import BARE, BOT, Program
from benchmarks.servers import make_image
from benchmarks.table import values
from benchmarks.workload import Batch, Job, quantile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("program", [BOT, BARE], ids=lambda program: program.name)
async def test_a_program_is_measured_and_has_lost_nothing(program: Program) -> None:
    measured = await measure(program, Plan(alone=1, loads=(Load(3, at_once=2),)), make_image())
    assert measured.problems == ()
    assert all(value > 0 for value in values(measured).values())
    assert len(measured.loads[0].answers) == len(measured.loads[0].overheads) == 3
    assert quantile(measured.loads[0].overheads, 0.99) < 30


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_start_in_many_servers_is_measured() -> None:
    measured = await many_servers.start(300, 1)
    assert 0 < measured.first <= measured.ready < 30
    assert measured.memory > 20


def test_images_that_were_lost_and_commands_that_were_not_answered_are_problems() -> None:
    jobs = [Job(1, 0.0, 0.1, 1.0), Job(2, 0.0, 0.1, None), Job(3, 0.0, None, None)]
    assert list(checks.check_delivery(Batch(jobs, at_once=3, cpu=1.0, peak=90.0, delay=0.5))) == [
        "2 of 3 images were not delivered, or were incomplete",
        "1 of 3 commands were not answered",
    ]


def test_late_answers_and_too_much_memory_are_problems() -> None:
    few = Batch([Job(1, 0.0, 3.1, 4.0)] * 500, at_once=200, cpu=1.0, peak=150.1, delay=0.5)
    assert list(checks.check_limits(few)) == [
        "with 200 jobs at once, an answer took 3.1 s",
        "with 200 jobs at once, memory reached 150 MB, more than 150",
    ]
    many = Batch([Job(1, 0.0, 2.9, 4.0)] * 500, at_once=201, cpu=100.0, peak=199.9, delay=0.5)
    assert list(checks.check_limits(many)) == []


def test_jobs_that_were_paid_or_charged_twice_or_left_behind_are_problems(tmp_path: Path) -> None:
    database = tmp_path / "books.sqlite3"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE jobs (state TEXT)")
        connection.execute("CREATE TABLE entries (job_id TEXT, kind TEXT, spent INTEGER)")
        connection.executemany("INSERT INTO jobs VALUES (?)", [("delivered",), ("delivered",), ("released",)])
        rows = [("a", "hold", 0), ("a", "charge", 1), ("a", "charge", 1), ("b", "hold", 0)]
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        connection.commit()
    assert list(checks.check_books(checks.counts(database), paid=3, jobs=2)) == [
        "total jobs: 3 instead of 2",
        "jobs charged: 1 instead of 2",
        "calls paid: 3 instead of 2",
    ]


def test_source_images_that_were_not_stored_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"image")
    assert list(checks.check_sources(tmp_path, 2)) == ["source images stored: 1 instead of 2"]
    assert list(checks.check_sources(tmp_path, 1)) == []
