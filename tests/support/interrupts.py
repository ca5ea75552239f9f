"""Ctrl-C as a shell sets it up for what it starts, however the tests themselves were started."""

from __future__ import annotations

import signal


def default_interrupts() -> None:
    """For a child process, before it runs a program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
