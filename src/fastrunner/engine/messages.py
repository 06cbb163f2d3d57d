"""Stage 6, events: rows of encoded events taken apart.

A row holds WorkflowProgressEvents, each as a length-delimited field 1 (tag 0x0A, varint length, message), as the core
encoded them. Nothing here decodes a message but `describe`, which serves the debug log, and `told_later`.
"""

from collections.abc import Iterator

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest

__all__ = ["describe", "split", "told_later"]

_TAG = 0x0A


def split(messages: bytes) -> Iterator[bytes]:
    """The single messages of a row, in order. Raises ValueError for anything that is no such row."""
    position, end = 0, len(messages)
    while position < end:
        if messages[position] != _TAG:
            raise ValueError("a row of events is damaged: no field tag where a message should start")
        position += 1
        size = shift = 0
        while True:
            byte = messages[position]
            position += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if position + size > end:
            raise ValueError("a row of events is damaged: a message reaches beyond its end")
        yield messages[position : position + size]
        position += size


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
