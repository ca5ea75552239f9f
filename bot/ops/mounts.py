"""Which file system a path is on, from the text of /proc/self/mountinfo; pure."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/self/mountinfo")

# A database needs locks and flushes that these do not promise.
_NETWORK = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cephfs",
        "cifs",
        "coda",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "prl_fs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    )
)
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))
_OF_A_CONTAINER = frozenset(("overlay", "aufs"))
_ESCAPE = re.compile(r"\\([0-7]{3})")


def kind_at(path: PurePosixPath, mounts: str) -> str | None:
    """The kind of the file system at an absolute, resolved path; the last of several mounts on one point counts."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields, _, details = line.partition(" - ")
        point = PurePosixPath(_unescaped((fields.split() + [""] * 5)[4]))
        if details and path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), details.split()[0]
    return None if found is None else found[1]


def is_network(kind: str | None) -> bool:
    """Whether another machine, or another program, holds the files. `fuseblk` is a local disk, like one of NTFS."""
    return kind is not None and (kind in _NETWORK or kind == "fuse" or kind.startswith("fuse."))


def is_in_memory(kind: str | None) -> bool:
    return kind in _IN_MEMORY


def is_of_a_container(kind: str | None) -> bool:
    return kind in _OF_A_CONTAINER


def _unescaped(text: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
