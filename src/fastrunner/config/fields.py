"""Support: how a setting is read from the environment, and the settings of whatever works on a data directory."""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field, FilePath, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fastrunner.base.checks import encodable, host_and_port, sendable

__all__ = [
    "Authentication",
    "ConfigurationError",
    "DataSettings",
    "Endpoint",
    "Environment",
    "Folder",
    "Key",
    "LogLevel",
    "Port",
    "Seconds",
    "readable",
    "secret",
    "state_folder",
    "stigmer_folder",
    "variable",
]


class Environment(StrEnum):
    """Where the runner runs; decides the form of logs and how strict start-up is."""

    LOCAL = "local"
    STAGING = "staging"
    PROD = "prod"


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Authentication(StrEnum):
    """What is said about it beside what is configured."""

    NONE = "none"


class ConfigurationError(Exception):
    """The configuration cannot be used; the message is one line per problem, each naming its variable."""


def state_folder() -> Path:
    """Where a runner keeps what it is not told to keep elsewhere. Raises ConfigurationError."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(base or Path.home() / ".local" / "state") / "fastrunner"
    except RuntimeError:
        raise ConfigurationError(
            "FASTRUNNER_DATA_DIR is not set, and there is no home directory for its default: HOME is not set, and user "
            f"id {os.getuid()} has no entry in the passwd file; set FASTRUNNER_DATA_DIR"
        ) from None


def stigmer_folder() -> Path:
    """Where a Stigmer Service keeps what it is not told to keep elsewhere. Raises ConfigurationError."""
    return state_folder().with_name("fastrunner-stigmer")


def variable(name: str, default: Any = ..., *, factory: Any = None, **constraints: Any) -> Any:
    """A field read from environment variable `name`, settable by field name as well."""
    if factory is not None:
        return Field(default_factory=factory, validation_alias=AliasChoices(name), **constraints)
    return Field(default, validation_alias=AliasChoices(name), **constraints)


def readable(parse: Callable[[str], object]) -> AfterValidator:
    """Text that stays as it is, but must be what somebody can read."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def secret(form: Callable[[str], str]) -> AfterValidator:
    """A secret in the form that it is used in."""
    return AfterValidator(lambda given: SecretStr(form(given.get_secret_value())))


Port = Annotated[int, Field(ge=0, le=65535)]
Endpoint = Annotated[str, AfterValidator(host_and_port)]
Folder = Annotated[Path, AfterValidator(encodable)]
# A mounted secret ends with a newline that is no part of it.
Key = Annotated[SecretStr, secret(sendable)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DataSettings(BaseSettings):
    """Settings of whatever works on a data directory."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, use_attribute_docstrings=True
    )

    data_dir: Folder = variable("FASTRUNNER_DATA_DIR", factory=state_folder)
    """Folder of all durable state; default: $XDG_STATE_HOME/fastrunner."""
    data_key_file: FilePath | None = variable("FASTRUNNER_DATA_KEY_FILE", None)
    """File with the keys that seal what workflows have in the data directory; see docs/security.md. `fastrunner data
    key` makes one; read at start."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given and the environment alone: a .env that there is not takes as long to look through as that."""
        return init_settings, env_settings
