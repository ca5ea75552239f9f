"""What `doctor` says about folders, files, and the port: every cause for which the bot would not run well."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from bot.cli import doctor
from bot.config import Settings, secret_files
from bot.ops import control, machine
from bot.storage import opening
from bot.storage.database import FILE
from tests.support.e2e import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def found(folder: Path, **sections: Any) -> dict[str, tuple[str, str]]:
    """The severity and the text of each check, by its name."""
    settings = Settings.model_validate(settings_for(folder, "http://127.0.0.1", sections))
    findings = list(doctor.check_storage(settings))
    by_name = {finding.name: (str(finding.severity), finding.text) for finding in findings}
    assert len(by_name) == len(findings)
    return by_name


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, as far as its parents allow it."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@contextmanager
def without_rights() -> Iterator[int]:
    """The block is not run as root, to whom no mode matters. Yields the id of the user who owns what is made before."""
    owner = os.geteuid()
    if owner == 0:
        os.seteuid(NOBODY)
    try:
        yield owner
    finally:
        os.seteuid(owner)


def denied(mode: str, owner: int) -> str:
    return f"permission denied; its mode is {mode}, its owner is user {owner}"


def damage(database: Path, start: int, end: int) -> None:
    """Make some bytes unreadable; the first page has the version of the schema."""
    content = bytearray(database.read_bytes())
    content[start:end] = bytes(byte ^ 0xFF for byte in content[start:end])
    database.write_bytes(content)


async def test_where_all_is_well_each_check_says_so(tmp_path: Path) -> None:
    async with opening.opened(tmp_path / FILE):
        pass
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: severity for name, (severity, _) in found(tmp_path).items() if name not in ("disk", "space")} == {
        "folder": "ok",
        "database": "ok",
        "backups": "ok",
        "health": "ok",
    }
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "looking changes nothing"


@pytest.mark.parametrize(("start", "end"), [(4_196, 24_000), (40_000, 60_000)], ids=["seen by a check", "seen at once"])
async def test_damage_is_an_error_on_one_line(tmp_path: Path, start: int, end: int) -> None:
    async with opening.opened(tmp_path / FILE):
        pass
    damage(tmp_path / FILE, start, end)
    severity, text = found(tmp_path)["database"]
    assert (severity, text.startswith("The database is damaged (")) == ("error", True), text
    assert text.endswith("); restore a backup with the command `restore`.")
    assert text.isprintable()


async def test_after_a_kill_the_file_without_its_log_is_not_called_damaged(tmp_path: Path) -> None:
    async with opening.opened(tmp_path / FILE):
        pass
    damage(tmp_path / FILE, 4_196, 24_000)  # the log has what is right
    (tmp_path / f"{FILE}-wal").write_bytes(b"log")
    assert found(tmp_path)["database"][0] == "ok"


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
@pytest.mark.parametrize("name", [FILE, "journal"])
async def test_a_file_that_this_user_may_not_write_is_an_error(open_folder: Path, name: str) -> None:
    async with opening.opened(open_folder / FILE):
        pass
    (open_folder / "journal").touch()
    open_folder.chmod(0o777)
    for file in open_folder.iterdir():
        file.chmod(0o666)
    (open_folder / name).chmod(0o444)
    with without_rights() as owner:
        why = f"({denied('0444', owner)}); correct its owner or mode."
        assert found(open_folder)["database"] == (
            "error",
            f"{open_folder / name} cannot be read and written by this user {why}",
        )


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_folders_that_this_user_may_not_write_are_named(open_folder: Path) -> None:
    for name in ("spool", "sources", "backups"):
        (open_folder / name).mkdir()
        (open_folder / name).chmod(0o555)
    open_folder.chmod(0o777)
    with without_rights() as owner:
        report = found(open_folder)
    why = f"cannot be written ({denied('0555', owner)}); correct its owner, or"
    assert report["folder"][0] == "ok"
    assert report["spool"] == ("error", f"{open_folder / 'spool'} {why} set [storage] folder.")
    assert report["sources"] == ("error", f"{open_folder / 'sources'} {why} set [storage] folder.")
    assert report["backups"] == (
        "warning",
        f"No backup can be made, because {open_folder / 'backups'} {why} set [backup] folder.",
    )
    (open_folder / "backups").chmod(0o333)
    why = f"cannot be read ({denied('0333', owner)}); correct its owner, or set [backup] folder."
    with without_rights():
        assert found(open_folder)["backups"] == (
            "error",
            f"The backups in {open_folder / 'backups'} {why}",
        ), "the bot would not start"


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_a_folder_that_this_user_may_not_enter_is_named_and_the_other_checks_go_on(open_folder: Path) -> None:
    (open_folder / "data").mkdir(mode=0o700)
    (open_folder / "data").chmod(0)
    with without_rights():
        report = found(open_folder / "data")
    assert {name: severity for name, (severity, _) in report.items() if name not in ("disk", "space")} == {
        "folder": "error",
        "database": "error",
        "backups": "error",
        "health": "ok",
    }


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    (tmp_path / "file").touch()
    report = found(tmp_path, backup={"folder": str(tmp_path / "file")})
    why = "cannot be written (not a directory); correct its owner, or set [backup] folder."
    assert report["spool"][0] == "error"
    assert report["backups"] == (
        "warning",
        f"No backup can be made, because {tmp_path / 'file'} {why}",
    )


def test_backups_that_are_off_are_told(tmp_path: Path) -> None:
    assert "only by the command `backup`" in found(tmp_path, backup={"minutes": 0})["backups"][1]
    assert found(tmp_path)["backups"] == ("ok", f"Backups are written to {tmp_path / 'backups'}.")


@pytest.mark.parametrize("inside", [".", "deeper/data"])
def test_a_link_to_nowhere_is_an_error(tmp_path: Path, inside: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    why = "it is a link to what does not exist"
    assert found(link / inside)["folder"] == (
        "error",
        f"{link} cannot be written ({why}); create what it links to, or set [storage] folder.",
    )
    (tmp_path / "nowhere").mkdir()
    assert found(link / inside)["folder"][0] == "ok"


# --- the port --------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_another_program_listens_on_is_an_error(tmp_path: Path, taken: int) -> None:
    problem = f"is {taken}, which is in use by another program on 127.0.0.1; end that program, or set another port"
    assert found(tmp_path, health={"port": taken})["health"] == ("error", f"Setting health.port {problem}.")
    assert found(tmp_path, health={"port": 0})["health"][0] == "ok"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs the socket of a running bot")
def test_the_port_of_the_running_bot_is_its_own(tmp_path: Path, taken: int) -> None:
    with socket.socket(socket.AF_UNIX) as running:
        running.bind(str(tmp_path / control.NAME))
        running.listen()
        assert found(tmp_path, health={"port": taken})["health"] == (
            "ok",
            f"The running bot serves health and metrics on port {taken} of 127.0.0.1.",
        )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="shortens the path of the socket through /proc")
async def test_a_running_bot_is_seen_behind_a_long_path(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / control.NAME
    path.parent.mkdir()
    assert not control.is_served(path)
    async with control.served(path, {}):
        assert await asyncio.to_thread(control.is_served, path)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("health.invalid", "whose name cannot be resolved; set it to an address of this machine"),
        ("192.0.2.1", "which is no address of this machine; set it to one, like 127.0.0.1"),
    ],
)
def test_a_host_that_is_not_this_machine_is_an_error(tmp_path: Path, host: str, problem: str) -> None:
    assert found(tmp_path, health={"host": host, "port": 0})["health"] == (
        "error",
        f"Setting health.host is {host}, {problem}.",
    )


# --- files of secrets ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_a_secret_is_open_to_all_if_its_folders_are_too(open_folder: Path) -> None:
    (open_folder / "inner").mkdir(mode=0o755)
    secret = open_folder / "inner" / "token"
    secret.touch()
    secret.chmod(0o644)
    assert machine.is_open_to_all(secret)
    (open_folder / "inner").chmod(0o700)
    assert not machine.is_open_to_all(secret)
    (open_folder / "inner").chmod(0o755)
    secret.chmod(0o640)
    assert not machine.is_open_to_all(secret)
    assert not machine.is_open_to_all(open_folder / "missing")


def test_the_files_that_secrets_come_from_are_those_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BOT_")]:
        monkeypatch.delenv(name)
    assert list(secret_files()) == []
    Path("config.toml").write_text(
        "[discord]\ntoken_file = 'token'\n[pikzels]\napi_key = 'pkz_1'\napi_key_file = 'key'\n"
        "[alerts]\nwebhook_file = 'webhook'\n"
    )
    assert list(secret_files()) == [Path("token"), Path("webhook")]
    monkeypatch.setenv("BOT_PIKZELS__API_KEY_FILE", "near")
    monkeypatch.setenv("BOT_DISCORD__TOKEN", "inline")
    monkeypatch.setenv("BOT_ALERTS__WEBHOOK", "")
    assert list(secret_files()) == [Path("near"), Path("webhook")]
