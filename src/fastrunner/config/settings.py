"""Support: settings of a runner, but for those of the distributed engine. What must fit together is `runner.py`'s."""

from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field, FilePath, SecretStr

from fastrunner.base import crash, limits
from fastrunner.base.checks import catalog, host_names, issuer, origins, proxy, readable_folder
from fastrunner.base.cpus import usable_cpus
from fastrunner.base.destinations import Destinations
from fastrunner.base.run_kinds import RunPolicy
from fastrunner.base.sinks import SinkAddress
from fastrunner.base.stores import checked_url
from fastrunner.config.fields import (
    Authentication,
    DataSettings,
    Endpoint,
    Environment,
    Folder,
    Key,
    LogLevel,
    Port,
    Seconds,
    readable,
    secret,
    variable,
)

__all__ = ["RunnerSettings"]


class RunnerSettings(DataSettings):
    """Settings of one runner."""

    grpc_port: Port = variable("GRPC_PORT", 9090)
    """Port of the gRPC services; 0 chooses a free one."""
    grpc_host: str = variable("FASTRUNNER_GRPC_HOST", "127.0.0.1")
    """Address the gRPC services bind to: 0.0.0.0 is all of IPv4, :: all of IPv6 and IPv4; of a name, its first one."""
    http_port: Port = variable("FASTRUNNER_HTTP_PORT", 8080)
    """Port of /metrics, /healthz and /readyz; 0 chooses a free one."""
    http_host: str = variable("FASTRUNNER_HTTP_HOST", "127.0.0.1")
    """Address the HTTP process binds to, in the same way."""
    http_allow_hosts: Annotated[str, readable(host_names)] = variable("FASTRUNNER_HTTP_ALLOW_HOSTS", "")
    """Names by which callers reach the HTTP API beside this machine's own and the address it is bound to, with commas
    between: a request with another Host is refused."""
    http_allow_origins: Annotated[str, readable(origins)] = variable("FASTRUNNER_HTTP_ALLOW_ORIGINS", "")
    """Origins whose pages may call the HTTP API beside its own, with commas between: https://console.example"""
    stigmer_service_endpoint: Endpoint | None = variable("STIGMER_SERVICE_ENDPOINT", None)
    """host:port progress is reported to; none turns callbacks off. Required with ENV=staging and ENV=prod."""
    stigmer_service_api_key: Key | None = variable("STIGMER_SERVICE_API_KEY", None)
    """Sent with every callback as `authorization: Bearer <key>`; never logged. No flag: others see those."""
    stigmer_service_api_key_file: FilePath | None = variable("STIGMER_SERVICE_API_KEY_FILE", None)
    """File with that key, read again when it changes; instead of STIGMER_SERVICE_API_KEY."""
    stigmer_service_use_tls: bool = variable("STIGMER_SERVICE_USE_TLS", True)
    """Whether callbacks use TLS."""
    log_level: LogLevel = variable("LOG_LEVEL", LogLevel.INFO)
    """Least severity that is logged: debug, info, warn or error."""
    env: Environment = variable("ENV", Environment.LOCAL)
    """local logs for people; staging and prod log JSON lines, insist on a callback endpoint, and keep calls away from
    loopback and private addresses."""
    workers: int = variable("FASTRUNNER_WORKERS", factory=usable_cpus, ge=1, le=256)
    """Worker processes; default: the CPUs this process may use, by affinity and control groups."""
    executions_max: int = variable("FASTRUNNER_EXECUTIONS_MAX", limits.EXECUTIONS_MAX, ge=1)
    """Unfinished executions before new ones are refused."""
    parked_resident_max: int = variable("FASTRUNNER_PARKED_RESIDENT_MAX", limits.PARKED_RESIDENT_MAX, ge=0)
    """Executions that only wait which each worker keeps in memory; more are kept on disk alone until they go on."""
    client_executions_per_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = variable(
        "FASTRUNNER_CLIENT_EXECUTIONS_PER_S", limits.CLIENT_EXECUTIONS_PER_S_MAX
    )
    """Executions one client may submit per second before more are refused, over all workers."""
    drain_timeout_s: Seconds = variable("FASTRUNNER_DRAIN_TIMEOUT_S", 30.0)
    """How long a stopping worker waits for steps in flight, in seconds."""
    cancel_grace_s: float = variable("FASTRUNNER_CANCEL_GRACE_S", 30.0, ge=0, allow_inf_nan=False)
    """How long a graceful cancel lets running effects go on, in seconds."""
    retention_s: Seconds = variable("FASTRUNNER_RETENTION_S", 7 * 24 * 3600.0)
    """How long finished executions stay queryable, in seconds."""
    retention_count: int = variable("FASTRUNNER_RETENTION_COUNT", 100_000, ge=0)
    """Finished executions kept per shard."""
    event_retention_s: Seconds = variable("FASTRUNNER_EVENT_RETENTION_S", 600.0)
    """How long CloudEvents are kept, in seconds: for listeners that start later, and to tell duplicates."""
    replica_url: Annotated[str, AfterValidator(checked_url)] | None = variable("FASTRUNNER_REPLICA_URL", None)
    """Where what is committed is copied to, continuously: file:///folder, of another machine's disk, or
    s3://bucket/prefix; see docs/operations.md. Default: nowhere."""
    event_sinks: Annotated[SecretStr, secret(SinkAddress.checked)] | None = variable("FASTRUNNER_EVENT_SINKS", None)
    """URLs, between white space, that emitted CloudEvents are sent to as well, with `binary:`, `structured:` (the
    default) or `batch:` before each; see docs/cloudevents.md. No flag: URLs may hold passwords."""
    lifecycle_sinks: Annotated[SecretStr, secret(SinkAddress.checked)] | None = variable(
        "FASTRUNNER_LIFECYCLE_SINKS", None
    )
    """URLs in the same form that the lifecycle of every execution is told to, as the DSL's CloudEvents; see
    docs/cloudevents.md. No flag."""
    http_timeout_s: Seconds = variable("FASTRUNNER_HTTP_TIMEOUT_S", 300.0)
    """Longest a single HTTP call of a workflow may take, in seconds, where the workflow sets no timeout."""
    secrets_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = variable("FASTRUNNER_SECRETS_DIR", None)
    """Folder with a file for each secret that workflows may name, as Kubernetes mounts them; see docs/security.md."""
    workflows_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = variable(
        "FASTRUNNER_WORKFLOWS_DIR", None
    )
    """Folder of workflow documents (.yaml, .yml, .json) that are registered at start, and anew at SIGHUP."""
    resources_dir: Annotated[Folder, AfterValidator(readable_folder)] | None = variable(
        "FASTRUNNER_RESOURCES_DIR", None
    )
    """Folder of files that documents may name by `file:` URLs: functions, catalogs, schemas, descriptions of services.
    Default: none."""
    default_catalog: Annotated[str, readable(catalog)] | None = variable("FASTRUNNER_DEFAULT_CATALOG", None)
    """URL (https, http or file) of the root of the catalog `default`, for documents that have none of that name."""
    egress_allow: Annotated[str, readable(Destinations.parse)] = variable("FASTRUNNER_EGRESS_ALLOW", "")
    """Loopback and private destinations that calls may reach with ENV=staging and ENV=prod, and exceptions from
    FASTRUNNER_EGRESS_DENY: addresses, ranges, names, `*.name`, between commas; `:port` may follow all but ranges."""
    egress_deny: Annotated[str, readable(Destinations.parse)] = variable("FASTRUNNER_EGRESS_DENY", "")
    """Further destinations that calls may not reach, in the same form; `*`: all FASTRUNNER_EGRESS_ALLOW has not."""
    http_proxy: Annotated[SecretStr, secret(proxy)] | None = variable("HTTP_PROXY", None)
    """http://host:port of the proxy for calls to http, with user:password@ or without; lower case is read as well."""
    https_proxy: Annotated[SecretStr, secret(proxy)] | None = variable("HTTPS_PROXY", None)
    """The same for calls to https, which go through it by CONNECT."""
    no_proxy: Annotated[str, readable(partial(Destinations.parse, are_domains=True))] = variable("NO_PROXY", "")
    """Destinations that calls reach without a proxy, between commas: as above, but a name means all below it, too."""
    grpc_tls: Annotated[str, readable(Destinations.parse)] = variable("FASTRUNNER_GRPC_TLS", "")
    """Destinations that `call: grpc` reaches by TLS, between commas, as FASTRUNNER_EGRESS_ALLOW has them; port 443, and
    those that a document has asked by reflection at a `grpcs:` URI, are reached so in any case."""
    run_allowed: Annotated[str, readable(RunPolicy.parse)] | None = variable("FASTRUNNER_RUN_ALLOWED", None)
    """What documents may run: none, or a list of shell, script, script:js, script:python, container,
    container:PATTERN, mcp, mcp:PATTERN; default: shell,script,mcp with ENV=local, else none. See docs/security.md."""
    run_timeout_s: Seconds = variable("FASTRUNNER_RUN_TIMEOUT_S", 300.0)
    """Longest a single run of a workflow may take, in seconds, where the workflow sets no timeout."""
    run_memory_mib: int = variable("FASTRUNNER_RUN_MEMORY_MIB", 512, ge=32)
    """Memory that a run may take, in MiB, with all it has started."""
    run_processes_max: int = variable("FASTRUNNER_RUN_PROCESSES_MAX", 256, ge=16)
    """Processes and threads that a run may have at once."""
    run_network: bool = variable("FASTRUNNER_RUN_NETWORK", False)
    """Whether what documents run has the machine's network; else it has none, where the machine can do that."""
    run_node: FilePath | None = variable("FASTRUNNER_RUN_NODE", None)
    """Program that runs scripts in JavaScript; default: node on the PATH."""
    run_python: FilePath | None = variable("FASTRUNNER_RUN_PYTHON", None)
    """Program that runs scripts in Python; default: the one that runs the runner."""
    run_engine: FilePath | None = variable("FASTRUNNER_RUN_ENGINE", None)
    """Program that runs containers, podman's or docker's; default: podman on the PATH, else docker."""
    run_volumes: Annotated[Folder, AfterValidator(readable_folder)] | None = variable("FASTRUNNER_RUN_VOLUMES", None)
    """Folder below which the folders lie that containers may have as volumes; without it they have none."""
    callback_timeout_s: Seconds = variable("FASTRUNNER_CALLBACK_TIMEOUT_S", 10.0)
    """Deadline of one callback attempt, in seconds."""
    callback_ca_file: FilePath | None = variable("FASTRUNNER_CALLBACK_CA_FILE", None)
    """PEM file of the authorities that vouch for the callback endpoint; default: those gRPC ships with."""
    callback_certificate_file: FilePath | None = variable("FASTRUNNER_CALLBACK_CERTIFICATE_FILE", None)
    """PEM file of the certificate chain that callbacks show; default: they show none."""
    callback_key_file: FilePath | None = variable("FASTRUNNER_CALLBACK_KEY_FILE", None)
    """PEM file of that certificate's private key, not encrypted; may be the same file."""
    auth: Authentication | None = variable("FASTRUNNER_AUTH", None)
    """`none`: whoever reaches the ports may call, although they are bound beyond loopback and nothing tells callers
    apart. Without it such a runner does not start; with it, workflows run no commands."""
    callers_file: FilePath | None = variable("FASTRUNNER_CALLERS_FILE", None)
    """File of callers: hashed bearer tokens and names in certificates, each with roles; see docs/security.md."""
    jwt_issuer: Annotated[str, AfterValidator(issuer)] | None = variable("FASTRUNNER_JWT_ISSUER", None)
    """Issuer of JSON Web Tokens that callers may send; its OpenID configuration tells its keys."""
    jwt_audience: str | None = variable("FASTRUNNER_JWT_AUDIENCE", None)
    """What the tokens' `aud` must name: this runner. Needed with an issuer."""
    jwt_jwks_file: FilePath | None = variable("FASTRUNNER_JWT_JWKS_FILE", None)
    """JWKS file of the issuer's keys, instead of asking it."""
    jwt_roles_claim: str = variable("FASTRUNNER_JWT_ROLES_CLAIM", "roles")
    """Claim with a caller's roles: a list, or a text with spaces; dots lead into objects: `realm_access.roles`."""
    jwt_namespaces_claim: str | None = variable("FASTRUNNER_JWT_NAMESPACES_CLAIM", None)
    """Claim with a caller's namespaces, in the same way; a token without it has none. Default: tokens have all."""
    audit_file: Folder | None = variable("FASTRUNNER_AUDIT_FILE", None)
    """File to which a line of JSON is appended for each call that changes something; see docs/security.md."""
    http_tls: bool = variable("FASTRUNNER_HTTP_TLS", False)
    """Whether the HTTP port speaks TLS, too, with the certificate of the gRPC port; clients may show theirs there."""
    metrics_open: bool = variable("FASTRUNNER_METRICS_OPEN", False)
    """Whether /metrics needs no credentials although callers are told apart; else it wants the role `read`."""
    tls_certificate_file: FilePath | None = variable("FASTRUNNER_TLS_CERTIFICATE_FILE", None)
    """PEM file of the gRPC server's certificate chain, its own first; default: gRPC without TLS."""
    tls_key_file: FilePath | None = variable("FASTRUNNER_TLS_KEY_FILE", None)
    """PEM file of the certificate's private key, not encrypted; may be the same file."""
    tls_client_ca_file: FilePath | None = variable("FASTRUNNER_TLS_CLIENT_CA_FILE", None)
    """PEM file of the authorities one of which must vouch for every client; default: clients show no certificate."""
    crash_point: Annotated[str, readable(crash.parse)] | None = variable(
        "FASTRUNNER_CRASH_POINT", None, json_schema_extra={"hidden": True}
    )
    """For tests: where each worker kills itself once (see `crash.py`). In no documentation, and refused in prod."""
    crash_turn: Annotated[str, readable(crash.parse_turns)] | None = variable(
        "FASTRUNNER_CRASH_TURN", None, json_schema_extra={"hidden": True}
    )
    """For tests: in turns of which executions every worker dies (see `crash.py`). As `crash_point`."""
