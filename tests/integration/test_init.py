"""`init` asks, writes everything or nothing, and checks what it has written."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import pty
import signal
import stat
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from discord.http import Route

from bot.__main__ import main
from bot.cli import init
from bot.config import load
from bot.ops import file_set
from bot.text import doctor as doctor_text
from bot.text import init as text
from sandbox import discord_server, pikzels_server
from tests.support.e2e import KEY
from tests.support.interrupts import default_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-canary"
SERVER, SECOND, OPERATOR = 123456789012345678, 223456789012345678, 323456789012345678
WEBHOOK = "https://discord.com/api/webhooks/42/canary"
ANSWERS = {
    "discord.token": TOKEN,
    "pikzels.api_key": KEY,
    "access.servers": f"{SERVER}, {SECOND}",
    "operator.users": str(OPERATOR),
    "operator.server": "",
    "storage.folder": "",
    "alerts.webhook": "",
}


@pytest.fixture(autouse=True)
def _run_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BOT_CONFIG", "")  # `init` sets it; so it is restored


class Script:
    """Answers each question in turn; an answer that is an exception is raised."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.questions: list[tuple[str, bool]] = []
        self._answers = iter(answers)

    def __call__(self, question: str, *, is_secret: bool = False) -> str:
        self.questions.append((question, is_secret))
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def run(script: Script | None, *, force: bool = False) -> int:
    return init.main(argparse.Namespace(force=force, program="python -m bot"), read=script)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_everything_is_asked_written_for_this_user_only_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with discord_server.serve(token=TOKEN) as discord, pikzels_server.serve(api_key=KEY) as api:
        monkeypatch.setattr(Route, "BASE", discord.rest_url)
        monkeypatch.setenv("BOT_PIKZELS__BASE_URL", api.base_url)
        script = Script(*ANSWERS.values())
        code = await asyncio.to_thread(run, script)
    output = capsys.readouterr().out
    assert code == 0, output
    assert [is_secret for _, is_secret in script.questions] == [True, True, False, False, False, False, True]
    assert f"client_id={discord_server.APPLICATION_ID}&" in output
    assert output.endswith("Invite the bot with the link above, and start it with `python -m bot run`.\n")
    assert not any(secret in output for secret in (TOKEN, KEY))
    files = {path: stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.rglob("*"))}
    assert files == {
        tmp_path / "config.toml": 0o600,
        tmp_path / "secrets": 0o700,
        tmp_path / "secrets/discord-token": 0o600,
        tmp_path / "secrets/pikzels-key": 0o600,
    }
    monkeypatch.chdir("/")  # the settings hold wherever the bot is started
    settings = load()
    assert settings.discord.token.get_secret_value() == TOKEN
    assert settings.pikzels.api_key.get_secret_value() == KEY
    assert settings.access.servers == {SERVER, SECOND}
    assert settings.operator.users == {OPERATOR}
    assert settings.operator.server == SERVER
    assert settings.storage.folder == tmp_path / "data"
    assert settings.alerts.webhook is None


def answered(*answers: str, folder: Path) -> tuple[dict[str, Any], Script]:
    script = Script(*answers)
    return init.ask(script, folder=folder), script


def test_an_answer_that_is_not_accepted_is_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    answers, _ = answered(
        *("", "tok\u2026en", TOKEN),
        *(KEY.removeprefix("pkz_"), KEY),
        *("my server", "12", f"{SERVER} {SECOND}"),
        str(OPERATOR),
        *(f"{SERVER} {SECOND}", str(SECOND)),
        *(str(tmp_path / "file" / "data"), str(tmp_path / 'quoted " data')),
        *("https://example.com/", WEBHOOK),
        folder=tmp_path,
    )
    assert capsys.readouterr().out.splitlines() == [
        text.NEEDED,
        "The answer must be a key of printable ASCII characters.",
        "The answer must begin with pkz_.",
        text.NOT_IDS,
        text.NOT_IDS,
        text.NOT_ONE_ID,
        f"{tmp_path / 'file'} cannot be written (not a directory); correct its owner, or set [storage] folder.",
        "The answer must be the URL of a Discord webhook, like https://discord.com/api/webhooks/<id>/<token>.",
    ]
    assert answers == {
        "discord.token": TOKEN,
        "pikzels.api_key": KEY,
        "access.servers": [SERVER, SECOND],
        "operator.users": [OPERATOR],
        "operator.server": SECOND,
        "storage.folder": tmp_path / 'quoted " data',
        "alerts.webhook": WEBHOOK,
    }


