"""Discord's error responses (status, JSON error code, message), and faults injected by tests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN_ERRORS: Mapping[int, tuple[int, str]] = MappingProxyType(
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


class ApiError(Exception):
    """Answers the request with an error. The JSON body holds `details` next to the code and the message."""

    def __init__(self, status: int, *, code: int = 0, message: str = "", **details: Any) -> None:
        super().__init__(status, code)
        self.status = status
        self.body: dict[str, Any] = {"message": message or _message(status, code), "code": code, **details}

    @classmethod
    def from_code(cls, code: int, **details: Any) -> ApiError:
        return cls(KNOWN_ERRORS[code][0], code=code, **details)


def invalid_form(*path: str | int, code: str, message: str) -> ApiError:
    """Error 50035, with `errors` nested along the path of the field."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for step in reversed(path):
        errors = {str(step): errors}
    return ApiError.from_code(50035, errors=errors)


def _message(status: int, code: int) -> str:
    if code in KNOWN_ERRORS:
        return KNOWN_ERRORS[code][1]
    return {401: "401: Unauthorized", 404: "404: Not Found", 429: "You are being rate limited."}.get(
        status, f"{status}: Error"
    )


@dataclass(slots=True)
class Fault:
    """Makes the next `remaining` matching requests fail. Without an error, it resets the connection; if it hangs, only
    when the server closes.
    """

    method: str
    path_glob: str
    error: ApiError | None
    remaining: int
    after: bool
    hang: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.remaining > 0 and self.method in ("*", method) and fnmatchcase(path, self.path_glob)


class Faults:
    """The injected faults, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.closing = asyncio.Event()

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.matches(method, path):
                fault.remaining -= 1
                return fault
        return None
