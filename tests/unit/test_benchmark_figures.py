"""The figures of the benchmarks: what counts as worse, and that the documents show what is on record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import documents, many_servers, records
from benchmarks.figures import ROWS, Figure, Goal, Scale, figure, missed, reached, worse

if TYPE_CHECKING:
    from pathlib import Path

SCALE = Scale()
BEFORE = Figure(bot=15, base=10, ratio=1.5, lowest=1.4, highest=1.6)


def sentences(now: Figure, before: Figure = BEFORE) -> list[str]:
    return list(worse({"cpu at once": now}, {"cpu at once": before}, SCALE))


def test_a_figure_is_the_median_of_both_and_of_their_ratios_round_by_round() -> None:
    assert figure([(10, 10), (30, 10), (40, 20)]) == Figure(bot=30, base=10, ratio=2, lowest=1, highest=3)


def test_what_is_worse_than_everything_on_record_is_named_in_plain_words() -> None:
    now = Figure(bot=19, base=10, ratio=1.9, lowest=1.8, highest=2.0)
    assert sentences(now) == ["CPU a job, 200 at once got worse: 1.90 (1.80 to 2.00), and it was 1.50 (1.40 to 1.60)."]


@pytest.mark.parametrize(
    ("why", "now"),
    [
        ("it is the same", BEFORE),
        ("it is better", replace(BEFORE, ratio=1.0, lowest=0.9, highest=1.1)),
        ("it is worse by less than a tenth", replace(BEFORE, ratio=1.75, lowest=1.7, highest=1.8)),
        ("one round was as good as the worst on record", replace(BEFORE, ratio=1.9, lowest=1.6, highest=2.0)),
        ("only the worst round was worse", replace(BEFORE, ratio=1.55, lowest=1.4, highest=3.0)),
    ],
)
def test_nothing_is_worse_if(why: str, now: Figure) -> None:
    assert sentences(now) == [], why


def test_a_row_that_was_not_measured_then_or_now_is_not_compared() -> None:
    assert list(worse({"idle": BEFORE}, {"start": BEFORE}, SCALE)) == []


def test_a_goal_is_about_the_ratio_or_about_the_bot_alone() -> None:
    assert reached(Goal(ratio=1.5), BEFORE)
    assert not reached(Goal(ratio=1.4), BEFORE)
    assert reached(Goal(figure=15.0), BEFORE)
    assert not reached(Goal(figure=14.9), BEFORE)
    assert reached(Goal(), BEFORE)


def test_figures_on_record_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    records.write("other", {"kept": True}, file)
    records.write(records.TABLE, records.table_to_json(SCALE, 3, {"idle": BEFORE}), file)
    section = records.read(records.TABLE, file)
    assert section is not None
    assert records.table_from_json(section) == (SCALE, {"idle": BEFORE})
    assert set(section["measured"]) == {"date", "python", "machine"}
    other = records.read("other", file)
    assert other is not None
    assert other["kept"]
    assert records.read("another", file) is None


def test_only_what_is_between_the_marks_of_a_document_is_replaced() -> None:
    text = "Before\n<!-- one: begin -->\nold\n<!-- one: end -->\nafter <!-- two: begin --> kept <!-- two: end -->"
    renewed = documents.filled(text, {"one": r"new \1", "three": "nowhere"})
    assert renewed == text.replace("\nold\n", "\n\nnew \\1\n\n")
    assert documents.filled(renewed, {"one": r"new \1"}) == renewed


def test_the_costs_and_the_starts_on_record_become_tables() -> None:
    cost = {"at_once": 1000, "ended": 10_000, "cpu": 12.34, "peak": 150.4, "answer": 1234.5, "start": 0.456}
    start = {"jobs": 1_000_000, "megabytes": 1300.4, "online": 0.5, "check": 3.75, "first": 4.3}
    assert documents.at_once({"at_once": [cost]}).splitlines()[2] == "| 1,000 | 12.3 ms | 150 MB | 1,234 ms |"
    assert documents.ended({"ended": [cost]}).splitlines()[2] == "| 10,000 | 12.3 ms | 150 MB | 1,234 ms | 0.46 s |"
    assert documents.boot({"rows": [start]}).splitlines()[2] == "| 1,000,000 | 1,300 MB | 0.50 s | 3.75 s | 4.30 s |"
    assert "| – |" in documents.boot({"rows": [{**start, "check": 0.0}]})


def test_a_server_costs_what_a_start_with_one_does_not() -> None:
    one = many_servers.Row(1, 1, [many_servers.Start(1.0, 1.0, 69.0)])
    many = many_servers.Row(2501, 3, [many_servers.Start(1.1, 11.2, memory) for memory in (73.9, 74.0, 90.0)])
    assert many.bytes_more(one) == pytest.approx(2000)
    table = documents.many_servers({"rows": [row.figures(one) for row in (one, many)]}).splitlines()
    assert table[2] == "| 1 | 1 | 69.0 MB | – | 1.00 s | 1.00 s | 0 s |"
    assert table[3] == "| 2,501 | 3 | 74.0 MB | 2.00 kB | 1.10 s | 11.20 s | 10 s |"


def test_the_goals_that_are_not_reached_are_named() -> None:
    assert missed({"cpu at once": BEFORE, "idle": BEFORE, "peak at once": replace(BEFORE, bot=151.0)}) == [
        "cpu at once",
        "peak at once",
    ]


def test_the_documents_show_the_figures_on_record() -> None:
    sections = documents.sections()
    for file in (documents.README, documents.PERFORMANCE):
        text = file.read_text("utf-8")
        assert documents.filled(text, sections) == text, "run `python -m benchmarks.documents`"
    assert all(f"<!-- {name}: begin -->" in documents.PERFORMANCE.read_text("utf-8") for name in sections)
    assert "<!-- table: begin -->" in documents.README.read_text("utf-8")


def test_the_table_on_record_has_a_row_for_everything_that_is_measured() -> None:
    section = records.read(records.TABLE)
    assert section is None or set(records.table_from_json(section)[1]) == set(ROWS)
