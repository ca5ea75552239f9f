"""What a full disk can't take away: a journal written into room allocated in advance, and a disk reserve to free."""

from __future__ import annotations

import errno
import json
import os
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    Record: TypeAlias = dict[str, Any]

JOURNAL_BYTES = 256 * 1024  # about 500 records: many times the jobs in progress
RESERVE_BYTES = 8 * 1024 * 1024
_CANNOT_ALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class JournalFull(OSError):
    """The room allocated in advance is used up."""


class Journal:
    """Records as lines of checksum and JSON that overwrite zeros: no append needs a block that a full disk lacks.

    A line that was half written when the process died does not match its checksum, and ends the journal.
    """

    def __init__(self, path: Path, *, size: int = JOURNAL_BYTES) -> None:
        """Allocate the file, or reuse it as the last process left it; raises `OSError`."""
        self._path = path
        self._size = size
        if not path.exists() or path.stat().st_size < size:
            self._allocate_file()
        self._end = sum(len(line) for line in self._lines())

    def append(self, record: Record) -> None:
        """Write one record, durable when the call returns; raises `JournalFull`, `OSError`."""
        line = _line(record)
        if self._end + len(line) > self._size:
            raise JournalFull(self._end)
        with self._path.open("r+b", 0) as file:
            file.seek(self._end)
            _write(file, line)
            os.fsync(file.fileno())
        self._end += len(line)

    def records(self) -> list[Record]:
        """Everything written since the last `clear`, oldest first."""
        return [json.loads(line[9:]) for line in self._lines()]

    def clear(self) -> None:
        """Erase every record: all have been flushed."""
        if self._end:
            self._allocate_file()
            self._end = 0

    def _lines(self) -> list[bytes]:
        whole = []
        for line in self._path.read_bytes().split(b"\n"):
            if not line or line[:8] != _checksum(line[9:]):
                break
            whole.append(line + b"\n")
        return whole

    def _allocate_file(self) -> None:
        mode = "r+b" if self._path.exists() else "x+b"
        with self._path.open(mode, 0) as file:
            _write(file, bytes(self._size))
            os.fsync(file.fileno())


def _write(file: IO[bytes], content: bytes) -> None:
    """Write all of `content`: an almost full disk takes a part of it before it reports an error."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _line(record: Record) -> bytes:
    text = json.dumps(record, ensure_ascii=True).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


class DiskReserve:
    """A file that reserves room on the disk, for the few pending rows when no other room is left."""

    def __init__(self, path: Path, *, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    @property
    def is_allocated(self) -> bool:
        return self._path.exists()

    def allocate(self) -> bool:
        """Reserve the room if there is that much; returns whether it is reserved."""
        try:
            with self._path.open("xb", 0) as file:
                _allocate(file, self._size)
        except FileExistsError:
            return True
        except OSError:
            self.free()
            return False
        return True

    def free(self) -> None:
        """Give the room back to whatever needs it now."""
        self._path.unlink(missing_ok=True)


def _allocate(file: IO[bytes], size: int) -> None:
    """Reserve `size` bytes on the disk; some systems and file systems can do so only by writing them."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
        else:
            return
    _write(file, bytes(size))
    os.fsync(file.fileno())  # otherwise it may turn out only later that they do not fit
