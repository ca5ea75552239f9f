"""The project keeps its own promises: what the documents say is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bot
from bot.domain.failure_policy import CODES
from sandbox import simulated

if TYPE_CHECKING:
    from bot.domain.models import FailurePolicy

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


async def test_every_command_is_in_the_readme_and_nothing_else_is(tmp_path: Path) -> None:
    documented = set(re.findall(r"^\| (?:Message → Apps → )?`/?([\w -]+)`", text("README.md"), re.MULTILINE))
    async with simulated.opened(tmp_path) as opened:
        registered = {command.name for command in opened.app.client.tree.get_commands()}
    assert documented == registered


def circuit(verdict: FailurePolicy) -> str:
    if verdict.pause is not None:
        return str(verdict.pause)
    return "failures, with others" if verdict.counts else "slows down" if verdict.throttle else "–"


def test_the_table_of_codes_in_the_documents_is_the_one_in_the_code() -> None:
    documented = re.findall(r"^\| ([A-Z_]+) \| (\S+) \| ([^|]+) \| (\w+) \|$", text("docs/codes.md"), re.MULTILINE)
    assert documented == [
        (code, str(verdict.retries or "–"), circuit(verdict), str(verdict.alert_level))
        for code, verdict in CODES.items()
    ]


@pytest.mark.parametrize("name", ["run", "demo", "dev"])
def test_locks_pin_every_package_by_hash_and_name_no_index(name: str) -> None:
    lock = text(f"requirements/{name}.lock")
    assert "://" not in lock
    assert "index-url" not in lock
    packages = re.findall(r"^(\S+?)==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    blocks = re.split(r"^(?=\S+==)", lock, flags=re.MULTILINE)[1:]
    assert len(packages) == len(blocks) > 20
    assert all("--hash=sha256:" in block for block in blocks)


def test_every_room_of_the_house_is_described() -> None:
    described = set(re.findall(r"`(?:bot/)?(\w+)\.py`", text("CONTRIBUTING.md")))
    rooms = {path.stem for path in (ROOT / "bot").glob("*.py")} - {"__init__"}
    assert rooms <= described


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads(text("pyproject.toml"))["project"]["version"] == bot.__version__


def test_the_readmes_two_commands_are_targets_of_make() -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)$", text("README.md"), re.MULTILINE)) == {"demo", "test"} <= targets
