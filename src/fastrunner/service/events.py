"""Stage 1, service: SendEvents. Any worker answers: all of them write one file.

Rules: the answer comes when all events of the request are durable; one that is refused takes the others along, and
whoever sends the request again sends duplicates, which are taken as what they are. A caller that is confined to
namespaces reaches only what listens there. Decoding is paced: a large request leaves the loop to others in between.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import (
    CloudEvent,
    CloudEventAttributeValue,
    SendEventsRequest,
    SendEventsResponse,
)
from fastrunner.base import clock, limits
from fastrunner.errors import InvalidRequest, TooLarge
from fastrunner.events.attributes import CONTENT, put_bytes, put_message, put_text
from fastrunner.routing.facts import CallFacts
from fastrunner.service.decode import parse

__all__ = ["Events", "Publisher"]

_FIELDS: Final = {"specversion", "id", "source", "type", *CONTENT}
"""Members of an event that are fields of the message, so no attribute may have such a name."""


class Publisher(Protocol):
    """What the service needs of the bus (see `events/`)."""

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """Durable when it returns. Raises InvalidRequest, TooLarge, AtCapacity, StorageFull, StorageFailed."""


class Events:
    """Answers SendEvents."""

    def __init__(self, bus: Publisher) -> None:
        self._bus = bus

    async def send(self, payload: bytes, facts: CallFacts) -> bytes:
        """Raises as `Publisher`."""
        request = parse(SendEventsRequest, payload)
        count, count_max = len(request.events), limits.EVENTS_BATCH_COUNT_MAX
        if count > count_max:
            raise TooLarge(f"{count} events at once: at most {count_max} are taken; send several requests")
        events = []
        began_s = clock.monotonic_s()
        for at, message in enumerate(request.events):
            events.append(_event_of(message, f"events[{at}]"))
            if clock.monotonic_s() - began_s > limits.BATCH_TURN_S_MAX:
                await asyncio.sleep(0)
                began_s = clock.monotonic_s()
        await self._bus.publish(events, None if facts.principal is None else facts.principal.namespaces)
        return SendEventsResponse(accepted_count=len(events)).SerializeToString()


def _event_of(message: CloudEvent, where: str) -> dict[str, Any]:
    event: dict[str, Any] = {
        "specversion": message.spec_version,
        "id": message.id,
        "source": message.source,
        "type": message.type,
    }
    for name, value in message.attributes.items():
        if name in _FIELDS:
            raise InvalidRequest(
                f"{where}.attributes", f"{where}.attributes has {name!r}, which is a field of its own of the message"
            )
        event[name] = _value_of(value, f"{where}.attributes[{name!r}]")
    match message.WhichOneof("data"):
        case "binary_data":
            put_bytes(event, message.binary_data, where)
        case "text_data":
            put_text(event, message.text_data, where)
        case "proto_data":
            put_message(event, message.proto_data.value, message.proto_data.type_url)
    return event


def _value_of(value: CloudEventAttributeValue, where: str) -> str | int | bool:
    """An attribute as JSON has it."""
    kind = value.WhichOneof("attr")
    match kind:
        case None:
            raise InvalidRequest(where, f"{where} has no value: leave out attributes that are not there")
        case "ce_bytes":
            return base64.b64encode(value.ce_bytes).decode()
        case "ce_timestamp":
            try:
                return value.ce_timestamp.ToJsonString()
            except ValueError:
                raise InvalidRequest(where, f"{where} is no time between the years 1 and 9999") from None
        case _:
            plain: str | int | bool = getattr(value, kind)
            return plain
