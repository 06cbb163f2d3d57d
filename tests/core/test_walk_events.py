"""Walk: the events' fields, their order and their wire form."""

from typing import Any

import pytest

from fastrunner._core import Cancel, EffectFailure, Pause, Resume
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.base import limits
from tests.core.walking import START_MS, Run, call, error_type, finish, plan_of, raising

RETRY = {"retry": {"delay": "PT1S", "limit": {"attempt": {"count": 1}}}}


def every_kind_of_event() -> list[Run]:
    """Runs that together say everything a walk can say."""
    trying = {"try": [{"c": call()}], "catch": {**RETRY, "do": [{"s": {"set": "$error"}}]}}
    failed = Run(plan_of([{"tür/~": trying}, {"r": raising(title="Naïve", detail="🧀")}]))
    failed.resume(Pause("ünder"))
    failed.resume(Resume("way"))
    for effect_id in (1, 2):
        failed.resume(EffectFailure(effect_id, "communication", 503, "Busy", "later"))
        if failed.status == "running":
            failed.tick()
    cancelled = Run(plan_of([{"w": {"wait": "PT1S"}}]))
    cancelled.resume(Cancel("no", False, 0))
    return [failed, cancelled, finish([{"s": {"set": {"k": [1.5, "x"]}}}])]


def test_events_are_encoded_as_protobuf_does() -> None:
    """Byte for byte: fields in order, defaults left out, nothing unknown."""
    kinds = set()
    for run in every_kind_of_event():
        assert ReportProgressBatchRequest.FromString(run.encoded).SerializeToString() == run.encoded
        kinds |= {event.event_type for event in run.events}
    assert kinds == {
        "workflow_started",
        "workflow_validating",
        "workflow_validated",
        "task_started",
        "task_retry",
        "task_completed",
        "task_failed",
        "workflow_paused",
        "workflow_resumed",
        "workflow_completed",
        "workflow_failed",
        "workflow_cancelled",
    }


def test_every_event_says_whose_it_is_and_when() -> None:
    for run in every_kind_of_event():
        events = run.events
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        assert [event.event_type for event in events[:3]] == [
            "workflow_started",
            "workflow_validating",
            "workflow_validated",
        ]
        terminal = {"workflow_completed", "workflow_failed", "workflow_cancelled"}
        assert [event.event_type in terminal for event in events] == [False] * (len(events) - 1) + [True]
        times = [event.timestamp_ms for event in events]
        assert times == sorted(times)
        assert times[0] == START_MS
        for event in events:
            assert (event.workflow_execution_id, event.workflow_name) == ("execution", "walked")
            assert event.message
            assert bool(event.task_name) == event.event_type.startswith("task_")
            assert bool(event.task_reference) == bool(event.attempt) == bool(event.task_name)
            assert event.HasField("error") == (event.event_type in {"task_retry", "task_failed", "workflow_failed"})
            assert bool(event.output_json) == event.event_type.endswith("_completed")
            assert event.task_progress == (100 if event.event_type == "task_completed" else 0)


def test_status_of_each_event() -> None:
    found = {(event.event_type, event.status) for run in every_kind_of_event() for event in run.events}
    assert found == {
        ("workflow_started", "running"),
        ("workflow_validating", "running"),
        ("workflow_validated", "running"),
        ("task_started", "running"),
        ("task_retry", "running"),
        ("task_completed", "completed"),
        ("task_failed", "failed"),
        ("workflow_paused", "paused"),
        ("workflow_resumed", "running"),
        ("workflow_completed", "completed"),
        ("workflow_failed", "failed"),
        ("workflow_cancelled", "cancelled"),
    }


def test_references_are_escaped_pointers_and_names_are_plain() -> None:
    run = every_kind_of_event()[0]
    assert {(event.task_name, event.task_reference) for event in run.events if event.task_name} == {
        ("tür/~", "/do/0/tür~1~0"),
        ("c", "/do/0/tür~1~0/try/0/c"),
        ("s", "/do/0/tür~1~0/catch/do/0/s"),
        ("r", "/do/1/r"),
    }


