"""Logs carry a job's id and no secret, whoever wrote the line."""

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.ops import logs
from bot.ops.logs import Redactor, set_up
from tests.conftest import KEY

WEBHOOK = "https://discord.com/api/webhooks/123456789/aB-c_dEf.ghi~jkl"
TOKEN = "MTI3MTIxNTE1MjYyMTE1ODQw.GaBcDe.aB-cD_eFgHiJkLmNoPqRsTuVwXyZ0123456789"
log = logging.getLogger("bot.jobs.lifecycle")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, ("discord", "aiosqlite", "aiohttp", "asyncio"))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"key {KEY} refused", "key pkz_… refused"),
        ("<CIMultiDict('X-Api-Key': 'abc-def')>", "<CIMultiDict('X-Api-Key': '…')>"),
        ("x-api-key: abc123, Accept: b", "x-api-key: …, Accept: b"),
        ('{"X-API-KEY":"abc123"}', '{"X-API-KEY":"…"}'),
        ("X-Api-Key=abc123)", "X-Api-Key=…)"),
        (f"Bot {TOKEN}!", "Bot …!"),
        (f"N{TOKEN[1:]} O{TOKEN[1:]}", "… …"),
        (f"POST {WEBHOOK}?wait=true", "POST https://discord.com/api/webhooks/123456789/…?wait=true"),
        (f"{WEBHOOK}/messages/@original", "https://discord.com/api/webhooks/123456789/…/messages/@original"),
        ("/interactions/42/aW50ZXJh/callback", "/interactions/42/…/callback"),
        ("cat.png?ex=66aa&is=66bb&hm=00ff&", "cat.png?ex=…&is=…&hm=…&"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert Redactor([])(text) == left


@pytest.mark.parametrize("text", ["pkz_4_5 and pkz_2", "1.2.3", "exam?example=66", "webhooks/guide", "M" * 60])
def test_what_only_resembles_one_is_left_alone(text: str) -> None:
    assert Redactor([])(text) == text


@given(st.text(st.characters(exclude_characters="…"), min_size=4), st.text(), st.text())
def test_a_known_secret_is_taken_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret])(before + secret + after)


def test_of_two_secrets_the_longer_goes_first_and_an_empty_one_is_none() -> None:
    assert Redactor(["abcd", "abcdefgh", ""])("abcdefgh abcd") == "… …"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_reaches_a_line_by_any_way(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    set_up(level="DEBUG", as_json=as_json, secrets=["s3cr3t value"])
    log.info("with %s", "s3cr3t value")
    logging.getLogger("discord.http").warning("POST %s", WEBHOOK)
    try:
        raise ValueError(f"'X-Api-Key': '{KEY}'", "s3cr3t value")
    except ValueError:
        log.exception("failed")
    told = capsys.readouterr().err
    assert not any(secret in told for secret in ("s3cr3t value", "ghi~jkl", KEY))
    assert "ValueError" in told


def test_a_line_for_people_has_time_level_name_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=False, secrets=[])
    log.warning("job %s released", "k3f9")
    date, _, rest = capsys.readouterr().err.partition(" ")
    assert len(date) == len("2026-11-22")
    assert rest[8:] == " WARNING bot.jobs.lifecycle: job k3f9 released\n"


def test_a_line_for_machines_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=True, secrets=[])
    log.warning("two\nlines, %s", "ünïcode")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "warning", "logger": "bot.jobs.lifecycle", "message": "two\nlines, ünïcode"}


def test_a_line_carries_the_job_it_is_about_and_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=True, secrets=[])
    about = logs.job_id.set("k3f9")
    try:
        raise ValueError("cause")
    except ValueError:
        log.exception("failed")
    finally:
        logs.job_id.reset(about)
    log.info("after")
    during, after = map(json.loads, capsys.readouterr().err.splitlines())
    assert during["job"] == "k3f9"
    assert during["error"].endswith("ValueError: cause")
    assert {"job", "error"}.isdisjoint(after)


@pytest.mark.parametrize("library", ["discord", "discord.http", "aiosqlite", "aiohttp.client", "asyncio"])
def test_libraries_stay_at_info_when_the_level_is_debug(capsys: pytest.CaptureFixture[str], library: str) -> None:
    set_up(level="DEBUG", as_json=False, secrets=[])
    logging.getLogger(library).debug("body with secrets")
    logging.getLogger(library).info("worth knowing")
    log.debug("ours")
    told = capsys.readouterr().err
    assert "body with secrets" not in told
    assert "worth knowing" in told
    assert "ours" in told


def test_libraries_are_no_louder_than_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="ERROR", as_json=False, secrets=[])
    logging.getLogger("discord").warning("not worth it")
    log.warning("nor this")
    assert capsys.readouterr().err == ""


def test_setting_up_twice_does_not_say_everything_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        set_up(level="INFO", as_json=False, secrets=[])
    log.info("once")
    assert capsys.readouterr().err.count("once") == 1
