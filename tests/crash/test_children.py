"""The look at families that crash tests compare with: it finds what is wrong between parents and children."""

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ErrorDetails, WorkflowProgressEvent
from tests.crash.children import broken_families
from tests.crash.workload import Promise

Events = list[WorkflowProgressEvent]
STARTED = WorkflowProgressEvent(event_type="workflow_started", sequence_number=1)


def history(name: str, *steps: tuple[str, str], end: str = "completed", output: str = "") -> Events:
    """An execution whose tasks have completed with some outputs."""
    done = [
        WorkflowProgressEvent(event_type="task_completed", task_name=task, output_json=json) for task, json in steps
    ]
    last = WorkflowProgressEvent(event_type=f"workflow_{end}", output_json=output)
    for number, event in enumerate([*done, last], 1):
        event.sequence_number, event.workflow_name = number, name
    return [*done, last]


def told(child_id: str) -> str:
    return f'{{"child":"{child_id}"}}'


def leaf(child_id: str, end: str = "completed") -> Events:
    return history("leaf", end=end, output=told(child_id) if end == "completed" else "")


def family() -> dict[str, Events]:
    """A parent of two children, as it should be."""
    parent = history("subflow", ("subFirst", told("p~1")), ("ask", "{}"), ("subAgain", told("p~3")))
    return {"p": parent, "p~1": leaf("p~1"), "p~3": leaf("p~3")}


def broken(events: dict[str, Events], promise: Promise, status: str = "unknown") -> dict[str, str]:
    return broken_families([promise], events, lambda each: events.get(each, []), lambda _: status)


def promised(kind: str = "subflow", *, cancel_sent: bool = False) -> Promise:
    return Promise("p", kind, accepted=True, cancel_sent=cancel_sent)


def test_nothing_is_wrong_with_a_whole_family() -> None:
    assert broken(family(), promised()) == {}
    assert broken(family(), promised(), "completed") == {}


@pytest.mark.parametrize(
    ("changes", "execution_id", "says"),
    [
        ({"p~3": []}, "p~3", "the last event that arrived is nothing"),
        ({"p~3": [STARTED]}, "p~3", "the last event that arrived is workflow_started"),
        ({"p~3": leaf("p~4")}, "p", "none of its children ended with"),
        ({"p~4": leaf("p~4")}, "p", "completed after it had started ['p~1', 'p~3', 'p~4']"),
        ({"p~3": leaf("p~3", "cancelled")}, "p~3", "cancelled, and nobody asked for it"),
        ({"p~3": leaf("p~3", "failed")}, "p~3", "failed"),
        ({"p~3": leaf("p~3") + leaf("p~3")}, "p~3", "contiguous"),
        ({"p": history("subflow", ("subFirst", told("p~1")))}, "p", "went on with"),
        ({"p": history("subflow", *[("subEach", told("p~1"))] * 2)}, "p", "2 times"),
        ({"q~1": leaf("q~1")}, "q~1", "nobody has asked"),
    ],
)
def test_what_is_wrong_is_found(changes: dict[str, Events], execution_id: str, says: str) -> None:
    assert says in broken(family() | changes, promised())[execution_id]


def test_a_status_that_is_not_the_end_is_found() -> None:
    assert "its status is running" in broken(family(), promised(), "running")["p~1"]


def test_a_cancelled_parent_leaves_nothing_running() -> None:
    events = {"p": history("subflow", end="cancelled"), "p~1": leaf("p~1", "cancelled")}
    assert broken(events, promised(cancel_sent=True)) == {}
    assert "workflow_started" in broken(events | {"p~1": [STARTED]}, promised(cancel_sent=True))["p~1"]


def test_a_child_that_nobody_waits_for_is_not_cancelled() -> None:
    cancelled = {"p~1": leaf("p~1", "cancelled")}
    gone_on = {"p": history("detached", ("start", "{}"), end="cancelled")} | cancelled
    assert "nobody asked for it" in broken(gone_on, promised("detached", cancel_sent=True))["p~1"]
    before = {"p": history("detached", end="cancelled")} | cancelled
    assert broken(before, promised("detached", cancel_sent=True)) == {}


def test_a_client_may_cancel_a_child() -> None:
    error = ErrorDetails(title="Subflow Cancelled")
    parent = history("subflow", end="failed")
    parent[-1].error.CopyFrom(error)
    promise = promised()
    promise.touch_child().cancel_sent = True
    assert broken({"p": parent, "p~1": leaf("p~1", "cancelled")}, promise) == {}
    promise.touch_child().cancelled = True
    assert "its cancel was answered with OK" in broken({"p": parent, "p~1": leaf("p~1")}, promise)["p~1"]
