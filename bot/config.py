"""Frozen settings from config.toml, environment variables, and secret files; each invalid one becomes one sentence."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from bot.domain.errors import InvalidConfiguration
from bot.domain.models import Format, Model
from bot.setting_values import (
    LOOPBACK,
    ApiKey,
    BaseUrl,
    DiscordId,
    Folder,
    PresetId,
    Secret,
    TimeZone,
    Unusable,
    Webhook,
    expanded,
    is_secret,
    secret_in,
    why_unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import tzinfo

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

S = TypeVar("S", bound=BaseModel)

PREFIX = "BOT_"
NESTING = "__"
DEFAULT_FILE = Path("config.toml")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: Any) -> Any:
        """`token_file = "/run/secrets/token"` sets `token`, unless `token` is set too."""
        if not isinstance(values, dict):
            return values
        merged = dict(values)
        for name in _secrets_of(cls):
            file = merged.pop(f"{name}_file", None)
            if file is not None and name not in merged:
                merged[name] = secret_in(Path(str(file)))
        return merged


def _secrets_of(section: type[BaseModel]) -> list[str]:
    return [name for name, info in section.model_fields.items() if is_secret(info.annotation)]


class Discord(_Section):
    """How the bot logs in to Discord."""

    token: Secret


class Pikzels(_Section):
    """The provider that generates the images."""

    api_key: ApiKey
    base_url: BaseUrl = "https://api.pikzels.com"
    concurrency: int = Field(4, ge=1, le=1000)
    timeout: float = Field(300.0, ge=1, le=3600)
    retry_server_errors: bool = False
    max_megapixels: int = Field(50, ge=1, le=1000)

    @property
    def max_pixels(self) -> int:
        """The largest image that is sent, in pixels."""
        return self.max_megapixels * 1_000_000

    @property
    def on_this_machine(self) -> bool:
        return urlsplit(self.base_url).hostname in LOOPBACK


class Storage(_Section):
    """Where data is stored, and how long source images are kept."""

    folder: Folder = Path("data")
    source_days: int = Field(30, ge=0, le=3650)
    source_megabytes: int = Field(1024, ge=0, le=1_000_000)


class Backup(_Section):
    """How often the database is backed up while the bot runs, and which of the backups are kept."""

    minutes: float = Field(5, ge=0, le=1440)
    keep_recent: int = Field(12, ge=1, le=1000)
    keep_hourly: int = Field(24, ge=0, le=1000)
    keep_daily: int = Field(14, ge=0, le=1000)
    megabytes: int = Field(4096, ge=1, le=10_000_000)
    folder: Folder | None = None


class Results(_Section):
    """What the bot adds to results."""

    seed_reaction: bool = True


class Costs(_Section):
    """Credits of the allowance that one image from each model uses."""

    pkz_2: int = Field(1, ge=0, le=1000)
    pkz_3: int = Field(1, ge=0, le=1000)
    pkz_4: int = Field(1, ge=0, le=1000)
    pkz_4_5: int = Field(1, ge=0, le=1000)


class Prices(_Section):
    """Dollars that the provider charges for one image from each model. Published for this endpoint on 2026-05-11."""

    pkz_2: float = Field(0.20, ge=0, le=1000)
    pkz_3: float = Field(0.18, ge=0, le=1000)
    pkz_4: float = Field(0.36, ge=0, le=1000)
    pkz_4_5: float = Field(0.13, ge=0, le=1000)


class Budget(_Section):
    """Dollars that the bot may spend; `inf` is no limit."""

    daily_dollars: float = Field(10.0, ge=0)
    monthly_dollars: float = Field(100.0, ge=0)
    notify_members: bool = True


class Quota(_Section):
    """How many credits may be used, and how many requests may be made. Without a number, there is no such limit."""

    member_daily: int | None = Field(10, ge=0, le=1_000_000)
    member_monthly: int | None = Field(None, ge=0, le=10_000_000)
    server_daily: int | None = Field(None, ge=0, le=10_000_000)
    server_monthly: int | None = Field(None, ge=0, le=100_000_000)
    bot_daily: int | None = Field(None, ge=0, le=100_000_000)
    bot_monthly: int | None = Field(None, ge=0, le=1_000_000_000)
    attempts_hourly: int = Field(60, ge=1, le=1_000_000)
    unknown_daily: int = Field(5, ge=1, le=1_000_000)
    strikes_daily: int = Field(5, ge=1, le=1_000_000)
    exempt_members: frozenset[DiscordId] = frozenset()
    exempt_roles: frozenset[DiscordId] = frozenset()
    timezone: TimeZone = "UTC"
    costs: Costs = Costs()

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)


class Access(_Section):
    """Who may use the bot. No servers: every server may."""

    servers: frozenset[DiscordId] = frozenset()
    account_days: float = Field(0, ge=0, le=3650)
    member_hours: float = Field(0, ge=0, le=87_600)


class Operator(_Section):
    """Who operates the bot, by Discord ids, and the server in which they have the command /operator."""

    users: frozenset[DiscordId] = frozenset()
    server: DiscordId | None = None


class Privacy(_Section):
    """How long things are kept, in days, and how many jobs at most."""

    job_days: int = Field(365, ge=1, le=3650)
    most_jobs: int = Field(1_000_000, ge=1_000, le=100_000_000)
    left_days: int = Field(30, ge=1, le=3650)


class Queue(_Section):
    """How many requests may wait or be in progress."""

    length: int = Field(100, ge=0, le=100_000)
    per_member: int = Field(10, ge=1, le=100_000)


class Defaults(_Section):
    """The choices used when a member makes none."""

    model: Model = Model.PKZ_4_5
    format: Format = Format.WIDE


class Health(_Section):
    """The monitoring endpoint; off without a port."""

    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=0, le=65535)


class Alerts(_Section):
    """How the operator is alerted, in addition to the log."""

    webhook: Webhook | None = None


class Log(_Section):
    """What is written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    json_lines: bool | None = None  # only where standard error is no terminal


