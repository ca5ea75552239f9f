"""Discord's way of saying no: status, JSON error code and words; and refusals ordered in advance."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN: Mapping[int, tuple[int, str]] = MappingProxyType(
    {
        10003: (404, "Unknown Channel"),
        10004: (404, "Unknown Guild"),
        10007: (404, "Unknown Member"),
        10008: (404, "Unknown Message"),
        10014: (400, "Unknown Emoji"),
        10015: (404, "Unknown Webhook"),
        10062: (404, "Unknown interaction"),
        20028: (429, "The write action you are performing on the channel has hit the write rate limit."),
        30010: (400, "Maximum number of reactions reached (20)"),
        30015: (400, "Maximum number of attachments in a message reached (10)"),
        30032: (400, "Maximum number of application commands reached (100)"),
        40005: (413, "Request entity too large"),
        40060: (400, "Interaction has already been acknowledged."),
        50001: (403, "Missing Access"),
        50003: (403, "Cannot execute action on this channel type"),
        50005: (403, "Cannot edit a message authored by another user"),
        50006: (400, "Cannot send an empty message"),
        50007: (403, "Cannot send messages to this user"),
        50013: (403, "Missing Permissions"),
        50027: (401, "Invalid Webhook Token"),
        50035: (400, "Invalid Form Body"),
        50109: (400, "The request body contains invalid JSON."),
        90001: (403, "Reaction was blocked"),
        130000: (503, "API resource is currently overloaded. Try again a little later."),
    }
)


class Refusal(Exception):
    """A request answered with an error; `details` go into the JSON body beside code and message."""

    def __init__(self, status: int, *, code: int = 0, message: str = "", **details: Any) -> None:
        super().__init__(status, code)
        self.status = status
        self.body: dict[str, Any] = {"message": message or _words(status, code), "code": code, **details}

    @classmethod
    def known(cls, code: int, **details: Any) -> Refusal:
        return cls(KNOWN[code][0], code=code, **details)


def invalid_form(*place: str | int, code: str, message: str) -> Refusal:
    """50035 with the `errors` nested as deep as the field stands."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for step in reversed(place):
        errors = {str(step): errors}
    return Refusal.known(50035, errors=errors)


def _words(status: int, code: int) -> str:
    if code in KNOWN:
        return KNOWN[code][1]
    return {401: "401: Unauthorized", 404: "404: Not Found", 429: "You are being rate limited."}.get(
        status, f"{status}: Error"
    )


@dataclass(slots=True)
class Fault:
    """A misfortune for the next `left` matching requests; without a refusal the connection is reset."""

    method: str
    path_glob: str
    refusal: Refusal | None
    left: int
    after: bool

    def hits(self, method: str, path: str) -> bool:
        return self.left > 0 and self.method in ("*", method) and fnmatchcase(path, self.path_glob)


class Faults:
    """The misfortunes ordered so far, the oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def order(self, fault: Fault) -> None:
        self._faults.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.hits(method, path):
                fault.left -= 1
                return fault
        return None
