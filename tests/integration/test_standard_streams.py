"""Commands whose standard input, output, or error is closed or full, as cron jobs and daemons may have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Says which descriptors are open after `prepare`, and where a file is opened then.
REPORT = """
import os, sys
from bot.cli import standard_streams
standard_streams.prepare()
print("shown", sys.stdin.read())
print("shown", file=sys.stderr)
kinds = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
with open("report", "w") as file:
    print(*kinds, file.fileno() > 2, os.get_inheritable(0), file=file)
"""


def shell(line: str, *, folder: Path, **environment: str) -> tuple[int, str, str]:
    """Run a line of the shell in which `bot` and `python` are the programs: its exit code and its output."""
    done = subprocess.run(
        ["sh", "-c", f'bot() {{ {sys.executable} -m bot "$@"; }}; python() {{ {sys.executable} "$@"; }}; {line}'],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_closed_streams_keep_their_descriptors_from_files_that_are_opened_later(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(REPORT)
    assert shell("python program.py <&- >&- 2>&-", folder=tmp_path) == (0, "", "")
    assert (tmp_path / "report").read_text() == "/dev/null /dev/null /dev/null True True\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_command_works_without_its_streams(closed: str, tmp_path: Path) -> None:
    assert shell(f"bot version {closed}", folder=tmp_path) == (0, "", "")


def test_answers_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    code, _, errors = shell("bot init <&-", folder=tmp_path)
    assert (code, errors.strip()) == (1, "The answers ended before everything was asked; nothing was written.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("command", "unbuffered"), [("version", ""), ("--version", ""), ("run --help", ""), ("doctor", ""), ("doctor", "1")]
)
def test_output_that_cannot_be_written_is_one_sentence(command: str, unbuffered: str, tmp_path: Path) -> None:
    said = shell(f"bot {command} > /dev/full", folder=tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert said == (1, "", "The output cannot be written: No space left on device.\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_an_escape_sequence(encoding: str, tmp_path: Path) -> None:
    code, output, errors = shell("bot run --help", folder=tmp_path, PYTHONIOENCODING=encoding)
    assert (code, errors) == (0, "")
    assert r"BOT_\u2026" in output
