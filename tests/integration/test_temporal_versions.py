"""Versions of the runner on Temporal: builds that keep their executions, newer and broken ones, what is counted."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.progress.names import TERMINAL_EVENTS
from tests.integration.engines import SET, Performer, document, submission, until, until_status
from tests.integration.temporal_engines import Cluster, cluster_on, opened, serving_temporal
from tests.outside import require

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

TIMEOUT_S = 90.0
ASK = "      call: http\n      with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
CALLS = document("".join(f"  - ask{number}:\n{ASK}" for number in range(3)))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


async def completed(engine: "TemporalEngine", execution_id: str) -> Any:
    return await until_status(engine, execution_id, "completed", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


def build(cluster: Cluster, build_id: str) -> dict[str, str]:
    return {"temporal_deployment_name": cluster.queue, "temporal_worker_build_id": build_id}


async def make_current(engine: "TemporalEngine", build_id: str) -> None:
    """New executions go to this build once this returns."""
    from temporalio.api.enums.v1 import RoutingConfigUpdateState
    from temporalio.api.workflowservice.v1 import (
        DescribeWorkerDeploymentRequest,
        SetWorkerDeploymentCurrentVersionRequest,
    )
    from temporalio.service import RPCError

    service, namespace, name = engine._client.workflow_service, engine._client.namespace, engine._task_queue
    deadline_s = asyncio.get_running_loop().time() + TIMEOUT_S
    state = None
    while state != RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_COMPLETED:
        assert asyncio.get_running_loop().time() < deadline_s
        try:
            # A build is known once a worker of it has asked for tasks.
            await service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(namespace=namespace, deployment_name=name, build_id=build_id)
            )
            found = await service.describe_worker_deployment(
                DescribeWorkerDeploymentRequest(namespace=namespace, deployment_name=name)
            )
            state = found.worker_deployment_info.routing_config_update_state
        except RPCError:
            await asyncio.sleep(0.1)


def has_ended(events: list[WorkflowProgressEvent]) -> bool:
    return events[-1].event_type in TERMINAL_EVENTS


async def test_a_build_keeps_its_executions_until_they_are_continued(address: str) -> None:
    """A new build takes new executions at once, and those of the old one between two turns, as a snapshot."""
    old, new = Performer(), opened()
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": old}, settings=build(cluster, "one")) as one,
        cluster.engine({"call_http": new}, settings=build(cluster, "two")) as two,
    ):
        await make_current(one, "one")
        first, second = f"{cluster.queue}-1", f"{cluster.queue}-2"
        await one.submit(submission(first, CALLS))
        await until(lambda: len(old.performed) == 1, "an effect of the old build", TIMEOUT_S)
        await make_current(two, "two")
        await one.submit(submission(second, CALLS))
        await completed(two, second)
        assert (len(old.performed), len(new.performed)) == (1, 3)
        old.gate.set()
        await completed(two, first)
        keys = [effect.idempotency_key for effect in [*old.performed, *new.performed]]
        assert len(keys) == len(set(keys)) == 6
        assert len(old.performed) < 3
        for execution_id in (first, second):
            events = cluster.events[execution_id]
            await until(partial(has_ended, events), "the last event", TIMEOUT_S)
            assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))


async def suspended(engine: "TemporalEngine", execution_id: str) -> None:
    """Waits for a failed workflow task; the workflow runs."""
    from temporalio.api.enums.v1 import EventType
    from temporalio.client import WorkflowExecutionStatus

    handle = engine._client.get_workflow_handle(execution_id)
    deadline_s = asyncio.get_running_loop().time() + TIMEOUT_S
    while True:
        kinds = [event.event_type async for event in handle.fetch_history_events()]
        if EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED in kinds:
            break
        assert asyncio.get_running_loop().time() < deadline_s
        await asyncio.sleep(0.1)
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING


async def test_what_the_runner_cannot_do_suspends_an_execution(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of its own in the middle of one, and one that a newer version began: neither is failed or lost, both go
    on with a worker that can do it, and what was done is not done again."""
    from fastrunner.engine.temporal import messages, workflow

    sound, newer = messages.outcome_of, messages.SEMANTICS + 1

    def broken(*_: Any) -> Any:
        raise AssertionError("a fault in the runner")

    performer = opened()
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}) as engine:
        faulty, unknown = f"{cluster.queue}-1", f"{cluster.queue}-2"
        start_of = engine._start_of
        monkeypatch.setattr(workflow, "outcome_of", broken)
        await engine.submit(submission(faulty, CALLS))
        monkeypatch.setattr(engine, "_start_of", lambda *given: replace(start_of(*given), semantics=newer))
        await engine.submit(submission(unknown, SET))
        for execution_id in (faulty, unknown):
            await suspended(engine, execution_id)
        monkeypatch.setattr(workflow, "outcome_of", sound)
        monkeypatch.setattr(workflow, "SEMANTICS", newer)
        for execution_id in (faulty, unknown):
            await asyncio.wait_for(engine._client.get_workflow_handle(execution_id).result(), TIMEOUT_S)
        assert len({effect.idempotency_key for effect in performer.performed}) == len(performer.performed) == 3


async def test_what_is_counted(address: str) -> None:
    """Executions and tasks; what is only replayed, as for each query here, counts nothing."""
    async with cluster_on(address) as cluster, cluster.engine(workflows_cached_max=0) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, CALLS))
        await engine.submit(submission(execution_id, CALLS))
        metrics = engine._metrics

        def counted() -> tuple[float, ...]:
            return (
                metrics.executions_accepted.value,
                metrics.executions_finished.labels("completed").value,
                metrics.tasks.labels("call_http", "completed").value,
            )

        # A workflow task that comes too late on a busy machine is taken and counted again.
        await until(lambda: counted()[1] >= 1 and counted()[2] >= 3, "counts", TIMEOUT_S)
        await completed(engine, execution_id)
        await asyncio.wait_for(engine._client.get_workflow_handle(execution_id).result(), TIMEOUT_S)
        before = counted()
        assert before[0] == 1
        for _ in range(5):
            assert (await engine.get(execution_id)).status == "completed"
        assert counted() == before
