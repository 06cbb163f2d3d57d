"""Support: all settings of one runner, what of them must fit together, and how they are loaded."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import AliasChoices, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings

from fastrunner.base.checks import (
    check_authorities,
    check_certificates,
    check_pair,
    check_temporal,
    check_without_temporal,
    is_loopback,
    read_key,
)
from fastrunner.base.extras import extra_refusal
from fastrunner.base.run_kinds import RunPolicy
from fastrunner.base.stores import folder_of
from fastrunner.base.variables import (
    SECRETS_PREFIX,
    ambiguous_proxies,
    is_engine_variable,
    misspelt_variables,
    unknown_variables,
)
from fastrunner.config.fields import Authentication, ConfigurationError, DataSettings, Environment
from fastrunner.config.settings import RunnerSettings
from fastrunner.config.stigmer import StigmerSettings
from fastrunner.config.temporal import TemporalSettings, unread_temporal
from fastrunner.config.tracing import TracingSettings

__all__ = [
    "Config",
    "engine_variables",
    "flag_fields",
    "load",
    "load_config",
    "load_data_settings",
    "misspelt",
    "quiet_grpc",
    "secret_variables",
    "shown_fields",
    "variable_of",
]

_OF_COMMANDS: Final = {
    "FASTRUNNER_TARGET",
    "FASTRUNNER_TOKEN",
    "FASTRUNNER_TOKEN_FILE",
    "FASTRUNNER_CA_FILE",
    "FASTRUNNER_CERTIFICATE_FILE",
    "FASTRUNNER_KEY_FILE",
    "FASTRUNNER_RECEIVER_TOKEN",
}
"""Variables that other commands than `serve` read."""
_KEYS_IN_FILES: Final = ("STIGMER_SERVICE_API_KEY", "TEMPORAL_API_KEY")
"""Secrets that may be given as the name of a file."""
S = TypeVar("S", bound=BaseSettings)


class Config(TracingSettings, TemporalSettings, RunnerSettings):
    """Settings of one runner."""

    @property
    def tells_callers_apart(self) -> bool:
        """Whether callers prove who they are."""
        return bool(self.callers_file or self.jwt_issuer or self.tls_client_ca_file)

    @field_validator("log_level", "env", "auth", "otel_traces_sampler", "otel_traces_exporter", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _read_keys(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A key is what its file holds; validated as if it had been given."""
        given = {variable_of(name): value for name, value in values.items() if name in cls.model_fields} | values
        keys = {}
        for name in _KEYS_IN_FILES:
            path = given.get(f"{name}_FILE")
            if not path:
                continue
            if given.get(name):
                raise ValueError(f"{name} and {name}_FILE are both set: unset one of them")
            try:
                keys[name] = read_key(Path(path))
            except ValueError as error:
                raise ValueError(f"{name}_FILE={path}: {error}") from None
        return {**values, **keys}

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.env is not Environment.LOCAL and not self.stigmer_service_endpoint:
            raise ValueError(
                f"STIGMER_SERVICE_ENDPOINT is required with ENV={self.env}: set it to host:port of the service that "
                "receives progress, or use ENV=local to run without callbacks"
            )
        for name, value in (("POINT", self.crash_point), ("TURN", self.crash_turn)):
            if value and self.env is Environment.PROD:
                raise ValueError(
                    f"FASTRUNNER_CRASH_{name} kills the runner on purpose: unset it, ENV=prod takes no tests"
                )
        copy = None if self.replica_url is None else folder_of(self.replica_url)
        if copy is not None and copy.resolve().is_relative_to(self.data_dir.resolve()):
            raise ValueError(
                f"FASTRUNNER_REPLICA_URL={self.replica_url} is in the data directory, and would be lost with it: name "
                "a folder of another machine's disk, or a bucket"
            )
        self._check_tls()
        self._check_callers()
        self._check_temporal()
        self.check_tracing()
        return self

    def _check_temporal(self) -> None:
        """Raises ValueError for what the distributed engine needs, and for what it does not do."""
        if self.temporal_service_address is None:
            of_temporal = {"FASTRUNNER_TEMPORAL_KEY_FILE": self.temporal_key_file, "FASTRUNNER_BLOB_URL": self.blob_url}
            check_without_temporal([name for name, value in of_temporal.items() if value is not None])
            return
        of_one_machine = {
            "FASTRUNNER_DATA_KEY_FILE": self.data_key_file,
            "FASTRUNNER_REPLICA_URL": self.replica_url,
        }
        check_temporal([name for name, value in of_one_machine.items() if value is not None])
        refusals = unread_temporal({name.upper() for name, value in os.environ.items() if value})
        if refusals:
            raise ValueError("\n".join(refusals))
        self.check_temporal_tls()

    @property
    def runs(self) -> RunPolicy:
        """What documents may run."""
        hosts = (self.grpc_host, self.http_host)
        if self.auth is Authentication.NONE and not all(is_loopback(host) for host in hosts):
            return RunPolicy(
                reason="FASTRUNNER_AUTH=none lets whoever reaches the ports do everything, so nothing is run for them: "
                "set FASTRUNNER_CALLERS_FILE or FASTRUNNER_JWT_ISSUER, or bind to loopback"
            )
        default = "shell,script,mcp" if self.env is Environment.LOCAL else "none"
        return RunPolicy.parse(self.run_allowed or default)

    def refusal(self, kind: str, what: str | None) -> str:
        """Why the runner does not perform something; empty if it does: `call` with a key of `EXTRAS`, or what
        `RunPolicy.refusal` is asked."""
        return extra_refusal(what or "") if kind == "call" else self.runs.refusal(kind, what)

    def check_callback_files(self) -> None:
        """Raises ValueError, naming the variable, if a file of TLS for callbacks cannot be used now."""
        if self.callback_ca_file is not None:
            check_authorities("FASTRUNNER_CALLBACK_CA_FILE", self.callback_ca_file)
        if self.callback_certificate_file is not None and self.callback_key_file is not None:
            variables = ("FASTRUNNER_CALLBACK_CERTIFICATE_FILE", "FASTRUNNER_CALLBACK_KEY_FILE")
            check_pair(variables, self.callback_certificate_file, self.callback_key_file)

    def _check_tls(self) -> None:
        """gRPC says only that it cannot listen or connect; so what is wrong with the files is found out here."""
        if (self.callback_certificate_file is None) != (self.callback_key_file is None):
            raise ValueError(
                "FASTRUNNER_CALLBACK_CERTIFICATE_FILE and FASTRUNNER_CALLBACK_KEY_FILE belong together: set both, or "
                "neither for callbacks that show no certificate"
            )
        if self.callback_certificate_file is not None and not self.stigmer_service_use_tls:
            raise ValueError(
                "FASTRUNNER_CALLBACK_CERTIFICATE_FILE is set, but STIGMER_SERVICE_USE_TLS=false shows no certificate: "
                "unset one of them"
            )
        self.check_callback_files()
        certificate, key, authorities = self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file
        if self.http_tls and certificate is None:
            raise ValueError("FASTRUNNER_HTTP_TLS needs FASTRUNNER_TLS_CERTIFICATE_FILE and FASTRUNNER_TLS_KEY_FILE")
        if certificate is None and key is None and authorities is None:
            return
        if certificate is None or key is None:
            raise ValueError(
                "FASTRUNNER_TLS_CERTIFICATE_FILE and FASTRUNNER_TLS_KEY_FILE belong together, and "
                "FASTRUNNER_TLS_CLIENT_CA_FILE needs both: set them, or none of the three for gRPC without TLS"
            )
        check_certificates(certificate, key, authorities)

    def _check_callers(self) -> None:
        """Nobody must be open to a network by mistake."""
        if (self.jwt_issuer is None) != (self.jwt_audience is None):
            raise ValueError(
                "FASTRUNNER_JWT_ISSUER and FASTRUNNER_JWT_AUDIENCE belong together: without the audience, tokens that "
                "the issuer made for others would do; set both, or neither"
            )
        for name, value in (("JWKS_FILE", self.jwt_jwks_file), ("NAMESPACES_CLAIM", self.jwt_namespaces_claim)):
            if value and self.jwt_issuer is None:
                raise ValueError(f"FASTRUNNER_JWT_{name} is set without FASTRUNNER_JWT_ISSUER: set that, too")
        if self.tells_callers_apart:
            if self.auth is Authentication.NONE:
                raise ValueError(
                    "FASTRUNNER_AUTH=none, but FASTRUNNER_CALLERS_FILE, FASTRUNNER_JWT_ISSUER or "
                    "FASTRUNNER_TLS_CLIENT_CA_FILE tells callers apart: unset one of them"
                )
            return
        for name, host in (("GRPC", self.grpc_host), ("HTTP", self.http_host)):
            if self.auth is None and not is_loopback(host):
                raise ValueError(
                    f"FASTRUNNER_{name}_HOST={host} lets others than this machine call, and nothing tells callers "
                    "apart: set FASTRUNNER_CALLERS_FILE, FASTRUNNER_JWT_ISSUER or FASTRUNNER_TLS_CLIENT_CA_FILE (see "
                    "docs/security.md), or FASTRUNNER_AUTH=none if whoever reaches the port may do everything"
                )


