"""Support: settings of the distributed engine.

Those of the connection have the names that Temporal's own clients read.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, FilePath

from fastrunner._version import __version__
from fastrunner.base.checks import check_authorities, check_pair, host_and_port
from fastrunner.base.stores import checked_url
from fastrunner.base.validity import warn_of_dates
from fastrunner.config.fields import DataSettings, Key, readable, variable

__all__ = ["Reporting", "TemporalSettings", "unread_temporal"]

_TLS: Final = "TEMPORAL_TLS"
_CERTIFICATE: Final = "TEMPORAL_TLS_CLIENT_CERT_PATH"
_KEY: Final = "TEMPORAL_TLS_CLIENT_KEY_PATH"
_AUTHORITIES: Final = "TEMPORAL_TLS_SERVER_CA_CERT_PATH"
_SERVER_NAME: Final = "TEMPORAL_TLS_SERVER_NAME"
_READ: Final = {_TLS, _CERTIFICATE, _KEY, _AUTHORITIES, _SERVER_NAME}


def _frontend_host_and_port(value: str) -> str:
    return host_and_port(value, _TLS)


Frontend = Annotated[str, AfterValidator(_frontend_host_and_port)]


def _deployment(value: str) -> str:
    if "." in value:
        raise ValueError("expected a name without dots: Temporal puts one between it and the build")
    return value


class Reporting(StrEnum):
    """Which workflow reports the last events of an execution."""

    ATTACHED = "attached"
    DETACHED = "detached"


class TemporalSettings(DataSettings):
    """How executions are kept by Temporal."""

    temporal_service_address: Frontend | None = variable("TEMPORAL_SERVICE_ADDRESS", None)
    """host:port of Temporal; selects the distributed engine."""
    temporal_namespace: str = variable("TEMPORAL_NAMESPACE", "default")
    """Temporal namespace."""
    temporal_key_file: FilePath | None = variable("FASTRUNNER_TEMPORAL_KEY_FILE", None)
    """File with the keys that seal what Temporal keeps of executions, in the form of FASTRUNNER_DATA_KEY_FILE, the same
    for all replicas. Read at start."""
    blob_url: Annotated[str, readable(checked_url)] | None = variable("FASTRUNNER_BLOB_URL", None)
    """Where large values and registered workflows of executions on Temporal lie, for all replicas: file:///folder or
    s3://bucket/prefix; see docs/temporal.md."""
    temporal_api_key: Key | None = variable("TEMPORAL_API_KEY", None)
    """Sent to Temporal with every request as `authorization: Bearer <key>`; never logged. No flag: others see those."""
    temporal_api_key_file: FilePath | None = variable("TEMPORAL_API_KEY_FILE", None)
    """File with that key, read again when it changes; instead of TEMPORAL_API_KEY."""
    temporal_tls: bool | None = variable(_TLS, None)
    """Whether the connection to Temporal uses TLS; default: if there is a key for it or one of the settings below."""
    temporal_tls_client_cert_path: FilePath | None = variable(_CERTIFICATE, None)
    """PEM file of the certificate chain that is shown to Temporal; read again when it changes."""
    temporal_tls_client_key_path: FilePath | None = variable(_KEY, None)
    """PEM file of that certificate's private key, without a password."""
    temporal_tls_server_ca_cert_path: FilePath | None = variable(_AUTHORITIES, None)
    """PEM file of the authorities that vouch for Temporal; default: those of the system."""
    temporal_tls_server_name: str | None = variable(_SERVER_NAME, None)
    """Name in Temporal's certificate; default: the host of TEMPORAL_SERVICE_ADDRESS."""

    temporal_deployment_name: Annotated[str, AfterValidator(_deployment)] | None = variable(
        "TEMPORAL_DEPLOYMENT_NAME", None
    )
    """Worker deployment that this replica is of: executions stay with its build; default: any replica takes any."""
    temporal_worker_build_id: str = variable("TEMPORAL_WORKER_BUILD_ID", __version__)
    """Its build, in that deployment; default: the version of the runner."""
    temporal_report: Reporting = variable("FASTRUNNER_TEMPORAL_REPORT", Reporting.ATTACHED)
    """attached: a workflow in Temporal ends when the receiver has its execution's last event; detached: when the
    execution ends, and another workflow reports what is left."""

    @property
    def temporal_uses_tls(self) -> bool:
        """Whether the connection to Temporal uses TLS."""
        if self.temporal_tls is not None:
            return self.temporal_tls
        return bool(self.temporal_api_key or self._of_tls())

    def _of_tls(self) -> list[str]:
        """Variables that only a connection with TLS heeds."""
        given = {
            _CERTIFICATE: self.temporal_tls_client_cert_path,
            _KEY: self.temporal_tls_client_key_path,
            _AUTHORITIES: self.temporal_tls_server_ca_cert_path,
            _SERVER_NAME: self.temporal_tls_server_name,
        }
        return [name for name, value in given.items() if value]

    def check_temporal_tls(self) -> None:
        """Raises ValueError, naming the variable, for what does not fit together, or a file that cannot be used now."""
        of_tls = self._of_tls()
        if self.temporal_tls is False and of_tls:
            raise ValueError(f"{of_tls[0]} is set, but {_TLS}=false: unset one of them")
        certificate, key = self.temporal_tls_client_cert_path, self.temporal_tls_client_key_path
        if (certificate is None) != (key is None):
            raise ValueError(f"{_CERTIFICATE} and {_KEY} belong together: set both, or neither to show no certificate")
        if certificate is not None and key is not None:
            check_pair((_CERTIFICATE, _KEY), certificate, key)
        if self.temporal_tls_server_ca_cert_path is not None:
            check_authorities(_AUTHORITIES, self.temporal_tls_server_ca_cert_path)

    def warn_of_temporal_dates(self) -> None:
        """Says what certificates have no valid dates."""
        warn_of_dates(_CERTIFICATE, self.temporal_tls_client_cert_path, is_chain=True)
        warn_of_dates(_AUTHORITIES, self.temporal_tls_server_ca_cert_path, is_chain=False)


def unread_temporal(names: set[str]) -> list[str]:
    """A sentence for each variable of Temporal's clients about TLS that is not read here: who sets one counts on it."""
    return [
        f"{name} is not read here: of TLS to Temporal these are: {', '.join(sorted(_READ))}; unset it"
        for name in sorted(names)
        if name.startswith(f"{_TLS}_") and name not in _READ
    ]
