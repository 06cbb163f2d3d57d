"""Support: the only reader of the environment; one frozen settings object, built once and passed down.

A bad value refuses to start and names the variable, the value and what is allowed; so does a name that nobody reads.
Every field but a secret is also a flag of `fastrunner serve`; `docs/configuration.md` is generated from this module.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from fastrunner.base import crash, limits
from fastrunner.base.checks import (
    catalog,
    check_authorities,
    check_certificates,
    check_pair,
    check_temporal,
    encodable,
    host_and_port,
    is_loopback,
    issuer,
    proxy,
    read_key,
    readable_folder,
    sendable,
)
from fastrunner.base.cpus import usable_cpus
from fastrunner.base.destinations import Destinations
from fastrunner.base.extras import extra_refusal
from fastrunner.base.ports_file import ports_in
from fastrunner.base.run_kinds import RunPolicy
from fastrunner.base.sinks import SinkAddress
from fastrunner.base.variables import SECRETS_PREFIX, ambiguous_proxies, is_engine_variable, unknown_variables

_TARGET: Final = "FASTRUNNER_TARGET"
_OF_COMMANDS: Final = {
    _TARGET,
    "FASTRUNNER_TOKEN",
    "FASTRUNNER_TOKEN_FILE",
    "FASTRUNNER_CA_FILE",
    "FASTRUNNER_CERTIFICATE_FILE",
    "FASTRUNNER_KEY_FILE",
    "FASTRUNNER_RECEIVER_TOKEN",
}
"""Variables that other commands than `serve` read."""
S = TypeVar("S", bound=BaseSettings)


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


def _state_folder() -> Path:
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
    return _state_folder().with_name("fastrunner-stigmer")


def _variable(name: str, default: Any = ..., *, factory: Any = None, **constraints: Any) -> Any:
    """A field read from environment variable `name`, settable by field name as well."""
    if factory is not None:
        return Field(default_factory=factory, validation_alias=AliasChoices(name), **constraints)
    return Field(default, validation_alias=AliasChoices(name), **constraints)


def _readable(parse: Callable[[str], object]) -> AfterValidator:
    """Text that stays as it is, but must be what somebody can read."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def _secret(form: Callable[[str], str]) -> AfterValidator:
    """A secret in the form that it is used in."""
    return AfterValidator(lambda given: SecretStr(form(given.get_secret_value())))


