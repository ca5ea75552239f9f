"""What `doctor` finds, and what it judges by."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path


class Severity(StrEnum):
    """How much a finding matters: a warning lets the bot run, an error does not."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `text` says what was found and, unless all is well, what to do."""

    severity: Severity
    name: str
    text: str


class Trouble(StrEnum):
    """Why a server has not answered."""

    NAME = "name"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answers to a GET: its status and its JSON object, which is empty for anything else. `ahead` is how
    far this machine's clock is ahead of the server's. With `trouble`, there is no answer.
    """

    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ahead: timedelta | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that a folder is on. `kind` is its name in /proc/self/mountinfo; None if that is not known."""

    kind: str | None
    free: int  # bytes that this user may still write


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps files from being written in a folder: where, and why, as a clause. `leads_nowhere`: `path` is a link
    to what does not exist.
    """

    path: Path
    problem: str
    leads_nowhere: bool = False


def ok(name: str, text: str) -> Finding:
    return Finding(Severity.OK, name, text)


def warning(name: str, text: str) -> Finding:
    return Finding(Severity.WARNING, name, text)


def error(name: str, text: str) -> Finding:
    return Finding(Severity.ERROR, name, text)
