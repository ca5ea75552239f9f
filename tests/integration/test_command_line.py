"""The command line as a user types it: every mistake is one sentence, and the exit code says what kind it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot import __version__
from bot.__main__ import main
from tests.support.interrupts import default_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def _own_umask() -> Iterator[None]:
    """The command line changes that of its process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_own_umask")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "99999"], "Argument --port: must be from 0 to 65535"),
        (["--port", "-1"], "Argument --port: must be from 0 to 65535"),
        (["--model", "pkz_4"], "Argument --model: can only be used with --once"),
        (["--format", "1:1"], "Argument --format: can only be used with --once"),
        (["--prompt", "x", "--port", "0"], "Argument --prompt: can only be used with --once"),
        (["--once", "x.png", "--port", "0"], "Argument --port: cannot be used with --once, which serves no page"),
    ],
)
def test_an_option_that_would_do_nothing_is_a_mistake(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert (ended.value.code, capsys.readouterr().err) == (64, f"{problem}. Try `python -m bot demo --help`.\n")


def test_all_invalid_settings_are_named_on_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[log]\nlevel = "LOUD"\n[pikzels]\napi_key = "canary"\n[quota]\nzone = 1\n')
    code, output, errors = run("run", folder=tmp_path)
    assert (code, output) == (78, "")
    assert errors.splitlines() == [
        "Setting discord.token is missing; set it in config.toml or as BOT_DISCORD__TOKEN.",
        "Setting pikzels.api_key must begin with pkz_.",
        "Setting quota.zone is not a setting.",
        "Setting log.level must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
    ]


@pytest.mark.parametrize("command", ["version", "init"])
def test_a_reader_that_has_ended_is_no_error(command: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as output:  # noqa: PTH123 - a pipe has no path
        done = subprocess.run(
            [sys.executable, "-m", "bot", command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            input=b"a-token\n",
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


async def test_ctrl_c_while_the_program_is_being_imported_leaves_no_traceback(tmp_path: Path) -> None:
    # In place of a module that is imported first. It waits for a signal.
    (tmp_path / "argparse.py").write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot",
        "version",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=default_interrupts,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"importing\n"
    child.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, errors) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_the_version_is_printed(argument: str, tmp_path: Path) -> None:
    assert run(argument, folder=tmp_path) == (0, f"pikzels-bot {__version__}\n", "")


def test_a_file_of_settings_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[log]\nlevel = "LOUD"\n', "utf-8")
    code, output, errors = run("--config", "other.toml", "run", folder=tmp_path)
    assert (code, output) == (78, "")
    assert errors.startswith("Setting ")


@pytest.mark.usefixtures("_own_umask")
@pytest.mark.parametrize("command", ["run", "doctor", "health"])
def test_a_file_of_settings_that_is_none_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOT_CONFIG", "unchanged")
    for named, how in (("missing.toml", "does not exist"), (str(tmp_path), "is a folder")):
        assert main(["--config", named, command]) == 78
        assert capsys.readouterr() == ("", f"--config names {named}, which {how}.\n")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BOT_CONFIG", named)
            assert main(["backup"]) == 78
        assert capsys.readouterr() == ("", f"Setting BOT_CONFIG names {named}, which {how}.\n")
