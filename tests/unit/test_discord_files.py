"""How the simulated Discord hashes files."""

from __future__ import annotations

import hashlib

import pytest

from sandbox.discord_server.files import Digest, KnownFile

KNOWN = bytes(range(200))


@pytest.mark.parametrize(
    "content",
    [KNOWN, b"", KNOWN[:150], KNOWN[:64], KNOWN + b"more", KNOWN[:100] + b"!" + KNOWN[101:], b"!" + KNOWN[1:]],
    ids=["the same", "empty", "cut off", "cut off at a chunk", "longer", "another middle", "another start"],
)
@pytest.mark.parametrize("known", [KNOWN, None])
def test_a_file_has_its_sha256_whether_or_not_it_is_the_known_one(content: bytes, known: bytes | None) -> None:
    digest = Digest(None if known is None else KnownFile(known))
    for start in range(0, len(content), 64):
        digest.update(content[start : start + 64])
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()
