"""What a workflow of Temporal is given: what has begun, and nothing that only a query brings along."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.outside import require

if TYPE_CHECKING:
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation

require(find_spec("temporalio"), "temporalio", module=True)


def activation(at_ms: int, length: int, *variants: str, replaying: bool = False, size: int = 0) -> "WorkflowActivation":
    """`length` and `size` of the history; `at_ms` and `size` are those of the latest task."""
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation

    made = WorkflowActivation(history_length=length, is_replaying=replaying, history_size_bytes=size)
    made.timestamp.FromMilliseconds(at_ms)
    for variant in variants:
        name, _, query = variant.partition(" ")
        getattr(made.jobs.add(), name).SetInParent()
        if query:
            made.jobs[-1].query_workflow.query_type = query
    return made


def given(*activations: "WorkflowActivation") -> list[str]:
    """What a workflow is given of them: what is in each; empty for nothing, `refused`."""
    from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

    from fastrunner.engine.temporal.instances import TOO_EARLY, Started

    seen: list[str] = []

    class Workflow:
        def activate(self, act: Any) -> WorkflowActivationCompletion:
            for job in act.jobs:
                seen.append(f"{job.WhichOneof('variant')} {job.query_workflow.query_type}".strip())
            return WorkflowActivationCompletion()

    workflow: Any = Workflow()
    started, found = Started(workflow), []
    for each in activations:
        message = started.activate(each).failed.failure.message
        assert message in ("", TOO_EARLY)
        found.append("refused" if message else " ".join(seen))
        seen.clear()
    return found


BEGUN = (1_000, 3, "initialize_workflow")
"""The first task."""
NEWS = ["resolve_activity", "signal_workflow", "fire_timer", "cancel_workflow", "resolve_child_workflow_execution"]


@pytest.mark.parametrize("news", NEWS)
def test_what_no_task_has_taken_up_is_kept_back(news: str) -> None:
    """The query that brings it fails, and whatever else; only forgetting the workflow goes on."""
    early, asked, task, forget = (
        activation(1_000, 8, news),
        activation(1_000, 8, "query_workflow view"),
        activation(1_001, 9, news, size=900),
        activation(0, 9, "remove_from_cache"),
    )
    found = given(activation(*BEGUN), early, asked, task, forget)
    assert found == ["initialize_workflow", "", "refused", "refused", "remove_from_cache"]


def test_who_has_ended_is_asked_for_what_was() -> None:
    early, asked = activation(1_000, 8, "resolve_activity"), activation(1_000, 9, "query_workflow view@ended")
    assert given(activation(*BEGUN), early, asked) == ["initialize_workflow", "", "query_workflow view"]
    assert given(activation(*BEGUN), asked)[1] == "query_workflow view"


def test_tasks_are_given() -> None:
    """Also if the server's clock has stood still, or was set back."""
    tasks = activation(1_000, 9, "resolve_activity", size=900), activation(1_000, 15, "fire_timer", size=1_900)
    assert given(activation(*BEGUN), *tasks) == ["initialize_workflow", "resolve_activity", "fire_timer"]


def test_queries_and_forgetting_are_no_news() -> None:
    query, forget = activation(1_000, 5, "query_workflow view"), activation(0, 9, "remove_from_cache")
    assert given(activation(*BEGUN), query, query, forget)[1:] == 2 * ["query_workflow view"] + ["remove_from_cache"]


def test_several_activations_of_one_task() -> None:
    """An activity that is given up is over in its task, without anything new in the history."""
    assert given(activation(*BEGUN), activation(1_000, 3, "resolve_activity"))[1] == "resolve_activity"


def test_what_is_replayed_has_had_its_task() -> None:
    old = activation(*BEGUN, replaying=True), activation(1_000, 8, "resolve_activity", replaying=True)
    assert given(*old)[1] == "resolve_activity"
