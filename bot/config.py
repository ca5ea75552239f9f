"""Frozen settings from config.toml, environment variables, and secret files; an invalid one becomes one sentence."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from bot.domain.errors import InvalidConfiguration, InvalidSetting
from bot.domain.models import Format, Model
from bot.domain.validation import preset_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

PREFIX = "BOT_"
NESTING = "__"
DEFAULT_FILE = Path("config.toml")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _is_base_url(value: str) -> str:
    parts = urlsplit(value)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an HTTPS URL (HTTP is allowed only on this machine)")
    return value.rstrip("/")


def _is_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("must be a key of printable ASCII characters")
    return SecretStr(key)


def _is_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone like UTC or Europe/Berlin") from None
    return value


def _is_preset_id(value: str) -> str:
    try:
        return preset_id(value)
    except InvalidSetting:
        raise ValueError("must be an id like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d") from None


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation) or Secret in get_args(annotation)


def _secret_in(file: str, setting: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{setting} cannot be read ({type(error).__name__})") from None


Secret = Annotated[SecretStr, AfterValidator(_is_key)]
BaseUrl = Annotated[str, AfterValidator(_is_base_url)]
PresetId = Annotated[str, AfterValidator(_is_preset_id)]
TimeZone = Annotated[str, AfterValidator(_is_zone)]


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
                merged[name] = _secret_in(str(file), f"{name}_file")
        return merged


def _secrets_of(section: type[BaseModel]) -> list[str]:
    return [name for name, info in section.model_fields.items() if _is_secret(info.annotation)]


class Discord(_Section):
    """How the bot logs in to Discord."""

    token: Secret


class Pikzels(_Section):
    """The provider that generates the images."""

    api_key: Secret
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
        return urlsplit(self.base_url).hostname in _LOOPBACK


class Storage(_Section):
    """Where data is stored, and how long source images are kept."""

    folder: Path = Path("data")
    source_days: int = Field(30, ge=0, le=3650)
    source_megabytes: int = Field(1024, ge=0, le=1_000_000)


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
    exempt_members: frozenset[int] = frozenset()
    exempt_roles: frozenset[int] = frozenset()
    timezone: TimeZone = "UTC"
    costs: Costs = Costs()

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)


class Access(_Section):
    """Who may use the bot. No servers: every server may."""

    servers: frozenset[int] = frozenset()
    account_days: float = Field(0, ge=0, le=3650)
    member_hours: float = Field(0, ge=0, le=87_600)


class Operator(_Section):
    """Who operates the bot, by Discord ids, and the server in which they have the command /operator."""

    users: frozenset[int] = frozenset()
    server: int | None = None


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

    webhook: Secret | None = None


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


class _Sources(Settings, BaseSettings):
    """Environment variables override config.toml, and config.toml overrides the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTING,
        env_ignore_empty=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, _File(settings_cls, _file()))


def load() -> Settings:
    """Read every source; raises `InvalidConfiguration` for the first problem."""
    _refuse_unknown_sections()
    try:
        return _Sources()
    except ValidationError as error:
        raise _described(error) from None
    except SettingsError:
        raise InvalidConfiguration(
            "environment", "must contain valid JSON wherever a variable sets a whole table"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(str(_file()), f"is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise InvalidConfiguration(str(_file()), "is not valid TOML: not UTF-8") from None
    except OSError as error:
        raise InvalidConfiguration(str(_file()), f"cannot be read ({type(error).__name__})") from None


def _file() -> Path:
    """The file named by BOT_CONFIG, which must exist, or config.toml in this folder, which is optional."""
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named and not Path(named).is_file():
        raise InvalidConfiguration(f"{PREFIX}CONFIG", "names a file that does not exist")
    return Path(named) if named else DEFAULT_FILE


def _refuse_unknown_sections() -> None:
    """pydantic-settings ignores a misspelled environment variable; the operator should hear about it."""
    for name in os.environ:
        section, _, _ = name.removeprefix(PREFIX).partition(NESTING)
        known = {*Settings.model_fields, "config"}
        if name.startswith(PREFIX) and section.lower() not in known:
            raise InvalidConfiguration(name, "is not a setting")


def _described(error: ValidationError) -> InvalidConfiguration:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    setting = ".".join(str(part) for part in first["loc"])
    section = Settings.model_fields[setting].annotation if setting in Settings.model_fields else None
    if first["type"] == "missing" and isinstance(section, type) and issubclass(section, _Section):
        setting += "." + next(name for name, info in section.model_fields.items() if info.is_required())
    variable = PREFIX + setting.upper().replace(".", NESTING)
    match first["type"]:
        case "missing":
            problem = f"is missing; set it in {DEFAULT_FILE} or as {variable}"
        case "extra_forbidden":
            problem = "is not a setting"
        case _:
            problem = first["msg"].removeprefix("Value error, ")
    return InvalidConfiguration(setting, problem[0].lower() + problem[1:])
