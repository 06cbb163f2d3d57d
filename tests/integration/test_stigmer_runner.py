"""A real runner and a real Stigmer Service: the whole way, and over deaths of either: no event missing, none twice."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from fastrunner.api import CancelExecutionRequest, WorkflowRunnerCommandControllerStub
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.stigmer import LONG, SMALL, TOKEN, Client, ServiceProcess, service_process, until, verified
from tests.ports import free_port

STEPS = (
    "document: {dsl: 1.0.0, namespace: tests, name: steps, version: 1.0.0}\n"
    "do: [{loop: {for: {in: '${ [range(12)] }'}, do: "
    "[{rest: {wait: {milliseconds: 20}}}, {note: {set: {at: '${ $index }'}}}]}}]\n"
)
CALLBACKS = {"STIGMER_SERVICE_USE_TLS": "false", "STIGMER_SERVICE_API_KEY": TOKEN}


def runner_of(folder: Path, grpc_port: int, service_port: int) -> contextlib.AbstractContextManager[RunnerProcess]:
    """A runner on a port that its successor has, too, which reports to the service."""
    return running(
        folder,
        SERVE,
        GRPC_PORT=str(grpc_port),
        STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{service_port}",
        **CALLBACKS,
    )


@contextlib.asynccontextmanager
async def client_of(service: ServiceProcess) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, service.http_port)


async def has(client: Client, execution_id: str, status: str) -> Any:
    found = (await client.get(f"/executions/{execution_id}"))[1]
    return found if found.get("status") == status else None


async def test_started_followed_paused_resumed_cancelled(tmp_path: Path) -> None:
    grpc_port = free_port()
    with (
        service_process(tmp_path / "service", f"127.0.0.1:{grpc_port}") as service,
        runner_of(tmp_path / "runner", grpc_port, service.grpc_port) as runner,
    ):
        runner.wait_ready()
        async with client_of(service) as client:
            for document in (SMALL, LONG):
                assert (await client.post("/workflows", {"document": document}))[0] == 201
            start = {"workflow": {"namespace": "tests", "name": "small"}, "id": "small", "input": {"b": 1}}
            assert (await client.post("/executions", start))[0] == 201
            found = await client.follow("small")
            types = [each["data"]["event_type"] for each in found if "id" in each]
            assert (types[0], types[-1], found[-1]["event"]) == ("workflow_started", "workflow_completed", "end")
            _, execution = await client.get("/executions/small")
            assert (execution["status"], execution["output_json"]) == ("completed", '{"a":1}')
            start = {"workflow": {"namespace": "tests", "name": "long"}, "id": "long"}
            assert (await client.post("/executions", start))[0] == 201
            following = asyncio.create_task(client.follow("long"))
            await until(lambda: has(client, "long", "running"), "it runs")
            for command, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
                assert (await client.post(f"/executions/long/{command}", {"reason": f"{command} it"}))[0] == 204
                await until(lambda status=status: has(client, "long", status), status)  # type: ignore[misc]
            types = [each["data"]["event_type"] for each in await following if "id" in each]
            assert [each for each in types if each.startswith("workflow_")][-3:] == [
                "workflow_paused",
                "workflow_resumed",
                "workflow_cancelled",
            ]
            assert (await client.post("/executions/long/pause"))[0] == 409
            # What the runner refuses to take: an id that is another request's.
            again = {**start, "id": "small", "workflow": {"namespace": "tests", "name": "long"}}
            assert (await client.post("/executions", again))[0] == 409
        assert service.stop() == 0
    code, summary, findings = verified(tmp_path / "service")
    assert (code, findings) == (0, [])
    assert (summary["executions"], summary["unfinished"]) == (2, 0)


async def test_a_record_survives_the_death_before_its_call(tmp_path: Path) -> None:
    """The service dies between the record and the runner's answer; its successor has the execution started, once."""
    grpc_port, service_port = free_port(), free_port()
    runner_address = f"127.0.0.1:{grpc_port}"
    with service_process(tmp_path / "service", runner_address, grpc_port=service_port) as service:
        async with client_of(service) as client:
            await client.post("/workflows", {"document": SMALL})
            for number in range(3):
                start = {"workflow": {"namespace": "tests", "name": "small"}, "id": f"e{number}"}
                sending = asyncio.create_task(client.post("/executions", start))
                await until(lambda number=number: has(client, f"e{number}", "pending"), "it is recorded")  # type: ignore[misc]
                sending.cancel()
        service.kill()
    with (
        runner_of(tmp_path / "runner", grpc_port, service_port) as runner,
        service_process(tmp_path / "service", runner_address, grpc_port=service_port) as service,
    ):
        runner.wait_ready()
        async with client_of(service) as client:
            for number in range(3):
                await until(lambda number=number: has(client, f"e{number}", "completed"), "it completes")  # type: ignore[misc]
                assert (await client.get(f"/executions/e{number}"))[1]["launch"] == "accepted"
        service.stop()
    assert verified(tmp_path / "service")[:1] == (0,)


