"""The command lines in the documents, and a terminal in which they can be typed."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/*.md"))))
UNIT = "deploy/pikzels-bot.service"  # the README sends its readers to the commands in the comment

# Between backticks, one of these with an argument is a command.
_PROGRAM = re.compile(
    r"(apt(-get)?|bash|buildah|cat|chmod|chown|cp|crontab|curl|dig|docker|dpkg|env|exec|export|find|git|grep|install"
    r"|journalctl|kill|kubectl|ln|ls|make|mkdir|mkdocs|mv|nano|openssl|pikzels-bot|ping|pipx?|pkill|podman|printf"
    r"|promtool|ps|pytest|python3?|rm|rsync|scp|sed|service|sh|sqlite3|ssh(-keygen)?|sudo|systemctl|systemd-analyze"
    r"|tail|tar|tee|touch|useradd|uvx?|vi|wget) \S"
)
DATA = frozenset({"text", "toml", "ini", "json", "yaml"})  # languages of fences whose lines are no commands
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def documented() -> dict[str, str]:
    """Every command line, and the page where it is first. One that is written in two ways is there once: without the
    folder of the environment, and without the brackets around what may be left out.
    """
    found: dict[str, str] = {}
    for page in PAGES:
        for line in in_page((ROOT / page).read_text("utf-8")):
            found.setdefault(line, page)
    for line in re.findall(r"^#   (\S.*)$", (ROOT / UNIT).read_text("utf-8"), re.MULTILINE):
        found.setdefault(_plain(line), UNIT)
    return found


def in_page(text: str) -> Iterator[str]:
    """The commands in a document: each line of a fence, and what is one between backticks."""
    for language, body in _FENCE.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            command = _plain(re.sub(r"(^|\s)#\s.*", "", line))
            if command and (language not in DATA or _is_command(command)):
                yield command
    for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text)):
        if _is_command(_plain(span)):
            yield _plain(span)


def _plain(line: str) -> str:
    return " ".join(line.replace(".venv/bin/", "").replace("[FILE]", "FILE").split())


def _is_command(line: str) -> bool:
    return (_PROGRAM.match(line) or re.match(r"deploy/\S+\.sh\b", line)) is not None


class Terminal:
    """A shell in a folder with the files of the checkout. Whatever connects does so to the simulated Discord and
    Pikzels of `environment`. `docker` and `systemctl` only write their arguments down.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.typed = list[str]()
        self._children = list[asyncio.subprocess.Process]()
        self._programs = folder / "programs"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BOT_")},
            **environment,
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
        }
        for name in ("bot", "cogs", "sandbox", "deploy", "requirements", "Makefile", "Dockerfile", "compose.yaml"):
            (folder / name).symlink_to(ROOT / name)
        self._programs.mkdir()
        python = f"exec {shlex.quote(sys.executable)}"
        launched = f'case "$*" in "-m bot "*run|*doctor|*init) shift 2; {python} -m sandbox.launch "$@";; esac'
        self._write("python", f'{launched}\n{python} "$@"')
        self._write("pikzels-bot", f'{python} -m sandbox.launch "$@"')
        for name in ("docker", "systemctl"):
            self._write(name, f'printf "%s\\n" "$@" > {shlex.quote(str(self._programs / name))}.called')
        # Only root may give files away; everybody else leaves them as they are.
        self._write("sudo", '[ "$1" = chown ] && [ "$(id -u)" != 0 ] && exit\nexec "$@"')

    def _write(self, name: str, script: str) -> None:
        path = self._programs / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)

    async def types(self, line: str, *, answers: str = "", **filled: str) -> str:
        """Type a documented line; `filled` says what stands for a word in it. Returns what it prints; it must end
        with 0.
        """
        child = await self._spawn(line, "", filled)
        output, _ = await asyncio.wait_for(child.communicate(answers.encode()), 60)
        assert child.returncode == 0, f"{line}: {output.decode()}"
        return output.decode()

    async def starts(self, line: str, **filled: str) -> asyncio.subprocess.Process:
        """Type the line and go on; a signal reaches the program itself."""
        return await self._spawn(line, "exec ", filled)

    async def _spawn(self, line: str, prefix: str, filled: Mapping[str, str]) -> asyncio.subprocess.Process:
        self.typed.append(line)
        for word, instead in filled.items():
            assert word in line
            line = line.replace(word, instead)
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-ec",
            prefix + line,
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._children.append(child)
        return child

    async def stops(self, child: asyncio.subprocess.Process) -> str:
        """Stop what was started, as a supervisor would; returns what it has printed. It must end with 0."""
        child.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(child.communicate(), 30)
        assert child.returncode == 0, output.decode()
        return output.decode()

    async def close(self) -> None:
        """End what a failed test has left running."""
        for child in self._children:
            if child.returncode is None:
                child.kill()
            await child.communicate()

    def called(self, program: str) -> list[str]:
        """The arguments of the last `docker` or `systemctl`."""
        return (self._programs / f"{program}.called").read_text("utf-8").splitlines()