class Shutdown(_Section):
    """How long a shutdown may take."""

    grace: float = Field(150.0, ge=0, le=3600)


class Settings(_Section):
    """All settings."""

    discord: Discord
    pikzels: Pikzels
    storage: Storage = Storage()
    backup: Backup = Backup()
    quota: Quota = Quota()
    prices: Prices = Prices()
    budget: Budget = Budget()
    access: Access = Access()
    operator: Operator = Operator()
    privacy: Privacy = Privacy()
    queue: Queue = Queue()
    defaults: Defaults = Defaults()
    personas: dict[str, PresetId] = {}
    styles: dict[str, PresetId] = {}
    results: Results = Results()
    health: Health = Health()
    alerts: Alerts = Alerts()
    log: Log = Log()
    shutdown: Shutdown = Shutdown()

    def secrets(self) -> Iterator[str]:
        """Yield every secret, so that the logs can leave them out."""
        for secret in (self.discord.token, self.pikzels.api_key, self.alerts.webhook):
            if secret is not None:
                yield secret.get_secret_value()


class _File(TomlConfigSettingsSource):
    """config.toml, without the secrets for which an environment variable names a file."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        for section, info in Settings.model_fields.items():
            given, nearer = values.get(section), self.current_state.get(section)
            if isinstance(given, dict) and isinstance(nearer, dict) and isinstance(info.annotation, type):
                for name in _secrets_of(info.annotation):
                    if f"{name}_file" in nearer:
                        given.pop(name, None)
        return values


class _Environment(EnvSettingsSource):
    """The variables. One that is no JSON, although it sets a table or a list, hides no other mistake."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            names = " and ".join(
                name.upper()
                for name, text in self.env_vars.items()
                if (text, name.endswith(field_name)) == (value, True)
            )
            return Unusable(f"must contain valid JSON, like [1, 2] or {{}}, in {names}", "environment")


_ENVIRONMENT = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=NESTING, env_ignore_empty=True)


