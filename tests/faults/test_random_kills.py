"""Kills real processes at any microsecond and any step; the ledger must agree with what Discord shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.fault_injection import seed, size

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")]

TEST = "tests/faults/test_random_kills.py::test_after_any_kills_the_ledger_agrees_with_what_was_shown"
BLOCKS = size(2, 8)
RUNS = size(100, 20_000) // BLOCKS  # in each block


@pytest.mark.timeout(size(120, 7200))
@pytest.mark.parametrize("block", range(BLOCKS))
def test_after_any_kills_the_ledger_agrees_with_what_was_shown(block: int) -> None:
    first = seed(f"'{TEST}[{block}]'") + block * RUNS
    command = [sys.executable, "-m", "tests.support.crash_driver", str(first), str(RUNS)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    counts, broken = answer["counts"], answer["broken"]
    for number, what in broken.items():  # the moment of a kill from outside is not reproducible
        print(f"seed {number}; repeat with: .venv/bin/python -m tests.support.crash_driver {number} 1")  # noqa: T201 - for the test report
        print("\n".join(what[:5]))  # noqa: T201 - for the test report
    assert not broken
    assert counts["killed by itself"] + counts["killed from outside"] > RUNS // 4
    print(f"{RUNS} runs: " + ", ".join(f"{what} {times}" for what, times in sorted(counts.items())))  # noqa: T201 - for the test report
