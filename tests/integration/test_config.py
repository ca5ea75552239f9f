"""Settings come from the environment, then config.toml, then defaults. An error is one sentence without secrets."""

import json
import os
import re
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from bot.config import Settings, load, load_stored, secret_files
from bot.domain.errors import InvalidConfiguration
from bot.domain.models import Format, Model

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
ID = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
NO_ID = "must be a Discord id, like 123456789012345678"
CANARY = "canary-7c1e"
SECRETS = {"BOT_DISCORD__TOKEN": "a-token", "BOT_PIKZELS__API_KEY": "pkz_a_key"}

# For every setting, one value other than its default.
OTHER: Mapping[str, Any] = {
    "discord.token": "b-token",
    "pikzels.api_key": "pkz_b_key",
    "pikzels.base_url": "http://127.0.0.1:8099",
    "pikzels.concurrency": 8,
    "pikzels.timeout": 120.5,
    "pikzels.retry_server_errors": True,
    "pikzels.max_megapixels": 20,
    "storage.folder": "elsewhere",
    "storage.source_days": 7,
    "storage.source_megabytes": 64,
    "backup.minutes": 2.5,
    "backup.keep_recent": 5,
    "backup.keep_hourly": 6,
    "backup.keep_daily": 7,
    "backup.megabytes": 500,
    "backup.folder": "/elsewhere",
    "quota.member_daily": 3,
    "quota.member_monthly": 30,
    "quota.server_daily": 31,
    "quota.server_monthly": 32,
    "quota.bot_daily": 33,
    "quota.bot_monthly": 34,
    "quota.attempts_hourly": 35,
    "quota.unknown_daily": 6,
    "quota.strikes_daily": 7,
    "quota.exempt_members": [81],
    "quota.exempt_roles": [82],
    "quota.timezone": "America/New_York",
    "prices.pkz_2": 0.21,
    "prices.pkz_3": 0.22,
    "prices.pkz_4": 0.23,
    "prices.pkz_4_5": 0.24,
    "budget.daily_dollars": 1.5,
    "budget.monthly_dollars": 15.5,
    "budget.notify_members": False,
    "access.servers": [91],
    "access.account_days": 7.5,
    "access.member_hours": 8.5,
    "operator.users": [101],
    "operator.server": 102,
    "quota.costs.pkz_2": 2,
    "quota.costs.pkz_3": 3,
    "quota.costs.pkz_4": 4,
    "quota.costs.pkz_4_5": 5,
    "privacy.job_days": 90,
    "privacy.most_jobs": 5_000,
    "privacy.left_days": 14,
    "queue.length": 7,
    "queue.per_member": 2,
    "defaults.model": "pkz_2",
    "defaults.format": "9:16",
    "personas": {"mascot": ID},
    "styles": {"comic": ID},
    "results.seed_reaction": False,
    "health.host": "0.0.0.0",  # noqa: S104 - no port is opened here
    "health.port": 9090,
    "alerts.webhook": "https://discord.com/api/webhooks/1/x",
    "log.level": "ERROR",
    "log.json_lines": True,
    "shutdown.grace": 5.5,
}


@pytest.fixture(autouse=True)
def _run_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BOT_")]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def variable(setting: str) -> str:
    return "BOT_" + setting.upper().replace(".", "__")


def write_config(text: str) -> None:
    Path("config.toml").write_text(text)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def value(settings: Settings, setting: str) -> Any:
    found: Any = settings
    for name in setting.split("."):
        found = getattr(found, name)
    return found.get_secret_value() if isinstance(found, SecretStr) else to_jsonable_python(found)


def invalid() -> InvalidConfiguration:
    with pytest.raises(InvalidConfiguration) as caught:
        load()
    error = caught.value
    texts = [str(error), repr(error), *traceback.format_exception(error), str(error.__context__)]
    assert not any(CANARY in line for line in texts)
    assert re.fullmatch(r"[^\n]+: [a-z0-9][^\n]+", str(error)), "one line: the setting, and a clause"
    return error


# --- where settings come from --------------------------------------------------------------------------------------


def test_these_tests_cover_every_setting() -> None:
    assert OTHER.keys() == dict(leaves(Settings)).keys()
    assert all(value(load(), setting) != other for setting, other in OTHER.items())