def test_the_error_travels_with_its_class() -> None:
    run = every_kind_of_event()[0]
    retry = next(event for event in run.events if event.event_type == "task_retry")
    assert retry.attempt == 2
    assert (retry.error.code, retry.error.type) == ("EXECUTION_ERROR", error_type("communication"))
    assert (retry.error.status, retry.error.title, retry.error.detail) == (503, "Busy", "later")
    assert retry.error.message == "Busy: later"
    assert not retry.error.stack_trace


@pytest.mark.parametrize("status", [-1, 0, 404.0, 2**31 - 1, 2**31, -(2**31) - 1, 2**64 - 1])
def test_any_status_can_be_told(status: Any) -> None:
    run = finish([{"r": raising(status)}])
    assert run.error["status"] == status
    assert type(run.error["status"]) is int
    assert -(2**31) <= run.events[-1].error.status <= 2**31 - 1


def test_output_beyond_the_bound_is_left_out_and_stays_queryable() -> None:
    for size, told in ((limits.OUTPUT_JSON_SIZE_BYTES_MAX - 2, True), (limits.OUTPUT_JSON_SIZE_BYTES_MAX - 1, False)):
        run = finish([{"s": {"set": "."}}], "x" * size)
        assert [bool(event.output_json) for event in run.events[-2:]] == [told, told]
        assert len(run.output) == size


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False, "ü", 1e100, 2**64 - 1, {"a": [None]}])
def test_outputs_are_exact_json(value: Any) -> None:
    import json

    run = finish([{"s": {"set": "."}}, {"w": {"wait": {"seconds": 0}}}], value)
    assert [json.loads(event.output_json) for event in run.events if event.output_json] == [value] * 3


def test_turns_tell_the_range_of_their_events() -> None:
    run = Run(plan_of([{"c": call()}]))
    assert run.walk.last_sequence == 4
    turn = run.resume(Pause(""))
    assert (turn.first_sequence, turn.last_sequence) == (5, 5)
    turn = run.resume(Pause(""))
    assert (turn.first_sequence, turn.last_sequence, turn.events) == (0, 0, b"")


def test_events_tell_the_iteration_of_every_loop_around_their_task() -> None:
    """Also in branches, bodies of `try` and handlers in a loop, and after a walk was written down and read again."""
    tasks = [
        {
            "outer": {
                "for": {"in": "${ [range(5)] }"},
                "while": "${ $index < 2 }",
                "do": [
                    {"plain": {"set": "${ . }"}},
                    {
                        "risk": {
                            "try": [{"bad": {"raise": {"error": {"type": "https://example.com/bad", "status": 500}}}}],
                            "catch": {
                                "do": [
                                    {
                                        "inner": {
                                            "for": {"in": "${ [1, 2] }"},
                                            "do": [{"race": {"fork": {"branches": [{"b": {"wait": {"seconds": 1}}}]}}}],
                                        }
                                    }
                                ]
                            },
                        }
                    },
                ],
            }
        },
        {"after": {"set": "${ . }"}},
    ]
    for restoring in (False, True):
        run = Run(plan_of(tasks), None, restoring=restoring)
        while run.walk.status == "running":
            run.tick()
        started = [event for event in run.events if event.event_type == "task_started"]
        told: dict[str, list[list[int]]] = {
            name: [] for name in ("outer", "plain", "risk", "bad", "inner", "race", "b", "after")
        }
        for event in started:
            told[event.task_name].append(list(event.iteration))
        each = [[0], [1]]
        nested = [[0, 0], [0, 1], [1, 0], [1, 1]]
        assert told == {
            "outer": [[]],
            "plain": each,
            "risk": each,
            "bad": each,
            "inner": each,
            "race": nested,
            "b": nested,
            "after": [[]],
        }
        failed = [list(event.iteration) for event in run.events if event.event_type == "task_failed"]
        assert failed == each


def test_an_iteration_beyond_one_byte() -> None:
    tasks = [{"loop": {"for": {"in": "${ [range(300)] }"}, "do": [{"note": {"set": "${ . }"}}]}}]
    run = Run(plan_of(tasks), None)
    while run.walk.status == "running":
        run.tick()
    found = [list(event.iteration) for event in run.events if event.task_name == "note"]
    assert found == [[index] for index in range(300) for _ in range(2)]
