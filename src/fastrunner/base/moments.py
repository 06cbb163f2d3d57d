"""Support: moments as text of RFC 3339, in UTC."""

from datetime import UTC, datetime
from typing import Literal

__all__ = ["rfc3339"]


def rfc3339(epoch_ms: int, timespec: Literal["milliseconds", "seconds"] = "milliseconds") -> str:
    """A moment in milliseconds since the epoch as `2027-01-15T08:00:00.000Z`."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
