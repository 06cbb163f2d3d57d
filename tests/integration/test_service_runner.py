"""The mission's own calls against `fastrunner serve` as it is started: reply field for field, then cancel."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    WorkflowExecuteInput,
)
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.integration.reflecting import VERSIONS, ReflectingClient
from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.test_grpcurl import REQUEST
from tests.integration.test_service_reflection import GIVEN
from tests.outside import require_tool

SMALL = "document: {dsl: 1.0.0, namespace: tests, name: small, version: 1.0.0}\ndo: [{one: {set: {a: 1}}}]\n"
CANCEL = {"execution_id": "test-123", "reason": "enough"}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", ["-m", "fastrunner", "serve"]) as runner:
        yield runner.wait_ready()


def test_the_given_calls_with_grpcurl(runner: RunnerProcess) -> None:
    def grpcurl(data: str, method: str) -> tuple[int, str]:
        command = [require_tool("grpcurl"), "-plaintext", "-d", data, runner.target, f"{COMMAND_SERVICE}/{method}"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return result.returncode, result.stdout + result.stderr

    code, output = grpcurl(REQUEST, "ExecuteAsync")
    assert (code, json.loads(output)) == (0, GIVEN)
    # One `set` task ends before anybody can cancel it.
    code, output = grpcurl(json.dumps(CANCEL), "CancelExecution")
    assert code != 0
    assert "FailedPrecondition" in output


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_given_calls_through_reflection(runner: RunnerProcess, version: str) -> None:
    async with grpc.aio.insecure_channel(runner.target) as channel:
        client = ReflectingClient(channel, version)
        assert await client.call(COMMAND_SERVICE, "ExecuteAsync", json.loads(REQUEST)) == GIVEN
        async with asyncio.timeout(10):
            while True:
                found = await client.call(QUERY_SERVICE, "GetExecution", {"execution_id": "test-123"})
                if found["execution"]["status"] == "completed":
                    break
        assert json.loads(found["execution"]["outputJson"]) == {"message": "hello"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(COMMAND_SERVICE, "CancelExecution", CANCEL)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_waiting_execution_is_cancelled(runner: RunnerProcess) -> None:
    request = json.loads(REQUEST)
    request["workflow_yaml"] = request["workflow_yaml"].replace(
        "set:\n        message: hello", "wait:\n        milliseconds: 3600000"
    )
    async with grpc.aio.insecure_channel(runner.target) as channel:
        client = ReflectingClient(channel, "v1")
        assert await client.call(COMMAND_SERVICE, "ExecuteAsync", request) == GIVEN
        assert await client.call(COMMAND_SERVICE, "CancelExecution", {**CANCEL, "force": True}) == {}
        found = await client.call(QUERY_SERVICE, "GetExecution", {"execution_id": "test-123"})
        assert found["execution"]["status"] == "cancelled"


# Where the kernel does not migrate them (net.ipv4.tcp_migrate_req), connections that a stopping worker has not accepted
# yet are reset: an ordinary retry policy is what every client of a restarting server needs.
RETRY_UNAVAILABLE = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


async def test_a_rolling_restart_fails_no_call(runner: RunnerProcess) -> None:
    before = await asyncio.to_thread(pids, runner)
    restarted = asyncio.Event()
    answered = 0

    async def client(number: int) -> None:
        nonlocal answered
        # Channels of one process share connections unless told otherwise.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", RETRY_UNAVAILABLE)]
        async with grpc.aio.insecure_channel(runner.target, options=options) as channel:
            call = channel.unary_unary(f"/{COMMAND_SERVICE}/ExecuteAsync")  # type: ignore[call-arg]
            document = json.loads(REQUEST)["workflow_yaml"]
            while not restarted.is_set():
                answered += 1
                request = WorkflowExecuteInput(workflow_execution_id=f"e-{number}-{answered}", workflow_yaml=document)
                # A connection in the backlog of a listener that closes is reset: channels that wait connect again.
                await call(request.SerializeToString(), timeout=15, wait_for_ready=True)

    clients = [asyncio.ensure_future(client(number)) for number in range(4)]
    runner.signal(signal.SIGHUP)
    try:
        async with asyncio.timeout(30):
            while before & await asyncio.to_thread(pids, runner) or not await asyncio.to_thread(runner.ready):
                assert not any(task.done() for task in clients)
                await asyncio.sleep(0.05)
    finally:
        restarted.set()
    await asyncio.gather(*clients)
    assert answered > len(clients)


def pids(runner: RunnerProcess) -> set[int]:
    """Process ids of the workers."""
    return {worker["pid"] for worker in until(runner.workers)}


async def test_a_batch_of_large_documents_leaves_the_worker_to_others(tmp_path: Path) -> None:
    """The only worker compiles for seconds, and takes what others submit meanwhile."""

    def large(number: int) -> str:
        tasks = "".join(f"  - t{at}:\n      set: {{a: '${{ .b + {at} | {{x: .}} }}'}}\n" for at in range(6_000))
        return f"document: {{dsl: 1.0.0, namespace: tests, name: w-{number}, version: 1.0.0}}\ndo:\n{tasks}"

    async def submit(channel: Any, execution_id: str) -> None:
        request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=SMALL)
        await channel.unary_unary(f"/{COMMAND_SERVICE}/ExecuteAsync")(request.SerializeToString(), timeout=30)

    items = [WorkflowExecuteInput(workflow_execution_id=f"w-{at}", workflow_yaml=large(at)) for at in range(8)]
    batch = ExecuteAsyncBatchRequest(executions=items).SerializeToString()
    with running(tmp_path / "data", ["-m", "fastrunner", "serve", "--workers", "1"]) as runner:
        [worker] = runner.wait_ready().workers()
        channel: Any
        async with grpc.aio.insecure_channel(runner.target, [("grpc.max_send_message_length", -1)]) as channel:
            await submit(channel, "first")
            call = channel.unary_unary(f"/{COMMAND_SERVICE}/ExecuteAsyncBatch")(batch, timeout=120)
            meanwhile = 0
            while not call.done():
                await submit(channel, f"small-{meanwhile}")
                meanwhile += 1
            results = ExecuteAsyncBatchResponse.FromString(await call).results
        assert [result.WhichOneof("result") for result in results] == ["accepted"] * 8
        assert meanwhile > 8
        assert runner.workers()[0]["pid"] == worker["pid"]