async def test_a_store_that_is_lost_while_executions_run(tmp_path: Path) -> None:
    """The runner hears from what it is acknowledged that the store has lost something, and sends it again."""
    grpc_port, service_port = free_port(), free_port()
    address = f"127.0.0.1:{grpc_port}"
    with runner_of(tmp_path / "runner", grpc_port, service_port) as runner:
        runner.wait_ready()
        with service_process(tmp_path / "lost", address, grpc_port=service_port) as service:
            async with client_of(service) as client:
                await client.post("/workflows", {"document": LONG})
                for number in range(3):
                    start = {"workflow": {"namespace": "tests", "name": "long"}, "id": f"e{number}"}
                    assert (await client.post("/executions", start))[0] == 201
                for number in range(3):
                    await until(lambda number=number: waits(client, f"e{number}"), "it waits")  # type: ignore[misc]
            assert service.stop() == 0
        with service_process(tmp_path / "new", address, grpc_port=service_port) as service:
            async with client_of(service) as client:
                async with grpc.aio.insecure_channel(address) as channel:
                    commands = WorkflowRunnerCommandControllerStub(channel)
                    for number in range(3):
                        request = CancelExecutionRequest(execution_id=f"e{number}", force=True)
                        await commands.CancelExecution(request)
                for number in range(3):
                    found = await until(lambda number=number: has(client, f"e{number}", "cancelled"), "it has all")  # type: ignore[misc]
                    assert found["last_sequence"] >= 7
            assert service.stop() == 0
    code, summary, findings = verified(tmp_path / "new")
    assert (code, findings, summary["unfinished"]) == (0, [], 0)


async def waits(client: Client, execution_id: str) -> bool:
    """Whether the events up to its long wait are there."""
    return bool((await client.get(f"/executions/{execution_id}"))[1].get("last_sequence") == 6)


async def follow_all(port: int, execution_id: str) -> list[int]:
    """Numbers of all events, through deaths of the service: each time on from the last one received."""
    numbers: list[int] = []
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as session:
                last_id = str(numbers[-1]) if numbers else ""
                url = f"http://127.0.0.1:{port}/api/v1/executions/{execution_id}/events/stream"
                async with session.get(url, headers={"Last-Event-ID": last_id} if last_id else None) as reply:
                    if reply.status == 204:
                        return numbers
                    async for line in reply.content:
                        if line.startswith(b"id: "):
                            numbers.append(int(line[4:]))
                        elif line.startswith(b"event: end"):
                            return numbers
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_no_event_is_missing_and_none_comes_twice_over_deaths_of_either(tmp_path: Path) -> None:
    """Executions run, and clients follow them, while the service, workers and the whole runner are killed."""
    grpc_port, service_port, http_port = free_port(), free_port(), free_port()
    runner_address = f"127.0.0.1:{grpc_port}"
    ids = [f"e{number}" for number in range(24)]
    with contextlib.ExitStack() as stack:
        ports = {"grpc_port": service_port, "http_port": http_port}
        service = stack.enter_context(service_process(tmp_path / "service", runner_address, **ports))
        runner = stack.enter_context(runner_of(tmp_path / "runner", grpc_port, service_port)).wait_ready()
        async with client_of(service) as client:
            assert (await client.post("/workflows", {"document": STEPS}))[0] == 201

            async def started(execution_id: str) -> bool:
                start = {"workflow": {"namespace": "tests", "name": "steps"}, "id": execution_id}
                return (await client.post("/executions", start))[0] in (200, 201, 202)

            starting = [asyncio.create_task(until(lambda each=each: started(each), each)) for each in ids]  # type: ignore[misc]
            following = [asyncio.create_task(follow_all(http_port, each)) for each in ids[:6]]
            for turn in range(3):
                await until(lambda turn=turn: advanced(client, 250 * turn), "events come")  # type: ignore[misc]
                service.kill()
                service = stack.enter_context(service_process(tmp_path / "service", runner_address, **ports))
                worker = runner.workers()[turn % 2]["pid"]
                kill(worker)
                if turn == 1:
                    runner.process.kill()
                    runner.process.communicate(timeout=30)
                    runner = stack.enter_context(runner_of(tmp_path / "runner", grpc_port, service_port)).wait_ready()
            await asyncio.gather(*starting)
            await until(lambda: all_completed(client, len(ids)), "all complete", 90.0)
            last = {each: (await client.get(f"/executions/{each}"))[1]["last_sequence"] for each in ids}
            for execution_id, numbers in zip(ids, await asyncio.gather(*following), strict=False):
                assert numbers == list(range(1, last[execution_id] + 1))
        assert service.stop() == 0
    code, summary, findings = verified(tmp_path / "service")
    assert (code, findings) == (0, [])
    assert (summary["executions"], summary["unfinished"], summary["events"]) == (24, 0, sum(last.values()))


def kill(pid: int) -> None:
    """Kills a worker, if it lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def advanced(client: Client, count: int) -> bool:
    """Whether more than so many events are shown in all."""
    _, page = await client.get("/executions?count=500")
    return bool(sum(each["last_sequence"] for each in page["executions"]) > count)


async def all_completed(client: Client, count: int) -> bool:
    return bool((await client.get("/counts"))[1]["by_status"] == {"completed": count})
