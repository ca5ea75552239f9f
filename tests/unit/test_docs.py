"""The documents match the code: tables, names, paths, links, and packaging."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
import tomllib
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import discord
import pytest
from pydantic import BaseModel

import bot
import cogs
from bot.config import Settings
from bot.discord_io import application
from bot.domain.errors import JobFailed, ProviderRefused, StorageUnavailable
from bot.domain.failure_policy import CODES
from bot.domain.health import Connection, Gateway, together
from bot.domain.models import AlertLevel, Allowance, Circuit, State, require
from bot.jobs.notices import Notices
from bot.text import operator
from sandbox import reference, simulated
from tests.support import factories
from tests.support.recorded_alerts import RecordedAlerts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from bot.domain.models import FailurePolicy

ROOT = Path(__file__).parents[2]
PAGES = tuple(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES)
MARKDOWN = (*DOCUMENTS, "sandbox/PHOTO.md")
WIDTH = 100

FOLDERS = ("bot", "cogs", "sandbox", "benchmarks", "deploy", "tests", "docs", "requirements")
FILE = re.compile(r"[\w./*-]+\.(?:py|md|toml|sql|lock|png|jpg)")
EXAMPLES = ("config.toml", "photo.jpg")  # files that the reader creates or provides


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose(name: str) -> str:
    """A document without its code fences."""
    return re.sub(r"^ *```.*?^ *```$", "", text(name), flags=re.MULTILINE | re.DOTALL)


def code_spans(name: str) -> list[str]:
    """Everything between backticks, each once, in a stable order."""
    return sorted(set(re.findall(r"`([^`]+)`", prose(name))))


# --- tables ----------------------------------------------------------------------------------------------------------


async def test_every_command_is_in_the_readme_and_nothing_else_is(tmp_path: Path) -> None:
    documented = set(re.findall(r"^\| (?:Message → Apps → )?`/?([\w -]+)`", text("README.md"), re.MULTILINE))
    async with simulated.opened(tmp_path) as opened:
        await opened.operator("operator")
        tree = opened.app.client.tree
        commands = [*tree.get_commands(), *tree.get_commands(guild=discord.Object(opened.guild.id))]
        registered = {command.name for command in commands}
    assert documented == registered


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"^  - .*: (\w+\.md)$", text("mkdocs.yml"), re.MULTILINE))
    assert listed == {Path(page).name for page in PAGES}


async def test_the_pages_of_the_settings_and_the_commands_are_current() -> None:
    assert text("docs/configuration.md") == reference.configuration(), "run python -m sandbox.reference"
    assert text("docs/commands.md") == await reference.commands(), "run python -m sandbox.reference"


def alerts() -> Iterator[str]:
    """A sample of every line that the operator is alerted with."""
    job, now = factories.a_job(), factories.NOON
    yield operator.OLDER_DATABASE
    yield from (operator.circuit_opened(each, None) for each in Circuit)
    yield from (operator.storage_unavailable(StorageUnavailable("…", damaged=damaged)) for damaged in (True, False))
    yield operator.budget_used(Allowance(factories.limit(amount=100), used=80))
    yield operator.commands_not_synced("…")
    yield operator.backup_failed("…", None)
    yield operator.disconnected(Gateway(Connection.CLOSED, math.nan), now)
    yield operator.disconnected(together([Gateway(state, 0.1) for state in Connection]), now)
    yield operator.connected_again(timedelta(minutes=3))
    yield operator.interaction_failed("…")
    yield operator.internal_error(job)
    alerts = RecordedAlerts()
    for failure in failures(JobFailed):
        Notices(alerts).job_failed(job, failure)
    assert len(alerts.sent) > 10
    yield from (line for level, _, line in alerts.sent if level is not AlertLevel.COUNT)


def failures(kind: type[JobFailed]) -> Iterator[JobFailed]:
    """One of each kind that a job can end with."""
    yield ProviderRefused("NOT_FOUND", 404) if kind is ProviderRefused else kind()
    for below in kind.__subclasses__():
        yield from failures(below)


def test_every_alert_is_explained() -> None:
    explained = re.findall(r"^\| `([^`]+)` \| .* \| .* \|$", text("docs/operations.md"), re.MULTILINE)
    assert [line for line in alerts() if not any(phrase in line for phrase in explained)] == []


def circuit(policy: FailurePolicy) -> str:
    if policy.pause is not None:
        return str(policy.pause)
    return "failures, with others" if policy.counts else "slows down" if policy.throttle else "–"


def test_the_table_of_codes_in_the_documents_matches_the_code() -> None:
    documented = re.findall(r"^\| ([A-Z_]+) \| (\S+) \| ([^|]+) \| (\w+) \|$", text("docs/codes.md"), re.MULTILINE)
    assert documented == [
        (code, str(policy.retries or "–"), circuit(policy), str(policy.alert_level)) for code, policy in CODES.items()
    ]


def test_the_states_are_listed_in_order() -> None:
    line = re.search(r"^`(reserved → .*?)`, and .*\n?.*`(\w+)\(reason\)`", text("CONTRIBUTING.md"), re.MULTILINE)
    assert line is not None
    assert [*line[1].split(" → "), line[2]] == [str(state) for state in State]


# --- names -----------------------------------------------------------------------------------------------------------


def settings(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield f"[{prefix}{name}]"
            yield from (f"[{prefix}{name}] {key}" for key in info.annotation.model_fields)
            yield from settings(info.annotation, f"{prefix}{name}.")
        else:
            yield f"[{prefix}{name}]"  # a table of names, such as [personas]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_named_in_a_document_exists(name: str) -> None:
    named = {span.partition(" = ")[0] for span in code_spans(name) if re.match(r"\[\w+\]", span)}
    assert named <= set(settings(Settings))


def is_path(span: str) -> bool:
    inside = re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", span)
    return span not in EXAMPLES and (inside or FILE.fullmatch(span)) is not None


def paths() -> list[tuple[str, str]]:
    return [(name, span) for name in DOCUMENTS for span in code_spans(name) if is_path(span)]


@pytest.mark.parametrize(("name", "path"), paths())
def test_every_path_named_in_a_document_exists(name: str, path: str) -> None:
    assert list(ROOT.glob(path.rstrip("/"))), f"{name} names {path}"


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_relative_link_in_a_document_points_to_a_file(name: str) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", prose(name))
    assert [target for target in targets if not ((ROOT / name).parent / target).exists()] == []


def layout() -> set[str]:
    return set(re.findall(r"^\| `(\S+\.py)` \|", text("CONTRIBUTING.md"), re.MULTILINE))


def test_every_file_of_the_bot_is_in_the_project_layout() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "bot").rglob("*.py") if path.name != "__init__.py"}
    assert files - layout() == set()


def test_every_fault_test_is_described() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/faults").glob("test_*.py")}
    assert files - layout() == set()


def modules(package: ModuleType) -> Iterator[str]:
    yield package.__name__
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not info.name.endswith("__main__"):
            yield info.name


def is_dotted_name(span: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", span) is not None and not FILE.fullmatch(span)


def has(module: str, attributes: list[str]) -> bool:
    try:
        reduce(getattr, attributes, importlib.import_module(module))
    except (AttributeError, ImportError):
        return False
    return True


def resolves(name: str) -> bool:
    """Whether `module.attribute` exists; a module of this project may be written without its first packages."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        start, attributes = ".".join(parts[:length]), parts[length:]
        own_modules = [
            found for package in (bot, cogs) for found in modules(package) if f".{found}".endswith(f".{start}")
        ]
        if any(has(module, attributes) for module in own_modules):
            return True
    return has(parts[0], parts[1:])


