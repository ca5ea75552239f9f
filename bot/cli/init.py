"""`init`: asks for what the bot needs, writes its settings, and checks them."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bot import config
from bot.cli import doctor, exit_codes
from bot.domain.diagnosis import Severity
from bot.ops import machine
from bot.ops.file_set import write_together
from bot.text import init as text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_SECRETS = {
    "discord.token": "discord-token",
    "pikzels.api_key": "pikzels-key",
    "alerts.webhook": "alerts-webhook",
}
_ID = re.compile(r"[0-9]{15,20}")  # Discord's since 2015


class Reader(Protocol):
    """Reads one answer; raises `EOFError` if there are no more."""

    def __call__(self, question: str, *, is_secret: bool = False) -> str: ...


class _Invalid(Exception):
    """An answer is not accepted; the message says why, in one sentence."""


def main(arguments: argparse.Namespace, *, read: Reader | None = None) -> int:
    """The exit code of `doctor`, or 1 if nothing was written."""
    target = config.file().absolute()
    program = _program(arguments.program, target)
    files = {setting: target.parent / "secrets" / name for setting, name in _SECRETS.items()}
    if (existing := [path for path in (target, *files.values()) if path.exists()]) and not arguments.force:
        return _refuse(text.already_there(existing, program))
    place = machine.check_folder(target.parent)
    if place.severity is Severity.ERROR:
        return _refuse(place.text)
    try:
        print(text.WELCOME)
        answers = ask(read or _read, folder=target.parent)
    except EOFError:
        return _refuse("\n" + text.ENDED)
    secrets = {path: str(answers[setting]) for setting, path in files.items() if answers[setting]}
    named = {setting: path for setting, path in files.items() if path in secrets}
    contents = {path: f"{secret}\n".encode() for path, secret in secrets.items()}
    contents[target] = text.config(answers, named).encode()
    try:
        write_together(contents)
    except OSError as error:
        return _refuse(text.cannot_write((error.strerror or type(error).__name__).lower()))
    print(text.written(list(contents)))
    if unused := [path for path in files.values() if path not in contents and path.exists()]:
        print(text.unused(unused))
    os.environ["BOT_CONFIG"] = str(target)
    return _check(program)


def _program(name: str, target: Path) -> str:
    """What to type before a command that shall use these settings."""
    return f"{name} --config {shlex.quote(str(target))}" if os.environ.get("BOT_CONFIG") else name


def _check(program: str) -> int:
    """Let `doctor` check the settings, and say what to do next."""
    code, found = doctor.report()
    if code != exit_codes.OK:
        print(text.next_step_after_errors(f"{program} doctor"))
    elif any(finding.name == "invite" and finding.severity is Severity.OK for finding in found):
        print(text.next_step(f"{program} run"))
    else:  # Discord did not say which application it is
        print(text.next_step_without_link(f"{program} run"))
    return code


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return exit_codes.FAILED


def ask(read: Reader, *, folder: Path) -> dict[str, object]:
    """Ask for every setting; returns the accepted answers by dotted name. `folder`: where config.toml will be. Raises
    `EOFError`.
    """
    interview = _Interview(read)
    interview.ask("discord.token", _needed)
    interview.ask("pikzels.api_key", _needed)
    interview.ask("access.servers", _ids)
    if interview.ask("operator.users", _ids):
        servers = interview.answers["access.servers"]
        interview.ask("operator.server", _id, default=servers[0] if servers else None)
    interview.ask("storage.folder", _folder, default=folder / "data")
    interview.ask("alerts.webhook", str)
    return interview.answers


class _Interview:
    """Asks, and asks again until the answer is accepted."""

    def __init__(self, read: Reader) -> None:
        self.answers: dict[str, Any] = {}
        self._read = read

    def ask(self, setting: str, parse: Callable[[str], object], *, default: object = None) -> object:
        """`default` stands for an empty answer."""
        question = text.QUESTIONS[setting] if default is None else text.with_default(text.QUESTIONS[setting], default)
        while True:
            answer = self._read(question, is_secret=setting in _SECRETS).strip()
            try:
                self.answers[setting] = _checked(setting, parse(answer)) if answer or default is None else default
            except _Invalid as invalid:
                print(invalid)
            else:
                return self.answers[setting]


def _read(question: str, *, is_secret: bool = False) -> str:
    """From the terminal, where a secret is not shown; or from a pipe."""
    if not sys.stdin.isatty():
        print(question)
        return input()
    return getpass.getpass(question) if is_secret else input(question)


def _checked(setting: str, value: object) -> object:
    """The same value, if the settings accept it; an empty one is left out of them."""
    problem = config.problem_with(setting, value) if value else None
    if problem is not None:
        raise _Invalid(text.invalid(problem))
    return value


def _needed(answer: str) -> str:
    if not answer:
        raise _Invalid(text.NEEDED)
    return answer


def _ids(answer: str) -> list[int]:
    numbers = answer.replace(",", " ").split()
    if not all(_ID.fullmatch(number) for number in numbers):
        raise _Invalid(text.NOT_IDS)
    return [int(number) for number in numbers]


def _id(answer: str) -> int | None:
    match _ids(answer):
        case []:
            return None
        case [one]:
            return one
    raise _Invalid(text.NOT_ONE_ID)


def _folder(answer: str) -> Path:
    """An absolute path, so that the bot finds it from anywhere."""
    if not answer.isprintable():
        raise _Invalid(text.invalid("must be the name of a folder"))
    folder = Path(answer).expanduser().absolute()
    found = machine.check_folder(folder)
    if found.severity is Severity.ERROR:
        raise _Invalid(found.text)
    return folder
