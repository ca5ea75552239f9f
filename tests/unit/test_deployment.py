"""The image, compose.yaml, and the systemd unit agree with each other and with the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.config import Settings, Shutdown

ROOT = Path(__file__).parents[2]
DOCKERFILE, COMPOSE, UNIT, README = (
    (ROOT / name).read_text("utf-8")
    for name in ("Dockerfile", "compose.yaml", "deploy/pikzels-bot.service", "README.md")
)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (COMPOSE, r"stop_grace_period: (\d+)s"),
        (UNIT, r"TimeoutStopSec=(\d+)"),
        (DOCKERFILE, r"docker stop --time (\d+)"),
        (README, r"--stop-timeout (\d+)"),
    ],
)
def test_a_stop_waits_a_little_longer_than_the_bot_does(text: str, pattern: str) -> None:
    [seconds] = re.findall(pattern, text)
    assert Shutdown().grace < int(seconds) <= Shutdown().grace + 30


def test_the_user_is_the_same_everywhere() -> None:
    assert "--uid 10001" in DOCKERFILE
    assert 'user: "10001:10001"' in COMPOSE
    assert "chown -R 10001:10001 secrets" in README


def test_every_variable_is_a_setting() -> None:
    names = re.findall(r"\bBOT_[A-Z_]+\b", DOCKERFILE + COMPOSE + UNIT)
    assert names
    for name in names:
        section, setting = name.removeprefix("BOT_").lower().removesuffix("_file").split("__")
        annotation = Settings.model_fields[section].annotation
        assert annotation is not None
        assert setting in annotation.model_fields, name


@pytest.mark.parametrize("right", ["cap_drop:\n      - ALL", "no-new-privileges:true", "read_only: true", "mem_limit:"])
def test_the_container_has_few_rights(right: str) -> None:
    assert right in COMPOSE


@pytest.mark.parametrize("right", ["DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "MemoryMax="])
def test_the_service_has_few_rights(right: str) -> None:
    assert right in UNIT


def test_what_is_published_stays_on_this_machine() -> None:
    ports = re.findall(r'- "([\d.:]+)"', COMPOSE) + re.findall(r"-p ([\d.:]+)", README)
    assert ports == ["127.0.0.1:8080:8080"] * 2


def test_everything_that_is_installed_is_pinned_by_hashes() -> None:
    assert re.findall(r"pip install (.*?)--requirement (\S+)", DOCKERFILE.replace("\\\n", "")) == [
        ("--no-cache-dir --require-hashes --only-binary :all: ", "/tmp/run.lock")  # noqa: S108 - in the image
    ]
