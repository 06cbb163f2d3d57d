"""Support: what the events of one execution must be, whoever has started it. Sentences tell what is wrong first."""

from collections.abc import Sequence

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import TERMINAL_EVENTS

__all__ = ["broken_history", "broken_pause", "end_of"]

_Events = Sequence[WorkflowProgressEvent]


def end_of(events: _Events) -> str:
    """The status that its last event says it has for ever; empty if it has not ended."""
    last = events[-1].event_type if events else ""
    return last.removeprefix("workflow_") if last in TERMINAL_EVENTS else ""


def broken_history(events: _Events, status: str) -> str:
    """It has ended, without gaps, and its status is the one its last event says; `unknown` if it was deleted."""
    terminal = end_of(events)
    if not terminal:
        last = events[-1].event_type if events else "nothing"
        return f"accepted, but the last event that arrived is {last}; its status is {status}"
    if [event.sequence_number for event in events] != list(range(1, len(events) + 1)):
        return "sequence numbers are not contiguous from 1"
    if sum(event.event_type in TERMINAL_EVENTS for event in events) > 1:
        return "it has ended more than once"
    if status not in (terminal, "unknown"):
        return f"ended as {terminal}, but its status is {status}"
    return ""


def broken_pause(events: _Events, pause_sent: bool) -> str:
    """Nothing starts or completes while it is paused, and it is paused only if somebody asked for it."""
    paused = False
    for event in events:
        if event.event_type == "workflow_paused":
            paused = True
        elif event.event_type == "workflow_resumed":
            paused = False
        elif paused and event.event_type == "task_started":
            return f"task {event.task_reference} started while it was paused"
        elif paused and event.event_type == "workflow_completed":
            return "completed while it was paused"
    if not pause_sent and any(event.event_type == "workflow_paused" for event in events):
        return "paused, and nobody asked for it"
    return ""
