"""How much of the fault programme runs: the short form in `make test`, the long one in `make torture`."""

from __future__ import annotations

import os
import secrets

LONG = os.environ.get("TORTURE") == "1"


def size(short: int, long: int) -> int:
    return long if LONG else short


def seed(test: str) -> int:
    """The seed of a random test: TORTURE_SEED, or a fresh one; printed with the line that repeats a failure."""
    chosen = int(os.environ.get("TORTURE_SEED") or secrets.randbits(32))
    form = "TORTURE=1 " if LONG else ""
    print(f"seed {chosen}; repeat with: {form}TORTURE_SEED={chosen} .venv/bin/python -m pytest {test}")  # noqa: T201
    return chosen