class _FromEverywhere(BaseSettings):
    """Environment variables override config.toml, and config.toml overrides the defaults."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Environment(settings_cls), _File(settings_cls, _file()))


class _Sources(Settings, _FromEverywhere):
    model_config = _ENVIRONMENT


class Stored(_Section):
    """The settings that a command needs which only handles files: it works without secrets."""

    storage: Storage = Storage()
    backup: Backup = Backup()


class _StoredSources(Stored, _FromEverywhere):
    model_config = SettingsConfigDict(**_ENVIRONMENT, extra="ignore")


def load() -> Settings:
    """Read every source; raises `InvalidConfiguration` for all problems together."""
    return _read(_Sources)


def load_stored() -> Stored:
    """Read what is about stored files; raises `InvalidConfiguration` for all problems together."""
    return _read(_StoredSources)


def _read(sources: type[S]) -> S:
    problems = _unknown_variables()
    settings = None
    try:
        settings = sources()
    except ValidationError as error:
        problems += _described(error)
    except SettingsError:
        problems.append(("environment", "must contain valid JSON wherever a variable sets a whole table"))
    except tomllib.TOMLDecodeError as error:
        problems.append((str(_file()), f"is not valid TOML: {error}"))
    except UnicodeDecodeError:
        problems.append((str(_file()), "is not valid TOML: not UTF-8"))
    except OSError as error:
        problems.append((str(_file()), f"cannot be read ({why_unreadable(error, _file())})"))
    except InvalidConfiguration as error:
        problems += error.problems
    if settings is None or problems:
        (setting, problem), *others = problems
        raise InvalidConfiguration(setting, problem, tuple(others)) from None
    return settings


def secret_files() -> Iterator[Path]:
    """The files that `load` takes secrets from."""
    environment = {name.upper(): value for name, value in os.environ.items() if value}
    written = tomllib.loads(file().read_text("utf-8")) if file().exists() else {}
    for section, name in _secrets():
        variable = f"{PREFIX}{section}{NESTING}{name}".upper()
        near = (environment.get(variable), environment.get(f"{variable}_FILE"))
        table = written.get(section, {})
        secret, path = near if any(near) else (table.get(name), table.get(f"{name}_file"))
        if path and not secret:
            yield expanded(Path(str(path)))


def has_secrets(written: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether a config.toml contains a secret itself, and not only the name of a file."""
    return any(name in written.get(section, {}) for section, name in _secrets())


def _secrets() -> Iterator[tuple[str, str]]:
    """The section and the name of every setting that is a secret."""
    for section, info in Settings.model_fields.items():
        if isinstance(info.annotation, type):
            yield from ((section, name) for name in _secrets_of(info.annotation))


def problem_with(setting: str, value: object) -> str | None:
    """What is wrong with the value of one setting, in one clause; None if nothing is."""
    section, _, name = setting.partition(".")
    model: Any = Settings.model_fields[section].annotation
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return next((_clause(found) for found in error.errors(include_url=False) if found["loc"][:1] == (name,)), None)
    return None


def file() -> Path:
    """Where config.toml is, or would be."""
    return Path(os.environ.get(f"{PREFIX}CONFIG") or DEFAULT_FILE)


def _file() -> Path:
    """The file named by BOT_CONFIG, which must exist, or config.toml in this folder, which is optional."""
    if os.environ.get(f"{PREFIX}CONFIG") and not file().is_file():
        how = "is a folder" if file().is_dir() else "does not exist"
        raise InvalidConfiguration(f"{PREFIX}CONFIG", f"names {file()}, which {how}")
    return file()


def _unknown_variables() -> list[tuple[str, str]]:
    """pydantic-settings ignores a misspelled environment variable; the operator should hear about it."""
    known = {*Settings.model_fields, "config"}
    return [
        (name, "is not a setting")
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).partition(NESTING)[0].lower() not in known
    ]


def _described(error: ValidationError) -> list[tuple[str, str]]:
    return [_located(found) for found in error.errors(include_url=False, include_context=False)]


def _located(found: ErrorDetails) -> tuple[str, str]:
    """The dotted name of a setting, and what is wrong with it."""
    setting = ".".join(str(part) for part in found["loc"])
    if isinstance(found["input"], Unusable):
        return found["input"].setting or setting, found["input"].problem
    section = Settings.model_fields[setting].annotation if setting in Settings.model_fields else None
    if found["type"] == "missing" and isinstance(section, type) and issubclass(section, _Section):
        setting += "." + next(name for name, info in section.model_fields.items() if info.is_required())
    if found["type"] == "missing":
        variable = PREFIX + setting.upper().replace(".", NESTING)
        return setting, f"is missing; set it in {DEFAULT_FILE} or as {variable}"
    return setting, _clause(found)


def _clause(found: ErrorDetails) -> str:
    if found["type"] == "extra_forbidden":
        return "is not a setting"
    problem = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return problem[0].lower() + problem[1:].replace("a valid frozenset", "a list, like [1, 2]")
