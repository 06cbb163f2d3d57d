"""Support: compares executions that others have started with their parents.

Nobody was promised anything about a child; what it must be follows from its parent: there is no other than the parent
has asked for, each has ended once and completely, and a parent goes on with the very output that its child ended with.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from tests.crash.documents import CHILDREN, DETACHED, GIVEN_UP, SUB, SULKER
from tests.crash.histories import broken_history, broken_pause, end_of
from tests.crash.workload import Promise

__all__ = ["CANCELLED_BY_ITSELF", "broken_families", "is_child", "parent_of"]

CANCELLED_BY_ITSELF = "Subflow Cancelled"
"""The title of a task's error when a client has cancelled its child."""


def is_child(execution_id: str) -> bool:
    """Whether another execution has started it."""
    return "~" in execution_id


def parent_of(execution_id: str) -> str:
    """The execution that has started it."""
    return execution_id.rpartition("~")[0]


@dataclass
class _Family:
    """A promise, and every execution below it."""

    root: Promise
    events: dict[str, list[WorkflowProgressEvent]]
    """What arrived, by execution; the promise's own, too."""

    @property
    def is_disturbed(self) -> bool:
        """Whether somebody has asked for one of them to be cancelled."""
        return self.root.cancel_sent or (self.root.child is not None and self.root.child.cancel_sent)

    def children_of(self, execution_id: str) -> set[str]:
        """Those it has started itself."""
        return {each for each in self.events if is_child(each) and parent_of(each) == execution_id}


def broken_families(
    promises: Iterable[Promise],
    execution_ids: Iterable[str],
    events_of: Callable[[str], list[WorkflowProgressEvent]],
    status_of: Callable[[str], str],
) -> dict[str, str]:
    """What is wrong, by execution. `execution_ids` are all that were ever seen, of children and of others."""
    families = {
        each.execution_id: _Family(each, {each.execution_id: events_of(each.execution_id)}) for each in promises
    }
    broken = {}
    for execution_id in filter(is_child, execution_ids):
        family = families.get(execution_id.partition("~")[0])
        if family is None or not family.root.accepted:
            broken[execution_id] = "nobody has asked for the execution that it says has started it"
        else:
            family.events[execution_id] = events_of(execution_id)
    for family in families.values():
        broken.update(_broken(family, status_of))
    return broken


def _broken(family: _Family, status_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for execution_id, events in family.events.items():
        sentence = ""
        if is_child(execution_id):
            sentence = _broken_child(family, execution_id, events, status_of(execution_id))
        if sentence := sentence or _broken_bond(family, execution_id, events):
            yield execution_id, sentence


def _broken_child(family: _Family, execution_id: str, events: list[WorkflowProgressEvent], status: str) -> str:
    """What a child must be by itself."""
    root, touched = family.root, family.root.child
    is_touched = touched is not None and touched.execution_id == execution_id
    if touched is not None and is_touched and touched.errors:
        return touched.errors[0]
    if sentence := broken_history(events, status):
        return sentence
    end = end_of(events)
    if touched is not None and is_touched and touched.cancelled and end != "cancelled":
        return f"its cancel was answered with OK, but it ended as {end}"
    if end == "cancelled" and not _may_be_cancelled(family, execution_id):
        return "cancelled, and nobody asked for it"
    if end == "failed" and not _may_fail(family, events):
        return f"failed: {events[-1].error.type} {events[-1].error.detail}"
    return broken_pause(events, root.pause_sent or (touched is not None and touched.pause_sent))


def _may_be_cancelled(family: _Family, execution_id: str) -> bool:
    root, touched = family.root, family.root.child
    if root.kind == DETACHED:
        # From the moment its parent has gone on, nothing of it reaches the child.
        has_gone_on = any(
            event.event_type == "task_completed" and event.task_name == "start"
            for event in family.events[root.execution_id]
        )
        return (root.cancel_sent and not has_gone_on) or (touched is not None and touched.cancel_sent)
    return root.kind == GIVEN_UP or family.is_disturbed


def _may_fail(family: _Family, events: list[WorkflowProgressEvent]) -> bool:
    error = events[-1].error
    if error.title == CANCELLED_BY_ITSELF:
        return family.is_disturbed
    return events[-1].workflow_name == SULKER and error.status == 503


def _broken_bond(family: _Family, execution_id: str, events: list[WorkflowProgressEvent]) -> str:
    """What a parent and its children must be to each other."""
    children = family.children_of(execution_id)
    name = events[-1].workflow_name if events else family.root.kind
    ends = {family.events[each][-1].output_json: each for each in children if _has_completed(family, each)}
    taken = Counter(_outputs(events))
    for output_json, count in taken.items():
        if output_json not in ends:
            return f"went on with {output_json!r}, which none of its children ended with"
        if count > 1:
            return f"went on with the output of {ends[output_json]} {count} times"
    if end_of(events) != "completed":
        return ""
    if len(children) not in CHILDREN.get(name, range(1)):
        return f"completed after it had started {sorted(children)}"
    if name not in (DETACHED, GIVEN_UP) and len(ends) != len(taken):
        return f"completed, and went on with {sorted(taken)} of {sorted(ends)}"
    return ""


def _has_completed(family: _Family, execution_id: str) -> bool:
    return end_of(family.events[execution_id]) == "completed"


def _outputs(events: Iterable[WorkflowProgressEvent]) -> Iterator[str]:
    """Of the tasks that have waited for a child."""
    for event in events:
        if event.event_type == "task_completed" and event.task_name.startswith(SUB):
            yield event.output_json
