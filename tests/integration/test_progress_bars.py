"""What a terminal shows of a command that takes long, and what it shows after it."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import signal
import sys
import threading
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import pytest

from bot.__main__ import main
from bot.cli import progress
from bot.domain.backups import Step
from bot.ops import control
from bot.storage import database, offline
from tests.integration.test_backup_commands import life
from tests.support.factories import NOON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

MEBIBYTE = 1024**2


class Terminal:
    """A terminal of 80 columns: `stream` is what a program writes to."""

    def __init__(self) -> None:
        self._screen, terminal = pty.openpty()
        self.stream = os.fdopen(terminal, "w", encoding="utf-8")
        self.output = ""

    def wait_for(self, text: str) -> None:
        while text not in self.output:
            assert select.select([self._screen], [], [], 10)[0], f"{text!r} does not come after {self.output!r}"
            self.output += os.read(self._screen, 65536).decode("utf-8", "replace")

    def type(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def close(self) -> None:
        self.stream.close()
        os.close(self._screen)

    @property
    def lines(self) -> list[str]:
        """What is on the screen in the end."""
        self.stream.write("\0")
        self.stream.flush()
        self.wait_for("\0")
        return [_overwritten(line) for line in self.output.rstrip("\0").split("\r\n")]


def _overwritten(line: str) -> str:
    """What is left of the parts of a line, each of which is written over the ones before it."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with closing(Terminal()) as terminal:
        yield terminal


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show what is quick, too."""
    monkeypatch.setattr(progress, "_AFTER", 0)


def test_a_terminal_shows_how_much_is_done_and_then_nothing_of_it(terminal: Terminal) -> None:
    done = [512 * MEBIBYTE]
    with progress.shown("Copying", done=lambda: done[0], size=1024 * MEBIBYTE, stream=terminal.stream):
        terminal.wait_for("Copying  50% |")
        terminal.wait_for("512MB of 1.00GB, 00:0")
        done[0] = 2048 * MEBIBYTE  # the size was only about right
        terminal.wait_for("Copying 100% |")
        assert [thread.name for thread in threading.enumerate() if "tqdm" in type(thread).__module__] == []
    assert terminal.lines == [""]


def test_what_is_quick_shows_nothing(terminal: Terminal) -> None:
    with progress.shown("Copying", done=lambda: 1, size=2, stream=terminal.stream):
        pass
    assert terminal.output == ""
    assert terminal.lines == [""]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_ctrl_c_and_an_error_leave_a_clean_line(terminal: Terminal, error: type[BaseException]) -> None:
    def fail() -> None:
        with progress.shown("Checking", stream=terminal.stream):
            terminal.wait_for("Checking … 00:0")
            terminal.type(b"\x03")
            terminal.wait_for("^C")
            if error is KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)
            raise error

    handled = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(error):
            fail()
    finally:
        signal.signal(signal.SIGINT, handled)
    assert terminal.lines == [""]
    assert "progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("_at_once")
def test_a_terminal_that_goes_away_does_not_stop_the_work(terminal: Terminal) -> None:
    with progress.shown("Checking", stream=terminal.stream):
        terminal.wait_for("Checking")
        terminal.stream.close()


@pytest.mark.usefixtures("_at_once")
def test_a_pipe_and_a_file_get_nothing() -> None:
    stream = io.StringIO()
    with progress.shown("Checking", stream=stream):
        assert "progress" not in [thread.name for thread in threading.enumerate()]
    assert stream.getvalue() == ""


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BOT_STORAGE__FOLDER", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)
    yield tmp_path / "data"
    os.umask(mask)


@pytest.mark.usefixtures("_at_once")
def test_every_long_step_of_the_commands_is_shown_on_standard_error_only(
    folder: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(life(folder, 1))
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    for arguments, steps in (
        (["backup", "copy"], ["Copying", "Checking", "Copying"]),
        (["verify", "copy"], ["Checking"]),
        (["restore", "copy", "--yes"], ["Copying", "Checking", "Replacing the database"]),
    ):
        terminal.output = ""
        assert main(arguments) == 0
        assert terminal.lines == [""]
        for step in steps:
            assert terminal.output.count(step) >= steps.count(step), (arguments, step)
        assert not any(step in capsys.readouterr().out for step in steps)


async def test_of_a_backup_by_the_running_bot_its_growing_file_is_shown(
    folder: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await life(folder, 1)
    size = (folder / database.FILE).stat().st_size
    (folder / "backups").mkdir()
    monkeypatch.setattr(sys, "stderr", terminal.stream)

    async def half_made() -> dict[str, str]:
        (folder / "backups" / "new.sqlite3.part").write_bytes(bytes(size // 2))
        await asyncio.to_thread(terminal.wait_for, "Copying  50% |")
        return {"problem": "it was only half made"}

    async with control.served(folder / control.NAME, {"backup": half_made}):
        assert await asyncio.to_thread(main, ["backup"]) == 1
    assert terminal.lines == ["The database was not backed up: it was only half made.", ""]


def test_a_copy_is_as_large_as_was_said_before(folder: Path) -> None:
    asyncio.run(life(folder, 3))
    steps: list[Step] = []

    def watch(step: Step, *, done: Callable[[], int] | None = None, size: int = 0) -> AbstractContextManager[None]:
        steps.append(step)
        if done is not None:
            assert done() == 0
            sizes.append((done, size))
        return nullcontext()

    sizes: list[tuple[Callable[[], int], int]] = []
    made = offline.back_up(folder / database.FILE, folder=folder / "backups", now=NOON, watch=watch)
    [(_, size)] = sizes
    assert steps == [Step.COPY, Step.CHECK]
    assert 0.8 * size <= made.stat().st_size <= size
