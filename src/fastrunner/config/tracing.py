"""Support: settings of tracing, under the names that OpenTelemetry gives them; what must fit together is `runner.py`'s.

Rule: a variable of OpenTelemetry that would have another exporter do otherwise is refused here, or read.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr

from fastrunner.base.checks import check_authorities, is_host
from fastrunner.base.extras import tracing_refusal
from fastrunner.base.redaction import hide
from fastrunner.config.fields import DataSettings, readable, secret, variable

__all__ = ["TraceSampler", "TracingSettings"]

_KEY_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.")
_OF_TRACES: Final = ("ENDPOINT", "PROTOCOL", "HEADERS", "CERTIFICATE")
"""What OpenTelemetry's exporters let traces have of their own, as OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."""
_KEYS_OF_GRPC: Final = ("te", "content-type")
"""What gRPC sends of its own, beside all that begins with grpc-."""


class TraceProtocol(StrEnum):
    """How collectors are spoken to."""

    GRPC = "grpc"


class TraceExporter(StrEnum):
    """Where spans go."""

    OTLP = "otlp"
    NONE = "none"


class TraceSampler(StrEnum):
    """Which executions are traced, by OpenTelemetry's names."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    RATIO = "traceidratio"
    PARENT_ON = "parentbased_always_on"
    PARENT_OFF = "parentbased_always_off"
    PARENT_RATIO = "parentbased_traceidratio"

    @property
    def is_parent_based(self) -> bool:
        """Whether a caller's own decision goes before this one."""
        return self.value.startswith("parentbased_")


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    is_known = is_host(f"[{host}]" if ":" in host else host) and port is not None
    is_more = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
    # White space within is taken out before the parts are.
    if parts.scheme not in ("http", "https") or not is_known or is_more or set(value) & set("\t\r\n"):
        raise ValueError(
            "expected http://host:port of a collector that speaks OTLP over gRPC, such as http://localhost:4317, or "
            "https://host:port for TLS, without a path"
        )
    return value


def _pairs(value: str) -> list[tuple[str, str]]:
    """The pairs of `name=value,name=value`, with what is escaped in them put back. Raises ValueError."""
    pairs = []
    for part in filter(None, map(str.strip, value.split(","))):
        name, sign, text = part.partition("=")
        if not sign or not name.strip():
            raise ValueError("expected name=value pairs with commas between; in values a comma is %2C")
        pairs.append((unquote(name.strip()), unquote(text.strip())))
    return pairs


def _headers(value: str) -> str:
    for name, text in _pairs(value):
        key = name.lower()
        if not set(key) <= _KEY_CHARACTERS or not all(" " <= each <= "~" for each in text):
            raise ValueError(
                "expected name=value pairs that gRPC can send: printable ASCII, in names no other than a-z"
            )
        if key in _KEYS_OF_GRPC or key.startswith("grpc-") or key.endswith("-bin"):
            raise ValueError(f"{key} is a name that gRPC keeps for itself, so nothing would be sent: leave it out")
        hide(text)
    return value


class TracingSettings(DataSettings):
    """Whether and how executions are traced."""

    otel_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = variable("OTEL_EXPORTER_OTLP_ENDPOINT", None)
    """http://host:port or https://host:port of the collector that spans go to by OTLP over gRPC; none: nothing is
    traced. Needs `fastrunner[otel]`; see docs/tracing.md."""
    otel_headers: Annotated[SecretStr, secret(_headers)] | None = variable("OTEL_EXPORTER_OTLP_HEADERS", None)
    """Sent with every export: name=value pairs with commas between, what is special in them as %XX; never logged. No
    flag: others see those."""
    otel_certificate: FilePath | None = variable("OTEL_EXPORTER_OTLP_CERTIFICATE", None)
    """PEM file of the authorities that vouch for the collector; default: those gRPC ships with."""
    otel_protocol: TraceProtocol = variable("OTEL_EXPORTER_OTLP_PROTOCOL", TraceProtocol.GRPC)
    """How the collector is spoken to: grpc is all there is."""
    otel_service_name: Annotated[str, Field(min_length=1)] = variable("OTEL_SERVICE_NAME", "fastrunner")
    """What the runner is called in traces."""
    otel_resource_attributes: Annotated[str, readable(_pairs)] = variable("OTEL_RESOURCE_ATTRIBUTES", "")
    """More to be said of the runner in each span: name=value pairs, as headers have them."""
    otel_traces_sampler: TraceSampler = variable("OTEL_TRACES_SAMPLER", TraceSampler.PARENT_ON)
    """Which executions are traced: always_on, always_off, traceidratio, or one of these after `parentbased_`: then a
    caller's own decision goes first."""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = variable(
        "OTEL_TRACES_SAMPLER_ARG", 1.0
    )
    """Part of the traces that traceidratio and parentbased_traceidratio take: from 0 to 1."""
    otel_traces_exporter: TraceExporter = variable("OTEL_TRACES_EXPORTER", TraceExporter.OTLP)
    """`none`: nothing is traced, although there is an endpoint."""
    otel_sdk_disabled: bool = variable("OTEL_SDK_DISABLED", False)
    """The same, by another name."""

    @property
    def traces(self) -> bool:
        """Whether anything is traced."""
        is_on = self.otel_traces_exporter is TraceExporter.OTLP and not self.otel_sdk_disabled
        return self.otel_endpoint is not None and is_on

    @property
    def traces_ratio(self) -> float:
        """Part of the traces that nobody else has decided on."""
        sampler = self.otel_traces_sampler
        if sampler in (TraceSampler.RATIO, TraceSampler.PARENT_RATIO):
            return self.otel_traces_sampler_arg
        return 0.0 if sampler in (TraceSampler.ALWAYS_OFF, TraceSampler.PARENT_OFF) else 1.0

    @property
    def otel_header_pairs(self) -> tuple[tuple[str, str], ...]:
        """What is sent with every export."""
        if self.otel_headers is None:
            return ()
        return tuple((name.lower(), value) for name, value in _pairs(self.otel_headers.get_secret_value()))

    @property
    def otel_resource(self) -> dict[str, str]:
        """What else is said of the runner."""
        return dict(_pairs(self.otel_resource_attributes))

    def check_tracing(self) -> None:
        """Raises ValueError for what tracing needs and is not there."""
        if self.traces and self.otel_certificate is not None:
            check_authorities("OTEL_EXPORTER_OTLP_CERTIFICATE", self.otel_certificate)
        if self.traces:
            _check_unread({name.upper(): value for name, value in os.environ.items()})
        refusal = tracing_refusal() if self.traces else ""
        if refusal:
            raise ValueError(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {refusal}; or unset it, and nothing is traced")


def _check_unread(environment: Mapping[str, str]) -> None:
    """Raises ValueError for a variable that would go before another one in other exporters, and says something else."""
    for what in _OF_TRACES:
        name, own = f"OTEL_EXPORTER_OTLP_{what}", environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{what}")
        if own and own != environment.get(name, "grpc" if what == "PROTOCOL" else None):
            raise ValueError(f"OTEL_EXPORTER_OTLP_TRACES_{what} is not read: say it by {name}, and unset this one")