def test_what_is_optional_can_be_left_out(tmp_path: Path) -> None:
    answers, script = answered(TOKEN, KEY, "", "", "", "", folder=tmp_path)
    assert "operator.server" not in answers
    assert len(script.questions) == 6
    secrets = {"discord.token": tmp_path / "t", "pikzels.api_key": tmp_path / "k"}
    Path("t").write_text(TOKEN)
    Path("k").write_text(KEY)
    Path("config.toml").write_text(text.config(answers, secrets))
    settings = load()
    assert not settings.access.servers | settings.operator.users
    assert settings.operator.server is None


def test_whatever_the_answers_are_the_file_says_the_same(tmp_path: Path) -> None:
    for name in ("t", "k", 'w" \\n'):
        Path(name).write_text({"t": TOKEN, "k": KEY}.get(name, WEBHOOK))
    secrets = {
        "discord.token": tmp_path / "t",
        "pikzels.api_key": tmp_path / "k",
        "alerts.webhook": tmp_path / 'w" \\n',
    }
    folder = tmp_path / 'a "quoted" back\\slash é \U0001f431 \x7f'
    answers = {"access.servers": [], "operator.users": [1], "operator.server": None, "storage.folder": folder}
    Path("config.toml").write_text(text.config(answers, secrets), "utf-8")
    assert load().storage.folder == folder
    assert load().alerts.webhook is not None


@pytest.mark.parametrize("name", ["config.toml", "secrets/discord-token", "secrets/alerts-webhook"])
def test_what_is_already_there_is_replaced_only_by_force(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("secrets").mkdir()
    Path(name).write_text("mine")
    assert run(Script()) == 1
    assert capsys.readouterr().err == (
        f"There is already {tmp_path / name}; `python -m bot init --force` replaces it.\n"
    )
    assert contents(tmp_path) == {name: b"mine"}


async def test_force_writes_through_a_link_and_names_what_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kept").mkdir()
    Path("kept/settings.toml").write_text("old")
    Path("config.toml").symlink_to("kept/settings.toml")
    Path("secrets").mkdir()
    Path("secrets/alerts-webhook").write_text(WEBHOOK)
    async with discord_server.serve(token=TOKEN) as discord, pikzels_server.serve(api_key=KEY) as api:
        monkeypatch.setattr(Route, "BASE", discord.rest_url)
        monkeypatch.setenv("BOT_PIKZELS__BASE_URL", api.base_url)
        assert await asyncio.to_thread(partial(run, Script(*ANSWERS.values()), force=True)) == 0
    assert Path("config.toml").readlink() == Path("kept/settings.toml")
    assert str(SERVER) in Path("kept/settings.toml").read_text()
    assert stat.S_IMODE(Path("kept/settings.toml").stat().st_mode) == 0o600
    assert [path.name for path in Path("kept").iterdir()] == ["settings.toml"]
    assert f"No longer used, and still there: {tmp_path / 'secrets/alerts-webhook'}.\n" in capsys.readouterr().out


async def test_without_a_link_the_next_step_names_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with discord_server.serve(token=TOKEN) as discord, pikzels_server.serve(api_key=KEY) as api:
        monkeypatch.setattr(Route, "BASE", discord.rest_url)
        monkeypatch.setenv("BOT_PIKZELS__BASE_URL", api.base_url)
        discord.fail("GET", "/applications/@me", status=500)
        code = await asyncio.to_thread(run, Script(*ANSWERS.values()))
    output = capsys.readouterr().out
    assert (code, "client_id=" in output) == (0, False), output
    assert output.endswith(
        "\nStart the bot with `python -m bot run`. When it is connected, it logs the link to invite it.\n"
    )


def test_a_path_with_spaces_is_shown_as_a_shell_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sp ace" / "config.toml"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setenv("BOT_CONFIG", str(file))
    assert run(Script()) == 1
    assert f"`python -m bot --config '{file}' init --force`" in capsys.readouterr().err
    assert f"run `chmod 600 '{file}'`." in doctor_text.readable_secrets(file, 0o644)
    assert f"run `chmod o= '{file}'`." in doctor_text.shared_secret(file, 0o644)


def test_the_end_of_the_answers_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TOKEN}\n{KEY}\n"))
    assert run(None) == 1
    output, errors = capsys.readouterr()
    assert errors.strip() == text.ENDED
    assert TOKEN not in output
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_written_are_one_sentence_and_nothing_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("secrets").write_text("a file")
    assert run(Script(*ANSWERS.values())) == 1
    assert capsys.readouterr().err == ("The settings cannot be written (not a directory); nothing was changed.\n")
    assert contents(tmp_path) == {"secrets": b"a file"}


