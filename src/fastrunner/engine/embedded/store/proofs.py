"""Stage 3, journal: what proves that a row is what was written, and what stands in for one that is not.

    format 0   written by schema version 1: no checksum (0)
    format 1   CRC-32 as below
    format 2   the same, over a row whose input or output is the SHA-256 of one in `large_values`

Of rows of events see `event_rows.py`.

Rules: a checksum covers the row's place as well as its content, so that a row that turns up elsewhere is found too.
Damage is named by table and execution, never by content. A row of events that is damaged is replaced by stand-ins with
the same sequence numbers: what follows it is delivered, and receivers see no gap. A snapshot has format and checksum of
its own, within (`core/walk/snapshot.pxi`); large values, and documents with what they have from elsewhere, are proven
by their SHA-256.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ErrorDetails,
    ReportProgressBatchRequest,
    WorkflowProgressEvent,
)
from fastrunner.engine.pinned import document_digest

__all__ = [
    "CLAIMED_FORMAT",
    "FORMAT",
    "Damage",
    "EventFacts",
    "aside_error",
    "damage_error",
    "events_checksum",
    "execution_checksum",
    "failed_event",
    "filter_checksum",
    "inbox_checksum",
    "is_proven",
    "request_checksum",
    "snapshot_damage",
    "stand_in_events",
    "told_event",
]

FORMAT: Final = 1
"""The format new rows are written in."""

CLAIMED_FORMAT: Final = 2
"""The format of those whose input or output is stored elsewhere."""

_SNAPSHOT_HEADER_SIZE: Final = 5
_RUNTIME_ERROR: Final = "https://open-workflow-specification.org/spec/1.0.0/errors/runtime"


@dataclass(frozen=True, slots=True)
class Damage:
    """Something stored that is not what was written, or not there."""

    table: str
    """Where: a table, `journal` for commits that are gone, or `file`."""
    execution_id: str
    """The execution it belongs to; empty for a document."""
    detail: str
    """What is wrong: one sentence without content."""


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What is known of an execution whose events are damaged."""

    status: str
    """Its status."""
    accepted_ms: int
    """When it was accepted."""
    finished_ms: int
    """When it ended; 0 while it has not."""
    last_sequence: int
    """Sequence number of its latest event."""
    name: str
    """The workflow's name."""
    error_json: str | None
    """Its DSL error once failed."""


# --- checksums ---


def events_checksum(execution_key: int, first_sequence: int, last_sequence: int, messages: bytes) -> int:
    """Of a row of `events`."""
    return crc32(messages, crc32(b"%d %d %d" % (execution_key, first_sequence, last_sequence)))


def request_checksum(execution_key: int, debug: bool, input_json: bytes, env_json: bytes, client: str) -> int:
    """Of a row of `requests`."""
    head = crc32(b"%d %d %d" % (execution_key, debug, len(input_json)))
    return crc32(client.encode(), crc32(env_json, crc32(input_json, head)))


def execution_checksum(
    execution_key: int,
    status: str,
    finished_ms: int,
    last_sequence: int,
    error_json: str | None,
    output_json: str | None,
) -> int:
    """Of what a row of `executions` tells of state and result."""
    head = f"{execution_key} {status} {finished_ms} {last_sequence} {error_json is None} {output_json is None}"
    checksum = crc32(head.encode())
    if error_json is not None:
        checksum = crc32(error_json.encode(), checksum)
    return checksum if output_json is None else crc32(output_json.encode(), checksum)


def filter_checksum(execution_key: int, subscription_id: int, filter_json: bytes) -> int:
    """Of what a listener waits for."""
    return crc32(filter_json, crc32(b"%d %d" % (execution_key, subscription_id)))


def inbox_checksum(event_key: int, event: bytes) -> int:
    """Of an event in the inbox."""
    return crc32(event, crc32(b"%d" % event_key))


