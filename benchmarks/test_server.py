"""Stages 1 to 6: calls to a real runner with one worker, one after the other, over an ordinary client."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from benchmarks.loads import BATCH, CALL, STREAM
from benchmarks.servers import runner
from benchmarks.workflows import set_tasks
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    WorkflowExecuteInput,
    WorkflowProgressEvent,
)

BATCH_SIZE = 100
TASKS = 10
_numbers = itertools.count()


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with runner(1) as tree, grpc.insecure_channel(tree.target) as channel:
        yield channel


def request() -> WorkflowExecuteInput:
    return WorkflowExecuteInput(
        workflow_execution_id=f"s{next(_numbers)}", workflow_yaml=set_tasks(TASKS), input_json='{"counter": 1}'
    )


def test_execute_async(benchmark: Any, channel: grpc.Channel) -> None:
    call = channel.unary_unary(CALL, None, None)
    assert benchmark(lambda: call(request().SerializeToString(), timeout=30))


def test_execute_until_its_last_event(benchmark: Any, channel: grpc.Channel) -> None:
    call = channel.unary_stream(STREAM, None, None)
    events = benchmark(lambda: list(call(request().SerializeToString(), timeout=30)))
    assert WorkflowProgressEvent.FromString(events[-1]).event_type == "workflow_completed"


def test_batch_of_100(benchmark: Any, channel: grpc.Channel) -> None:
    call = channel.unary_unary(BATCH, None, None)
    benchmark.extra_info["executions"] = BATCH_SIZE

    def batch() -> Any:
        executions = [request() for _ in range(BATCH_SIZE)]
        return call(ExecuteAsyncBatchRequest(executions=executions).SerializeToString(), timeout=30)

    results = ExecuteAsyncBatchResponse.FromString(benchmark(batch)).results
    assert [result.WhichOneof("result") for result in results] == ["accepted"] * BATCH_SIZE
