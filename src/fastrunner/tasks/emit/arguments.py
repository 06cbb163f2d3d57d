"""Stage 5, tasks: the event that `emit` publishes: what the document gives, and what it leaves to the runner."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from fastrunner.base.moments import rfc3339

__all__ = ["event_of"]

_IDS: Final = uuid.UUID("5f3f0c5e-8f0a-5d0b-9d5c-0d6f5b1f7c11")
"""The namespace of ids that are made from keys of effects."""


def event_of(arguments: Mapping[str, Any], idempotency_key: str, now_ms: int) -> dict[str, Any]:
    """The event in CloudEvents' JSON format, its id and time filled in where the document leaves them out."""
    event: dict[str, Any] = {"specversion": "1.0", **arguments["event"]}
    if event.get("id") is None:
        event["id"] = str(uuid.uuid5(_IDS, idempotency_key))
    if event.get("time") is None:
        event["time"] = rfc3339(now_ms)
    return event
