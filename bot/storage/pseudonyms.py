"""Stands in for a Discord user id where something has to outlive the deletion of the person's data."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

_BYTES = 8  # what a signed 64-bit integer holds: SQLite's largest
_REMEMBERED = 1000  # members; one request asks for its member's key a dozen times


@lru_cache(_REMEMBERED)
def member_key(salt: str, user_id: int) -> int:
    """A keyed hash of `user_id`. Without the salt, which only the database has, nobody can tell whose it is."""
    digest = hmac.digest(bytes.fromhex(salt), str(user_id).encode(), hashlib.sha256)
    return int.from_bytes(digest[:_BYTES], "big", signed=True)
