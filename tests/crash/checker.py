"""Support: compares what clients were promised with what came out, execution by execution."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.stigmer.ledger import Ledger
from tests.crash.children import CANCELLED_BY_ITSELF, broken_families
from tests.crash.hearing import broken_talks, heard_by
from tests.crash.histories import broken_history, broken_pause, end_of
from tests.crash.workload import Promise

__all__ = ["Kept", "Verdict", "judge"]


class Kept(Protocol):
    """What an engine's own store has had."""

    completed_s: dict[str, float]
    """When the completion of an effect was first known to be durable, by idempotency key."""
    changed: list[str]
    """What was durable and is not the same any more."""

    def executions(self) -> Iterable[str]:
        """The ids of all that were seen."""

    def differences(self, received: Callable[[str], list[bytes]]) -> dict[str, str]:
        """Executions of which a receiver has not the very events that were ever seen there."""


@dataclass
class Verdict:
    """What is wrong, by execution; all of it must be empty."""

    lost: dict[str, str] = field(default_factory=dict)
    """Accepted, and no end; or a cancel or pause forgotten; or durable events that nobody got."""
    repeated: dict[str, str] = field(default_factory=dict)
    """A completed effect performed again."""
    heard: int = 0
    """CloudEvents that executions have taken."""
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
    promises: Iterable[Promise], ledger: Ledger, journal: Kept, calls: dict[str, list[float]],
    status_of: Callable[[str], str], published: Iterable[Mapping[str, Any]] | None = None,
) -> Verdict:  # fmt: skip
    """Judges a runner that has come to rest. `status_of` gives the final status, or `unknown` if it was deleted;
    `published` are the CloudEvents, None: nobody hears any."""
    verdict, promises = Verdict(), list(promises)

    def events_of(execution_id: str) -> list[WorkflowProgressEvent]:
        return [WorkflowProgressEvent.FromString(message) for message in ledger.encoded(execution_id)]

    for violation in ledger.violations:
        verdict.duplicated[violation.execution_id] = f"{violation.kind}: {violation.message}"
    for sentence in journal.changed:
        execution_id, _, what = sentence.partition(": ")
        verdict.duplicated[execution_id] = what
    for promise in promises:
        received = ledger.encoded(promise.execution_id)
        sentence = _broken_promise(promise, events_of(promise.execution_id), status_of(promise.execution_id))
        if not sentence and promise.watched and promise.watched != received:
            sentence = f"a subscriber got {len(promise.watched)} events, and not what the receiver got"
        if sentence:
            verdict.lost[promise.execution_id] = sentence
    seen = {*ledger.executions(), *journal.executions()}
    verdict.lost.update(broken_families(promises, sorted(seen), events_of, status_of))
    if published is not None:
        verdict.duplicated.update(broken_talks(promises, published, events_of))
    verdict.heard = sum(len(heard_by(events_of(promise.execution_id))) for promise in promises if promise.pair)
    for execution_id, sentence in journal.differences(ledger.encoded).items():
        verdict.lost.setdefault(execution_id, sentence)
    _judge_effects(verdict, journal.completed_s, calls)
    return verdict


def _broken_promise(promise: Promise, events: list[WorkflowProgressEvent], status: str) -> str:
    """The promise that was broken first; empty if all were kept."""
    if promise.errors:
        return promise.errors[0]
    if not promise.accepted:
        return ""
    if sentence := broken_history(events, status):
        return sentence
    terminal = end_of(events)
    if promise.cancelled and terminal != "cancelled":
        return f"its cancel was answered with OK, but it ended as {terminal}"
    if terminal == "cancelled" and not promise.cancel_sent:
        return "cancelled, and nobody asked for it"
    if terminal == "failed" and not _has_lost_a_child(promise, events):
        return f"failed: {events[-1].error.type} {events[-1].error.detail}"
    return broken_pause(events, promise.pause_sent)


def _has_lost_a_child(promise: Promise, events: list[WorkflowProgressEvent]) -> bool:
    """Whether it failed because a client has cancelled its child."""
    is_asked_for = promise.child is not None and promise.child.cancel_sent
    return is_asked_for and events[-1].error.title == CANCELLED_BY_ITSELF


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