def load_config(**overrides: Any) -> Config:
    """The environment's settings, with `overrides` by field name on top; raises ConfigurationError."""
    return load(Config, overrides)


def load_data_settings(data_dir: Path | None) -> DataSettings:
    """The data directory, given or the environment's, and its keys, for what does not serve; raises
    ConfigurationError."""
    return load(DataSettings, {"data_dir": data_dir})


def load(settings: type[S], overrides: Mapping[str, Any]) -> S:
    """The environment's settings of a kind, with `overrides` that are not None on top. Raises ConfigurationError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    refusals = unknown_variables(os.environ, _settings(), _told())
    refusals += ambiguous_proxies(os.environ)
    try:
        loaded = settings(**given)
    except ValidationError as error:
        refusals += [_sentence(problem, settings) for problem in error.errors()]
    if refusals:
        raise ConfigurationError("\n".join(refusals))
    return loaded


def misspelt() -> list[str]:
    """A sentence for each variable in the environment that is like one of the runner's and may be another program's."""
    return misspelt_variables(os.environ, _settings(), _told())


def _settings() -> set[str]:
    return set(map(variable_of, Config.model_fields))


def _told() -> list[str]:
    """Variables that users are told of."""
    of_stigmer = [variable_of(field, StigmerSettings) for field in StigmerSettings.model_fields]
    return [*map(variable_of, shown_fields()), *sorted(_OF_COMMANDS), *of_stigmer]


def secret_variables() -> dict[str, str]:
    """The values of secrets in the environment, by what follows FASTRUNNER_SECRET_ in the variables' names."""
    return {
        name.removeprefix(SECRETS_PREFIX): value
        for name, value in os.environ.items()
        if name.startswith(SECRETS_PREFIX)
    }


