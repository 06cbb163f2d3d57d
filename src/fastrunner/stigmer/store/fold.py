"""Support: what an execution is, by its events: the one fold of the service, for every store and for `verify`.

Rules: pure; one event after the other, in their order and without a gap. After the event that ends an execution nothing
changes it any more but how far it has been read.
"""

from collections.abc import Iterable
from dataclasses import replace

import orjson
from google.protobuf.json_format import MessageToDict

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import FINAL_STATUSES, TERMINAL_EVENTS
from fastrunner.stigmer.store import Standing

__all__ = ["fold", "fold_all", "is_after_end"]

_STATUS_AFTER = {
    "workflow_started": "running",
    "workflow_paused": "paused",
    "workflow_resumed": "running",
    **{name: name.removeprefix("workflow_") for name in TERMINAL_EVENTS},
}


def is_after_end(standing: Standing) -> bool:
    """Whether an event that follows is one too many."""
    return standing.last_sequence > 0 and standing.status in FINAL_STATUSES


def fold(standing: Standing, event: WorkflowProgressEvent) -> Standing:
    """What an execution is after its next event. Raises ValueError if it is not the next one."""
    if event.sequence_number != standing.last_sequence + 1:
        raise ValueError(f"event {event.sequence_number} does not follow event {standing.last_sequence}")
    if is_after_end(standing):
        return replace(standing, last_sequence=event.sequence_number)
    status = _STATUS_AFTER.get(event.event_type)
    if status is None:
        # The common case by far: a task's event changes nothing but how far it is.
        return Standing(
            standing.status,
            event.sequence_number,
            standing.started_ms or event.timestamp_ms,
            event.timestamp_ms,
            0,
            standing.message,
        )
    has_ended = status in FINAL_STATUSES
    return Standing(
        status=status,
        last_sequence=event.sequence_number,
        started_ms=standing.started_ms or event.timestamp_ms,
        updated_ms=event.timestamp_ms,
        ended_ms=event.timestamp_ms if has_ended else 0,
        message=event.message,
        error_json=_error_json(event) if has_ended else "",
        output_json=event.output_json if has_ended else "",
    )


def fold_all(messages: Iterable[bytes]) -> Standing:
    """The same of an execution's first events. Raises ValueError where they have a gap."""
    standing = Standing()
    for message in messages:
        standing = fold(standing, WorkflowProgressEvent.FromString(message))
    return standing


def _error_json(event: WorkflowProgressEvent) -> str:
    if not event.HasField("error"):
        return ""
    fields = MessageToDict(event.error, preserving_proto_field_name=True)
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
