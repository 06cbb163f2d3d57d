"""Support: compares what clients were promised with what came out, execution by execution."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.stigmer.ledger import Ledger
from tests.crash.tree import Journal
from tests.crash.workload import Promise

__all__ = ["Verdict", "judge"]


@dataclass
class Verdict:
    """What is wrong, by execution; all of it must be empty."""

    lost: dict[str, str] = field(default_factory=dict)
    """Accepted, and no end; or a cancel or pause forgotten; or durable events that nobody got."""
    repeated: dict[str, str] = field(default_factory=dict)
    """A completed effect performed again."""
    duplicated: dict[str, str] = field(default_factory=dict)
    """A number with other bytes, a gap, a second end, an event after the end."""

    @property
    def violations(self) -> list[str]:
        """All of them, as sentences."""
        return [
            f"{name}: {execution_id}: {sentence}"
            for name, found in (("lost", self.lost), ("repeated", self.repeated), ("duplicated", self.duplicated))
            for execution_id, sentence in found.items()
        ]


def judge(
    promises: Iterable[Promise], ledger: Ledger, journal: Journal, calls: dict[str, list[float]],
    status_of: Callable[[str], str],
) -> Verdict:  # fmt: skip
    """Judges a runner that has come to rest; `status_of` gives the final status, or `unknown` if it was deleted."""
    verdict = Verdict()
    for violation in ledger.violations:
        verdict.duplicated[violation.execution_id] = f"{violation.kind}: {violation.message}"
    for sentence in journal.changed:
        execution_id, _, what = sentence.partition(": ")
        verdict.duplicated[execution_id] = what
    for promise in promises:
        received = ledger.encoded(promise.execution_id)
        events = [WorkflowProgressEvent.FromString(message) for message in received]
        sentence = _broken_promise(promise, events, status_of(promise.execution_id))
        if not sentence and promise.watched and promise.watched != received:
            sentence = f"a subscriber got {len(promise.watched)} events, and not what the receiver got"
        if sentence:
            verdict.lost[promise.execution_id] = sentence
    verdict.lost.update(journal.differences(ledger.encoded))
    _judge_effects(verdict, journal.completed_s, calls)
    return verdict


def _broken_promise(promise: Promise, events: list[WorkflowProgressEvent], status: str) -> str:
    """The promise that was broken first; empty if all were kept."""
    if promise.errors:
        return promise.errors[0]
    if not promise.accepted:
        return ""
    if not events or events[-1].event_type not in TERMINAL_EVENTS:
        last = events[-1].event_type if events else "nothing"
        return f"accepted, but the last event that arrived is {last}; its status is {status}"
    if [event.sequence_number for event in events] != list(range(1, len(events) + 1)):
        return "sequence numbers are not contiguous from 1"
    terminal = events[-1].event_type.removeprefix("workflow_")
    if status not in (terminal, "unknown"):
        return f"ended as {terminal}, but its status is {status}"
    if promise.cancelled and terminal != "cancelled":
        return f"its cancel was answered with OK, but it ended as {terminal}"
    if terminal == "cancelled" and not promise.cancel_sent:
        return "cancelled, and nobody asked for it"
    if terminal == "failed":
        return f"failed: {events[-1].error.type} {events[-1].error.detail}"
    return _broken_pause(promise, events)


def _broken_pause(promise: Promise, events: list[WorkflowProgressEvent]) -> str:
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
    if not promise.pause_sent and any(event.event_type == "workflow_paused" for event in events):
        return "paused, and nobody asked for it"
    return ""


def _judge_effects(verdict: Verdict, completed_s: dict[str, float], calls: dict[str, list[float]]) -> None:
    for key, times in calls.items():
        execution_id, _, rest = key.partition("/")
        durable_s = completed_s.get(key)
        if durable_s is not None and times[-1] > durable_s:
            verdict.repeated[execution_id] = f"{key} was performed again {times[-1] - durable_s:.3f} s after its commit"
        stem, _, attempt = key.rpartition("/")
        later = calls.get(f"{stem}/{int(attempt) + 1}")
        if later and times[-1] > later[0]:
            verdict.repeated[execution_id] = f"/{rest} was performed again after its next attempt had begun"
