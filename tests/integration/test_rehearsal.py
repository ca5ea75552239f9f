"""The rehearsal, as an operator uses it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import rehearsal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def exported() -> AsyncIterator[dict[str, str]]:
    """The variables that the rehearsal prints, while it runs."""
    lines = asyncio.Queue[str]()
    running = asyncio.create_task(rehearsal.run(every=0.2, say=lines.put_nowait, making=0))
    variables = {}
    async with asyncio.timeout(10):
        while (line := await lines.get()).startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            variables[name] = value
    yield variables
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_bot_connects_to_the_rehearsal_and_makes_what_a_member_asks_for(
    exported: dict[str, str], tmp_path: Path
) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandbox.launch", "run"),
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("BOT_")},
            **exported,
            "PYTHONPATH": str(ROOT),
            "BOT_DISCORD__TOKEN": "any",
            "BOT_PIKZELS__API_KEY": rehearsal.API_KEY,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr is not None
    log = ""
    try:
        async with asyncio.timeout(30):
            while "delivered to user" not in log:
                line = await child.stderr.readline()
                assert line, log
                log += line.decode()
    finally:
        child.terminate()
        await child.communicate()
    assert child.returncode == 0
    assert "A rehearsal" not in log, "no prompt is logged"
