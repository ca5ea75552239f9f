"""Sets how long the fault tests run: the short prefix in `make test`, the long prefix in `make torture`."""

from __future__ import annotations

import os
import secrets

LONG = os.environ.get("TORTURE") == "1"


def size(short: int, long: int) -> int:
    return long if LONG else short


def seed(test: str) -> int:
    """Return the seed of a random test, TORTURE_SEED or a new one, and print the command that repeats the run."""
    value = int(os.environ.get("TORTURE_SEED") or secrets.randbits(32))
    prefix = "TORTURE=1 " if LONG else ""
    print(f"seed {value}; repeat with: {prefix}TORTURE_SEED={value} .venv/bin/python -m pytest {test}")  # noqa: T201
    return value
