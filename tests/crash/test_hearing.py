"""The look at executions that hear each other, with which crash tests compare: it finds what is wrong."""

import orjson
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from tests.crash.hearing import broken_talks
from tests.crash.workload import Promise

ALL = (0, 1, 2, 3, 4)


def history(*numbers: int, end: str = "completed", pair: str = "p") -> list[WorkflowProgressEvent]:
    """Of an execution that has heard events of these numbers."""
    heard = [
        WorkflowProgressEvent(
            event_type="task_completed", task_name="hear", output_json=orjson.dumps([{"pair": pair, "n": n}]).decode()
        )
        for n in numbers
    ]
    return [*heard, WorkflowProgressEvent(event_type=f"workflow_{end}")]


def broken(events: list[WorkflowProgressEvent], said: tuple[int, ...] = ALL) -> str:
    published = [{"data": {"pair": "p", "by": "p", "n": n}} for n in said]
    return broken_talks([Promise("p", "ping", accepted=True, pair="p")], published, lambda _: events).get("p", "")


def test_nothing_is_wrong_with_who_has_heard_all() -> None:
    assert broken(history(*ALL)) == ""
    assert broken(history(0, 1, end="cancelled"), (0, 1)) == ""


@pytest.mark.parametrize(
    ("numbers", "end"),
    [((0, 1, 1, 2, 3), "completed"), ((0, 1, 2, 3), "completed"), ((0, 2, 1), "cancelled"), ((1,), "cancelled")],
)
def test_what_is_heard_wrong_is_found(numbers: tuple[int, ...], end: str) -> None:
    assert broken(history(*numbers, end=end)) == f"has heard {list(numbers)}"


def test_what_was_for_others_is_found() -> None:
    assert "for others" in broken(history(*ALL, pair="q"))


def test_what_is_emitted_twice_or_never_is_found() -> None:
    assert broken(history(*ALL), (*ALL, 3)) == "has emitted its events so many times: [1, 1, 1, 2, 1]"
    assert broken(history(*ALL), ALL[1:]) == "has completed, and its events are there so many times: [0, 1, 1, 1, 1]"
