"""Every command line in the documents is known, and is run as far as a test can run it."""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from bot.__main__ import _parser
from bot.config import Settings
from bot.domain.models import require
from sandbox import discord_server
from tests.support.command_lines import PAGES, ROOT, UNIT, Terminal, documented, in_page, text
from tests.support.e2e import KEY, PHOTO
from tests.support.known_commands import BOT, DOCKER, ELSEWHERE, EVENING, KNOWN, SECRETS, SYSTEMD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.support.servers import Servers

TOKEN = "the-token"  # no secret


def test_every_command_line_in_the_documents_is_known() -> None:
    found = documented()
    assert {line: page for line, page in found.items() if line not in KNOWN} == {}
    assert KNOWN - found.keys() == set(), "no document has these any more"


def test_a_command_line_is_found_wherever_it_is() -> None:
    assert list(in_page("Run `make\nx`, `A=1`, `make`, or `Make thumbnail`.\n")) == ["make x"]
    assert list(in_page("```\ncat a \\\n  b    # why\n# only why\nown --x\n```\n")) == ["cat a b", "own --x"]
    assert list(in_page("1. So:\n\n   ```text\n   a -> b\n   git gc\n   ```\n")) == ["git gc"]


# --- the bot ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def terminal(tmp_path: Path, servers: Servers) -> AsyncIterator[Terminal]:
    settings = {"BOT_HEALTH__PORT": str(free_port()), "BOT_PIKZELS__BASE_URL": servers.api.base_url}
    terminal = Terminal(tmp_path, {**servers.discord.environment(), **settings, "TOKEN": TOKEN, "KEY": KEY})
    yield terminal
    await terminal.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_new_operator_can_type_the_commands_in_their_order(terminal: Terminal, servers: Servers) -> None:
    answers = f"{TOKEN}\n{KEY}\n{discord_server.GUILD_ID}\n\n\n\n"
    said = await terminal.types(f"{BOT} init", answers=answers)
    assert "start it with `python -m bot run`" in said
    assert "error" not in await terminal.types(f"{BOT} doctor")
    await install_service(terminal)

    running = await terminal.starts(f"{BOT} run")
    await servers.discord.ready(30)
    made = await servers.discord.slash("thumbnail", options={"image": PHOTO})
    await made.wait(lambda seen: seen.message is not None and bool(seen.message.attachments), 20)
    alive, ready = await asyncio.gather(terminal.types(f"{BOT} health"), terminal.types(f"{BOT} health --ready"))
    assert "gateway: ok" in ready
    assert "gateway" not in alive
    assert "Backed up to copy" in await terminal.types(f"{BOT} backup FILE", FILE="copy")
    await terminal.stops(running)

    assert "1 request, schema" in await terminal.types(f"{BOT} verify FILE", FILE="copy")
    assert "Restored." in await terminal.types(f"{BOT} restore FILE", FILE="copy", answers="y\n")
    etc, data = f" {terminal.folder}/etc/", f"{terminal.folder}/data"
    as_root = {"FILE": "copy", " /etc/": etc, "/var/lib/pikzels-bot": data}
    assert "Restored." in await terminal.types(EVENING[-1], answers="y\n", **as_root)
    for line, name in (("pikzels-bot run", None), ("pikzels-bot --config FILE run", "other.toml")):
        await servers.discord.gone()
        if name is not None:
            (terminal.folder / "config.toml").rename(terminal.folder / name)
        running = await terminal.starts(line, **({} if name is None else {"FILE": name}))
        await servers.discord.ready(30)
        await terminal.stops(running)
    assert {*terminal.typed} == {*EVENING, *SYSTEMD}


async def install_service(terminal: Terminal) -> None:
    """Do what the comment of the unit says; then the service has everything."""
    (terminal.folder / "etc/systemd/system").mkdir(parents=True)
    *installed, enabled = SYSTEMD
    for line in installed:
        await terminal.types(line, **{" /etc/": f" {terminal.folder}/etc/"})
    await terminal.types(enabled)
    [unit] = (terminal.folder / "etc/systemd/system").iterdir()
    assert terminal.called("systemctl") == ["enable", "--now", unit.stem]
    for credential in re.findall(r"^LoadCredential=[\w-]+:/(\S+)$", unit.read_text("utf-8"), re.MULTILINE):
        assert stat.S_IMODE((terminal.folder / credential).stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [line for line in sorted(KNOWN) if line.startswith((f"{BOT} ", "pikzels-bot "))])
def test_the_command_line_accepts_the_arguments(line: str) -> None:
    _parser().parse_args(shlex.split(line.removeprefix(BOT).removeprefix("pikzels-bot")))


@pytest.mark.parametrize("test", ELSEWHERE.values())
def test_what_another_test_runs_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", text(file), re.MULTILINE)


