"""`call: http` by a real runner with one worker, at a local server that answers at once: from request to the end."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from benchmarks.loads import STREAM
from benchmarks.servers import http, runner
from benchmarks.workflows import shape
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowProgressEvent

_numbers = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[grpc.Channel, str]]:
    with http() as url, runner(1) as tree, grpc.insecure_channel(tree.target) as channel:
        yield channel, url


@pytest.mark.parametrize(("name", "calls", "executions"), [
    ("one", 1, 1), ("seq_10", 10, 1), ("fan_out_10", 10, 1), ("one", 1, 64), ("fan_out_10", 10, 64),
])  # fmt: skip
def test_calls(benchmark: Any, served: tuple[grpc.Channel, str], name: str, calls: int, executions: int) -> None:
    """So many calls in a row, or side by side, by so many executions at once."""
    channel, url = served
    benchmark.extra_info["calls"] = calls * executions
    document = shape(name, calls, url)

    def executed() -> None:
        streams = [
            channel.unary_stream(STREAM, None, None)(
                WorkflowExecuteInput(
                    workflow_execution_id=f"x{next(_numbers)}", workflow_yaml=document
                ).SerializeToString(),
                timeout=60,
            )
            for _ in range(executions)
        ]
        for stream in streams:
            assert WorkflowProgressEvent.FromString(list(stream)[-1]).event_type == "workflow_completed"

    benchmark(executed)