@pytest.mark.parametrize("name", [span for span in code_spans("CONTRIBUTING.md") if is_dotted_name(span)])
def test_every_python_name_in_contributing_exists(name: str) -> None:
    assert resolves(name)


def test_a_python_name_that_does_not_exist_is_detected() -> None:
    assert resolves("models.ThumbnailRequest.model")
    assert resolves("discord_io.client.COGS")
    assert not resolves("models.Nothing")
    assert not resolves("nothing.ThumbnailRequest")


# --- layout of the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MARKDOWN)
def test_lines_of_markdown_are_at_most_100_columns_wide(name: str) -> None:
    lines = [line.strip() for line in prose(name).splitlines() if len(line) > WIDTH]
    one_link = re.compile(r"[-*]? ?(?:`?<?https?://\S+|!?\[[^]]*\]\(\S+\))")
    assert [line for line in lines if not line.startswith("|") and not one_link.fullmatch(line)] == []


# --- packaging -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "charts", "demo", "docs", "dev", "mutants"])
def test_lock_files_pin_every_package_by_hash_and_name_no_index(name: str) -> None:
    lock = text(f"requirements/{name}.lock")
    assert "://" not in lock
    assert "index-url" not in lock
    packages = re.findall(r"^(\S+?)==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    blocks = re.split(r"^(?=\S+==)", lock, flags=re.MULTILINE)[1:]
    assert len(packages) == len(blocks) > 20
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads(text("pyproject.toml"))["project"]["version"] == bot.__version__


def test_the_newest_version_says_first_what_an_upgrade_needs() -> None:
    heading = r"^## (\d\S+) \(\d{4}-\d\d-\d\d\)$"
    newest = require(re.search(heading, text("CHANGELOG.md"), re.MULTILINE))
    [first, *_] = re.findall(r"^### (.+)$", text("CHANGELOG.md")[newest.end() :], re.MULTILINE)
    assert (newest[1], first) == (bot.__version__, "Upgrade notes")


def test_the_invite_link_in_the_readme_has_the_permissions_of_the_code() -> None:
    [permissions] = re.findall(
        r"client_id=YOUR_APPLICATION_ID&scope=bot\+applications.commands&permissions=(\d+)`", text("README.md")
    )
    assert int(permissions) == application.PERMISSIONS.value
    [named] = re.findall(r"fewest permissions the\s+bot needs \(([^)]+)\)", text("README.md"))
    names = [re.sub(r"\s+", "_", name).lower() for name in re.split(r",\s+", named)]
    assert discord.Permissions(**dict.fromkeys(names, True)) == application.PERMISSIONS


def test_the_two_commands_in_the_readme_are_make_targets() -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)$", text("README.md"), re.MULTILINE)) == {"demo", "test"} <= targets


def test_make_torture_runs_the_marker_of_the_fault_tests() -> None:
    markers = tomllib.loads(text("pyproject.toml"))["tool"]["pytest"]["ini_options"]["markers"]
    marker = markers[0].partition(":")[0]
    assert f"-m {marker}" in text("Makefile")
    assert f"marked `{marker}`" in text("CONTRIBUTING.md")