@pytest.mark.parametrize("setting", OTHER)
def test_every_setting_can_come_from_the_environment(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = OTHER[setting]
    monkeypatch.setenv(variable(setting), other if isinstance(other, str) else json.dumps(other))
    assert value(load(), setting) == other


@pytest.mark.parametrize("setting", OTHER)
def test_every_setting_can_come_from_the_file(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable(setting), raising=False)
    section, _, name = setting.rpartition(".")
    entries = OTHER[setting].items() if isinstance(OTHER[setting], dict) else [(name, OTHER[setting])]
    write_config(f"[{section or setting}]\n" + "\n".join(f"{key} = {json.dumps(other)}" for key, other in entries))
    assert value(load(), setting) == OTHER[setting]


def test_loaded_values_have_the_types_the_program_uses() -> None:
    settings = load()
    assert (settings.defaults.model, settings.defaults.format) == (Model.PKZ_4_5, Format.WIDE)
    assert isinstance(settings.storage.folder, Path)
    assert list(settings.secrets()) == list(SECRETS.values())


def test_settings_do_not_show_their_secrets() -> None:
    assert not any(secret in repr(load()) + str(load()) for secret in SECRETS.values())


def test_environment_variables_override_single_settings_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("[queue]\nlength = 7\nper_member = 3\n")
    monkeypatch.setenv("BOT_QUEUE__LENGTH", "9")
    assert (load().queue.length, load().queue.per_member) == (9, 3)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("[queue]\nlength = 7\n")
    monkeypatch.setenv("BOT_QUEUE__LENGTH", "")
    assert load().queue.length == 7


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_config("[queue]\nlength = 7\n")
    (tmp_path / "other.toml").write_text("[queue]\nlength = 8\n")
    monkeypatch.setenv("BOT_CONFIG", str(tmp_path / "other.toml"))
    assert load().queue.length == 8


@pytest.mark.parametrize("setting", ["discord.token", "pikzels.api_key", "alerts.webhook"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_secret_can_come_from_a_file_of_its_own(
    setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, in_file: bool
) -> None:
    (tmp_path / "secret").write_text(f" {OTHER[setting]}\n")
    monkeypatch.delenv(variable(setting), raising=False)
    if in_file:
        section, _, name = setting.partition(".")
        write_config(f'[{section}]\n{name}_file = "secret"\n')
    else:
        monkeypatch.setenv(f"{variable(setting)}_FILE", str(tmp_path / "secret"))
    assert value(load(), setting) == OTHER[setting]


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("from home")
    write_config(
        "[discord]\ntoken_file = '~/token'\n[storage]\nfolder = '~/pikzels-data'\n[backup]\nfolder = '~/../backups'\n"
    )
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    settings = load()
    assert settings.discord.token.get_secret_value() == "from home"
    assert settings.storage.folder == tmp_path / "home" / "pikzels-data"
    assert settings.backup.folder == tmp_path / "home" / ".." / "backups"
    assert list(secret_files()) == [tmp_path / "home" / "token"]
    monkeypatch.setenv("BOT_STORAGE__FOLDER", "a~/b")
    assert load().storage.folder == Path("a~/b")
    assert load_stored().backup.folder == settings.backup.folder


def test_the_home_folder_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_STORAGE__FOLDER", "~nobody-has-this-name/data")
    assert str(invalid()) == "storage.folder: begins with ~, but that user has no home folder"
    monkeypatch.delenv("BOT_STORAGE__FOLDER")
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    monkeypatch.setenv("BOT_DISCORD__TOKEN_FILE", "~nobody-has-this-name/token")
    assert invalid().setting == "discord.token"


@pytest.mark.parametrize(
    ("environment", "file", "expected"),
    [
        ({"TOKEN": "env"}, 'token = "toml"', "env"),
        ({"TOKEN": "env"}, 'token_file = "secret"', "env"),
        ({"TOKEN": "env", "TOKEN_FILE": "secret"}, "", "env"),
        ({"TOKEN_FILE": "secret"}, 'token = "toml"', "from a file"),
        ({"TOKEN_FILE": "secret"}, 'token_file = "missing"', "from a file"),
        ({}, 'token = "toml"\ntoken_file = "secret"', "toml"),
    ],
)
def test_the_closest_source_of_a_secret_wins(
    environment: dict[str, str], file: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("secret").write_text("from a file")
    write_config(f"[discord]\n{file}\n")
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    for name, text in environment.items():
        monkeypatch.setenv(f"BOT_DISCORD__{name}", text)
    assert load().discord.token.get_secret_value() == expected


# --- invalid settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["discord.token", "pikzels.api_key"])
def test_a_missing_secret_error_says_where_to_set_it(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable(setting))
    assert str(invalid()) == f"{setting}: is missing; set it in config.toml or as {variable(setting)}"


@pytest.mark.parametrize("setting", ["discord.token", "pikzels.api_key", "alerts.webhook"])
@pytest.mark.parametrize("secret", [f"{CANARY}\u2026", f"{CANARY}\n{CANARY}", f"{CANARY}\x7f", " "])
def test_an_invalid_secret_is_not_shown_in_the_error(
    setting: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(setting), secret)
    assert str(invalid()) == f"{setting}: must be a key of printable ASCII characters"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is in the file secret, which cannot be read (no such file or directory)"),
        (b"\xff" + CANARY.encode(), "is in the file secret, which is not UTF-8 text"),
        (b"", "is in the file secret, which is empty"),
        (b" \n", "is in the file secret, which is empty"),
    ],
)
@pytest.mark.parametrize("setting", ["discord.token", "pikzels.api_key", "alerts.webhook"])
def test_an_unreadable_secret_file_is_named(
    setting: str, content: bytes | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        Path("secret").write_bytes(content)
    monkeypatch.delenv(variable(setting), raising=False)
    monkeypatch.setenv(variable(setting) + "_FILE", "secret")
    assert str(invalid()) == f"{setting}: {problem}"


def test_a_file_that_this_user_may_not_read_is_named_with_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").mkdir()  # a folder cannot be read as a file, even by root
    Path("secret").chmod(0o711)
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    monkeypatch.setenv("BOT_DISCORD__TOKEN_FILE", "secret")
    why = f"is a directory; its mode is 0711, its owner is user {os.getuid()}"
    assert invalid().problem == f"is in the file secret, which cannot be read ({why})"


def test_a_key_without_its_prefix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_PIKZELS__API_KEY", f"sk_{CANARY}")
    assert str(invalid()) == "pikzels.api_key: must begin with pkz_"


@pytest.mark.parametrize(
    "url",
    [
        "https://discord.com/api/webhooks/1/a-B_c",
        "https://discordapp.com/api/webhooks/12/x",
        "https://ptb.discord.com/api/webhooks/12/x",
        "https://canary.discord.com/api/v10/webhooks/12/x",
        "https://discord.com/api/webhooks/12/x?thread_id=34",
        "http://127.0.0.1:8099/api/webhooks/12/x",
    ],
)
def test_a_webhook_of_discord_or_of_this_machine_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_ALERTS__WEBHOOK", url)
    assert value(load(), "alerts.webhook") == url


@pytest.mark.parametrize(
    "url",
    [
        f"https://example.com/api/webhooks/1/{CANARY}",
        f"https://discord.com.example.com/api/webhooks/1/{CANARY}",
        f"http://discord.com/api/webhooks/1/{CANARY}",
        "https://discord.com/api/webhooks/1",
        f"https://discord.com/api/webhooks/x/{CANARY}",
        f"https://discord.com/channels/1/{CANARY}",
        f"https://[{CANARY}",
        CANARY,
    ],
)
def test_a_webhook_of_anybody_else_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_ALERTS__WEBHOOK", url)
    error = invalid()
    assert error.setting == "alerts.webhook"
    assert error.problem.startswith("must be the URL of a Discord webhook, like https://discord.com/api/webhooks/")


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(f"[quota]\nmember_daily = '{CANARY}'\n[personas]\nmascot = '{CANARY}'\n[discrd]\n")
    for name, text in {
        "BOT_DISCORD__TOKEN_FILE": "missing",
        "BOT_PIKZELS__API_KEY": CANARY,
        "BOT_PIKZELS__TIMEOUT": "0",
        "BOT_ACCESS__SERVERS": "12,13",
        "BOT_TOKEN": CANARY,
        "BOT_WEBHOOK": CANARY,
    }.items():
        monkeypatch.setenv(name, text)
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    error = invalid()
    assert error.problems == (
        ("BOT_TOKEN", "is not a setting"),
        ("BOT_WEBHOOK", "is not a setting"),
        ("discord.token", "is in the file missing, which cannot be read (no such file or directory)"),
        ("pikzels.api_key", "must begin with pkz_"),
        ("pikzels.timeout", "must be greater than or equal to 1"),
        ("quota.member_daily", "must be a valid integer, unable to parse string as an integer"),
        ("environment", "must contain valid JSON, like [1, 2] or {}, in BOT_ACCESS__SERVERS"),
        ("personas.mascot", f"must be an id like {ID}"),
        ("discrd", "is not a setting"),
    )
    assert CANARY not in str(error.problems)


@pytest.mark.parametrize(
    ("text", "setting", "problem"),
    [
        ("[discrd]\ntoken = 'canary-7c1e'", "discrd", "is not a setting"),
        ("[discord]\ntokn = 'canary-7c1e'", "discord.tokn", "is not a setting"),
        ("[quota.costs]\npkz_5 = 1", "quota.costs.pkz_5", "is not a setting"),
        ("length = 7", "length", "is not a setting"),
        ("queue = 'canary-7c1e'", "queue", "dictionary"),
        ("[pikzels]\nconcurrency = 0", "pikzels.concurrency", "greater than or equal to 1"),
        ("[pikzels]\nconcurrency = 'canary-7c1e'", "pikzels.concurrency", "integer"),
        ("[pikzels]\nbase_url = 'http://api.pikzels.com'", "pikzels.base_url", "must be an HTTPS URL"),
        ("[pikzels]\nbase_url = 'https://a:canary-7c1e@b'", "pikzels.base_url", "must be an HTTPS URL"),
        ("[pikzels]\nbase_url = 'https://:canary-7c1e@b'", "pikzels.base_url", "must be an HTTPS URL"),
        ("[pikzels]\nbase_url = 'https://b/?key=canary-7c1e'", "pikzels.base_url", "must be an HTTPS URL"),
        ("[quota]\ntimezone = 'Europe/Nowhere'", "quota.timezone", "must be a time zone like UTC or Europe/Berlin"),
        ("[quota]\ntimezone = '../../etc/passwd'", "quota.timezone", "must be a time zone like UTC or Europe/Berlin"),
        ("[quota]\ntimezone = ''", "quota.timezone", "must be a time zone like UTC or Europe/Berlin"),
        ("[budget]\ndaily_dollars = -1", "budget.daily_dollars", "must be greater than or equal to 0"),
        ("[budget]\ndaily_dollars = nan", "budget.daily_dollars", "must be greater than or equal to 0"),
        ("[personas]\nmascot = 'canary-7c1e'", "personas.mascot", "must be an id like 0b5c6a3e-"),
        ("[styles]\ncomic = ''", "styles.comic", "must be an id like 0b5c6a3e-"),
        ("[access]\nservers = ['my server']", "access.servers.0", "must be a valid integer"),
        ("[access]\nservers = [-5]", "access.servers.0", NO_ID),
        ("[access]\nservers = [0]", "access.servers.0", NO_ID),
        ("[access]\nservers = [9223372036854775808]", "access.servers.0", NO_ID),
        ("[access]\nservers = [1100000000000000002.0]", "access.servers.0", NO_ID),
        ("[access]\nservers = ['1100000000000000002.0']", "access.servers.0", NO_ID),
        ("[access]\nservers = [true]", "access.servers.0", NO_ID),
        ("[operator]\nusers = [2.0]", "operator.users.0", NO_ID),
        ("[operator]\nserver = -1", "operator.server", NO_ID),
        ("[operator]\nserver = 1e18", "operator.server", NO_ID),
        ("[quota]\nexempt_members = [-1]", "quota.exempt_members.0", NO_ID),
        ("[quota]\nexempt_roles = [0.0]", "quota.exempt_roles.0", NO_ID),
        ("[pikzels]\nbase_url = 'https://['", "pikzels.base_url", "must be an HTTPS URL"),
        ("[pikzels]\ntimeout = nan", "pikzels.timeout", "less than or equal to 3600"),
        ("[pikzels]\ntimeout = inf", "pikzels.timeout", "less than or equal to 3600"),
        ("[health]\nport = 65536", "health.port", "less than or equal to 65535"),
        ("[log]\nlevel = 'canary-7c1e'", "log.level", "'DEBUG', 'INFO'"),
        ("[defaults]\nmodel = 'pkz_5'", "defaults.model", "'pkz_2', 'pkz_3'"),
        ("[personas]\nmascot = 7", "personas.mascot", "string"),
    ],
)
def test_an_invalid_setting_in_the_file_is_named(text: str, setting: str, problem: str) -> None:
    write_config(text)
    error = invalid()
    assert error.setting == setting
    assert problem in error.problem


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:abc",
        "http://127.0.0.1:0",
        "https://api.pikzels.com:99999",
        "https://api.pikzels.com:-1",
        "https://api pikzels.com",
        "https://api.pikzels.com/a b",
        "https://api.pikzels\n.com",
        "https://api..pikzels.com",
        "https://.",
        "https://a%2fb",
        "https://a\\b",
        f"https://{'a' * 64}.com",
    ],
)
def test_an_address_that_no_connection_can_be_made_to_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_PIKZELS__BASE_URL", url)
    error = invalid()
    assert error.setting == "pikzels.base_url"
    assert error.problem.startswith("must have a valid host and port, like ")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.pikzels.com",
        "https://api.pikzels.com.:443",
        "https://API.pikzels.com/below",
        "https://my_proxy:8443",
        "https://bücher.example",
        "http://[::1]:8099",
        "https://[2001:db8::1]",
        "http://localhost:65535",
    ],
)
def test_the_address_of_any_server_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_PIKZELS__BASE_URL", url)
    assert load().pikzels.base_url == url


