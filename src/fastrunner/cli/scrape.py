"""Support: what a runner's HTTP port says, as `status` needs it: readiness, and metrics with their quantiles."""

import contextlib
import http.client
import math
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from fastrunner.base.checks import is_loopback
from fastrunner.cli.access import Access

__all__ = ["Http", "Metrics", "Unreachable", "quantile", "read_metrics", "read_readiness"]

_PREFIX = "workflow_runner_"
_TIMEOUT_S = 10.0


class Unreachable(Exception):
    """Nobody answers there, or not as a runner would; the message says why."""


class Http:
    """A runner's HTTP port."""

    def __init__(self, target: str, access: Access, *, tls: bool) -> None:
        """A token goes over TLS, or to this machine."""
        self.target = target
        """As host:port."""
        self._access, self._tls = access, tls
        self.headers = dict(access.metadata) if tls or is_loopback(target.rpartition(":")[0]) else {}
        """What to send with a request."""

    def connect(self) -> http.client.HTTPConnection:
        """A new connection. Raises OSError."""
        if not self._tls:
            return http.client.HTTPConnection(self.target, timeout=_TIMEOUT_S)
        return http.client.HTTPSConnection(self.target, timeout=_TIMEOUT_S, context=self._access.context())


Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Metrics:
    """One scrape; names without the runner's prefix."""

    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)
    """Values by name and labels."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for having, value in self.samples.get(name, {}).items() if wanted <= having)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums by the value of one label; what is zero is left out."""
        sums: dict[str, float] = {}
        for having, value in self.samples.get(name, {}).items():
            key = dict(having).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return {key: value for key, value in sums.items() if value}

    def buckets(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """A histogram's bounds, each with how many values are at most that, over all series with these labels."""
        wanted = set(labels.items())
        sums: dict[float, float] = {}
        for having, value in self.samples.get(f"{name}_bucket", {}).items():
            if wanted <= having:
                bound = float(dict(having)["le"])
                sums[bound] = sums.get(bound, 0.0) + value
        return sorted(sums.items())


def quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """The bound that this share of the values is within; infinite beyond the last, None without values."""
    count = buckets[-1][1] if buckets else 0
    if not count:
        return None
    return next((bound for bound, within in buckets if within >= share * count), math.inf)


def read_metrics(http_port: Http) -> Metrics:
    """Raises Unreachable."""
    status, text = _get(http_port, "/metrics")
    if status != http.HTTPStatus.OK:
        raise Unreachable(f"/metrics says {status}")
    metrics = Metrics()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = metrics.samples.setdefault(sample.name.removeprefix(_PREFIX), {})
                series[frozenset(sample.labels.items())] = sample.value
    except ValueError as error:
        raise Unreachable(f"/metrics cannot be read: {error}") from None
    return metrics


def read_readiness(http_port: Http) -> dict[str, Any]:
    """What /readyz says: `ready`, `reason`, `workers`. Raises Unreachable."""
    _, text = _get(http_port, "/readyz")
    try:
        readiness: dict[str, Any] = orjson.loads(text)
        return {key: readiness[key] for key in ("ready", "reason", "workers")}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Unreachable("/readyz is not a runner's") from None


def _get(http_port: Http, path: str) -> tuple[int, str]:
    try:
        with contextlib.closing(http_port.connect()) as connection:
            connection.request("GET", path, headers=http_port.headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise Unreachable(str(error) or type(error).__name__) from None
