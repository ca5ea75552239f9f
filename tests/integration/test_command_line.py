"""The command line as a user types it: every mistake is one sentence, and the exit code says what kind it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot import __version__

ROOT = Path(__file__).parents[2]


def run(*arguments: str, folder: Path) -> tuple[int, str, str]:
    """The exit code, what is printed, and what is printed to standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "The following arguments are required: COMMAND. Try `python -m bot --help`.\n"),
        (["--nonsense", "run"], "Unrecognized arguments: --nonsense. Try `python -m bot --help`.\n"),
        (["demo", "--port", "x"], "Argument --port: invalid int value: 'x'. Try `python -m bot demo --help`.\n"),
    ],
)
def test_a_mistake_is_one_sentence_with_exit_code_64(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    assert run(*arguments, folder=tmp_path) == (64, "", sentence)


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_the_version_is_printed(argument: str, tmp_path: Path) -> None:
    assert run(argument, folder=tmp_path) == (0, f"pikzels-bot {__version__}\n", "")


def test_a_file_of_settings_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[log]\nlevel = "LOUD"\n', "utf-8")
    code, output, errors = run("--config", "other.toml", "run", folder=tmp_path)
    assert (code, output) == (78, "")
    assert errors.startswith("Setting ")
    code, output, errors = run("--config", "missing.toml", "run", folder=tmp_path)
    assert (code, output, errors) == (78, "", "Setting BOT_CONFIG names a file that does not exist.\n")