@pytest.mark.parametrize(
    ("started_as", "executable", "shown"),
    [
        ("bot/__main__.py", "{here}/.venv/bin/python", ".venv/bin/python -m bot init --force"),
        ("bot/__main__.py", "/usr/bin/python3", "python -m bot init --force"),
        ("/opt/bin/pikzels-bot", "{here}/.venv/bin/python", "pikzels-bot init --force"),
    ],
)
def test_what_to_type_next_uses_the_same_python(
    started_as: str,
    executable: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    monkeypatch.setattr(sys, "executable", executable.format(here=tmp_path))
    monkeypatch.delenv("BOT_CONFIG")
    Path("config.toml").touch()
    mask = os.umask(0o022)
    assert main(["init"]) == 1
    os.umask(mask)
    assert f"`{shown}`" in capsys.readouterr().err


@pytest.mark.parametrize("question", range(len(ANSWERS)))
def test_ctrl_c_at_any_question_leaves_nothing(question: int, tmp_path: Path) -> None:
    answers: list[str | BaseException] = list(ANSWERS.values())
    answers[question] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(Script(*answers))
    assert list(tmp_path.iterdir()) == []


def interrupted_at(step: int, work: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at the `step`-th line of the file set that is run; False if there are fewer."""
    code, left = file_set.__file__, step

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != code or left < 0:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before, mask = sys.gettrace(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # at one step it is set, and not yet to be restored
    return False


@pytest.mark.parametrize("old", [{}, {"config.toml": b"old", "secrets/token": b"old token"}])
def test_an_interruption_at_any_step_of_writing_leaves_all_or_nothing(old: dict[str, bytes], tmp_path: Path) -> None:
    new = {"secrets/token": b"new token", "secrets/key": b"new key", "config.toml": b"new"}
    outcomes = []
    for step in range(1000):
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, content in old.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        files = {folder / name: content for name, content in new.items()}
        was_interrupted = interrupted_at(step, lambda files=files: file_set.write_together(files))  # type: ignore[misc]
        found = contents(folder)
        assert found in (old, new), f"step {step}"
        assert old or found or not list(folder.iterdir()), f"step {step} left a folder"
        outcomes.append(found == new)
        if not was_interrupted:
            break
    assert len(outcomes) > 40
    assert outcomes[-1]
    assert not outcomes[0]


def test_a_failure_of_the_disk_brings_back_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"old")
    (tmp_path / "folder").mkdir()  # a file cannot take its place
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(OSError, match="directory"):
        file_set.write_together({tmp_path / "config.toml": b"new", tmp_path / "folder": b"new"})
    assert contents(tmp_path) == {"config.toml": b"old", "folder/kept": b""}


def test_on_a_terminal_secrets_are_not_shown_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        default_interrupts()
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "bot", "init"])  # noqa: S606
    timer = threading.Timer(60, os.kill, (pid, 9))
    timer.start()
    shown = b""
    for question, keys in ((b"Bot token", TOKEN.encode() + b"\n"), (b"API key", b"\x03")):
        while question not in shown.rpartition(b"\n")[2] or not shown.endswith(b": "):
            shown += os.read(terminal, 1000)
        os.write(terminal, keys)
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert TOKEN.encode() not in shown
    assert list(tmp_path.iterdir()) == []
