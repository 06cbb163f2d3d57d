"""Replicas on Temporal as real processes: one accepts and another controls, one is killed and another goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import orjson
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import events_pb2 as ev
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as g
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2 as s
from fastrunner.access.sealing import add_key
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions, serve_receiver
from tests.blob_stores import serving_s3
from tests.integration import test_schedules as schedules_of
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.integration.temporal_engines import serving_temporal
from tests.integration.test_placement_runner import Connection, ready
from tests.integration.test_subflows_runner import Remote, serving
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


def replica(data_dir: Path, address: str, port: int, **more: str) -> Any:
    return running(
        data_dir,
        SERVE,
        TEMPORAL_SERVICE_ADDRESS=address,
        STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{port}",
        STIGMER_SERVICE_USE_TLS="false",
        **{"FASTRUNNER_WORKERS": "1", **more},
    )


def calls(remote: Remote) -> str:
    tasks = "".join(
        f"- ask{number}: {{call: http, with: {{method: get, endpoint: 'http://127.0.0.1:{remote.port}/?n={number}'}}}}\n"
        for number in range(3)
    )
    return f"document: {{dsl: 1.0.3, namespace: shop, name: calls, version: 1.0.0}}\ndo:\n{tasks}"


async def until_status(connection: Connection, execution_id: str, *statuses: str) -> str:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            status = await connection.status(execution_id)
        except grpc.aio.AioRpcError as error:
            # The one that was lost is missed by Temporal only after a while.
            status = error.code().name
            if status != "UNAVAILABLE":
                raise
        if status in statuses:
            return status
        assert time.monotonic() < deadline_s, status


def kill(runner: RunnerProcess) -> None:
    """As a machine that is lost: the whole tree at once."""
    for worker in runner.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    runner.process.kill()
    runner.process.communicate(timeout=30)


def check_each_second_once(schedules: schedules_of.Client) -> None:
    """Though a replica was lost, which may have been about to start something."""
    fired = len(schedules.ids("tick"))
    until(lambda: len(schedules.ids("tick")) > fired + 1, TIMEOUT_S)
    assert schedules.change("Pause", "tick", reason="enough").schedule.paused
    shown = schedules.schedules()["tick"]
    assert (shown.missed_count, shown.failed_count) == (0, 0)
    first = shown.added_ms // 1000 + 1

    def is_whole() -> bool:
        seconds = schedules_of.seconds_of(schedules.ids("tick"))
        return seconds == list(range(first, first + len(seconds)))

    # Listings are a moment behind.
    until(is_whole, TIMEOUT_S)
    # What is asked for is answered as on one machine.
    schedules_of.test_backfill(schedules)
    schedules_of.test_what_is_refused(schedules)
    schedules.change("Delete", "tick")


@pytest.mark.slow
async def test_two_replicas(address: str, tmp_path: Path) -> None:
    """What any worker of one has accepted the other pauses, resumes, and goes on with when the first is lost; no effect
    that has had an outcome is performed again, and the receiver's ledger is whole."""
    options = ReceiverOptions(port=0, quiet=True)
    receiver = Receiver(options)
    async with serve_receiver(receiver, options) as port, serving() as remote:
        with (
            replica(tmp_path / "one", address, port, FASTRUNNER_WORKERS="2") as one,
            replica(tmp_path / "two", address, port) as two,
        ):
            ready(one), ready(two)
            first, second = Connection(one.target), Connection(two.target)
            text = calls(remote)
            assert len(one.workers()) == 2
            accepted = await first.execute("e-1", text)
            assert (accepted.status, accepted.temporal_workflow_id) == ("running", "e-1")
            assert (await second.execute("e-1", text)).status == "running"
            await second.call("PauseExecution", m.PauseExecutionRequest(execution_id="e-1"), q.GetExecutionResponse)
            assert await first.status("e-1") == "paused"
            await first.call("ResumeExecution", m.ResumeExecutionRequest(execution_id="e-1"), q.GetExecutionResponse)
            schedules = schedules_of.Client(two)
            misfire = s.ScheduleOptions(misfire=s.MISFIRE_POLICY_ALL)
            tick = schedules_of.document("{every: PT1S}")
            assert (await asyncio.to_thread(schedules.add, tick, "tick", options=misfire)).created
            await asyncio.to_thread(until, lambda: schedules.ids("tick"), TIMEOUT_S)
            kill(one)
            remote.gate.set()
            assert await until_status(second, "e-1", "completed", "failed") == "completed"
            assert len(remote.asked) == 3
            assert sorted(remote.asked.values())[:2] == [1, 1]
            assert receiver.ledger.violations == []
            await asyncio.to_thread(check_each_second_once, schedules)
            await first.channel.close()
            await second.channel.close()
            code, _, err = two.stop()
            assert code == 0, err


@pytest.mark.slow
async def test_a_lost_replica_holds_no_answer(address: str, tmp_path: Path) -> None:
    """Temporal goes on asking it for what it remembers: another one answers within the same call."""
    text = "document: {dsl: 1.0.3, namespace: shop, name: rest, version: 1.0.0}\ndo:\n- rest: {wait: {days: 1}}\n"
    options = ReceiverOptions(port=0, quiet=True)
    async with serve_receiver(Receiver(options), options) as port:
        with replica(tmp_path / "one", address, port) as one, replica(tmp_path / "two", address, port) as two:
            ready(one), ready(two)
            first, second = Connection(one.target), Connection(two.target)
            ids = [f"held-{number}" for number in range(20)]
            for execution_id in ids:
                await first.execute(execution_id, text)
            kill(one)
            assert set(await asyncio.gather(*map(second.status, ids))) == {"running"}
            for name in ("Pause", "Cancel"):
                request = getattr(m, f"{name}ExecutionRequest")(execution_id=ids[0])
                await second.call(f"{name}Execution", request, q.GetExecutionResponse)
            assert await second.status(ids[0]) == "cancelled"
            await first.channel.close()
            await second.channel.close()


