"""The wire over a real socket: every method, spelling, refusal and stream, on an engine in memory."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import grpc
import orjson
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty

from fastrunner._core import Problem
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base import limits
from fastrunner.errors import AtCapacity, DocumentRefused, Unavailable
from fastrunner.service.methods import COMMAND_SERVICE, LATER_SERVICE, METHOD_OF_PATH, QUERY_SERVICE
from tests.integration.wire import (
    DEADLINE_S,
    DOCUMENT,
    MemoryWire,
    execution,
    pages,
    path,
    refusal,
    rest_of,
    served,
    until,
)

STARTED = "Workflow execution started in background"


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


def _like(token: str) -> list[str]:
    """What looks like a page token and is none."""
    digest, accepted_ms, execution_id = orjson.loads(base64.urlsafe_b64decode(token))
    positions = [
        *([digest, other, execution_id] for other in (2**63, 2**64 - 1, 1e3, -1, True, None, "1")),
        *([digest, accepted_ms, other] for other in (None, 1, ["x"])),
        [str(digest), accepted_ms, execution_id],
        [digest, accepted_ms],
        {"a": digest, "b": accepted_ms, "c": execution_id},
        1,
    ]
    encoded = [base64.urlsafe_b64encode(orjson.dumps(position)).decode() for position in positions]
    huge = base64.urlsafe_b64encode(b'[%d, %d, "x"]' % (digest, 10**30)).decode()
    return [*encoded, huge, f"{token}=", f"{token} ", f"!{token}", token[:-4], "é" * 8, "\x00"]


class TestExecuteAsync:
    async def test_the_reply_is_the_given_one_and_nothing_else(self, wire: MemoryWire) -> None:
        reply = await wire.execute_async("test-123")
        given = m.WorkflowExecuteResponse(workflow_execution_id="test-123", status="running", message=STARTED)
        assert reply == given

    async def test_the_same_request_again_is_answered_again(self, wire: MemoryWire) -> None:
        assert await wire.execute_async("e-1") == await wire.execute_async("e-1")
        assert len(wire.engine.executions) == 1

    async def test_another_request_under_the_same_id_is_refused(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        code, _, details = await refusal(wire.execute_async("e-1", "another"))
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert details["ResourceInfo"].resource_name == "e-1"

    async def test_a_bad_document_names_every_problem(self, wire: MemoryWire) -> None:
        code, _, details = await refusal(wire.execute_async("e-1", "bad"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.description for violation in details["BadRequest"].field_violations] == [
            "line 1, column 1, /bad [unknown-key]: not allowed",
            "line 2, column 3, /do [required]: is missing",
        ]

    async def test_a_hundred_problems_reach_a_default_client_too(self, wire: MemoryWire) -> None:
        problems = [Problem("unknown-key", f"/do/{at}", at, 1, "überlang " * 200) for at in range(1, 101)]
        wire.engine.refusal = DocumentRefused(problems)
        code, _, details = await refusal(wire.execute_async("e-1"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[-1].description.endswith("ValidateWorkflow lists them all")

    async def test_each_refusal_has_its_code(self, wire: MemoryWire) -> None:
        code, _, details = await refusal(wire.execute_async(""))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "workflow_execution_id"
        reason = {"reason": "InvalidRequest"}
        assert wire.registry.get_sample_value("workflow_runner_executions_rejected_total", reason) == 1
        code, _, details = await refusal(wire.execute_async("e-1", "x" * (limits.DOCUMENT_SIZE_BYTES_MAX + 1)))
        assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
        wire.engine.refusal = AtCapacity("full", retry_after_s=2)
        code, _, details = await refusal(wire.execute_async("e-1"))
        assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "AT_CAPACITY")
        assert details["RetryInfo"].retry_delay.seconds == 2
        wire.engine.refusal = Unavailable("draining")
        code, message, _ = await refusal(wire.execute_async("e-1"))
        assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "draining")

    async def test_bytes_that_are_no_message_are_refused(self, wire: MemoryWire) -> None:
        code, _, _ = await refusal(wire.raw(path("ExecuteAsync"), b"\x0a\xff"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_request_over_the_message_bound_is_refused(self, wire: MemoryWire) -> None:
        code, _, _ = await refusal(wire.raw(path("ExecuteAsync"), bytes(limits.REQUEST_SIZE_BYTES_MAX + 1)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_an_unexpected_error_is_internal_and_says_nothing(self, wire: MemoryWire) -> None:
        wire.engine.executions = None  # type: ignore[assignment]
        code, message, _ = await refusal(wire.execute_async("e-1"))
        assert (code, message) == (grpc.StatusCode.INTERNAL, "internal error: the runner's log has the cause")

    async def test_a_reply_waits_for_the_commit_without_holding_others(self, wire: MemoryWire) -> None:
        wire.engine.gate.clear()
        slow = asyncio.ensure_future(wire.execute_async("e-1"))
        code, _, _ = await refusal(wire.call("GetExecution", q.GetExecutionRequest(execution_id="e-1"), Empty))
        assert code is grpc.StatusCode.NOT_FOUND
        assert not slow.done()
        wire.engine.gate.set()
        assert (await slow).status == "running"


class TestCommands:
    async def test_cancel_pause_and_resume(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        for _ in range(2):
            await wire.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1", reason="r"), Empty)
        assert wire.engine.executions["e-1"].status == "paused"
        await wire.call("ResumeExecution", m.ResumeExecutionRequest(execution_id="e-1"), Empty)
        assert wire.engine.executions["e-1"].status == "running"
        for _ in range(2):
            request = m.CancelExecutionRequest(execution_id="e-1", reason="enough", force=True)
            await wire.call("CancelExecution", request, Empty)
        assert wire.engine.executions["e-1"].reason == "enough (forced)"
        code, _, _ = await refusal(wire.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1"), Empty))
        assert code is grpc.StatusCode.FAILED_PRECONDITION

    @pytest.mark.parametrize(
        "method", ["CancelExecution", "PauseExecution", "ResumeExecution", "GetExecution", "GetEvents"]
    )
    async def test_an_unknown_or_empty_id(self, wire: MemoryWire, method: str) -> None:
        request = m.PauseExecutionRequest(execution_id="nobody")
        code, _, details = await refusal(wire.call(method, request, Empty))
        assert (code, details["ResourceInfo"].resource_name) == (grpc.StatusCode.NOT_FOUND, "nobody")
        code, _, details = await refusal(wire.call(method, Empty(), Empty))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "execution_id"

    @pytest.mark.parametrize("method", ["ReportProgress", "ReportProgressBatch"])
    async def test_what_this_side_does_not_serve_says_so(self, wire: MemoryWire, method: str) -> None:
        code, message, _ = await refusal(wire.raw(path(method), b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert method in message


class TestSpellings:
    @pytest.mark.parametrize("spelling", ["ExecuteAsync", "execute_async", "executeAsync"])
    @pytest.mark.parametrize("service", [COMMAND_SERVICE, LATER_SERVICE])
    async def test_execute_async_answers_under_all(self, wire: MemoryWire, service: str, spelling: str) -> None:
        reply = await wire.raw(f"/{service}/{spelling}", execution("e-1").SerializeToString())
        assert m.WorkflowExecuteResponse.FromString(reply).status == "running"
        assert wire.handled(service, "ExecuteAsync", "OK") == 1

    async def test_every_path_answers(self, wire: MemoryWire) -> None:
        for spelled, method in METHOD_OF_PATH.items():
            shape = wire.channel.unary_stream if method.streams else wire.channel.unary_unary
            call = shape(spelled)(b"", timeout=DEADLINE_S)
            if method.streams:
                # One that follows without end is an answer by its first message.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call.read()
                call.cancel()
            await call.code()
            assert "there is no method" not in (await call.details() or ""), spelled

    @pytest.mark.parametrize(
        "path", [f"/{COMMAND_SERVICE}/Explode", "/nobody.Service/ExecuteAsync", f"/{LATER_SERVICE}/getEvents"]
    )
    async def test_an_unknown_method_is_named(self, wire: MemoryWire, path: str) -> None:
        code, message, _ = await refusal(wire.raw(path, b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert path in message
        assert wire.handled("unknown", "unknown", "Unimplemented") == 1


class TestBatch:
    async def test_one_result_per_item_in_order(self, wire: MemoryWire) -> None:
        request = m.ExecuteAsyncBatchRequest(
            executions=[execution("e-1"), execution("e-2", "bad"), execution(""), execution("e-3"), execution("e-1")]
        )
        reply = await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
        kinds = [result.WhichOneof("result") for result in reply.results]
        assert kinds == ["accepted", "refused", "refused", "accepted", "accepted"]
        assert [result.accepted.workflow_execution_id for result in reply.results] == ["e-1", "", "", "e-3", "e-1"]
        assert [result.refused.code for result in reply.results] == [0, 3, 3, 0, 0]
        assert reply.results[3].accepted.message == STARTED

    async def test_an_empty_batch_and_one_too_large(self, wire: MemoryWire) -> None:
        reply = await wire.call("ExecuteAsyncBatch", m.ExecuteAsyncBatchRequest(), m.ExecuteAsyncBatchResponse)
        assert not reply.results
        request = m.ExecuteAsyncBatchRequest(executions=[execution("e")] * (limits.BATCH_EXECUTIONS_MAX + 1))
        code, message, _ = await refusal(wire.call("ExecuteAsyncBatch", request, Empty))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(limits.BATCH_EXECUTIONS_MAX) in message

    async def test_a_whole_batch_of_refusals_fits_a_default_client(self, wire: MemoryWire) -> None:
        request = m.ExecuteAsyncBatchRequest(
            executions=[execution(f"{at}", "bad") for at in range(limits.BATCH_EXECUTIONS_MAX)]
        )
        reply = await wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
        assert all(result.refused.code == 3 for result in reply.results)


class TestStreams:
    async def test_execute_streams_to_the_terminal_event_and_ok(self, wire: MemoryWire) -> None:
        call = wire.stream("Execute", execution("e-1"))
        first = m.WorkflowProgressEvent.FromString(await call.read())
        assert (first.event_type, first.sequence_number) == ("workflow_started", 1)
        wire.engine.executions["e-1"].report("task_completed", "running")
        wire.engine.executions["e-1"].report("workflow_completed", "completed")
        assert [event.event_type for event in await rest_of(call)] == ["task_completed", "workflow_completed"]

    async def test_a_fault_is_no_error_of_the_call(self, wire: MemoryWire) -> None:
        call = wire.stream("Execute", execution("e-1"))
        await call.read()
        wire.engine.executions["e-1"].fail({"type": "t", "status": 500})
        assert [event.event_type for event in await rest_of(call)] == ["workflow_failed"]

    async def test_a_refused_document_is_an_error_of_the_call(self, wire: MemoryWire) -> None:
        code, _, details = await refusal(wire.stream("Execute", execution("e-1", "bad")).read())
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(details["BadRequest"].field_violations) == 2

    async def test_a_client_that_goes_away_cancels(self, wire: MemoryWire) -> None:
        call = wire.stream("Execute", execution("e-1"))
        await call.read()
        call.cancel()
        await until(lambda: wire.engine.executions["e-1"].status == "cancelled")
        assert wire.engine.executions["e-1"].reason == "client went away"

    async def test_a_client_that_goes_away_before_the_commit_cancels(self, wire: MemoryWire) -> None:
        wire.engine.gate.clear()
        call = wire.stream("Execute", execution("e-1"))
        await until(lambda: wire.engine.asked == 1)
        call.cancel()
        await until(lambda: wire.handled(COMMAND_SERVICE, "Execute", "Canceled") == 1)
        wire.engine.gate.set()
        await until(lambda: "e-1" in wire.engine.executions and wire.engine.executions["e-1"].status == "cancelled")

    async def test_a_client_that_leaves_after_the_end_cancels_nothing(self, wire: MemoryWire) -> None:
        call = wire.stream("Execute", execution("e-1"))
        await call.read()
        wire.engine.executions["e-1"].report("workflow_completed", "completed")
        await call.read()
        call.cancel()
        await wire.execute_async("e-2")
        assert wire.engine.executions["e-1"].status == "completed"

    async def test_subscribe_replays_from_a_number_and_follows(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        wire.engine.executions["e-1"].report("task_started", "running")
        call = wire.stream("Subscribe", q.SubscribeRequest(execution_id="e-1", from_sequence_number=2))
        assert m.WorkflowProgressEvent.FromString(await call.read()).sequence_number == 2
        wire.engine.executions["e-1"].report("workflow_completed", "completed")
        assert [event.sequence_number for event in await rest_of(call)] == [3]

    async def test_a_subscriber_that_goes_away_cancels_nothing(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        call = wire.stream("Subscribe", q.SubscribeRequest(execution_id="e-1"))
        await call.read()
        call.cancel()
        await until(lambda: wire.handled(QUERY_SERVICE, "Subscribe", "Canceled") == 1)
        assert wire.engine.executions["e-1"].status == "running"

    async def test_subscribe_refuses_what_it_cannot_follow(self, wire: MemoryWire) -> None:
        code, _, _ = await refusal(wire.stream("Subscribe", q.SubscribeRequest(execution_id="nobody")).read())
        assert code is grpc.StatusCode.NOT_FOUND
        request = q.SubscribeRequest(execution_id="e-1", from_sequence_number=-1)
        code, _, _ = await refusal(wire.stream("Subscribe", request).read())
        assert code is grpc.StatusCode.INVALID_ARGUMENT


class TestQueries:
    async def test_an_execution_as_it_stands(self, wire: MemoryWire) -> None:
        request = execution("e-1")
        request.metadata.name = "orders"
        await wire.call("ExecuteAsync", request, m.WorkflowExecuteResponse)
        error = {
            "type": "https://open-workflow-specification.org/spec/1.0.0/errors/timeout",
            "status": 408,
            "title": "Timeout Error",
            "detail": "after PT1S",
            "instance": "/do/0/call",
        }
        wire.engine.executions["e-1"].fail(error)
        reply = await wire.call("GetExecution", q.GetExecutionRequest(execution_id="e-1"), q.GetExecutionResponse)
        found = reply.execution
        assert (found.status, found.workflow_name, found.metadata.name) == ("failed", DOCUMENT, "orders")
        assert (found.last_sequence_number, found.finished_ms) == (2, found.accepted_ms + 1)
        assert (found.error.code, found.error.message) == ("TIMEOUT_ERROR", "Timeout Error: after PT1S")
        assert (found.error.status, found.error.instance) == (408, "/do/0/call")

    async def test_an_odd_error_does_not_spoil_a_listing(self, wire: MemoryWire) -> None:
        for at, error in enumerate(({"type": "t", "status": 2**40}, {"type": "t", "status": "many", "title": 7})):
            await wire.execute_async(f"e-{at}")
            wire.engine.executions[f"e-{at}"].error = error
        reply = await wire.call("ListExecutions", q.ListExecutionsRequest(), q.ListExecutionsResponse)
        assert [(found.error.type, found.error.status) for found in reply.executions] == [("t", 0), ("t", 0)]

    async def test_events_from_a_number_in_pages(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        for _ in range(4):
            wire.engine.executions["e-1"].report("task_started", "running")
        request = q.GetEventsRequest(execution_id="e-1", from_sequence_number=2, count_max=3)
        reply = await wire.call("GetEvents", request, q.GetEventsResponse)
        assert [event.sequence_number for event in reply.events] == [2, 3, 4]
        assert reply.events[0].workflow_execution_id == "e-1"

    async def test_a_reply_of_events_ends_before_clients_refuse_it(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-1")
        for _ in range(100):
            wire.engine.executions["e-1"].report("task_completed", "running", output_json="x" * 60_000)
        seen = 0
        while seen < 101:
            request = q.GetEventsRequest(execution_id="e-1", from_sequence_number=seen + 1)
            reply = await wire.call("GetEvents", request, q.GetEventsResponse)
            assert [event.sequence_number for event in reply.events] == [
                seen + 1 + at for at in range(len(reply.events))
            ]
            assert reply.ByteSize() <= limits.REPLY_SIZE_BYTES_MAX
            seen += len(reply.events)

    async def test_lists_are_filtered_and_paged(self, wire: MemoryWire) -> None:
        for at in range(25):
            await wire.execute_async(f"e-{at:02}", "odd" if at % 2 else "even")
        names = [f"e-{at:02}" for at in range(24, -1, -1) if at % 2 == 0]
        request = q.ListExecutionsRequest(workflow_name="even", statuses=["running"], page_size=5)
        assert [execution_id for page in await pages(wire, request) for execution_id in page] == names
        request.statuses[:] = ["failed"]
        assert await pages(wire, request) == [[]]

    async def test_lists_refuse_what_they_do_not_understand(self, wire: MemoryWire) -> None:
        for at in range(3):
            await wire.execute_async(f"e-{at}")
        first = await wire.call("ListExecutions", q.ListExecutionsRequest(page_size=1), q.ListExecutionsResponse)
        for bad in (
            q.ListExecutionsRequest(statuses=["exploded"]),
            q.ListExecutionsRequest(page_size=-1),
            q.ListExecutionsRequest(page_token="?"),
            q.ListExecutionsRequest(page_token="WzFd"),
            q.ListExecutionsRequest(page_size=-(2**31)),
            q.ListExecutionsRequest(accepted_from_ms=-1),
            q.ListExecutionsRequest(accepted_until_ms=-(2**63)),
            *(q.ListExecutionsRequest(page_token=token) for token in _like(first.next_page_token)),
            q.ListExecutionsRequest(page_token=first.next_page_token, workflow_name="another"),
        ):
            code, _, details = await refusal(wire.call("ListExecutions", bad, Empty))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert details["BadRequest"].field_violations[0].field

    async def test_numbers_at_their_ends_are_taken(self, wire: MemoryWire) -> None:
        await wire.execute_async("e-0")
        for request, count in (
            (q.ListExecutionsRequest(page_size=2**31 - 1), 1),
            (q.ListExecutionsRequest(accepted_until_ms=2**63 - 1), 1),
            (q.ListExecutionsRequest(accepted_from_ms=2**63 - 1), 0),
        ):
            reply = await wire.call("ListExecutions", request, q.ListExecutionsResponse)
            assert len(reply.executions) == count

    async def test_validation_refuses_an_empty_document(self, wire: MemoryWire) -> None:
        code, _, _ = await refusal(wire.call("ValidateWorkflow", q.ValidateWorkflowRequest(), Empty))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


class TestStopping:
    async def test_streams_end_at_once_and_executions_go_on(self, wire: MemoryWire) -> None:
        executing = wire.stream("Execute", execution("e-1"))
        await executing.read()
        following = wire.stream("Subscribe", q.SubscribeRequest(execution_id="e-1"))
        await following.read()
        stopped = asyncio.ensure_future(wire.server.stop(5))
        for call in (executing, following):
            code, message, _ = await refusal(call.read())
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "stopping" in message
        await stopped
        assert wire.engine.executions["e-1"].status == "running"

    async def test_unary_calls_in_flight_have_the_grace_to_finish(self, wire: MemoryWire) -> None:
        wire.engine.gate.clear()
        slow = asyncio.ensure_future(wire.execute_async("e-1"))
        await until(lambda: wire.engine.asked == 1)
        stopped = asyncio.ensure_future(wire.server.stop(5))
        await asyncio.sleep(0)
        wire.engine.gate.set()
        assert (await slow).status == "running"
        await stopped

    async def test_an_answer_that_comes_after_the_grace_ends_nothing_but_itself(self, wire: MemoryWire) -> None:
        wire.engine.gate.clear()
        late = asyncio.ensure_future(wire.execute_async("e-1"))
        await until(lambda: wire.engine.asked == 1)
        await wire.server.stop(0.1)
        wire.engine.gate.set()
        code, _, _ = await refusal(late)
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await until(lambda: not wire.server._pending)
