"""Stage 7, callback: cuts encoded events apart without decoding them.

Events travel as the core encoded them: each a length-delimited field 1, so that rows concatenate to a
ReportProgressBatchRequest. Only two things are ever decoded here: lengths, and the time of a row's first event.
"""

from collections.abc import Iterator

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent

__all__ = ["first_timestamp_ms", "frames", "offset_after"]

_EVENTS_TAG = 0x0A
"""Field 1, length-delimited."""


def frames(messages: bytes) -> Iterator[tuple[int, int]]:
    """Where each event's own message starts and ends, in order.

    Raises ValueError if `messages` is not a sequence of length-delimited fields 1.
    """
    position, size = 0, len(messages)
    while position < size:
        if messages[position] != _EVENTS_TAG:
            raise ValueError(f"no event starts at byte {position}")
        position += 1
        length = shift = 0
        while True:  # Ends at the first byte without the continuation bit.
            if position >= size or shift > 28:
                raise ValueError(f"the length before byte {position} is cut short")
            byte = messages[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        start, position = position, position + length
        if position > size:
            raise ValueError(f"the event at byte {start} is cut short")
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
