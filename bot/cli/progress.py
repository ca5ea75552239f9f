"""Shows on a terminal that something takes long, and how far it is. Elsewhere it shows nothing: every command ends with
a sentence, and a log needs no more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from bot.text import backups as texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bot.domain.backups import Step

_AFTER = 0.5  # seconds: what is quicker needs no progress
_EVERY = 0.1  # seconds
_WIDEST = 80  # columns
_SPARE = 4  # columns at the end of the line, for the ^C that a terminal shows


def watched(step: Step, *, done: Callable[[], int] | None = None, size: int = 0) -> AbstractContextManager[None]:
    """Show one step of a command about backups; see `Watch`."""
    return shown(texts.STEPS[step], done=done, size=size)


@contextmanager
def shown(
    label: str, *, done: Callable[[], int] | None = None, size: int = 0, stream: TextIO | None = None
) -> Iterator[None]:
    """Show progress until the end of the block, unless that comes soon: `done()` of `size` bytes or, where one of the
    two is not known, the seconds. `stream` is standard error unless given. Print nothing else meanwhile.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield
        return
    ended = threading.Event()
    # A thread, because the block may be a single call, into SQLite for example. The interpreter never waits for it.
    ticking = threading.Thread(target=_tick, args=(label, done, size, stream, ended), name="progress", daemon=True)
    try:
        ticking.start()
        yield
    finally:
        ended.set()
        if ticking.ident is not None:
            ticking.join()


def _tick(label: str, done: Callable[[], int] | None, size: int, stream: TextIO, ended: threading.Event) -> None:
    if hasattr(signal, "pthread_sigmask"):  # they are for the main thread, which may have blocked them
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    if ended.wait(_AFTER):
        return
    with suppress(OSError, ValueError):  # the terminal was closed
        bar = _bar(label, size=size if done is not None else 0, stream=stream)
        try:
            while True:
                if done is not None and size:
                    bar.n = min(max(bar.n, done()), size)
                bar.refresh()
                if ended.wait(_EVERY):
                    return
        finally:
            bar.close()
            stream.write(f"\r{' ' * (_columns(stream) - 1)}\r")  # the bar, and what the terminal has shown after it
            stream.flush()


def _bar(label: str, *, size: int, stream: TextIO) -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped] # noqa: PLC0415 - slow to import, and seldom needed

    tqdm.monitor_interval = 0  # no thread of its own
    tqdm.set_lock(threading.RLock())  # its usual lock is one between processes
    bar = tqdm(
        desc=label,
        total=size or None,
        file=stream,
        leave=False,
        ncols=min(_WIDEST, _columns(stream) - _SPARE),
        nrows=24,  # or it would draw nothing on a terminal that does not know its height
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        bar_format=texts.BAR if size else texts.ELAPSED,
    )
    bar.start_t -= _AFTER
    return bar


def _columns(stream: TextIO) -> int:
    """As many as the terminal has; some say 0, or nothing."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDEST
    except (OSError, ValueError):
        return _WIDEST
