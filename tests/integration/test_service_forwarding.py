"""Several workers: whichever one a client reaches, the owner answers, once, with the owner's words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from zlib import crc32

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import Elsewhere, Stopping
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.shared import Shared
from fastrunner.routing.peers import Router
from fastrunner.routing.placement import BACKLOG, Places
from fastrunner.service.handlers import Service
from fastrunner.service.status import status_of
from fastrunner.service.transport.server import serve
from tests.integration.memory_engine import DirectRouter, MemoryEngine, MemoryExecution
from tests.integration.test_service_limits import Turns
from tests.integration.wire import Wire, execution, pages, refusal, rest_of, until

WORKERS = 3


@dataclass
class Cluster:
    """Workers linked to each other; the client reaches the first one only."""

    wire: Wire
    engines: list[MemoryEngine]

    def owner_of(self, execution_id: str) -> int:
        return crc32(execution_id.encode()) % WORKERS

    def elsewhere(self) -> str:
        """An id that the first worker does not own."""
        return next(f"e-{at}" for at in range(100) if self.owner_of(f"e-{at}") == 1)

    def execution(self, execution_id: str) -> MemoryExecution:
        holders = [engine for engine in self.engines if execution_id in engine.executions]
        assert holders == [self.engines[self.owner_of(execution_id)]]
        return holders[0].executions[execution_id]


@dataclass
class DirectCluster(Cluster):
    """Links that the test can watch and break."""

    router: DirectRouter


@dataclass
class LinkedCluster(Cluster):
    """Links that the test can break, and what the workers know of each other."""

    routers: list[Router]
    places: list[Places]


@asynccontextmanager
async def reached(services: list[Service], metrics: Metrics, registry: CollectorRegistry) -> AsyncIterator[Wire]:
    """A client of the first of several services."""
    server = await serve(services[0], metrics, "127.0.0.1:0")
    wire = Wire(server, registry)
    try:
        yield wire
    finally:
        await wire.channel.close()
        await server.stop(0)


@pytest_asyncio.fixture
async def direct() -> AsyncIterator[DirectCluster]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    engines = [MemoryEngine() for _ in range(WORKERS)]
    services: list[Service] = []
    routers = [DirectRouter(worker, services) for worker in range(WORKERS)]
    services.extend(Service(engine, router, metrics) for engine, router in zip(engines, routers, strict=True))
    async with reached(services, metrics, registry) as wire:
        yield DirectCluster(wire, engines, routers[0])


@pytest_asyncio.fixture
async def linked(tmp_path: Path) -> AsyncIterator[LinkedCluster]:
    """Workers on the real router's sockets."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    engines = [MemoryEngine() for _ in range(WORKERS)]
    folder = RuntimeFolder(tmp_path)
    shared = Shared.create(WORKERS, WORKERS, bytes(16))
    places = [shared.places(worker, WORKERS) for worker in range(WORKERS)]
    for at in range(100):
        # As if each had been accepted by that worker before.
        places[0].table.claim(f"e-{at}", crc32(f"e-{at}".encode()) % WORKERS)
    for worker in range(WORKERS):
        places[0].table.set_known(worker, True)
    routers = [Router(each, folder.socket_of, metrics, status_of) for each in places]
    services = [Service(engine, router, metrics) for engine, router in zip(engines, routers, strict=True)]
    for router, service in zip(routers, services, strict=True):
        await router.start(service)
    try:
        async with reached(services, metrics, registry) as wire:
            yield LinkedCluster(wire, engines, routers, places)
    finally:
        for router in routers:
            await router.close(1)


