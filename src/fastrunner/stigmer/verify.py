"""Support: `fastrunner stigmer verify`: whether a store is what the runners have said, over all of it.

Theory of operation: each execution is read with all its events as one state of the store, so it may be asked of a
service that works. What is kept is compared with what follows from the events: nothing missing, one last event, the
fold, the counters.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import FINAL_STATUSES, TERMINAL_EVENTS
from fastrunner.stigmer.store import REFUSED, Inspected, Standing, Store
from fastrunner.stigmer.store.fold import fold_all

__all__ = ["FINDINGS", "Finding", "Verified", "verify"]

FINDINGS: Final = ("gap", "unreadable", "end", "fold", "after_end", "changed", "counter", "stray")
"""Kinds of findings; docs/stigmer.md says what each one means."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one execution, or one counter."""

    kind: str
    """One of `FINDINGS`."""
    about: str
    """The execution's id, or what is counted."""
    message: str
    """A sentence."""


@dataclass(slots=True)
class Verified:
    """What has been looked at so far."""

    executions: int = 0
    """Executions."""
    events: int = 0
    """Their events."""
    unfinished: int = 0
    """Executions that have not ended."""
    findings: int = 0
    """What is wrong."""


async def verify(store: Store, verified: Verified) -> AsyncIterator[Finding]:
    """Everything that is wrong; counts what it looks at in `verified`. Raises StorageFailed."""
    after = 0
    while some := await store.inspect(after):
        after = some[-1].execution.number
        for found in some:
            verified.executions += 1
            verified.events += len(found.events)
            verified.unfinished += found.execution.standing.status not in FINAL_STATUSES
            for finding in _inspect(found):
                verified.findings += 1
                yield finding
    for violation in await store.inspect_violations():
        verified.findings += 1
        words = "came again with other bytes" if violation.kind == "changed" else "came after the last one"
        yield Finding(
            violation.kind, violation.execution_id, f"event {violation.sequence} {words}, {violation.times} times"
        )
    for drift in await store.inspect_counters():
        verified.findings += 1
        yield Finding("counter", "/".join(drift.group), f"{drift.counted} are counted, {drift.there} are there")
    for execution_id, count in (await store.inspect_strays()).items():
        verified.findings += 1
        yield Finding("stray", execution_id, f"{count} events of an execution that is not there")


def _inspect(found: Inspected) -> Iterator[Finding]:
    execution, standing = found.execution, found.execution.standing
    about = execution.id
    numbers = [number for number, _ in found.events]
    if numbers != list(range(1, len(numbers) + 1)):
        missing = next(number for number in range(1, len(numbers) + 2) if number not in set(numbers))
        yield Finding("gap", about, f"event {missing} is missing, though there are events up to {numbers[-1]}")
    elif len(numbers) != standing.last_sequence:
        yield Finding("fold", about, f"{len(numbers)} events are there, {standing.last_sequence} are folded")
    messages = [message for number, message in found.events if number <= standing.last_sequence]
    try:
        events = [WorkflowProgressEvent.FromString(message) for message in messages]
        folded = fold_all(messages)
    except (DecodeError, ValueError) as error:
        yield Finding("unreadable", about, f"its events cannot be folded: {error}")
        return
    wrong = [event for event in events if event.workflow_execution_id != about]
    if wrong:
        yield Finding("unreadable", about, f"event {wrong[0].sequence_number} is another execution's")
    if not messages and execution.launch == REFUSED:
        # It has failed without ever having begun.
        folded = replace(standing, last_sequence=0)
    yield from _ends(about, events, standing)
    for field in Standing.__slots__:
        kept, follows = getattr(standing, field), getattr(folded, field)
        if kept != follows and not (field == "updated_ms" and not messages):
            yield Finding("fold", about, f"{field} is {kept!r} and would be {follows!r}")


def _ends(about: str, events: list[WorkflowProgressEvent], standing: Standing) -> Iterator[Finding]:
    ends = [event.sequence_number for event in events if event.event_type in TERMINAL_EVENTS]
    if len(ends) > 1:
        yield Finding("end", about, f"it has ended {len(ends)} times, with events {ends}")
    elif ends and ends[0] != len(events):
        yield Finding("after_end", about, f"events follow event {ends[0]}, which ended it")
    elif not ends and events and standing.status in FINAL_STATUSES:
        yield Finding("end", about, f"it is {standing.status}, and no event has ended it")
