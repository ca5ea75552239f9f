"""The stages of a job: which time belongs to which of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.stages import medians, moments, stages, unknown
from benchmarks.workload import Job

if TYPE_CHECKING:
    from pathlib import Path

JOB = Job(7, sent_at=100.0, answered=0.3, delivered=2.0)
CALLS = {
    "begin of repository.reserve": 100.1,
    "repository.reserve": 100.2,
    "provider.create": 101.5,
    "repository.delivered": 102.25,
}


def test_a_stage_begins_where_the_one_before_it_ends() -> None:
    assert stages(JOB, CALLS, delay=0.0) == pytest.approx(
        {"admission": 0.1, "reserve": 0.1, "first answer": 0.1, "provider": 1.2, "upload": 0.5, "delivered": 0.25}
    )


def test_the_time_of_the_provider_itself_does_not_count() -> None:
    assert stages(JOB, CALLS, delay=1.0)["provider"] == pytest.approx(0.2)
    assert stages(JOB, CALLS, delay=2.0)["provider"] == 0.0


def test_what_has_ended_before_the_stage_in_front_of_it_took_no_time() -> None:
    found = stages(JOB, {**CALLS, "sources.look": 100.15}, delay=0.0)
    assert found["look"] == 0.0
    assert found["provider"] == pytest.approx(1.2)


def test_the_median_of_a_stage_is_in_milliseconds_and_in_the_order_of_the_line() -> None:
    jobs = [{"delivered": 0.003, "reserve": 0.001}, {"reserve": 0.002}, {"reserve": 0.009}]
    assert list(medians(jobs).items()) == [("reserve", 2.0), ("delivered", 0.0)]


def test_the_first_of_several_calls_of_a_kind_ends_its_stage_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    lines = [(7, "repository.reserve", 1.0, 2.0), (7, "provider.create", 2.0, 3.0), (7, "provider.create", 4.0, 5.0)]
    lines.append((8, "repository.surprise", 6.0, 7.0))
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    found = moments(file)
    assert found[7] == {
        "begin of repository.reserve": 1.0,
        "repository.reserve": 2.0,
        "begin of provider.create": 2.0,
        "provider.create": 3.0,
    }
    assert unknown(found.values()) == {"repository.surprise"}
