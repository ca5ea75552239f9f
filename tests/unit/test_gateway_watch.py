"""When the operator hears that Discord is disconnected, and that it is back; the seconds are the test's."""

from __future__ import annotations

import math
from datetime import timedelta

from bot.discord_io.gateway_watch import GatewayWatch
from bot.domain.health import Connection, Gateway, together
from bot.domain.models import AlertLevel
from bot.jobs.notices import Notices
from tests.support.factories import NOON


class Operator:
    """What the operator is told, as key and text."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def send(self, level: AlertLevel, key: str, text: str) -> None:
        assert level is AlertLevel.PAGE
        self.told.append((key, text))

    def repeat(self, _: AlertLevel, key: str, text: str) -> None:
        self.told.append((f"{key} repeated", text))

    def end(self, _: AlertLevel, key: str, text: str) -> None:
        self.told.append((f"{key} over", text))


class Day:
    """A process whose gateway does as the test says, one look per second."""

    def __init__(self) -> None:
        self.second = 0
        self.connections = [Connection.NO_SESSION]
        self.operator = Operator()
        self.notices = Notices(self.operator)
        self.watch = GatewayWatch(
            lambda: together([Gateway(each, math.nan) for each in self.connections]),
            self.notices,
            clock=lambda: NOON + timedelta(seconds=self.second),
            seconds=lambda: 1e6 + self.second,
        )

    def goes_on(self, seconds: int, *connections: Connection) -> list[str]:
        """The keys of what the operator is told meanwhile."""
        before = len(self.operator.told)
        self.connections = list(connections)
        for _ in range(seconds):
            self.watch.look()
            self.second += 1
        return [key for key, _ in self.operator.told[before:]]


def test_two_minutes_without_discord_are_alerted_once_and_so_is_its_return() -> None:
    day = Day()
    assert day.goes_on(5, Connection.CONNECTED) == []
    assert day.goes_on(120, Connection.SILENT) == []
    assert day.goes_on(600, Connection.CLOSED) == ["gateway"]
    assert day.goes_on(5, Connection.CONNECTED) == ["gateway over"]
    lost, found = (text for _, text in day.operator.told)
    assert lost.startswith("Discord has been disconnected since 12:00:05 UTC (the connection to Discord is closed)")
    assert found == "Discord is connected again, after 12 min 0 s"


def test_a_process_that_starts_without_discord_alerts_too() -> None:
    day = Day()
    assert day.goes_on(120, Connection.NO_SESSION) == []
    assert day.goes_on(600, Connection.NO_SESSION) == ["gateway"]


def test_short_interruptions_are_no_alert_however_many() -> None:
    day = Day()
    for _ in range(10):
        assert day.goes_on(119, Connection.CLOSED) == []
        assert day.goes_on(1, Connection.CONNECTED) == []


def test_every_long_interruption_is_alerted() -> None:
    day = Day()
    for _ in range(3):
        assert day.goes_on(1, Connection.CONNECTED) in ([], ["gateway over"])
        assert day.goes_on(122, Connection.CLOSED) == ["gateway"]


def test_the_operator_is_reminded_while_it_lasts() -> None:
    day = Day()
    day.notices.remind(circuits={}, unavailable=None)
    assert day.goes_on(122, Connection.CLOSED) == ["gateway"]
    day.notices.remind(circuits={}, unavailable=None)
    assert day.operator.told[-1] == ("gateway repeated", day.operator.told[0][1])
    day.goes_on(1, Connection.CONNECTED)
    told = list(day.operator.told)
    day.notices.remind(circuits={}, unavailable=None)
    assert day.operator.told == told


UP, DOWN, WAITS = Connection.CONNECTED, Connection.CLOSED, Connection.WAITING


def test_one_connection_of_three_that_is_lost_is_alerted_and_so_is_the_loss_of_all() -> None:
    day = Day()
    assert day.goes_on(5, UP, UP, UP) == []
    assert day.goes_on(122, UP, DOWN, UP) == ["gateway:some"]
    assert day.goes_on(125, DOWN, DOWN, UP) == []
    assert day.goes_on(125, DOWN, DOWN, DOWN) == ["gateway"]
    assert day.goes_on(1, UP, UP, UP) == ["gateway over"]
    one, every, found = (text for _, text in day.operator.told)
    assert one.startswith("1 of 3 connections to Discord have been disconnected since 12:00:05 UTC")
    assert every.startswith("Discord has been disconnected since 12:00:05 UTC")
    assert found == "Discord is connected again, after 6 min 12 s"


def test_short_interruptions_of_one_connection_after_the_other_are_no_alert() -> None:
    day = Day()
    day.goes_on(1, UP, UP, UP)
    for _ in range(4):
        assert day.goes_on(90, DOWN, UP, UP) == []
        assert day.goes_on(90, UP, DOWN, UP) == []
        assert day.goes_on(90, UP, UP, DOWN) == []


def test_a_start_of_many_shards_one_after_the_other_is_no_alert() -> None:
    day = Day()
    assert day.goes_on(5, Connection.NO_SESSION, *[WAITS] * 39) == []
    for started in range(1, 41):
        assert day.goes_on(5, *[UP] * started, *[WAITS] * (40 - started)) == []


def test_a_lost_connection_that_waits_for_its_turn_is_still_lost() -> None:
    day = Day()
    assert day.goes_on(5, UP, UP) == []
    assert day.goes_on(60, UP, DOWN) == []
    assert day.goes_on(65, UP, WAITS) == ["gateway:some"]


def test_a_client_that_is_replaced_by_one_with_fewer_connections_is_well() -> None:
    day = Day()
    assert day.goes_on(5, UP, UP, UP) == []
    assert day.goes_on(122, UP, UP, DOWN) == ["gateway:some"]
    assert day.goes_on(5, UP) == ["gateway:some over"]
    assert day.goes_on(300, UP) == []


def test_a_client_that_is_replaced_by_one_that_cannot_connect_is_the_loss_of_all() -> None:
    day = Day()
    assert day.goes_on(5, UP, UP, UP) == []
    assert day.goes_on(130, UP, DOWN, UP) == ["gateway:some"]
    assert day.goes_on(3600, Connection.NO_SESSION) == ["gateway"]
    assert day.goes_on(5, UP, UP, UP) == ["gateway over"]
