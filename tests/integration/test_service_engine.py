"""The wire over the durable engine: what a caller sees from acceptance to the end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty

from fastrunner._core import EffectFailure
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.engine.embedded.engine import EmbeddedEngine
from tests.integration.engines import CALL, SET, TERMINAL, Performer, document, engine_on, folder, until_status
from tests.integration.wire import Wire, execution, pages, path, refusal, rest_of, serving

LONG_WAIT = document("  - rest:\n      wait: {milliseconds: 600000}\n")
MISSPELT = document("  - one:\n      sett: {a: 1}\n  - two:\n      call: http\n")


@pytest.fixture
def performer() -> Performer:
    return Performer()


@pytest_asyncio.fixture
async def engine(performer: Performer) -> AsyncIterator[EmbeddedEngine]:
    async with engine_on(folder(), performer, shards=2) as engine:
        yield engine


@pytest_asyncio.fixture
async def wire(engine: EmbeddedEngine) -> AsyncIterator[Wire]:
    async with serving(engine) as wire:
        yield wire


async def get(wire: Wire, execution_id: str) -> q.Execution:
    request = q.GetExecutionRequest(execution_id=execution_id)
    return (await wire.call("GetExecution", request, q.GetExecutionResponse)).execution


async def events_of(wire: Wire, execution_id: str) -> list[m.WorkflowProgressEvent]:
    return await rest_of(wire.stream("Subscribe", q.SubscribeRequest(execution_id=execution_id)))


def assert_contiguous(events: list[m.WorkflowProgressEvent]) -> None:
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    assert [event.event_type in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]


async def test_from_acceptance_to_the_end(wire: Wire) -> None:
    request = execution("test-123", SET)
    request.metadata.name = "hello"
    reply = await wire.call("ExecuteAsync", request, m.WorkflowExecuteResponse)
    assert reply == m.WorkflowExecuteResponse(
        workflow_execution_id="test-123", status="running", message="Workflow execution started in background"
    )
    events = await events_of(wire, "test-123")
    assert_contiguous(events)
    assert events[-1].event_type == "workflow_completed"
    listed = await wire.call("GetEvents", q.GetEventsRequest(execution_id="test-123"), q.GetEventsResponse)
    assert list(listed.events) == events
    found = await get(wire, "test-123")
    assert (found.status, found.output_json, found.metadata.name) == ("completed", '{"b":2}', "hello")
    assert found.last_sequence_number == len(events)


async def test_execute_streams_every_event(wire: Wire) -> None:
    events = await rest_of(wire.stream("Execute", execution("e-1", SET)))
    assert_contiguous(events)
    assert events == await events_of(wire, "e-1")


async def test_a_fault_is_told_by_events_and_status_alike(wire: Wire, performer: Performer) -> None:
    performer.failure = EffectFailure(0, "communication", 503, "Service Unavailable", "try later")
    performer.gate.set()
    events = await rest_of(wire.stream("Execute", execution("e-1", CALL)))
    assert events[-1].event_type == "workflow_failed"
    found = await get(wire, "e-1")
    assert found.status == "failed"
    assert found.error == events[-1].error
    assert found.error.status == 503


async def test_a_misspelt_document_is_refused_at_its_lines(wire: Wire) -> None:
    code, _, details = await refusal(wire.execute_async("e-1", MISSPELT))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    descriptions = [violation.description for violation in details["BadRequest"].field_violations]
    assert descriptions[0].startswith("line 7, column 5, /do/0/one ")
    assert descriptions[1].startswith("line 9, column 5, /do/1/two ")
    verdict = await wire.call(
        "ValidateWorkflow", q.ValidateWorkflowRequest(workflow_yaml=MISSPELT), q.ValidateWorkflowResponse
    )
    assert not verdict.valid
    assert [
        f"line {problem.line}, column {problem.column}, {problem.pointer or '/'} [{problem.code}]: {problem.message}"
        for problem in verdict.problems
    ] == descriptions
    code, _, _ = await refusal(wire.call("GetExecution", q.GetExecutionRequest(execution_id="e-1"), Empty))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_good_document_is_valid(wire: Wire) -> None:
    verdict = await wire.call(
        "ValidateWorkflow", q.ValidateWorkflowRequest(workflow_yaml=SET), q.ValidateWorkflowResponse
    )
    assert verdict == q.ValidateWorkflowResponse(valid=True)


async def test_a_doubtful_document_is_valid_with_warnings(wire: Wire) -> None:
    document = SET + "  - doubtful: {set: {amount: .amount}, if: .x = 1}\n"

    async def verdict(strict: bool) -> q.ValidateWorkflowResponse:
        request = q.ValidateWorkflowRequest(workflow_yaml=document, strict=strict)
        return await wire.call("ValidateWorkflow", request, q.ValidateWorkflowResponse)

    told, strict = await verdict(strict=False), await verdict(strict=True)
    assert (told.valid, list(told.problems)) == (True, [])
    assert [(warning.code, warning.severity) for warning in told.warnings] == [
        ("text-like-expression", "warning"),
        ("constant-condition", "warning"),
    ]
    assert (strict.valid, list(strict.warnings)) == (False, [])
    assert list(strict.problems) == list(told.warnings)
    reply = await wire.execute_async("doubtful", document)
    assert reply.status == "running"
    places = [f"{warning.line}:{warning.column}: {warning.code}: {warning.message}" for warning in told.warnings]
    assert list(reply.warnings) == places
    assert await wire.execute_async("doubtful", document) == reply


async def test_the_same_request_again_and_a_different_one(wire: Wire) -> None:
    request = execution("e-1", SET)
    request.workflow_input.update({"a": 1, "b": {"c": 2}})
    request.env_vars.update({"X": "1", "Y": "2"})
    first = await wire.call("ExecuteAsync", request, m.WorkflowExecuteResponse)
    again = execution("e-1", SET)
    again.env_vars.update({"Y": "2", "X": "1"})
    again.input_json = '{"b": {"c": 2}, "a": 1}'
    assert await wire.call("ExecuteAsync", again, m.WorkflowExecuteResponse) == first
    again.input_json = '{"a": 2}'
    code, _, _ = await refusal(wire.call("ExecuteAsync", again, m.WorkflowExecuteResponse))
    assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_pause_resume_and_cancel(wire: Wire) -> None:
    await wire.execute_async("e-1", LONG_WAIT)
    for _ in range(2):
        await wire.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1", reason="lunch"), Empty)
        assert (await get(wire, "e-1")).status == "paused"
    for _ in range(2):
        await wire.call("ResumeExecution", m.ResumeExecutionRequest(execution_id="e-1"), Empty)
        assert (await get(wire, "e-1")).status == "running"
    for _ in range(2):
        request = m.CancelExecutionRequest(execution_id="e-1", reason="enough", force=True)
        await wire.call("CancelExecution", request, Empty)
    events = await events_of(wire, "e-1")
    assert_contiguous(events)
    types = [event.event_type for event in events]
    assert types[-3:] == ["workflow_paused", "workflow_resumed", "workflow_cancelled"]
    assert "enough" in events[-1].message
    for method, command in (
        ("PauseExecution", m.PauseExecutionRequest(execution_id="e-1")),
        ("ResumeExecution", m.ResumeExecutionRequest(execution_id="e-1")),
    ):
        code, _, _ = await refusal(wire.call(method, command, Empty))
        assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_client_that_goes_away_cancels(wire: Wire, engine: EmbeddedEngine) -> None:
    call = wire.stream("Execute", execution("e-1", LONG_WAIT))
    await call.read()
    call.cancel()
    await until_status(engine, "e-1", "cancelled")
    assert "client went away" in (await events_of(wire, "e-1"))[-1].message


async def test_callers_that_give_up_disturb_nobody(wire: Wire, engine: EmbeddedEngine) -> None:
    multi = wire.channel.unary_unary(path("ExecuteAsync"))
    calls = [multi(execution(f"gone-{at}", SET).SerializeToString()) for at in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await wire.execute_async("stays", SET)
    await until_status(engine, "stays", "completed")


async def test_a_batch_and_its_pages(wire: Wire) -> None:
    ids = [f"e-{at:03}" for at in range(120)]
    request = m.ExecuteAsyncBatchRequest(executions=[execution(execution_id, SET) for execution_id in ids])
    reply = await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    assert [result.accepted.workflow_execution_id for result in reply.results] == ids
    listed = await pages(wire, q.ListExecutionsRequest(page_size=50, statuses=["completed"]))
    assert sorted(execution_id for page in listed for execution_id in page) == ids
    everything = await wire.call("ListExecutions", q.ListExecutionsRequest(page_size=500), q.ListExecutionsResponse)
    times = [(execution.accepted_ms, execution.execution_id) for execution in everything.executions]
    assert times == sorted(times, reverse=True)


async def test_a_draining_engine_is_unavailable(wire: Wire, engine: EmbeddedEngine) -> None:
    await wire.execute_async("e-1", LONG_WAIT)
    call = wire.stream("Execute", execution("e-1", LONG_WAIT))
    await call.read()
    await engine.drain(0)
    code, _, _ = await refusal(rest_of(call))
    assert code is grpc.StatusCode.UNAVAILABLE
    code, _, _ = await refusal(wire.execute_async("e-2", SET))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_numbers_at_their_ends_are_no_defect(wire: Wire) -> None:
    """Sequence numbers, tokens and times at the ends of 64 bits."""
    await wire.execute_async("e-1", SET)
    last = 2**63 - 1
    for number in (100, last - 1, last):
        request = q.GetEventsRequest(execution_id="e-1", from_sequence_number=number, count_max=2**31 - 1)
        assert not (await wire.call("GetEvents", request, q.GetEventsResponse)).events
        subscription = q.SubscribeRequest(execution_id="e-1", from_sequence_number=number)
        assert await rest_of(wire.stream("Subscribe", subscription)) == []
    for number in (-1, -(2**63)):
        request = q.GetEventsRequest(execution_id="e-1", from_sequence_number=number)
        code, _, details = await refusal(wire.call("GetEvents", request, q.GetEventsResponse))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "from_sequence_number"
    listed = await wire.call("ListExecutions", q.ListExecutionsRequest(page_size=1), q.ListExecutionsResponse)
    for nothing in (
        q.ListExecutionsRequest(accepted_from_ms=last),
        q.ListExecutionsRequest(page_size=1, page_token=listed.next_page_token),
    ):
        assert not (await wire.call("ListExecutions", nothing, q.ListExecutionsResponse)).executions
    beyond = q.ListExecutionsRequest(accepted_until_ms=last)
    assert len((await wire.call("ListExecutions", beyond, q.ListExecutionsResponse)).executions) == 1