def engine_variables() -> dict[bytes, bytes]:
    """What a container engine's client is given of the environment."""
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items() if is_engine_variable(name)}


def quiet_grpc() -> None:
    """Keeps the lines of gRPC's own library out of the logs unless somebody asks for them.

    Call before grpc is imported. Its lines are no JSON, and some tell of errors where a worker only stops.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _sentence(problem: Any, settings: type[BaseSettings]) -> str:
    """One line for one pydantic problem; names the variable, the value and what is allowed, but no secret."""
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    key = str(problem["loc"][0])
    variable = variable_of(key, settings) if key in settings.model_fields else key
    # pydantic's words are about inputs and parsing, which only its own users know.
    allowed = str(problem["msg"]).removeprefix("Value error, ").partition(", unable to ")[0]
    allowed = allowed.replace("Input should be ", "expected ").replace("Path does not point to a", "there is no such")
    secrets = [field for field in settings.model_fields if _is_secret(field, settings)]
    if variable in [variable_of(field, settings) for field in secrets]:
        return f"{variable}: {allowed}"
    return f"{variable}={problem['input']}: {allowed}"


def variable_of(field: str, settings: type[BaseSettings] = Config) -> str:
    """The environment variable that sets `field`."""
    alias = settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return str(alias.choices[0])


def shown_fields() -> list[str]:
    """Fields that users are told of."""
    extras = {field: info.json_schema_extra for field, info in Config.model_fields.items()}
    return [field for field, extra in extras.items() if not (isinstance(extra, dict) and extra.get("hidden"))]


def flag_fields() -> list[str]:
    """Fields that are flags, too: no secret, because everybody on the machine sees a process's arguments."""
    return [field for field in shown_fields() if not _is_secret(field)]


def _is_secret(field: str, settings: type[BaseSettings] = Config) -> bool:
    return "SecretStr" in str(settings.model_fields[field].annotation)
