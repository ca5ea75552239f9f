"""The dashboard and the alert rules in deploy/: they load, and they use only series that the bot has."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.monitored import monitored

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
LABELS_OF_PROMETHEUS = {"instance", "job"}  # of every scraped series

_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"")
_MATCHER = re.compile(r"(\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_NAME = re.compile(r"\b(?:pikzels_bot|process|python)_\w+\b")


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
    return loaded


def panels() -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = dashboard()["panels"]
    return shown


def rules() -> list[dict[str, str]]:
    """The rules, each with its keys; nested ones are flat. Raises `ValueError` for a line that is not as expected:
    there is no YAML parser here, so the file keeps to a small part of it.
    """
    found: list[dict[str, str]] = []
    for line in (DEPLOY / "prometheus-rules.yaml").read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(?P<indent> *)(?P<item>- )?(?P<key>\w+):(?: (?P<value>'[^']*'|[\w-]+))?", line)
        if match is None:
            raise ValueError(line)
        depth = len(match["indent"])
        if match["item"] and depth == 6:
            found.append({})
        if depth >= 6 and match["value"]:
            assert depth == {"alert": 6, "expr": 8, "for": 8}.get(match["key"], 10), line
            found[-1][match["key"]] = match["value"].strip("'")
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", []))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


@pytest.fixture
async def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """The labels of every series that the bot exposes, by name."""
    async with monitored(tmp_path, monkeypatch, connect=False) as bot:
        exposed = await bot.metrics()
    found: dict[str, list[dict[str, str]]] = {}
    for key in exposed:
        name, _, labels = key.partition("{")
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found


async def test_every_metric_in_the_dashboard_and_the_rules_exists(series: dict[str, list[dict[str, str]]]) -> None:
    named = {name for expression in expressions() for name in _NAME.findall(_STRING.sub("", expression))}
    assert named - series.keys() == set()
    own = {name for name in series if name.startswith("pikzels_bot_") and not name.endswith(("_sum", "_count"))}
    assert own - named == set(), "what is exposed is also shown"


async def test_every_label_and_value_in_them_exists(series: dict[str, list[dict[str, str]]]) -> None:
    checked = 0
    for expression in expressions():
        for name, inside in _MATCHER.findall(expression):
            for label, operator, value in _LABEL.findall(inside):
                if label in LABELS_OF_PROMETHEUS:
                    continue
                values = {one[label] for one in series[name]}
                wanted = value.split("|") if "~" in operator else [value]
                assert all(any(re.fullmatch(part, known) for known in values) for part in wanted), expression
                checked += 1
        names = _NAME.findall(_STRING.sub("", expression))
        known = {label for name in names for one in series[name] for label in one} | LABELS_OF_PROMETHEUS
        grouped = {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",")}
        assert grouped <= known, expression
    assert checked >= 10


def test_every_rule_says_how_bad_it_is_and_what_has_happened() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 15
    for rule in rules():
        assert re.fullmatch(r"PikzelsBot[A-Z]\w+", rule["alert"])
        assert rule["severity"] in {"warning", "critical"}
        assert rule["summary"].endswith(".")
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


async def test_a_bot_that_never_had_a_backup_is_alerted_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with monitored(tmp_path, monkeypatch, connect=False) as bot:
        age = (await bot.metrics())["pikzels_bot_backup_age_seconds"]
    assert math.isnan(age), "which is neither more nor less than any number, and differs even from itself"
    [rule] = [rule for rule in rules() if rule["alert"] == "PikzelsBotHasNoBackup"]
    left, _, right = rule["expr"].partition(" != ")
    assert left == right == "pikzels_bot_backup_age_seconds"
    assert rule["for"] == "1h", "the first backup is made within a minute of the first start"


def test_the_parts_of_every_expression_are_closed() -> None:
    for expression in expressions():
        bare = _STRING.sub("", expression)
        assert [bare.count(one) for one in "([{"] == [bare.count(one) for one in ")]}"], expression


def test_grafana_finds_what_it_needs_in_the_dashboard() -> None:
    loaded = dashboard()
    assert loaded["schemaVersion"] >= 36, "the first in which a data source is an object"
    assert loaded["uid"]
    assert loaded["title"]
    assert "id" not in loaded, "an id belongs to one Grafana"
    [datasource] = [one for one in loaded["templating"]["list"] if one["type"] == "datasource"]
    assert datasource["query"] == "prometheus"
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["title"]
        assert panel["gridPos"].keys() == {"h", "w", "x", "y"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"timeseries", "stat"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": f"${{{datasource['name']}}}"} for source in sources)
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_no_panel_covers_another() -> None:
    places = [panel["gridPos"] for panel in panels()]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