Port = Annotated[int, Field(ge=0, le=65535)]
Endpoint = Annotated[str, AfterValidator(host_and_port)]
Folder = Annotated[Path, AfterValidator(encodable)]
# A mounted secret ends with a newline that is no part of it.
Key = Annotated[SecretStr, _secret(sendable)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DataSettings(BaseSettings):
    """Settings of whatever works on a data directory."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, use_attribute_docstrings=True
    )

    data_dir: Folder = _variable("FASTRUNNER_DATA_DIR", factory=_state_folder)
    """Folder of all durable state; default: $XDG_STATE_HOME/fastrunner."""
    data_key_file: FilePath | None = _variable("FASTRUNNER_DATA_KEY_FILE", None)
    """File with the keys that seal what workflows have in the data directory; see docs/security.md. `fastrunner data
    key` makes one; read at start."""


class Config(DataSettings):
    """Settings of one runner."""

    grpc_port: Port = _variable("GRPC_PORT", 9090)
    """Port of the gRPC services; 0 chooses a free one."""
    grpc_host: str = _variable("FASTRUNNER_GRPC_HOST", "127.0.0.1")
    """Address the gRPC services bind to: 0.0.0.0 is all of IPv4, :: all of IPv6 and IPv4; of a name, its first one."""
    http_port: Port = _variable("FASTRUNNER_HTTP_PORT", 8080)
    """Port of /metrics, /healthz and /readyz; 0 chooses a free one."""
    http_host: str = _variable("FASTRUNNER_HTTP_HOST", "127.0.0.1")
    """Address the HTTP process binds to, in the same way."""
    stigmer_service_endpoint: Endpoint | None = _variable("STIGMER_SERVICE_ENDPOINT", None)
    """host:port progress is reported to; none turns callbacks off. Required with ENV=staging and ENV=prod."""
    stigmer_service_api_key: Key | None = _variable("STIGMER_SERVICE_API_KEY", None)
    """Sent with every callback as `authorization: Bearer <key>`; never logged. No flag: others see those."""
    stigmer_service_api_key_file: FilePath | None = _variable("STIGMER_SERVICE_API_KEY_FILE", None)
    """File with that key, read again when it changes; instead of STIGMER_SERVICE_API_KEY."""
    stigmer_service_use_tls: bool = _variable("STIGMER_SERVICE_USE_TLS", True)
    """Whether callbacks use TLS."""
    temporal_service_address: Endpoint | None = _variable("TEMPORAL_SERVICE_ADDRESS", None)
    """host:port of Temporal; selects the distributed engine."""
    temporal_namespace: str = _variable("TEMPORAL_NAMESPACE", "default")
    """Temporal namespace."""
    log_level: LogLevel = _variable("LOG_LEVEL", LogLevel.INFO)
    """Least severity that is logged: debug, info, warn or error."""
    env: Environment = _variable("ENV", Environment.LOCAL)
    """local logs for people; staging and prod log JSON lines, insist on a callback endpoint, and keep calls away from
    loopback and private addresses."""
    workers: int = _variable("FASTRUNNER_WORKERS", factory=usable_cpus, ge=1, le=256)
    """Worker processes; default: the CPUs this process may use, by affinity and control groups; 1 on Temporal."""
    executions_max: int = _variable("FASTRUNNER_EXECUTIONS_MAX", limits.EXECUTIONS_MAX, ge=1)
    """Unfinished executions before new ones are refused."""
    parked_resident_max: int = _variable("FASTRUNNER_PARKED_RESIDENT_MAX", limits.PARKED_RESIDENT_MAX, ge=0)
    """Executions that only wait which each worker keeps in memory; more are kept on disk alone until they go on."""
    client_executions_per_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = _variable(
        "FASTRUNNER_CLIENT_EXECUTIONS_PER_S", limits.CLIENT_EXECUTIONS_PER_S_MAX
    )
    """Executions one client may submit per second before more are refused, over all workers."""
    drain_timeout_s: Seconds = _variable("FASTRUNNER_DRAIN_TIMEOUT_S", 30.0)
    """How long a stopping worker waits for steps in flight, in seconds."""
    cancel_grace_s: float = _variable("FASTRUNNER_CANCEL_GRACE_S", 30.0, ge=0, allow_inf_nan=False)
    """How long a graceful cancel lets running effects go on, in seconds."""
    retention_s: Seconds = _variable("FASTRUNNER_RETENTION_S", 7 * 24 * 3600.0)
    """How long finished executions stay queryable, in seconds."""
    retention_count: int = _variable("FASTRUNNER_RETENTION_COUNT", 100_000, ge=0)
    """Finished executions kept per shard."""
    event_retention_s: Seconds = _variable("FASTRUNNER_EVENT_RETENTION_S", 600.0)
    """How long CloudEvents are kept, in seconds: for listeners that start later, and to tell duplicates."""
    event_sinks: Annotated[SecretStr, _secret(SinkAddress.checked)] | None = _variable("FASTRUNNER_EVENT_SINKS", None)
    """URLs, between white space, that emitted CloudEvents are sent to as well, with `binary:`, `structured:` (the
    default) or `batch:` before each; see docs/cloudevents.md. No flag: URLs may hold passwords."""
    lifecycle_sinks: Annotated[SecretStr, _secret(SinkAddress.checked)] | None = _variable(
        "FASTRUNNER_LIFECYCLE_SINKS", None
    )
    """URLs in the same form that the lifecycle of every execution is told to, as the DSL's CloudEvents; see
    docs/cloudevents.md. No flag."""
    http_timeout_s: Seconds = _variable("FASTRUNNER_HTTP_TIMEOUT_S", 300.0)
    """Longest a single HTTP call of a workflow may take, in seconds, where the workflow sets no timeout."""
    secrets_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = _variable("FASTRUNNER_SECRETS_DIR", None)
    """Folder with a file for each secret that workflows may name, as Kubernetes mounts them; see docs/security.md."""
    workflows_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = _variable(
        "FASTRUNNER_WORKFLOWS_DIR", None
    )
    """Folder of workflow documents (.yaml, .yml, .json) that are registered at start, and anew at SIGHUP."""
    resources_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = _variable(
        "FASTRUNNER_RESOURCES_DIR", None
    )
    """Folder of files that documents may name by `file:` URLs: functions, catalogs, schemas, descriptions of services.
    Default: none."""
    default_catalog: Annotated[str, _readable(catalog)] | None = _variable("FASTRUNNER_DEFAULT_CATALOG", None)
    """URL (https, http or file) of the root of the catalog `default`, for documents that have none of that name."""
    egress_allow: Annotated[str, _readable(Destinations.parse)] = _variable("FASTRUNNER_EGRESS_ALLOW", "")
    """Loopback and private destinations that calls may reach with ENV=staging and ENV=prod, and exceptions from
    FASTRUNNER_EGRESS_DENY: addresses, ranges, names, `*.name`, between commas; `:port` may follow all but ranges."""
    egress_deny: Annotated[str, _readable(Destinations.parse)] = _variable("FASTRUNNER_EGRESS_DENY", "")
    """Further destinations that calls may not reach, in the same form; `*`: all FASTRUNNER_EGRESS_ALLOW has not."""
    http_proxy: Annotated[SecretStr, _secret(proxy)] | None = _variable("HTTP_PROXY", None)
    """http://host:port of the proxy for calls to http, with user:password@ or without; lower case is read as well."""
    https_proxy: Annotated[SecretStr, _secret(proxy)] | None = _variable("HTTPS_PROXY", None)
    """The same for calls to https, which go through it by CONNECT."""
    no_proxy: Annotated[str, _readable(partial(Destinations.parse, are_domains=True))] = _variable("NO_PROXY", "")
    """Destinations that calls reach without a proxy, between commas: as above, but a name means all below it, too."""
    grpc_tls: Annotated[str, _readable(Destinations.parse)] = _variable("FASTRUNNER_GRPC_TLS", "")
    """Destinations that `call: grpc` reaches by TLS, between commas, as FASTRUNNER_EGRESS_ALLOW has them; port 443, and
    those that a document has asked by reflection at a `grpcs:` URI, are reached so in any case."""
    run_allowed: Annotated[str, _readable(RunPolicy.parse)] | None = _variable("FASTRUNNER_RUN_ALLOWED", None)
    """What documents may run: none, or a list of shell, script, script:js, script:python, container,
    container:PATTERN, mcp, mcp:PATTERN; default: shell,script,mcp with ENV=local, else none. See docs/security.md."""
    run_timeout_s: Seconds = _variable("FASTRUNNER_RUN_TIMEOUT_S", 300.0)
    """Longest a single run of a workflow may take, in seconds, where the workflow sets no timeout."""
    run_memory_mib: int = _variable("FASTRUNNER_RUN_MEMORY_MIB", 512, ge=32)
    """Memory that a run may take, in MiB, with all it has started."""
    run_processes_max: int = _variable("FASTRUNNER_RUN_PROCESSES_MAX", 256, ge=16)
    """Processes and threads that a run may have at once."""
    run_network: bool = _variable("FASTRUNNER_RUN_NETWORK", False)
    """Whether what documents run has the machine's network; else it has none, where the machine can do that."""
    run_node: FilePath | None = _variable("FASTRUNNER_RUN_NODE", None)
    """Program that runs scripts in JavaScript; default: node on the PATH."""
    run_python: FilePath | None = _variable("FASTRUNNER_RUN_PYTHON", None)
    """Program that runs scripts in Python; default: the one that runs the runner."""
    run_engine: FilePath | None = _variable("FASTRUNNER_RUN_ENGINE", None)
    """Program that runs containers, podman's or docker's; default: podman on the PATH, else docker."""
    run_volumes: Annotated[Folder, AfterValidator(readable_folder)] | None = _variable("FASTRUNNER_RUN_VOLUMES", None)
    """Folder below which the folders lie that containers may have as volumes; without it they have none."""
    callback_timeout_s: Seconds = _variable("FASTRUNNER_CALLBACK_TIMEOUT_S", 10.0)
    """Deadline of one callback attempt, in seconds."""
    callback_ca_file: FilePath | None = _variable("FASTRUNNER_CALLBACK_CA_FILE", None)
    """PEM file of the authorities that vouch for the callback endpoint; default: those gRPC ships with."""
    callback_certificate_file: FilePath | None = _variable("FASTRUNNER_CALLBACK_CERTIFICATE_FILE", None)
    """PEM file of the certificate chain that callbacks show; default: they show none."""
    callback_key_file: FilePath | None = _variable("FASTRUNNER_CALLBACK_KEY_FILE", None)
    """PEM file of that certificate's private key, not encrypted; may be the same file."""
    auth: Authentication | None = _variable("FASTRUNNER_AUTH", None)
    """`none`: whoever reaches the ports may call, although they are bound beyond loopback and nothing tells callers
    apart. Without it such a runner does not start; with it, workflows run no commands."""
    callers_file: FilePath | None = _variable("FASTRUNNER_CALLERS_FILE", None)
    """File of callers: hashed bearer tokens and names in certificates, each with roles; see docs/security.md."""
    jwt_issuer: Annotated[str, AfterValidator(issuer)] | None = _variable("FASTRUNNER_JWT_ISSUER", None)
    """Issuer of JSON Web Tokens that callers may send; its OpenID configuration tells its keys."""
    jwt_audience: str | None = _variable("FASTRUNNER_JWT_AUDIENCE", None)
    """What the tokens' `aud` must name: this runner. Needed with an issuer."""
    jwt_jwks_file: FilePath | None = _variable("FASTRUNNER_JWT_JWKS_FILE", None)
    """JWKS file of the issuer's keys, instead of asking it."""
    jwt_roles_claim: str = _variable("FASTRUNNER_JWT_ROLES_CLAIM", "roles")
    """Claim with a caller's roles: a list, or a text with spaces; dots lead into objects: `realm_access.roles`."""
    jwt_namespaces_claim: str | None = _variable("FASTRUNNER_JWT_NAMESPACES_CLAIM", None)
    """Claim with a caller's namespaces, in the same way; a token without it has none. Default: tokens have all."""
    audit_file: Folder | None = _variable("FASTRUNNER_AUDIT_FILE", None)
    """File to which a line of JSON is appended for each call that changes something; see docs/security.md."""
    http_tls: bool = _variable("FASTRUNNER_HTTP_TLS", False)
    """Whether the HTTP port speaks TLS, too, with the certificate of the gRPC port; clients may show theirs there."""
    metrics_open: bool = _variable("FASTRUNNER_METRICS_OPEN", False)
    """Whether /metrics needs no credentials although callers are told apart; else it wants the role `read`."""
    tls_certificate_file: FilePath | None = _variable("FASTRUNNER_TLS_CERTIFICATE_FILE", None)
    """PEM file of the gRPC server's certificate chain, its own first; default: gRPC without TLS."""
    tls_key_file: FilePath | None = _variable("FASTRUNNER_TLS_KEY_FILE", None)
    """PEM file of the certificate's private key, not encrypted; may be the same file."""
    tls_client_ca_file: FilePath | None = _variable("FASTRUNNER_TLS_CLIENT_CA_FILE", None)
    """PEM file of the authorities one of which must vouch for every client; default: clients show no certificate."""
    crash_point: Annotated[str, _readable(crash.parse)] | None = _variable(
        "FASTRUNNER_CRASH_POINT", None, json_schema_extra={"hidden": True}
    )
    """For tests: where each worker kills itself once (see `crash.py`). In no documentation, and refused in prod."""
    crash_turn: Annotated[str, _readable(crash.parse_turns)] | None = _variable(
        "FASTRUNNER_CRASH_TURN", None, json_schema_extra={"hidden": True}
    )
    """For tests: in turns of which executions every worker dies (see `crash.py`). As `crash_point`."""

    @property
    def tells_callers_apart(self) -> bool:
        """Whether callers prove who they are."""
        return bool(self.callers_file or self.jwt_issuer or self.tls_client_ca_file)

    @field_validator("log_level", "env", "auth", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _read_key(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The key is what its file holds; validated as if it had been given."""
        given = {variable_of(name): value for name, value in values.items() if name in cls.model_fields} | values
        path = given.get("STIGMER_SERVICE_API_KEY_FILE")
        if not path:
            return values
        if given.get("STIGMER_SERVICE_API_KEY"):
            raise ValueError("STIGMER_SERVICE_API_KEY and STIGMER_SERVICE_API_KEY_FILE are both set: unset one of them")
        try:
            key = read_key(Path(path))
        except ValueError as error:
            raise ValueError(f"STIGMER_SERVICE_API_KEY_FILE={path}: {error}") from None
        return {**values, "STIGMER_SERVICE_API_KEY": key}

    @model_validator(mode="before")
    @classmethod
    def _alone_on_temporal(cls, given: dict[str, Any]) -> dict[str, Any]:
        names = {name.lower() for name in given}
        is_chosen = "temporal_service_address" in names and not names & {"workers", "fastrunner_workers"}
        return {**given, "workers": 1} if is_chosen else given

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
        self._check_tls()
        self._check_callers()
        self._check_temporal()
        return self

    def _check_temporal(self) -> None:
        """Raises ValueError for what the distributed engine needs, and for what it does not do."""
        if self.temporal_service_address is None:
            return
        of_one_machine = {
            "FASTRUNNER_DATA_KEY_FILE": self.data_key_file,
            "FASTRUNNER_EVENT_SINKS": self.event_sinks,
            "FASTRUNNER_LIFECYCLE_SINKS": self.lifecycle_sinks,
        }
        check_temporal(self.workers, [name for name, value in of_one_machine.items() if value is not None])

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
            check_pair("FASTRUNNER_CALLBACK", self.callback_certificate_file, self.callback_key_file)

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
    return _load(Config, overrides)


def load_data_settings(data_dir: Path | None) -> DataSettings:
    """The data directory, given or the environment's, and its keys, for what does not serve; raises
    ConfigurationError."""
    return _load(DataSettings, {"data_dir": data_dir})


def _load(settings: type[S], overrides: Mapping[str, Any]) -> S:
    given = {name: value for name, value in overrides.items() if value is not None}
    refusals = unknown_variables(os.environ, set(map(variable_of, Config.model_fields)), _told())
    refusals += ambiguous_proxies(os.environ)
    try:
        loaded = settings(**given)
    except ValidationError as error:
        refusals += map(_sentence, error.errors())
    if refusals:
        raise ConfigurationError("\n".join(refusals))
    return loaded


def _told() -> list[str]:
    """Variables that users are told of."""
    return [*map(variable_of, shown_fields()), *sorted(_OF_COMMANDS)]


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


class ClientSettings(BaseSettings):
    """Settings of the commands that talk to a runner."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True)

    target: str = _variable(_TARGET, "localhost:9090")
    token: Key | None = _variable("FASTRUNNER_TOKEN", None)
    token_file: FilePath | None = _variable("FASTRUNNER_TOKEN_FILE", None)
    ca_file: FilePath | None = _variable("FASTRUNNER_CA_FILE", None)
    certificate_file: FilePath | None = _variable("FASTRUNNER_CERTIFICATE_FILE", None)
    key_file: FilePath | None = _variable("FASTRUNNER_KEY_FILE", None)


class ReceiverSettings(BaseSettings):
    """Settings of the reference receiver."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    token: Key | None = _variable("FASTRUNNER_RECEIVER_TOKEN", None)


def load_client(**overrides: Any) -> ClientSettings:
    """What commands show to a runner and trust, with `overrides` by field name on top; the token is the one to send.

    Raises ConfigurationError.
    """
    settings = _load(ClientSettings, overrides)
    if (settings.certificate_file is None) != (settings.key_file is None):
        raise ConfigurationError("a client's certificate and its key belong together: give both files, or neither")
    if settings.token_file is None:
        return settings
    return settings.model_copy(update={"token": SecretStr(_key_in(settings.token_file))})


def receiver_token(file: Path | None) -> str | None:
    """The token that callers of the reference receiver must send; None: any will do. Raises ConfigurationError."""
    token = _load(ReceiverSettings, {}).token
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
    return _load(ClientSettings, {}).target


class NeighbourSettings(ClientSettings):
    """Where a command that looks at a runner's two ports finds one that was started with the same environment."""

    target: str | None = _variable(_TARGET, None)  # type: ignore[assignment]
    data_dir: Folder | None = _variable("FASTRUNNER_DATA_DIR", None)
    http_port: Port | None = _variable("FASTRUNNER_HTTP_PORT", None)


def runner_ports(target: str | None, http_target: str | None) -> tuple[str, str]:
    """Where the gRPC and the HTTP port of a runner are, as host:port, of which either may be given.

    Without a target, here or in FASTRUNNER_TARGET, it is the runner that uses the data directory, by its `ports.json`.
    Raises ConfigurationError.
    """
    settings = _load(NeighbourSettings, {})
    target = target or settings.target
    found: dict[str, Any] = {}
    if target is None:
        with suppress(ConfigurationError):
            found = ports_in(settings.data_dir or _state_folder())
    target = target or f"localhost:{found.get('grpc_port', 9090)}"
    if http_target is None:
        port = settings.http_port or found.get("http_port", 8080)
        http_target = f"{target.rpartition('/')[2].rpartition(':')[0] or 'localhost'}:{port}"
    return target, http_target


def quiet_grpc() -> None:
    """Keeps the lines of gRPC's own library out of the logs unless somebody asks for them.

    Call before grpc is imported. Its lines are no JSON, and some tell of errors where a worker only stops.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _sentence(problem: Any) -> str:
    """One line for one pydantic problem; names the variable, the value and what is allowed, but no secret."""
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    key = str(problem["loc"][0])
    variable = variable_of(key) if key in Config.model_fields else key
    # pydantic's words are about inputs and parsing, which only its own users know.
    allowed = str(problem["msg"]).removeprefix("Value error, ").partition(", unable to ")[0]
    allowed = allowed.replace("Input should be ", "expected ").replace("Path does not point to a", "there is no such")
    if variable in map(variable_of, filter(_is_secret, Config.model_fields)):
        return f"{variable}: {allowed}"
    return f"{variable}={problem['input']}: {allowed}"


def variable_of(field: str) -> str:
    """The environment variable that sets `field`."""
    alias = Config.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return str(alias.choices[0])


def shown_fields() -> list[str]:
    """Fields that users are told of."""
    extras = {field: info.json_schema_extra for field, info in Config.model_fields.items()}
    return [field for field, extra in extras.items() if not (isinstance(extra, dict) and extra.get("hidden"))]


def flag_fields() -> list[str]:
    """Fields that are flags, too: no secret, because everybody on the machine sees a process's arguments."""
    return [field for field in shown_fields() if not _is_secret(field)]


def _is_secret(field: str) -> bool:
    return "SecretStr" in str(Config.model_fields[field].annotation)
