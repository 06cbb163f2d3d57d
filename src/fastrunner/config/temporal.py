"""Support: settings of the distributed engine."""

from fastrunner.config.fields import DataSettings, Endpoint, variable

__all__ = ["TemporalSettings"]


class TemporalSettings(DataSettings):
    """How executions are kept by Temporal."""

    temporal_service_address: Endpoint | None = variable("TEMPORAL_SERVICE_ADDRESS", None)
    """host:port of Temporal; selects the distributed engine."""
    temporal_namespace: str = variable("TEMPORAL_NAMESPACE", "default")
    """Temporal namespace."""