def is_proven(format: int, checksum: int, actual: int) -> bool:
    """Whether a row of a format with a checksum is what its content's checksum says it is."""
    if format == 0:
        # Where there is a checksum, it is the format that is damaged.
        return checksum == 0
    return format in (FORMAT, CLAIMED_FORMAT) and checksum == actual


def is_document(digest: bytes, document: str, pinned: str) -> bool:
    """Whether a stored document, with its texts from elsewhere, is the one it is stored as."""
    try:
        return document_digest(document, pinned) == digest
    except ValueError:
        return False


def snapshot_damage(snapshot: bytes | None) -> str:
    """What is wrong with the bytes of a snapshot; empty if they are what was written."""
    if snapshot is None:
        return "its snapshot is missing"
    head, body = snapshot[1:_SNAPSHOT_HEADER_SIZE], snapshot[_SNAPSHOT_HEADER_SIZE:]
    if not body or crc32(body) != int.from_bytes(head, "big"):
        return "its snapshot does not match its checksum"
    return ""


# --- stand-ins ---


def damage_error(detail: str) -> dict[str, Any]:
    """The DSL error of an execution whose state is lost."""
    return {"type": _RUNTIME_ERROR, "status": 500, "title": "Runtime Error", "detail": detail, "instance": "/"}


def failed_event(execution_id: str, sequence: int, now_ms: int, error: dict[str, Any]) -> bytes:
    """The terminal event of an execution that the runner cannot go on with, as a row's message."""
    event = WorkflowProgressEvent(
        workflow_execution_id=execution_id,
        event_type="workflow_failed",
        status="failed",
        timestamp_ms=now_ms,
        sequence_number=sequence,
        error=_details(error),
    )
    return ReportProgressBatchRequest(events=[event]).SerializeToString()


def aside_error(detail: str) -> dict[str, Any]:
    """Why the runner has paused an execution, in the form of a DSL error: that is what queries show."""
    return {**damage_error(detail), "title": "Paused by the runner"}


def told_event(execution_id: str, name: str, status: str, sequence: int, now_ms: int, message: str) -> bytes:
    """An event of a workflow that the runner tells in its walk's place, as a row's message."""
    event = WorkflowProgressEvent(
        workflow_execution_id=execution_id,
        event_type=f"workflow_{'resumed' if status == 'running' else status}",
        workflow_name=name,
        status=status,
        message=message,
        timestamp_ms=now_ms,
        sequence_number=sequence,
    )
    return ReportProgressBatchRequest(events=[event]).SerializeToString()


def stand_in_events(execution_id: str, facts: EventFacts, first_sequence: int, last_sequence: int) -> bytes:
    """Messages with the sequence numbers of a damaged row, the same whenever they are made; the execution's last one
    tells how it ended."""
    batch = ReportProgressBatchRequest()
    for sequence in range(first_sequence, last_sequence + 1):
        ended = facts.finished_ms > 0 and sequence == facts.last_sequence
        event = batch.events.add(
            workflow_execution_id=execution_id,
            event_type=f"workflow_{facts.status}" if ended else "event_damaged",
            workflow_name=facts.name,
            status=facts.status if ended else "running",
            message="the runner's copy of this event was damaged",
            timestamp_ms=facts.finished_ms or facts.accepted_ms,
            sequence_number=sequence,
        )
        if ended and facts.error_json is not None:
            # It may be damaged, too.
            with suppress(ValueError, TypeError, KeyError):
                event.error.CopyFrom(_details(orjson.loads(facts.error_json)))
    return batch.SerializeToString()


def _details(error: dict[str, Any]) -> ErrorDetails:
    title, detail = error.get("title") or "", error.get("detail") or ""
    return ErrorDetails(
        code="SYSTEM_ERROR" if error["type"] == _RUNTIME_ERROR else "EXECUTION_ERROR",
        message=f"{title}: {detail}",
        type=error["type"],
        status=error["status"],
        title=title,
        detail=detail,
        instance=error.get("instance") or "",
    )
