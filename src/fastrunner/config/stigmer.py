"""Support: settings of a Stigmer Service."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastrunner.config.fields import Folder, LogLevel, Port, Seconds, stigmer_folder, variable

__all__ = ["StigmerSettings"]


def _listed(value: Any) -> Any:
    """What stands between commas."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _stripped(value: SecretStr) -> SecretStr:
    return SecretStr(value.get_secret_value().strip())


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Url = Annotated[SecretStr, AfterValidator(_stripped)]


class StigmerSettings(BaseSettings):
    """How a Stigmer Service runs; each is a flag of `fastrunner stigmer serve`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, use_attribute_docstrings=True
    )

    data_dir: Folder = variable("FASTRUNNER_STIGMER_DATA_DIR", factory=stigmer_folder)
    """Folder of the store, where it is no database; default: $XDG_STATE_HOME/fastrunner-stigmer."""
    mongodb_url: Url | None = variable("FASTRUNNER_STIGMER_MONGODB_URL", None)
    """mongodb://... of the database that is the store, in place of a folder. Set the variable, rather than the flag,
    where it has a password: others see flags."""
    redis_url: Url | None = variable("FASTRUNNER_STIGMER_REDIS_URL", None)
    """redis://... of the Redis by which services that share a database tell each other what is new. The same of
    passwords."""
    redis_publish: bool = variable("FASTRUNNER_STIGMER_REDIS_PUBLISH", False)
    """Whether others are told, too: on the channel `stigmer:exec:<id>`, whenever an execution shows more."""
    grpc_host: str = variable("FASTRUNNER_STIGMER_GRPC_HOST", "127.0.0.1")
    """Address that reports are taken at."""
    grpc_port: Port = variable("FASTRUNNER_STIGMER_GRPC_PORT", 50051)
    """Port that reports are taken at; 0 chooses a free one."""
    http_host: str = variable("FASTRUNNER_STIGMER_HTTP_HOST", "127.0.0.1")
    """Address of the HTTP API."""
    http_port: Port = variable("FASTRUNNER_STIGMER_HTTP_PORT", 8090)
    """Port of the HTTP API; 0 chooses a free one."""
    report_token_file: FilePath | None = variable("FASTRUNNER_STIGMER_REPORT_TOKEN_FILE", None)
    """File of the bearer token that reports must have; neither this nor FASTRUNNER_RECEIVER_TOKEN: no check."""
    callers_file: FilePath | None = variable("FASTRUNNER_STIGMER_CALLERS_FILE", None)
    """File of the HTTP API's callers; none: no check."""
    audit_file: Folder | None = variable("FASTRUNNER_STIGMER_AUDIT_FILE", None)
    """File to which a line of JSON is appended for each request that changes something."""
    tls_certificate: FilePath | None = variable("FASTRUNNER_STIGMER_TLS_CERTIFICATE", None)
    """PEM file of the certificate chain; with the key it turns TLS on."""
    tls_key: FilePath | None = variable("FASTRUNNER_STIGMER_TLS_KEY", None)
    """PEM file of the certificate's private key."""
    tls_client_ca: FilePath | None = variable("FASTRUNNER_STIGMER_TLS_CLIENT_CA", None)
    """PEM file; who reports must show certificates of these."""
    http_tls: bool = variable("FASTRUNNER_STIGMER_HTTP_TLS", False)
    """Whether the HTTP API speaks TLS, too, with that certificate."""
    allow_hosts: Listed = variable("FASTRUNNER_STIGMER_ALLOW_HOSTS", ())
    """Further names that the HTTP API is called by, between commas."""
    allow_origins: Listed = variable("FASTRUNNER_STIGMER_ALLOW_ORIGINS", ())
    """Origins whose pages may call it, between commas."""
    retention_s: Seconds = variable("FASTRUNNER_STIGMER_RETENTION_S", 30 * 24 * 3600.0)
    """How long an execution is kept after its end, in seconds."""
    drain_timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = variable(
        "FASTRUNNER_STIGMER_DRAIN_TIMEOUT_S", 10.0
    )
    """How long requests under way may take when it stops, in seconds."""
    log_level: LogLevel = variable("FASTRUNNER_STIGMER_LOG_LEVEL", LogLevel.INFO)
    """Least severity that is logged: debug, info, warn or error."""
    json_logs: bool = variable("FASTRUNNER_STIGMER_JSON_LOGS", False)
    """Whether logs are JSON lines."""
