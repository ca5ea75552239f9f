"""Every log line carries its job's id and never a secret, whichever library wrote it."""

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.ops import logs
from bot.ops.logs import Redactor, set_up
from tests.support.factories import API_KEY

WEBHOOK = "https://discord.com/api/webhooks/123456789/aB-c_dEf.ghi~jkl"
TOKEN = "MTI3MTIxNTE1MjYyMTE1ODQw.GaBcDe.aB-cD_eFgHiJkLmNoPqRsTuVwXyZ0123456789"
log = logging.getLogger("bot.jobs.lifecycle")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"key {API_KEY} refused", "key pkz_… refused"),
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
def test_text_that_looks_like_a_secret_is_redacted(text: str, redacted: str) -> None:
    assert Redactor([])(text) == redacted


@pytest.mark.parametrize("text", ["pkz_4_5 and pkz_2", "1.2.3", "exam?example=66", "webhooks/guide", "M" * 60])
def test_text_that_only_resembles_a_secret_is_kept(text: str) -> None:
    assert Redactor([])(text) == text


@given(st.text(st.characters(exclude_characters="…"), min_size=4), st.text(), st.text())
def test_a_known_secret_is_redacted_anywhere_in_a_line(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret])(before + secret + after)


def test_longer_secrets_are_redacted_first_and_empty_ones_are_ignored() -> None:
    assert Redactor(["abcd", "abcdefgh", ""])("abcdefgh abcd") == "… …"
    assert Redactor(["c", "abcd"])("abcd c") == "… …", "also if the shorter one is in the middle of the longer one"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_reaches_a_log_line(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    set_up(level="DEBUG", as_json=as_json, secrets=["s3cr3t value"])
    log.info("with %s", "s3cr3t value")
    logging.getLogger("discord.http").warning("POST %s", WEBHOOK)
    try:
        raise ValueError(f"'X-Api-Key': '{API_KEY}'", "s3cr3t value")
    except ValueError:
        log.exception("failed")
    logged = capsys.readouterr().err
    assert not any(secret in logged for secret in ("s3cr3t value", "ghi~jkl", API_KEY))
    assert "ValueError" in logged


def test_a_text_line_has_time_level_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=False, secrets=[])
    log.warning("job %s released", "k3f9")
    date, _, rest = capsys.readouterr().err.partition(" ")
    assert len(date) == len("2026-11-22")
    assert rest[8:] == " WARNING bot.jobs.lifecycle: job k3f9 released\n"


def test_a_json_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=True, secrets=[])
    log.warning("two\nlines, %s", "ünïcode")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ünïcode" in line, "a person can search for it"
    logged = json.loads(line)
    assert logged.pop("time").endswith("+00:00")
    assert logged == {"level": "warning", "logger": "bot.jobs.lifecycle", "message": "two\nlines, ünïcode"}


def test_a_line_carries_its_job_id_and_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=True, secrets=[])
    token = logs.job_id.set("k3f9")
    try:
        raise ValueError("cause")
    except ValueError:
        log.exception("failed")
    finally:
        logs.job_id.reset(token)
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
    logged = capsys.readouterr().err
    assert "body with secrets" not in logged
    assert "worth knowing" in logged
    assert "ours" in logged


def test_libraries_log_nothing_below_the_configured_level(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="ERROR", as_json=False, secrets=[])
    logging.getLogger("discord").warning("not worth it")
    log.warning("nor this")
    assert capsys.readouterr().err == ""


def test_the_warning_about_an_intent_that_is_off_on_purpose_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("discord.state").setLevel(logging.NOTSET)
    set_up(level="INFO", as_json=False, secrets=[])
    logging.getLogger("discord.state").warning("guilds intent seems to be disabled")
    logging.getLogger("discord.state").error("worse")
    logging.getLogger("discord.http").warning("rate limited")
    logged = capsys.readouterr().err
    assert [text in logged for text in ("guilds intent", "worse", "rate limited")] == [False, True, True]


def test_setting_up_twice_does_not_duplicate_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        set_up(level="INFO", as_json=False, secrets=[])
    log.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_facts_of_a_line_are_fields_in_json_and_never_secret(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(level="INFO", as_json=True, secrets=["s3cr3t value"])
    log.info("delivered", extra={"facts": {"user": "7", "credits": 0, "server": "", "model": "s3cr3t value"}})
    logged = json.loads(capsys.readouterr().err)
    assert {name: logged[name] for name in logged if name not in ("time", "level", "logger", "message")} == {
        "user": "7",
        "credits": 0,
        "model": "…",
    }


@pytest.mark.parametrize("is_terminal", [False, True])
def test_without_a_setting_lines_are_plain_on_a_terminal_and_json_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    set_up(level="INFO", as_json=None, secrets=[])
    log.info("here")
    assert capsys.readouterr().err.startswith("{") is not is_terminal
