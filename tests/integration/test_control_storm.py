"""Commands reach executions whichever worker the client is connected to, and every one ends as asked."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.wire import path

WAITING = """\
document: {dsl: 1.0.3, namespace: test, name: waiting, version: 1.0.0}
do:
- before: {set: {phase: waiting}}
- pause: {wait: {seconds: 8}}
- after: {set: {phase: done}}
"""
COUNT = 300
CANCELLED = range(100)
PAUSED = range(100, 200)
RESUMED = range(100, 150)
TERMINAL = {"workflow_completed", "workflow_failed", "workflow_cancelled"}


async def call(channel: Any, method: str, request: Any, reply: Any) -> Any:
    return reply.FromString(await channel.unary_unary(path(method))(request.SerializeToString(), timeout=60))


async def last_event(channel: Any, execution_id: str) -> list[m.WorkflowProgressEvent]:
    request = q.GetEventsRequest(execution_id=execution_id)
    events = (await call(channel, "GetEvents", request, q.GetEventsResponse)).events
    return list(events)


async def finished(channel: Any, execution_id: str) -> None:
    """Waits for the terminal event."""
    request = q.SubscribeRequest(execution_id=execution_id)
    async for message in channel.unary_stream(path("Subscribe"))(request.SerializeToString(), timeout=90):
        last = m.WorkflowProgressEvent.FromString(message)
    assert last.event_type in TERMINAL


async def storm(target: str) -> dict[int, list[m.WorkflowProgressEvent]]:
    # One connection submits; each command travels over a connection of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    first: Any
    async with grpc.aio.insecure_channel(target, options) as first:
        await asyncio.gather(
            *(
                call(
                    first,
                    "ExecuteAsync",
                    m.WorkflowExecuteInput(workflow_execution_id=f"storm-{number}", workflow_yaml=WAITING),
                    m.WorkflowExecuteResponse,
                )
                for number in range(COUNT)
            )
        )
        others: list[Any] = [grpc.aio.insecure_channel(target, options) for _ in range(8)]

        async def command(method: str, numbers: range, request: Any, **fields: Any) -> None:
            await asyncio.gather(
                *(
                    others[number % len(others)].unary_unary(path(method))(
                        request(execution_id=f"storm-{number}", reason="test", **fields).SerializeToString(), timeout=60
                    )
                    for number in numbers
                )
            )

        await asyncio.gather(
            command("CancelExecution", CANCELLED, m.CancelExecutionRequest),
            command("PauseExecution", PAUSED, m.PauseExecutionRequest),
        )
        await command("ResumeExecution", RESUMED, m.ResumeExecutionRequest)
        kept = [number for number in range(COUNT) if number not in PAUSED or number in RESUMED]
        await asyncio.gather(*(finished(first, f"storm-{number}") for number in kept))
        events = {number: await last_event(others[number % 8], f"storm-{number}") for number in range(COUNT)}
        await asyncio.gather(*(channel.close() for channel in others))
        return events


@pytest.mark.slow
def test_commands_over_other_connections_end_as_asked(tmp_path: Path) -> None:
    """300 executions waiting; 100 are cancelled, 100 paused, 50 of those resumed, over other connections."""
    with running(tmp_path / "data", ["-m", "fastrunner", "serve"], FASTRUNNER_WORKERS="4") as runner:
        runner.wait_ready()
        until(runner.ready)
        events = asyncio.run(storm(runner.target))
        assert runner.metric("workflow_runner_active_executions") == len(PAUSED) - len(RESUMED)
        forwarded = forwards(runner)
        code, _, err = runner.stop()
    assert code == 0, err
    assert forwarded > 0
    for number, mine in events.items():
        assert [event.sequence_number for event in mine] == list(range(1, len(mine) + 1))
        terminal = [event for event in mine if event.event_type in TERMINAL]
        kinds = [event.event_type for event in mine]
        if number in PAUSED and number not in RESUMED:
            assert not terminal
            assert kinds[-1] == "workflow_paused"
            continue
        assert len(terminal) == 1
        assert mine[-1] is terminal[0]
        assert mine[-1].event_type == ("workflow_cancelled" if number in CANCELLED else "workflow_completed")
        assert ("workflow_resumed" in kinds) == (number in RESUMED)


def forwards(runner: RunnerProcess) -> float:
    """Requests that reached another worker than their owner."""
    lines = runner.get("/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("workflow_runner_router_forwards_total{"))
