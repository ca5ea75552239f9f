"""The built image, run as a container runs it: as its own user, as PID 1, and with a root that cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, books, png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

IMAGE_ROOT = os.environ.get("IMAGE_ROOT")  # where the files of the image are mounted
REPOSITORY = Path(__file__).parents[2]
USER = 10001
pytestmark = pytest.mark.skipif(IMAGE_ROOT is None, reason="needs an image: deploy/build-without-registry.sh")

# The namespaces and the limits that compose.yaml asks for. What is bound over exists: the root is read-only.
CONTAINER = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o size=64m,mode=1777,noexec,nosuid,nodev tmpfs "$ROOT/tmp"
mount --rbind /dev "$ROOT/dev"
mount --bind "$DATA" "$ROOT/data"
mount --bind "$SECRETS" "$ROOT/run/secrets"
mount --bind "$SANDBOX" "$ROOT/app/sandbox"
mount -o remount,ro,bind "$ROOT"
cd "$ROOT"
exec chroot "$ROOT" setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --inh-caps=-all \
    --no-new-privs sh -c 'cd /app && exec env -i "$@"' sh "$@"
"""


@dataclass(slots=True)
class Container:
    """One image with its data, and simulated servers on the host's network."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    folder: Path
    config: dict[str, Any]  # how the image wants to be run
    port: int
    children: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self) -> int:
        """Start the bot and wait until it is connected; returns its pid outside of the container."""
        child = await self._run(["sandbox.launch" if part == "bot" else part for part in self._command()])
        await self.discord.ready(60)
        return _children_of(child.pid)[0]

    def _command(self) -> list[str]:
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    async def stop(self, pid: int, name: signal.Signals) -> tuple[int, str]:
        """Send a signal to the bot, and wait for its end; returns its exit code and its log."""
        os.kill(pid, name)
        child = self.children[-1]
        _, errors = await asyncio.wait_for(child.communicate(), 60)
        await self.discord.gone(10)
        assert child.returncode is not None
        return child.returncode, errors.decode()

    async def check_health(self) -> int | None:
        """Run the health check of the image; returns its exit code."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        child = await self._run(command)
        output = await asyncio.wait_for(child.communicate(), 30)
        print(*(part.decode() for part in output))  # noqa: T201 - shown if the test fails
        return child.returncode

    async def run(self, *command: str) -> tuple[int | None, str]:
        child = await self._run(command)
        output, _ = await asyncio.wait_for(child.communicate(), 30)
        return child.returncode, output.decode()

    async def _run(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in self._settings().items())]
        child = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "--pid", "--fork", "--ipc", "--uts"),
            *("sh", "-c", CONTAINER, "sh", *variables, *command),
            env={**os.environ, **self._places()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.children.append(child)
        return child

    def _places(self) -> dict[str, str]:
        assert IMAGE_ROOT is not None
        return {
            "ROOT": IMAGE_ROOT,
            "DATA": str(self.folder / "data"),
            "SECRETS": str(self.folder / "secrets"),
            "SANDBOX": str(REPOSITORY / "sandbox"),
        }

    def _settings(self) -> Mapping[str, str]:
        return {
            **self.discord.environment(),
            "BOT_DISCORD__TOKEN_FILE": "/run/secrets/discord-token",
            "BOT_PIKZELS__API_KEY_FILE": "/run/secrets/pikzels-key",
            "BOT_PIKZELS__BASE_URL": self.api.base_url,
            "BOT_HEALTH__PORT": str(self.port),
        }


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def container(folder: Path) -> AsyncIterator[Container]:
    """A container that is not started, with its data and its secrets owned by the user of the image."""
    for name, content in {"discord-token": "token", "pikzels-key": KEY}.items():
        path = folder / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, "utf-8")
        path.chmod(0o400)
        os.chown(path, USER, USER)
    (folder / "data").mkdir(mode=0o700)
    os.chown(folder / "data", USER, USER)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    assert IMAGE_ROOT is not None
    for place in ("run/secrets", "app/sandbox"):
        Path(IMAGE_ROOT, place).mkdir(parents=True, exist_ok=True)
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        config = json.loads(os.environ["IMAGE_CONFIG"])
        running = Container(discord, api, folder, config, _free_port())
        try:
            yield running
        finally:
            for child in running.children:
                if child.returncode is None:
                    for pid in _children_of(child.pid):  # the first process of the container
                        os.kill(pid, signal.SIGKILL)
                await child.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def make_thumbnail(bot: Container) -> discord_server.Interaction:
    interaction = await bot.discord.slash("thumbnail", options={"image": PHOTO}, user_id=1)
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    return interaction


async def test_it_runs_as_its_own_user_is_healthy_makes_an_image_and_stops_with_code_0(tmp_path: Path) -> None:
    async with container(tmp_path) as bot:
        pid = await bot.start()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == [str(USER)] * 4
        assert (int(status["CapBnd"], 16), status["NoNewPrivs"], status["NSpid"].split()[-1]) == (0, "1", "1")
        await make_thumbnail(bot)
        assert await bot.check_health() == 0
        code, log = await bot.stop(pid, signal.SIGTERM)
        assert code == 0, log
    [job], entries = books(tmp_path / "data")
    assert (job["state"], [entry["kind"] for entry in entries]) == ("delivered", ["hold", "charge"])
    assert {path.stat().st_uid for path in (tmp_path / "data").rglob("*")} == {USER}


async def test_after_a_kill_it_delivers_what_was_paid_for(tmp_path: Path) -> None:
    async with container(tmp_path) as bot:
        bot.api.script_output(Reply.hold())
        pid = await bot.start()
        interaction = await bot.discord.slash("thumbnail", options={"image": PHOTO}, user_id=1)
        await bot.api.downloaded(1)
        code, _ = await bot.stop(pid, signal.SIGKILL)
        assert code != 0
        pid = await bot.start()
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
        code, log = await bot.stop(pid, signal.SIGTERM)
        assert (code, len(bot.api.calls)) == (0, 1), log


async def test_only_data_and_tmp_can_be_written_and_there_is_no_simulator(tmp_path: Path) -> None:
    async with container(tmp_path) as bot:
        for folder in ("/", "/app", "/opt/venv", "/etc", "/run/secrets"):
            code, _ = await bot.run("sh", "-c", f"touch {shlex.quote(folder)}/x")
            assert code != 0, folder
        assert (await bot.run("sh", "-c", "touch /data/x /tmp/x"))[0] == 0
        code, packages = await bot.run("sh", "-c", "ls /opt/venv/lib/python*/site-packages")
        assert code == 0
        assert "discord" in packages
        assert not {"simcord", "pytest", "pip"} & set(packages.split())


async def test_a_health_check_fails_when_the_bot_is_not_there(tmp_path: Path) -> None:
    async with container(tmp_path) as bot:
        assert await bot.check_health() == 1
