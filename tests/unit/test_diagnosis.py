"""How `doctor` judges disks, packages, versions, and the answers of others."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from bot.discord_io import application
from bot.domain.diagnosis import Answer, Disk, Severity, Trouble
from bot.ops import machine, mounts, online, packages

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /data rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2
31 27 0:41 / /my\040data rw - cifs //server/share rw
32 27 0:42 / /data/local rw master:1 shared:2 - xfs /dev/vdb rw
33 27 0:43 / /twice rw - tmpfs tmpfs rw
34 27 0:44 / /twice rw - fuse.sshfs server: rw
a line that is no mount
"""
GIB = 1024 * machine.MEBIBYTE


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/bot", "ext4"),
        ("/data", "nfs4"),
        ("/data/deep/folder", "nfs4"),
        ("/database", "ext4"),
        ("/my data/folder", "cifs"),
        ("/data/local/bot", "xfs"),
        ("/twice", "fuse.sshfs"),
    ],
)
def test_a_path_is_on_the_innermost_and_last_mount(path: str, kind: str) -> None:
    assert mounts.kind_at(PurePosixPath(path), MOUNTS) == kind


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3 - ", " - \n - - -"])
def test_a_table_of_mounts_that_makes_no_sense_tells_nothing(text: str) -> None:
    assert mounts.kind_at(PurePosixPath("/data"), text) is None


@pytest.mark.parametrize(
    ("kind", "severity", "part"),
    [
        ("ext4", "ok", "local disk (ext4)"),
        ("fuseblk", "ok", "local disk"),
        ("zfs", "ok", "local disk"),
        (None, "ok", "not known"),
        ("nfs", "warning", "network disk (nfs)"),
        ("nfs4", "warning", "network disk"),
        ("cifs", "warning", "network disk"),
        ("9p", "warning", "network disk"),
        ("fuse.sshfs", "warning", "network disk"),
        ("virtiofs", "warning", "network disk"),
        ("tmpfs", "warning", "in memory"),
        ("overlay", "warning", "container"),
    ],
)
def test_a_disk_that_can_damage_or_lose_a_database_is_named(kind: str | None, severity: str, part: str) -> None:
    finding = machine.check_disk(Disk(kind, GIB))
    assert (finding.severity, part in finding.text) == (severity, True), finding.text


@pytest.mark.parametrize(
    ("free", "wanted", "severity"),
    [(2 * GIB, GIB, "ok"), (GIB, GIB, "warning"), (GIB, 0, "ok"), (63 * machine.MEBIBYTE, 0, "error")],
)
def test_free_space_is_compared_with_what_may_be_stored(free: int, wanted: int, severity: str) -> None:
    assert machine.check_space(Disk("ext4", free), still_wanted=wanted).severity == severity


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_the_known_fault_of_sqlite_is_noted(version: tuple[int, ...], has_bug: bool) -> None:  # noqa: FBT001
    finding = machine.check_sqlite(version, threads=3)
    assert (finding.severity, "WAL-reset" in finding.text) == ("ok", has_bug)


def test_an_old_sqlite_or_python_is_an_error() -> None:
    assert machine.check_sqlite((3, 37, 2), threads=3).severity == "error"
    assert machine.check_sqlite((3, 51, 3), threads=0).severity == "error"
    assert machine.check_python((3, 10, 9)).severity == "error"
    assert machine.check_python((3, 14, 0)).severity == "ok"


def test_packages_are_compared_with_the_lock() -> None:
    lock = """a==1.0 \\
    --hash=sha256:00
b-c==2.0rc1 ; sys_platform == 'win32' \\
    --hash=sha256:00
    # via a
d==3
"""
    wanted = packages.pinned(lock)
    assert wanted == {"a": ("1.0", False), "b-c": ("2.0rc1", True), "d": ("3", False)}
    assert packages.differences(wanted, {"a": "1.0", "d": "3"}) == []
    assert packages.differences(wanted, {"a": "1.1", "b-c": "2.0"}) == [
        ("a", "1.0", "1.1"),
        ("b-c", "2.0rc1", "2.0"),
        ("d", "3", None),
    ]


STARTS = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}


def findings(user: Answer, own: Answer, servers: tuple[int, ...] = ()) -> dict[str, tuple[Severity, str]]:
    found = online.judge_discord(user, own, GATEWAY, servers=servers, invite_link=application.invite_link)
    return {finding.name: (finding.severity, finding.text) for finding in found}


GATEWAY = Answer(200, {"shards": 1, "session_start_limit": STARTS})
USER = Answer(200, {"username": "bo\nt", "id": "7"})
OWN = Answer(200, {"id": "7", "bot_public": False, "flags": 0, "bot_require_code_grant": False})


@pytest.mark.parametrize(
    ("user", "own", "names", "worst"),
    [
        (USER, OWN, ["token", "public", "intents", "invite", "connections"], "ok"),
        (Answer(401), Answer(401), ["token"], "error"),
        (Answer(trouble=Trouble.NAME), Answer(trouble=Trouble.NAME), ["token"], "error"),
        (Answer(503), Answer(503), ["token"], "warning"),
        (Answer(200), Answer(200), ["token"], "error"),
        (Answer(200, {"username": "bot"}), OWN, ["token"], "error"),
        (Answer(200, {"username": "bot", "id": None}), OWN, ["token"], "error"),
        (Answer(200, {"username": "bot", "id": 7}), OWN, ["token"], "error"),
        (Answer(200, {"username": "bot", "id": "\u0667"}), OWN, ["token"], "error"),
        (USER, Answer(200, {"id": "\u0667"}), ["token", "application", "connections"], "warning"),
        (USER, Answer(trouble=Trouble.TIMEOUT), ["token", "application", "connections"], "warning"),
        (USER, Answer(500), ["token", "application", "connections"], "warning"),
        (USER, Answer(200, {"id": ["nonsense"]}), ["token", "application", "connections"], "warning"),
        (USER, Answer(200, {"id": "7"}), ["token", "public", "intents", "invite", "connections"], "warning"),
        (
            USER,
            Answer(200, {**OWN.body, "bot_require_code_grant": True}),
            ["token", "public", "intents", "invite", "connections"],
            "warning",
        ),
    ],
)
def test_whatever_discord_answers_is_judged(user: Answer, own: Answer, names: list[str], worst: str) -> None:
    found = findings(user, own)
    assert list(found) == names
    assert max((severity for severity, _ in found.values()), key=list(Severity).index) == worst
    assert not any("\n" in text for _, text in found.values())


@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_with_a_server_has_words(trouble: Trouble) -> None:
    [finding] = online.judge_key(Answer(trouble=trouble), base_url="https://api", on_this_machine=False)
    assert (finding.severity, finding.text.startswith("https://api cannot be reached: ")) == ("error", True)
