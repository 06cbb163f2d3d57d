"""Stage 6, events: rows of encoded events taken apart and put together.

A row holds WorkflowProgressEvents, each as a length-delimited field 1 (tag 0x0A, varint length, message), as the core
encoded them, so that rows concatenate to a ReportProgressBatchRequest. Nothing here decodes a message but `describe`,
which serves the debug log, `told_later` and `first_timestamp_ms`.
"""

from collections.abc import Iterator

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent

__all__ = ["describe", "field_1", "first_timestamp_ms", "frames", "offset_after", "split", "told_later"]

_TAG = 0x0A
"""Field 1, length-delimited."""


def frames(messages: bytes) -> Iterator[tuple[int, int]]:
    """Where each event's own message starts and ends, in order.

    Raises ValueError if `messages` is not a sequence of length-delimited fields 1.
    """
    position, size = 0, len(messages)
    while position < size:
        if messages[position] != _TAG:
            raise ValueError(f"a row of events is damaged: no event starts at byte {position}")
        position += 1
        length = shift = 0
        while True:  # Ends at the first byte without the continuation bit.
            if position >= size or shift > 28:
                raise ValueError(f"a row of events is damaged: the length before byte {position} is cut short")
            byte = messages[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        start, position = position, position + length
        if position > size:
            raise ValueError(f"a row of events is damaged: the event at byte {start} is cut short")
        yield start, position


def offset_after(messages: bytes, count: int, size_bytes_max: int) -> tuple[int, int]:
    """How many of the first `count` events fit into `size_bytes_max`, at least one, and the offset after them."""
    offset = taken = 0
    for _, end in frames(messages):
        if taken == count or (taken and end > size_bytes_max):
            break
        offset, taken = end, taken + 1
    return taken, offset


def first_timestamp_ms(messages: bytes) -> int:
    """When the first event happened, in milliseconds since the epoch."""
    start, end = next(frames(messages))
    return WorkflowProgressEvent.FromString(messages[start:end]).timestamp_ms


def split(messages: bytes) -> Iterator[bytes]:
    """The single messages of a row, in order. Raises ValueError for anything that is no such row."""
    return (messages[start:end] for start, end in frames(messages))


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
