"""A program that is measured, in a process of its own, and what it has used so far."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds; the kernel counts CPU in these
_STOP_SECONDS = 60.0
_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of a process: `cpu` is user and system time so far in seconds; memory is in MB, now and at most."""

    cpu: float
    memory: float
    peak: float


def inherited_environment() -> dict[str, str]:
    """The environment without settings of the bot, and with compiled code kept, as an installed program has it."""
    left_out = ("BOT_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


@asynccontextmanager
async def run_module(arguments: Sequence[str], *, environment: Mapping[str, str], log: Path) -> AsyncIterator[int]:
    """Run a Python module in a child process; yields its pid, and stops it at the end. No setting is inherited."""
    inherited = inherited_environment()
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, cwd=ROOT, env={**inherited, **environment}, stdout=output, stderr=output
        )
    try:
        yield process.pid
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except BaseException:
        _show_end(log)
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _show_end(log: Path) -> None:
    print(*log.read_text("utf-8").splitlines()[-_LOG_LINES:], sep="\n", file=sys.stderr)


def read_usage(pid: int) -> Usage:
    # The process name, in brackets, can contain anything. User and system time are fields 14 and 15 (proc_pid_stat(5)).
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    memory, peak = (int(status[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Usage((int(fields[11]) + int(fields[12])) * TICK, memory, peak)
