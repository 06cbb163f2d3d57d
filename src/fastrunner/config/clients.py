"""Support: settings of the commands that talk to a runner, or receive what it reports."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import FilePath, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from fastrunner.base.checks import read_key
from fastrunner.base.ports_file import ports_in
from fastrunner.config.fields import ConfigurationError, Folder, Key, Port, state_folder, variable
from fastrunner.config.runner import load
from fastrunner.config.stigmer import StigmerSettings

__all__ = [
    "ClientSettings",
    "NeighbourSettings",
    "ReceiverSettings",
    "load_client",
    "load_stigmer",
    "receiver_token",
    "runner_ports",
    "runner_target",
]

_TARGET: Final = "FASTRUNNER_TARGET"


class ClientSettings(BaseSettings):
    """Settings of the commands that talk to a runner."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True)

    target: str = variable(_TARGET, "localhost:9090")
    token: Key | None = variable("FASTRUNNER_TOKEN", None)
    token_file: FilePath | None = variable("FASTRUNNER_TOKEN_FILE", None)
    ca_file: FilePath | None = variable("FASTRUNNER_CA_FILE", None)
    certificate_file: FilePath | None = variable("FASTRUNNER_CERTIFICATE_FILE", None)
    key_file: FilePath | None = variable("FASTRUNNER_KEY_FILE", None)


class ReceiverSettings(BaseSettings):
    """Settings of the reference receiver."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    token: Key | None = variable("FASTRUNNER_RECEIVER_TOKEN", None)


def load_client(**overrides: Any) -> ClientSettings:
    """What commands show to a runner and trust, with `overrides` by field name on top; the token is the one to send.

    Raises ConfigurationError.
    """
    settings = load(ClientSettings, overrides)
    if (settings.certificate_file is None) != (settings.key_file is None):
        raise ConfigurationError("a client's certificate and its key belong together: give both files, or neither")
    if settings.token_file is None:
        return settings
    return settings.model_copy(update={"token": SecretStr(_key_in(settings.token_file))})


def load_stigmer(**overrides: Any) -> StigmerSettings:
    """The environment's settings of a Stigmer Service, with `overrides` by field name on top. Raises
    ConfigurationError."""
    return load(StigmerSettings, overrides)


def receiver_token(file: Path | None) -> str | None:
    """The token that callers of the reference receiver must send; None: any will do. Raises ConfigurationError."""
    token = load(ReceiverSettings, {}).token
    if file is not None:
        return _key_in(file)
    return None if token is None else token.get_secret_value()


def _key_in(file: Path) -> str:
    try:
        return read_key(file)
    except ValueError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def runner_target() -> str:
    """Where commands find a runner that are not told: FASTRUNNER_TARGET, or the port of `fastrunner serve` here.

    Raises ConfigurationError if that name, or another, is misspelt.
    """
    return load(ClientSettings, {}).target


class NeighbourSettings(ClientSettings):
    """Where a command that looks at a runner's two ports finds one that was started with the same environment."""

    target: str | None = variable(_TARGET, None)  # type: ignore[assignment]
    data_dir: Folder | None = variable("FASTRUNNER_DATA_DIR", None)
    http_port: Port | None = variable("FASTRUNNER_HTTP_PORT", None)


def runner_ports(target: str | None, http_target: str | None) -> tuple[str, str]:
    """Where the gRPC and the HTTP port of a runner are, as host:port, of which either may be given.

    Without a target, here or in FASTRUNNER_TARGET, it is the runner that uses the data directory, by its `ports.json`.
    Raises ConfigurationError.
    """
    settings = load(NeighbourSettings, {})
    target = target or settings.target
    found: dict[str, Any] = {}
    if target is None:
        with suppress(ConfigurationError):
            found = ports_in(settings.data_dir or state_folder())
    target = target or f"localhost:{found.get('grpc_port', 9090)}"
    if http_target is None:
        port = settings.http_port or found.get("http_port", 8080)
        http_target = f"{target.rpartition('/')[2].rpartition(':')[0] or 'localhost'}:{port}"
    return target, http_target