@pytest.mark.slow
async def test_replicas_share_what_is_large_and_what_is_registered(address: str, tmp_path: Path) -> None:
    """By a store that speaks S3 and keys: what one has registered another executes, with values that no payload has
    room for; the command finds nothing to delete of it."""
    add_key(tmp_path / "keys", "one")
    text = "document: {dsl: 1.0.3, namespace: shop, name: large, version: 1.0.0}\ndo:\n- one: {set: {all: '${ .n }'}}\n"
    options = ReceiverOptions(port=0, quiet=True)
    receiver = Receiver(options)
    with serving_s3() as url:
        shared = {"FASTRUNNER_BLOB_URL": url, "FASTRUNNER_TEMPORAL_KEY_FILE": str(tmp_path / "keys")}
        async with serve_receiver(receiver, options) as port:
            with (
                replica(tmp_path / "one", address, port, **shared) as one,
                replica(tmp_path / "two", address, port, **shared) as two,
            ):
                ready(one), ready(two)
                first, second = Connection(one.target), Connection(two.target)
                registering = g.RegisterWorkflowRequest(workflow_yaml=text)
                assert (await first.call("RegisterWorkflow", registering, g.RegisterWorkflowResponse)).created
                ref = m.WorkflowRef(namespace="shop", name="large")
                large = orjson.dumps({"n": "x" * 3_000_000}).decode()
                await second.execute("large-1", "", workflow_ref=ref, input_json=large)
                assert await until_status(first, "large-1", "completed", "failed") == "completed"
                asked = q.GetExecutionRequest(execution_id="large-1")
                shown = (await first.call("GetExecution", asked, q.GetExecutionResponse)).execution
                assert orjson.loads(shown.output_json) == {"all": "x" * 3_000_000}
                listed = await second.call("ListWorkflows", g.ListWorkflowsRequest(), g.ListWorkflowsResponse)
                assert [(each.name, each.latest) for each in listed.workflows] == [("large", True)]
                command = [sys.executable, "-m", "fastrunner", "temporal", "sweep", "--delete", "--json"]
                environment = {**os.environ, **shared, "TEMPORAL_SERVICE_ADDRESS": address}
                swept = await asyncio.to_thread(
                    subprocess.run, command, env=environment, capture_output=True, text=True, check=True
                )
                counted = orjson.loads(swept.stdout)
                assert counted["deleted"] == 0
                assert counted["kept"] >= 2
                await first.channel.close()
                await second.channel.close()
                assert receiver.ledger.violations == []


LISTENS = (
    "document: {dsl: 1.0.3, namespace: shop, name: listens, version: 1.0.0}\ndo:\n"
    "- each:\n    for: {each: n, in: '${ [range(6)] }'}\n    do:\n"
    "    - hear:\n        listen: {to: {one: {with: {type: t}}}}\n"
    "        export: {as: '${ ($context // []) + . }'}\n"
    "- told: {set: '${ $context }'}\n"
)


async def post(runner: RunnerProcess, n: int) -> None:
    """One event by HTTP, until it is taken."""
    event = {"specversion": "1.0", "id": str(n), "source": "/tests", "type": "t", "data": n}
    deadline_s = time.monotonic() + TIMEOUT_S
    async with aiohttp.ClientSession() as session:
        while True:
            headers = {"Content-Type": "application/cloudevents+json"}
            url = f"http://127.0.0.1:{runner.ports['http_port']}/events"
            async with session.post(url, data=json.dumps(event), headers=headers) as reply:
                if reply.status == 202:
                    return
                assert (reply.status, time.monotonic() < deadline_s) == (503, True), await reply.text()


async def send(connection: Connection, n: int) -> None:
    """One event by gRPC, until it is taken."""
    event = ev.CloudEvent(spec_version="1.0", id=str(n), source="/tests", type="t", text_data=str(n))
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            await connection.call("SendEvents", ev.SendEventsRequest(events=[event]), ev.SendEventsResponse)
            return
        except grpc.aio.AioRpcError as error:
            if error.code().name != "UNAVAILABLE" or time.monotonic() > deadline_s:
                raise


@pytest.mark.slow
async def test_no_acknowledged_event_is_lost_with_a_replica(address: str, tmp_path: Path) -> None:
    """Whichever replica takes an event, and is killed then: all are heard, once each and in order."""
    options = ReceiverOptions(port=0, quiet=True)
    receiver = Receiver(options)
    async with serve_receiver(receiver, options) as port:
        with replica(tmp_path / "one", address, port) as one, replica(tmp_path / "two", address, port) as two:
            ready(one), ready(two)
            first, second = Connection(one.target), Connection(two.target)
            await first.execute("l-1", LISTENS)
            await post(two, 0)
            await send(second, 1)
            await post(one, 2)
            await send(first, 3)
            kill(one)
            await send(second, 4)
            await post(two, 5)
            await post(two, 5)
            assert await until_status(second, "l-1", "completed", "failed") == "completed"
            asked = q.GetExecutionRequest(execution_id="l-1")
            execution = (await second.call("GetExecution", asked, q.GetExecutionResponse)).execution
            assert json.loads(execution.output_json) == [0, 1, 2, 3, 4, 5]
            assert receiver.ledger.violations == []
            await first.channel.close()
            await second.channel.close()
            code, _, err = two.stop()
            assert code == 0, err
