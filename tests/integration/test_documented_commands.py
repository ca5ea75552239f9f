"""Every command line in the documents is known here, and is run as far as it can be run by a test.

A new one belongs into one of the tables below: typed by a test of this file, run by another one, or, with the reason,
only compared with what it names.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import runpy
import shlex
import socket
import stat
import subprocess
import sys
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from bot.__main__ import _parser
from bot.config import Settings
from bot.domain.models import require
from sandbox import discord_server
from tests.support.command_lines import PAGES, ROOT, UNIT, Terminal, documented, in_page
from tests.support.e2e import KEY, PHOTO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.support.servers import Servers

BOT = "python -m bot"
EVENING = (
    f"{BOT} init",
    f"{BOT} doctor",
    f"{BOT} run",
    f"{BOT} health",
    f"{BOT} health --ready",
    f"{BOT} backup FILE",
    f"{BOT} verify FILE",
    f"{BOT} restore FILE",
    "pikzels-bot run",
    "pikzels-bot --config FILE run",
)
SYSTEMD = (
    "install --mode 0644 deploy/pikzels-bot.service /etc/systemd/system/",
    "install --directory --mode 0700 /etc/pikzels-bot",
    "install --mode 0600 config.toml secrets/discord-token secrets/pikzels-key /etc/pikzels-bot/",
    "systemctl enable --now pikzels-bot",  # in the place of systemctl, a program that writes its arguments down
)
SECRETS = (
    "mkdir -p secrets",
    'printf %s "$TOKEN" > secrets/discord-token',
    'printf %s "$KEY" > secrets/pikzels-key',
    "sudo chown -R 10001:10001 secrets && sudo chmod 0400 secrets/*",
)
# A test cannot rely on Docker. Its arguments are compared with the Dockerfile, compose.yaml, and the command line.
DOCKER = (
    "docker compose up --detach --build",
    "docker build -t pikzels-bot .",
    "docker build .",
    (
        "docker run -d --name pikzels-bot --restart unless-stopped --stop-timeout 160 --read-only --tmpfs /tmp "
        "--cap-drop ALL --security-opt no-new-privileges -v pikzels-data:/data -v ./secrets:/run/secrets:ro "
        "-p 127.0.0.1:8080:8080 -e BOT_DISCORD__TOKEN_FILE=/run/secrets/discord-token "
        "-e BOT_PIKZELS__API_KEY_FILE=/run/secrets/pikzels-key pikzels-bot"
    ),
    "docker exec pikzels-bot python -m bot backup",
    "docker run --rm -it -v pikzels-data:/data pikzels-bot restore",
    "docker stop pikzels-bot",
)
# They install packages, or take minutes. What make would run is compared with what it must run at the end.
MAKE = {
    "make install": "--requirement requirements/run.lock",
    "make demo": ".venv/bin/python -m bot demo",
    "make test": ".venv/bin/python -m pytest",  # all of these tests; the gate runs it (see below)
    "make torture": "-m faults",
    "make bench": ".venv/bin/python -m benchmarks.table",
    "make docs": ".venv/bin/mkdocs build --strict",
    "make locks": "--output-file requirements/run.lock",
    "make mutants": ".venv/bin/python -m tests.support.mutants --sample 0",
    "make mutants SAMPLE=100": ".venv/bin/python -m tests.support.mutants --sample 100",
}
BENCHMARKS = tuple(
    f"python -m benchmarks.{name}" for name in ("table", "stages", "growth", "boot", "many_servers", "limits")
)
# They install packages. `make install` and the other targets run the same, which is compared.
INSTALLATION = {
    "python3 -m venv .venv": "make install",
    "pip install --require-hashes --only-binary :all: -r requirements/demo.lock": "make demo",
    "pip install --require-hashes -r requirements/run.lock": "make install",
    "python -m pytest": "make test",
}
ELSEWHERE = {
    f'{BOT} demo --once photo.jpg --model pkz_4 --prompt "Big news"': (
        "tests/integration/test_demo.py::test_once_writes_the_thumbnail_to_the_working_directory_and_prints_its_cost"
    ),
    f"{BOT} demo": "tests/integration/test_demo.py::test_the_page_is_served_with_a_first_thumbnail_until_ctrl_c",
    "python -m sandbox.reference": (
        "tests/unit/test_docs.py::test_the_pages_of_the_settings_and_the_commands_are_current"
    ),
    "python -m sandbox.rehearsal": (
        "tests/integration/test_rehearsal.py::test_a_bot_connects_to_the_rehearsal_and_makes_what_a_member_asks_for"
    ),
    "python -m sandbox.launch run": (
        "tests/integration/test_rehearsal.py::test_a_bot_connects_to_the_rehearsal_and_makes_what_a_member_asks_for"
    ),
    "python -m sandbox.launch init": (  # how this file types `init`
        "tests/integration/test_documented_commands.py::test_a_new_operator_can_type_the_commands_in_their_order"
    ),
    "python -m sandbox.screenshots": (
        "tests/integration/test_screenshots.py::test_a_picture_shows_the_last_message_of_the_page"
    ),
    "python -m benchmarks.documents": (
        "tests/unit/test_benchmark_figures.py::test_the_documents_show_the_figures_on_record"
    ),
}
PACKAGE = ("pip install .",)  # needs a build backend from a package index; what it installs is compared
SCRIPTS = ("deploy/build-without-registry.sh", "deploy/test-on-debian.sh")  # need root and minutes; only parsed
KNOWN = {*EVENING, *SYSTEMD, *SECRETS, *DOCKER, *MAKE, *BENCHMARKS, *INSTALLATION, *ELSEWHERE, *PACKAGE, *SCRIPTS}

TOKEN = "the-token"  # no secret


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


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
    assert {f"{name}: {value}" for name, _, value in named} == {*re.findall(r"BOT_\w+: \S+", text("compose.yaml"))}
    assert main.p == re.findall(r'^      - "([\d.:]+)"', text("compose.yaml"), re.MULTILINE)
    assert main.p[0].endswith(f":{require(re.search(r'BOT_HEALTH__PORT=(.*)', text('Dockerfile')))[1]}")


async def test_the_bot_in_the_container_accepts_the_arguments(calls: Mapping[str, argparse.Namespace]) -> None:
    main, once = (call.command for call in calls.values() if call.verb == "run")
    [inside] = (call.command for call in calls.values() if call.verb == "exec")
    assert 'ENTRYPOINT ["python", "-m", "bot"]\nCMD ["run"]' in text("Dockerfile")
    assert (main, inside[:3]) == ([], ["python", "-m", "bot"])
    assert _parser().parse_args(inside[3:]).command == "backup"
    assert _parser().parse_args([*once, "/data/backups/a-backup"]).command == "restore"


# --- make, pip, and what takes minutes -------------------------------------------------------------------------------


def recipe(line: str, folder: Path) -> str:
    """What make would run in a fresh checkout."""
    for name in ("Makefile", "requirements"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    command = [*shlex.split(line), "--dry-run"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("line", MAKE)
def test_make_would_run_what_the_documents_say(line: str, tmp_path: Path) -> None:
    assert MAKE[line] in recipe(line, tmp_path)


def test_the_gate_runs_all_tests() -> None:
    assert text(".ci/run").splitlines()[-1] == "make test"


@pytest.mark.parametrize("line", INSTALLATION)
def test_make_installs_as_the_documents_do_without_make(line: str, tmp_path: Path) -> None:
    wanted = shlex.split(line.replace(" -r ", " --requirement "))
    runs = [shlex.split(each.replace(".venv/bin/", "")) for each in recipe(INSTALLATION[line], tmp_path).splitlines()]
    assert any(set(wanted) <= set(each) for each in runs), runs


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


def test_every_variable_between_the_commands_is_a_setting() -> None:
    names = {name for page in PAGES for name in re.findall(r"\bBOT_([A-Z]+__[A-Z_]+)\b", text(page))}
    assert names
    for name in names:
        section, setting = name.lower().removesuffix("_file").split("__")
        assert setting in require(Settings.model_fields[section].annotation).model_fields, name


def test_the_unit_is_where_its_commands_take_it_from() -> None:
    assert UNIT in SYSTEMD[0]