def test_the_ids_of_the_environment_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_ACCESS__SERVERS", '[1100000000000000002, "1100000000000000003"]')
    monkeypatch.setenv("BOT_OPERATOR__SERVER", "1100000000000000003")
    settings = load()
    assert settings.access.servers == {1100000000000000002, 1100000000000000003}
    assert settings.operator.server == 1100000000000000003
    monkeypatch.setenv("BOT_OPERATOR__SERVER", "1100000000000000003.0")
    assert str(invalid()) == f"operator.server: {NO_ID}"


@pytest.mark.parametrize(
    ("name", "text", "setting"),
    [
        ("BOT_DISCRD__TOKEN", CANARY, "BOT_DISCRD__TOKEN"),
        ("BOT_TOKEN", CANARY, "BOT_TOKEN"),
        ("BOT_DISCORD_TOKEN", CANARY, "BOT_DISCORD_TOKEN"),
        ("BOT_DISCORD__TOKN", CANARY, "discord.tokn"),
        ("BOT_QUEUE__LENGTH", CANARY, "queue.length"),
        ("BOT_PERSONAS", CANARY, "environment"),
        ("BOT_DISCORD", f'{{"token": "{CANARY}"', "environment"),
        ("BOT_CONFIG", "missing.toml", "BOT_CONFIG"),
        ("BOT_CONFIG", ".", "BOT_CONFIG"),
    ],
)
def test_an_invalid_setting_in_the_environment_is_named(
    name: str, text: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    assert invalid().setting == setting


@pytest.mark.parametrize(
    "content",
    [
        f"[discord]\ntoken = {CANARY}".encode(),
        f"[discord]\ntoken = '{CANARY}".encode(),
        f"[discord]\ntoken = '{CANARY}'\ntoken = '{CANARY}'".encode(),
        f"[discord]\ntoken = '{CANARY}\xff'".encode("latin-1"),
        b"[discord",
        b"\x00",
    ],
)
def test_a_file_that_is_not_toml_is_named(content: bytes) -> None:
    Path("config.toml").write_bytes(content)
    error = invalid()
    assert error.setting == "config.toml"
    assert error.problem.startswith("is not valid TOML")


# --- the example ---------------------------------------------------------------------------------------------------


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in table.items():
        if isinstance(inner, dict) and prefix + name not in ("personas", "styles"):
            yield from flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def test_the_example_has_every_setting_with_its_default() -> None:
    text = EXAMPLE.read_text()
    active = dict(flat(tomllib.loads(text)))
    all_settings = dict(flat(tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))))
    settings = dict(leaves(Settings))
    assert all_settings.keys() == settings.keys()
    assert active == {
        setting: to_jsonable_python(info.default)
        for setting, info in settings.items()
        if not info.is_required() and info.default is not None
    }


def test_the_example_explains_each_setting() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"(# )?\w+ = ", line):
            assert re.match(r"# (?!\w+ = ).+[.\w]$", before), line


def test_the_example_changes_nothing_when_used_unchanged() -> None:
    untouched = load()
    write_config(EXAMPLE.read_text())
    assert load() == untouched


def test_a_budget_without_a_limit_is_inf() -> None:
    write_config("[budget]\ndaily_dollars = inf\n")
    assert load().budget.daily_dollars == float("inf")
