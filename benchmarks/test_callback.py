"""Stage 7: from a batch of submissions to its last callback taken by a receiver in another process."""

import itertools
from typing import Any

import grpc
import pytest

from benchmarks.loads import BATCH
from benchmarks.servers import runner, sink
from benchmarks.workflows import set_tasks
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ExecuteAsyncBatchRequest, WorkflowExecuteInput

TASKS = 10
EVENTS = 2 * TASKS + 4
_numbers = itertools.count()


@pytest.mark.parametrize(("method", "executions"), [("ReportProgressBatch", 100), ("ReportProgress", 20)])
def test_executions_called_back(benchmark: Any, method: str, executions: int) -> None:
    benchmark.extra_info["events"] = EVENTS * executions
    with (
        sink(batches=method == "ReportProgressBatch") as receiver,
        runner(1, STIGMER_SERVICE_ENDPOINT=receiver.target, STIGMER_SERVICE_USE_TLS="false") as tree,
        grpc.insecure_channel(tree.target) as channel,
    ):
        call = channel.unary_unary(BATCH, None, None)

        def called_back() -> float:
            items = [
                WorkflowExecuteInput(
                    workflow_execution_id=f"c{next(_numbers)}",
                    workflow_yaml=set_tasks(TASKS),
                    input_json='{"counter": 1}',
                )
                for _ in range(executions)
            ]
            call(ExecuteAsyncBatchRequest(executions=items).SerializeToString(), timeout=30)
            return receiver.wait_for(EVENTS * executions)

        assert benchmark(called_back) > 0
