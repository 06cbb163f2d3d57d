"""Support: what the reference receiver has of each execution, and what was wrong with it.

Rules: events count in the order and the bytes in which they arrived; a gap is not taken, a duplicate must be the same
bytes; with a store, an event is in the file before it is acknowledged, and reading the file gives the same ledger.
"""

import base64
import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
from google.protobuf.json_format import MessageToDict

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import TERMINAL_EVENTS

__all__ = ["Ledger", "Summary", "Violation", "event_fields"]

"""Types of events that end an execution."""
_INT64_FIELDS: Final = frozenset({"timestampMs", "sequenceNumber"})
_VIOLATIONS_KEPT_MAX: Final = 1_000
"""Violations kept in memory; further ones are counted. A broken sender repeats itself."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something a sender must not do."""

    execution_id: str
    """The execution."""
    sequence: int
    """Sequence number of the offending event."""
    kind: str
    """`gap`, `changed`, `after-end` or `second-end`."""
    message: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a ledger holds, in numbers."""

    executions: int
    """Executions heard of."""
    finished: int
    """Executions with a terminal event."""
    events: int
    """Events taken."""
    duplicates: int
    """Events that arrived again, unchanged."""
    violations: int
    """Violations found."""


class _Record:
    __slots__ = ("digests", "events", "terminal")

    def __init__(self, keep: bool) -> None:
        self.digests = array("Q")
        self.events: list[bytes] | None = [] if keep else None
        self.terminal = ""


class Ledger:
    """Everything received, by execution. Raises OSError if the store cannot be read or written."""

    def __init__(self, store: Path | None = None, *, keep_events: bool = True) -> None:
        self.violations: list[Violation] = []
        """The first violations found; `summary` has the count of all."""
        self._records: dict[str, _Record] = {}
        self._keep = keep_events
        self._events = self._duplicates = self._finished = self._violation_count = 0
        self._file: BinaryIO | None = None
        self._pending: list[bytes] = []
        if store is not None:
            self._load(store)
            self._file = store.open("ab")

    def take(self, event: WorkflowProgressEvent, encoded: bytes) -> bool:
        """Takes an event, given decoded and as it arrived; gives whether it is now there. `flush` before answering."""
        record = self._records.get(event.workflow_execution_id)
        if record is None:
            record = self._records[event.workflow_execution_id] = _Record(self._keep)
        sequence, highest = event.sequence_number, len(record.digests)
        if sequence > highest + 1:
            self._violate(event, "gap", f"event {sequence} arrived, but the last one before it is {highest}")
            return False
        if sequence <= highest:
            if record.digests[sequence - 1] == _digest(encoded):
                self._duplicates += 1
            else:
                self._violate(event, "changed", f"event {sequence} arrived again with other bytes")
            return True
        if record.terminal:
            kind = "second-end" if event.event_type in TERMINAL_EVENTS else "after-end"
            self._violate(event, kind, f"event {sequence} ({event.event_type}) arrived after {record.terminal}")
        self._add(record, event, encoded)
        if self._file is not None:
            self._pending.append(_line(event, encoded))
        return True

    def flush(self) -> None:
        """Hands what was taken to the operating system: it survives the end of this process."""
        if self._file is not None and self._pending:
            self._file.write(b"".join(self._pending))
            self._file.flush()
            self._pending.clear()

    def close(self) -> None:
        """Closes the store."""
        self.flush()
        if self._file is not None:
            self._file.close()

    def executions(self) -> list[str]:
        """Ids of the executions heard of."""
        return list(self._records)

    def highest(self, execution_id: str) -> int:
        """Sequence number up to which every event is there; 0 for an unknown execution."""
        record = self._records.get(execution_id)
        return 0 if record is None else len(record.digests)

    def terminal(self, execution_id: str) -> str:
        """Type of the event that ended an execution; empty while there is none."""
        record = self._records.get(execution_id)
        return "" if record is None else record.terminal

    def encoded(self, execution_id: str) -> list[bytes]:
        """An execution's events as they arrived, in sequence; empty if events are not kept."""
        record = self._records.get(execution_id)
        return [] if record is None or record.events is None else list(record.events)

    def summary(self) -> Summary:
        """The ledger in numbers."""
        return Summary(
            executions=len(self._records),
            finished=self._finished,
            events=self._events,
            duplicates=self._duplicates,
            violations=self._violation_count,
        )

    def _add(self, record: _Record, event: WorkflowProgressEvent, encoded: bytes) -> None:
        record.digests.append(_digest(encoded))
        if record.events is not None:
            record.events.append(encoded)
        self._events += 1
        if event.event_type in TERMINAL_EVENTS and not record.terminal:
            record.terminal = event.event_type
            self._finished += 1

    def _violate(self, event: WorkflowProgressEvent, kind: str, message: str) -> None:
        violation = Violation(event.workflow_execution_id, event.sequence_number, kind, message)
        self._note(violation)
        if self._file is not None:
            fields = {"execution_id": violation.execution_id, "sequence": violation.sequence, "kind": kind}
            self._pending.append(orjson.dumps({"violation": {**fields, "message": message}}) + b"\n")

    def _note(self, violation: Violation) -> None:
        self._violation_count += 1
        if len(self.violations) < _VIOLATIONS_KEPT_MAX:
            self.violations.append(violation)

    def _load(self, store: Path) -> None:
        """Reads what an earlier process kept; cuts off a last line that its end left incomplete."""
        if not store.exists():
            return
        complete = 0
        with store.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._restore(orjson.loads(line))
                complete += len(line)
        with store.open("r+b") as file:
            file.truncate(complete)

    def _restore(self, kept: dict[str, Any]) -> None:
        if "violation" in kept:
            self._note(Violation(**kept["violation"]))
            return
        encoded = base64.b64decode(kept["wire"])
        event = WorkflowProgressEvent.FromString(encoded)
        record = self._records.setdefault(event.workflow_execution_id, _Record(self._keep))
        self._add(record, event, encoded)


def event_fields(event: WorkflowProgressEvent) -> dict[str, Any]:
    """An event in the JSON form of protobuf: camelCase, 64-bit integers as strings, fields without a value left out.

    Written out because the general conversion takes ten times as long, and this runs for every event.
    """
    fields: dict[str, Any] = {}
    for descriptor, value in event.ListFields():
        name = descriptor.json_name
        if name == "error":
            fields[name] = MessageToDict(value)
        elif name == "iteration":
            fields[name] = list(value)
        else:
            fields[name] = str(value) if name in _INT64_FIELDS else value
    return fields


def _line(event: WorkflowProgressEvent, encoded: bytes) -> bytes:
    return orjson.dumps({**event_fields(event), "wire": base64.b64encode(encoded).decode("ascii")}) + b"\n"


def _digest(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
