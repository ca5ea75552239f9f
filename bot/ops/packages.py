"""Whether the installed packages are those of a lock file; pure but for `installed`."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)[ \t]*(;)?", re.MULTILINE)


def pinned(lock: str) -> dict[str, tuple[str, bool]]:
    """The version of each package in a lock file, and whether only some systems need the package."""
    return {name: (version, marker is not None) for name, version, marker in _matches(lock)}


def _matches(lock: str) -> list[tuple[str, str, str | None]]:
    return [(match[1], match[2], match[3]) for match in _PINNED.finditer(lock)]


def installed(names: list[str]) -> dict[str, str]:
    """The installed version of each of these packages that is installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(wanted: Mapping[str, tuple[str, bool]], found: Mapping[str, str]) -> list[tuple[str, str, str | None]]:
    """Each package that is missing or has another version: its name, the pinned version, and the one that is there."""
    return [
        (name, version, found.get(name))
        for name, (version, is_optional) in wanted.items()
        if found.get(name) != version and not (is_optional and name not in found)
    ]
