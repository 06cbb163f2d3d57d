"""Stage 6, events: rows of encoded events taken apart and put together.

A row holds WorkflowProgressEvents, each as a length-delimited field 1 (tag 0x0A, varint length, message), as the core
encoded them, so that rows concatenate to a ReportProgressBatchRequest. Nothing here decodes a message but `describe`,
which serves the debug log, `told_later` and `first_timestamp_ms`. What every event of a callback goes through is
compiled (`wire/events.pxi`).
"""

from collections.abc import Iterator

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner._wire import frames, offset_after, split

__all__ = ["describe", "field_1", "first_timestamp_ms", "frames", "offset_after", "split", "told_later"]


def first_timestamp_ms(messages: bytes) -> int:
    """When the first event happened, in milliseconds since the epoch."""
    _, end = offset_after(messages, 1, 0)
    return ReportProgressBatchRequest.FromString(messages[:end]).events[0].timestamp_ms


def describe(messages: bytes) -> Iterator[str]:
    """One line per event of a row: what happened where, but no value of the execution."""
    for event in ReportProgressBatchRequest.FromString(messages).events:
        place = f" {event.task_reference}" if event.task_reference else ""
        yield f"{event.sequence_number} {event.event_type}{place} ({event.status})"


def told_later(messages: bytes, first_sequence: int) -> list[bytes]:
    """A row's events as rows of one, numbered anew; without pauses and resumes, which have been told."""
    events = ReportProgressBatchRequest.FromString(messages).events
    rest = [event for event in events if event.event_type not in ("workflow_paused", "workflow_resumed")]
    for sequence, event in enumerate(rest, first_sequence):
        event.sequence_number = sequence
    return [ReportProgressBatchRequest(events=[event]).SerializeToString() for event in rest]


def field_1(content: bytes) -> bytes:
    """Text or a message as field 1 of the message around it, as protobuf encodes it."""
    size = len(content)
    if size < 0x80:
        return b"\x0a" + size.to_bytes() + content
    encoded = bytearray(b"\x0a")
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + content