# --- Docker ----------------------------------------------------------------------------------------------------------


async def test_the_secrets_for_docker_are_where_compose_expects_them(terminal: Terminal) -> None:
    for line in SECRETS:
        await terminal.types(line)
    named = re.findall(r"^    file: (\S+)$", text("compose.yaml"), re.MULTILINE)
    assert [(terminal.folder / name).read_text("utf-8") for name in named] == [TOKEN, KEY]
    assert {stat.S_IMODE((terminal.folder / name).stat().st_mode) for name in named} == {0o400}


class _Docker(argparse.ArgumentParser):
    """The options of Docker that the documents use."""

    def __init__(self) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False)
        verbs = self.add_subparsers(dest="verb", required=True, parser_class=argparse.ArgumentParser)
        run = verbs.add_parser("run", allow_abbrev=False)
        for flag in ("-d", "-it", "--rm", "--read-only"):
            run.add_argument(flag, action="store_true")
        for option in ("--name", "--restart", "--stop-timeout", "--tmpfs", "--cap-drop", "--security-opt"):
            run.add_argument(option)
        for option in ("-v", "-p", "-e"):
            run.add_argument(option, action="append", default=[])
        build, compose = verbs.add_parser("build"), verbs.add_parser("compose", allow_abbrev=False)
        build.add_argument("-t")
        build.add_argument("context")
        compose.add_argument("action", choices=["up"])
        compose.add_argument("--detach", action="store_true")
        compose.add_argument("--build", action="store_true")
        for verb in (run, verbs.add_parser("exec"), verbs.add_parser("stop")):
            verb.add_argument("name_or_image")
            verb.add_argument("command", nargs=argparse.REMAINDER)


@pytest.fixture
async def calls(terminal: Terminal) -> Mapping[str, argparse.Namespace]:
    """The documented calls of Docker, as the shell passes them on."""
    found = {}
    for line in DOCKER:
        await terminal.types(line)
        found[line] = _Docker().parse_args(terminal.called("docker"))
    return found


async def test_docker_finds_what_the_commands_name(calls: Mapping[str, argparse.Namespace]) -> None:
    container = re.findall(r"container_name: (\S+)", text("compose.yaml"))
    image = re.findall(r"image: (\S+)", text("compose.yaml"))
    started = [call for call in calls.values() if call.verb == "run"]
    assert {call.t for call in calls.values() if call.verb == "build"} == {*image, None}
    assert {call.name_or_image for call in started} == {*image}
    assert {call.name for call in started} == {*container, None}
    assert {call.name_or_image for call in calls.values() if call.verb in ("exec", "stop")} == {*container}
    assert (ROOT / "Dockerfile").is_file()


async def test_docker_runs_the_container_as_compose_does(calls: Mapping[str, argparse.Namespace]) -> None:
    [volume] = re.findall(r"^  data:\n    name: (\S+)$", text("compose.yaml"), re.MULTILINE)
    [data] = re.findall(r"^VOLUME (\S+)$", text("Dockerfile"), re.MULTILINE)
    main, once = (call for call in calls.values() if call.verb == "run")
    assert main.v[0] == once.v[0] == f"{volume}:{data}"
    named = [entry.partition("=") for entry in main.e]
    assert {f"{name}: {value}" for name, _, value in named} == {
        *re.findall(r"^ +(BOT_\w+: \S+)", text("compose.yaml"), re.MULTILINE)
    }
    assert main.p == re.findall(r'^      - "([\d.:]+)"', text("compose.yaml"), re.MULTILINE)
    assert main.p[0].endswith(f":{require(re.search(r'BOT_HEALTH__PORT=(.*)', text('Dockerfile')))[1]}")


async def test_the_bot_in_the_container_accepts_the_arguments(calls: Mapping[str, argparse.Namespace]) -> None:
    main, once = (call.command for call in calls.values() if call.verb == "run")
    [inside] = (call.command for call in calls.values() if call.verb == "exec")
    assert 'ENTRYPOINT ["python", "-m", "bot"]\nCMD ["run"]' in text("Dockerfile")
    assert (main, inside[:3]) == ([], ["python", "-m", "bot"])
    assert _parser().parse_args(inside[3:]).command == "backup"
    assert _parser().parse_args([*once, "/data/backups/a-backup"]).command == "restore"


# --- what the commands name ------------------------------------------------------------------------------------------


def test_every_variable_between_the_commands_is_a_setting() -> None:
    names = {name for page in PAGES for name in re.findall(r"\bBOT_([A-Z]+__[A-Z_]+)\b", text(page))}
    assert names
    for name in names:
        section, setting = name.lower().removesuffix("_file").split("__")
        assert setting in require(Settings.model_fields[section].annotation).model_fields, name


def test_the_unit_is_where_its_commands_take_it_from() -> None:
    assert UNIT in SYSTEMD[0]
