"""Commands that install packages or take minutes are not run, but compared with what they would run."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.support.command_lines import PAGES, ROOT, text
from tests.support.known_commands import BENCHMARKS, INSTALLATION, MAKE, SCRIPTS

if TYPE_CHECKING:
    from pathlib import Path

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def recipe(line: str, folder: Path) -> str:
    """What make would run in a fresh checkout."""
    for name in ("Makefile", "requirements"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    command = [*shlex.split(line), "--dry-run"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@needs_make
@pytest.mark.parametrize("line", MAKE)
def test_make_would_run_what_the_documents_say(line: str, tmp_path: Path) -> None:
    assert MAKE[line] in recipe(line, tmp_path)


def test_the_gate_runs_all_tests() -> None:
    assert text(".ci/run").splitlines()[-1] == "make test"


@needs_make
@pytest.mark.parametrize("line", INSTALLATION)
def test_make_installs_as_the_documents_do_without_make(line: str, tmp_path: Path) -> None:
    wanted = shlex.split(line.replace(" -r ", " --requirement "))
    runs = [shlex.split(each.replace(".venv/bin/", "")) for each in recipe(INSTALLATION[line], tmp_path).splitlines()]
    assert any(set(wanted) <= set(each) for each in runs), runs


@needs_make
def test_every_lock_file_that_is_named_is_made_by_make(tmp_path: Path) -> None:
    made = set(re.findall(r"--output-file (\S+)", recipe("make locks", tmp_path)))
    named = {lock for page in PAGES for lock in re.findall(r"requirements/\w+\.lock", text(page))}
    assert named <= made == {f"requirements/{path.name}" for path in (ROOT / "requirements").iterdir()}


def test_the_package_has_the_command() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    module, _, function = project["scripts"]["pikzels-bot"].partition(":")
    assert getattr(import_module(module), function)(["version"]) == 0


@pytest.mark.parametrize("line", BENCHMARKS)
def test_the_benchmarks_have_the_options_in_the_documents(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = re.findall(rf"^\| `{line}` \| (.*) \| (.*) \|$", text("docs/performance.md"), re.MULTILINE)
    wanted = {*re.findall(r"--\w+", row[0]), *([] if row[1] == "–" else ["--record"])}
    monkeypatch.setattr(sys, "argv", [line, "--help"])
    module = line.rpartition(" ")[2]
    monkeypatch.delitem(sys.modules, module, raising=False)  # of a test that has imported it
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert wanted <= set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.parametrize("line", SCRIPTS)
def test_a_script_is_one_that_can_be_started(line: str) -> None:
    assert stat.S_IMODE((ROOT / line).stat().st_mode) & 0o111
    subprocess.run(["bash", "-n", ROOT / line], check=True)