@pytest.fixture(params=["direct", "linked"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(request.param)
    return found


async def test_executions_land_at_their_owners(cluster: Cluster) -> None:
    for at in range(20):
        reply = await cluster.wire.execute_async(f"e-{at}")
        assert reply.workflow_execution_id == f"e-{at}"
    assert sum(len(engine.executions) for engine in cluster.engines) == 20
    for at in range(20):
        assert cluster.execution(f"e-{at}").status == "running"
    assert all(engine.executions for engine in cluster.engines)


async def test_commands_and_queries_reach_the_owner(cluster: Cluster) -> None:
    execution_id = cluster.elsewhere()
    await cluster.wire.execute_async(execution_id)
    await cluster.wire.call("PauseExecution", m.PauseExecutionRequest(execution_id=execution_id), Empty)
    assert cluster.execution(execution_id).status == "paused"
    await cluster.wire.call("ResumeExecution", m.ResumeExecutionRequest(execution_id=execution_id), Empty)
    await cluster.wire.call("CancelExecution", m.CancelExecutionRequest(execution_id=execution_id, reason="r"), Empty)
    found = await cluster.wire.call(
        "GetExecution", q.GetExecutionRequest(execution_id=execution_id), q.GetExecutionResponse
    )
    assert found.execution.status == "cancelled"
    events = await cluster.wire.call("GetEvents", q.GetEventsRequest(execution_id=execution_id), q.GetEventsResponse)
    assert [event.sequence_number for event in events.events] == [1, 2, 3, 4]


async def test_a_refusal_of_the_owner_arrives_unchanged(cluster: Cluster) -> None:
    execution_id = cluster.elsewhere()
    code, _, details = await refusal(cluster.wire.execute_async(execution_id, "bad"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details["BadRequest"].field_violations) == 2
    code, _, details = await refusal(
        cluster.wire.call("GetExecution", q.GetExecutionRequest(execution_id=execution_id), Empty)
    )
    assert (code, details["ResourceInfo"].resource_name) == (grpc.StatusCode.NOT_FOUND, execution_id)


async def test_an_owner_that_stays_away_is_unavailable(direct: DirectCluster) -> None:
    direct.router.absent.add(1)
    code, _, _ = await refusal(direct.wire.execute_async(direct.elsewhere()))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_batch_is_split_and_keeps_its_order(cluster: Cluster) -> None:
    ids = [f"e-{at}" for at in range(30)]
    inputs = [execution(execution_id, "bad" if execution_id == "e-7" else "orders") for execution_id in ids]
    request = m.ExecuteAsyncBatchRequest(executions=[*inputs, execution("")])
    reply = await cluster.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    answered = [result.accepted.workflow_execution_id for result in reply.results]
    assert answered == ["" if execution_id == "e-7" else execution_id for execution_id in ids] + [""]
    assert [at for at, result in enumerate(reply.results) if result.refused.code] == [7, 30]


async def test_items_of_a_batch_travel_together(direct: DirectCluster) -> None:
    request = m.ExecuteAsyncBatchRequest(executions=[execution(f"e-{at}") for at in range(30)])
    await direct.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    assert sorted(direct.router.forwarded) == [(1, "ExecuteAsyncBatch"), (2, "ExecuteAsyncBatch")]


async def test_items_of_a_batch_count_at_their_workers_until_it_is_answered(direct: DirectCluster) -> None:
    """Whatever becomes of it."""
    request = m.ExecuteAsyncBatchRequest(executions=[execution(f"e-{at}") for at in range(30)])
    direct.router.absent.add(1)
    await direct.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    taken, given_back = direct.router.assigned[:WORKERS], direct.router.assigned[WORKERS:]
    assert sum(count for _, count in taken) == 30
    assert given_back == [(worker, -count) for worker, count in taken]


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_turns_that_others_have_within_a_batch(direct: DirectCluster, workers: int) -> None:
    """What goes from one worker to another takes some, and those of one have nobody to wait for."""
    del direct.router.services[workers:]
    ids = [execution_id for at in range(1_000) if direct.owner_of(execution_id := f"e-{at}") == 0]
    request = m.ExecuteAsyncBatchRequest(executions=map(execution, ids[:100]))
    turns = Turns(lambda: direct.engines[0].asked)
    await direct.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    turns.stop()
    first, second = (at for at, step in enumerate(turns.steps) if step)
    assert second - first == (1 if workers == 1 else limits.BATCH_PAUSE_TURNS)


async def test_an_id_that_everybody_says_another_has_is_given_up(direct: DirectCluster) -> None:
    execution_id = direct.elsewhere()
    direct.engines[1].refusal = Elsewhere(execution_id)
    code, message, _ = await refusal(direct.wire.execute_async(execution_id))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "several workers" in message
    assert direct.router.forwarded == [(1, "ExecuteAsync")] * limits.PLACEMENT_ATTEMPTS_MAX
    direct.engines[1].refusal = None
    await direct.wire.execute_async(execution_id)
    assert direct.execution(execution_id).status == "running"


async def test_an_id_may_be_any_word_of_ours(direct: DirectCluster) -> None:
    """What a refusal quotes of a request is not taken for its reason."""
    execution_id = next(each for at in range(100) if direct.owner_of(each := f"ELSEWHERE-{at}") == 1)
    await direct.wire.execute_async(execution_id)
    direct.router.forwarded.clear()
    code, _, _ = await refusal(direct.wire.execute_async(execution_id, "another"))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert direct.router.forwarded == [(1, "ExecuteAsync")]
    direct.router.forwarded.clear()
    request = m.ExecuteAsyncBatchRequest(executions=[execution(execution_id, "another")])
    reply = await direct.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    assert [result.refused.code for result in reply.results] == [6]
    assert direct.router.forwarded == [(1, "ExecuteAsyncBatch")]


async def test_a_batch_loses_only_the_part_of_an_absent_owner(direct: DirectCluster) -> None:
    direct.router.absent.add(1)
    ids = [f"e-{at}" for at in range(30)]
    request = m.ExecuteAsyncBatchRequest(executions=[execution(execution_id) for execution_id in ids])
    reply = await direct.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    codes = [result.refused.code for result in reply.results]
    assert codes == [14 if direct.owner_of(execution_id) == 1 else 0 for execution_id in ids]


async def test_a_batch_of_new_executions_goes_as_a_whole_where_there_is_less_to_do(linked: LinkedCluster) -> None:
    for worker, backlog in enumerate((1000.0, 0.0, inf)):
        linked.places[0].loads.set(worker, BACKLOG, backlog)
    await until(lambda: linked.routers[0].choose(30) == 1)
    ids = [f"new-{at}" for at in range(30)]
    inputs = [execution(execution_id, "bad" if execution_id == "new-7" else "orders") for execution_id in ids]
    request = m.ExecuteAsyncBatchRequest(executions=inputs)
    reply = await linked.wire.call("ExecuteAsyncBatch", request, m.ExecuteAsyncBatchResponse)
    answered = [result.accepted.workflow_execution_id for result in reply.results]
    assert answered == ["" if execution_id == "new-7" else execution_id for execution_id in ids]
    assert [at for at, result in enumerate(reply.results) if result.refused.code] == [7]
    assert [len(engine.executions) for engine in linked.engines] == [0, 29, 0]


@pytest.mark.parametrize("how", ["dies", "stops"])
async def test_new_executions_wait_for_nobody_that_has_not_claimed_them(linked: LinkedCluster, how: str) -> None:
    """The worker that placed them at another, which goes, accepts them; what that one has waits for its successor."""
    engine, places, wire = linked.engines[1], linked.places[0], linked.wire
    for worker, backlog in enumerate((1000.0, 0.0, inf)):
        places.loads.set(worker, BACKLOG, backlog)
    await until(lambda: linked.routers[0].choose(1) == 1)
    engine.gate.clear()
    if how == "stops":
        engine.refusal = Stopping("the worker is stopping")
    batch = m.ExecuteAsyncBatchRequest(executions=[execution("new-2"), execution("new-3")])
    placed = [
        asyncio.ensure_future(wire.execute_async("new-1")),
        asyncio.ensure_future(wire.call("ExecuteAsyncBatch", batch, m.ExecuteAsyncBatchResponse)),
    ]
    repeated = asyncio.ensure_future(wire.execute_async(linked.elsewhere()))
    await until(lambda: engine.asked >= 4)
    await linked.routers[1].close(0)
    await asyncio.gather(*placed)
    assert set(linked.engines[0].executions) == {"new-1", "new-2", "new-3"}
    assert not repeated.done()
    repeated.cancel()


@pytest.mark.parametrize("page_size", [1, 7, 30, 1000])
async def test_lists_merge_every_worker(cluster: Cluster, page_size: int) -> None:
    for at in range(30):
        await cluster.wire.execute_async(f"e-{at}")
    everything = [
        (execution.accepted_ms, execution_id)
        for engine in cluster.engines
        for execution_id, execution in engine.executions.items()
    ]
    listed = await pages(cluster.wire, q.ListExecutionsRequest(page_size=page_size))
    assert all(len(page) <= page_size for page in listed)
    assert [execution_id for page in listed for execution_id in page] == [
        execution_id for _, execution_id in sorted(everything, reverse=True)
    ]


@pytest.mark.parametrize("page_size", [7, 1000])
async def test_lists_lose_nothing_where_a_workers_page_is_cut(
    cluster: Cluster, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker ends its page after some hundred bytes, one of them far earlier than the others."""
    for at in range(60):
        request = execution(f"e-{at}")
        if cluster.owner_of(f"e-{at}") == 1:
            request.metadata.description = "x" * 400
        await cluster.wire.call("ExecuteAsync", request, m.WorkflowExecuteResponse)
    everything = sorted(
        (
            (execution.accepted_ms, execution_id)
            for engine in cluster.engines
            for execution_id, execution in engine.executions.items()
        ),
        reverse=True,
    )
    monkeypatch.setattr(limits, "REPLY_SIZE_BYTES_MAX", 1_000)
    listed = await pages(cluster.wire, q.ListExecutionsRequest(page_size=page_size))
    expected = [execution_id for _, execution_id in everything]
    assert [execution_id for page in listed for execution_id in page] == expected


async def test_execute_streams_from_the_owner(cluster: Cluster) -> None:
    execution_id = cluster.elsewhere()
    call = cluster.wire.stream("Execute", execution(execution_id))
    await call.read()
    cluster.execution(execution_id).report("workflow_completed", "completed")
    assert [event.sequence_number for event in await rest_of(call)] == [2]


async def test_a_stream_goes_on_at_the_successor_of_its_owner(direct: DirectCluster) -> None:
    execution_id = direct.elsewhere()
    call = direct.wire.stream("Execute", execution(execution_id))
    await call.read()
    router = direct.router
    broken, router.streams_broken = router.streams_broken, asyncio.Event()
    broken.set()
    direct.execution(execution_id).report("task_started", "running")
    assert m.WorkflowProgressEvent.FromString(await call.read()).sequence_number == 2
    direct.execution(execution_id).report("task_completed", "running")
    direct.execution(execution_id).report("workflow_completed", "completed")
    assert [event.sequence_number for event in await rest_of(call)] == [3, 4]
    assert [method for _, method in router.forwarded].count("Subscribe") == 2


async def test_a_stream_whose_owner_stays_away_is_unavailable(direct: DirectCluster) -> None:
    execution_id = direct.elsewhere()
    await direct.wire.execute_async(execution_id)
    direct.engines[1].stopped = True
    call = direct.wire.stream("Subscribe", q.SubscribeRequest(execution_id=execution_id))
    code, message, _ = await refusal(call.read())
    assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "stopping")


async def test_a_client_that_goes_away_cancels_at_the_owner(cluster: Cluster) -> None:
    execution_id = cluster.elsewhere()
    call = cluster.wire.stream("Execute", execution(execution_id))
    await call.read()
    call.cancel()
    await until(lambda: cluster.execution(execution_id).status == "cancelled")


async def test_a_worker_that_stops_cancels_nothing_at_the_owner(cluster: Cluster) -> None:
    execution_id = cluster.elsewhere()
    call = cluster.wire.stream("Execute", execution(execution_id))
    await call.read()
    stopped = asyncio.ensure_future(cluster.wire.server.stop(5))
    code, _, _ = await refusal(call.read())
    assert code is grpc.StatusCode.UNAVAILABLE
    await stopped
    assert cluster.execution(execution_id).status == "running"
