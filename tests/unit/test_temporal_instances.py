"""What a workflow of Temporal is given: what has begun, and nothing that only a query brings along."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.outside import require

if TYPE_CHECKING:
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation

require(find_spec("temporalio"), "temporalio", module=True)


def activation(at_ms: int, length: int, *variants: str, replaying: bool = False) -> "WorkflowActivation":
    from temporalio.bridge.proto.workflow_activation import WorkflowActivation

    made = WorkflowActivation(history_length=length, is_replaying=replaying)
    made.timestamp.FromMilliseconds(at_ms)
    for variant in variants:
        getattr(made.jobs.add(), variant).SetInParent()
    return made


def given(*activations: "WorkflowActivation") -> list[bool]:
    """Which of them a workflow is given."""
    from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

    from fastrunner.engine.temporal.instances import TOO_EARLY, Started

    class Workflow:
        def activate(self, act: Any) -> WorkflowActivationCompletion:
            return WorkflowActivationCompletion()

    workflow: Any = Workflow()
    started = Started(workflow)
    refused = [started.activate(each).failed.failure.message for each in activations]
    assert set(refused) <= {"", TOO_EARLY}
    return [not each for each in refused]


BEGUN = (1_000, 3, "initialize_workflow")
"""The first task."""


@pytest.mark.parametrize(
    "variant",
    ["resolve_activity", "signal_workflow", "fire_timer", "cancel_workflow", "resolve_child_workflow_execution"],
)
def test_what_no_task_has_taken_up_is_refused(variant: str) -> None:
    """And is given with its task."""
    early, with_its_task = activation(1_000, 8, variant), activation(1_001, 9, variant)
    assert given(activation(*BEGUN), early, with_its_task) == [True, False, True]


def test_queries_and_forgetting_are_no_news() -> None:
    query, forget = activation(1_000, 5, "query_workflow"), activation(0, 9, "remove_from_cache")
    assert given(activation(*BEGUN), query, query, forget) == [True] * 4


def test_several_activations_of_one_task() -> None:
    """An activity that is given up is over in its task, without anything new in the history."""
    assert given(activation(*BEGUN), activation(1_000, 3, "resolve_activity")) == [True, True]


def test_what_is_replayed_has_had_its_task() -> None:
    """Even if the server's clock was set back in between."""
    old = activation(*BEGUN, replaying=True), activation(1_000, 8, "resolve_activity", replaying=True)
    assert given(*old) == [True, True]
