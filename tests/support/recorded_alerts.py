"""Alerts that are kept in place of being sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.domain.models import AlertLevel


class RecordedAlerts:
    def __init__(self) -> None:
        self.sent: list[tuple[AlertLevel, str, str]] = []
        self.repeated: list[tuple[AlertLevel, str, str]] = []
        self.ended: list[tuple[AlertLevel, str, str]] = []

    def send(self, level: AlertLevel, key: str, text: str) -> None:
        self.sent.append((level, key, text))

    def repeat(self, level: AlertLevel, key: str, text: str) -> None:
        self.repeated.append((level, key, text))

    def end(self, level: AlertLevel, key: str, text: str) -> None:
        self.ended.append((level, key, text))
