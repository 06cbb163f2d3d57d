"""How executions on Temporal report: along with effects, and by a workflow of their own where that is configured."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from fastrunner.base import limits
from fastrunner.errors import UnknownExecution, WrongState
from fastrunner.progress.names import TERMINAL_EVENTS
from tests.integration.engines import SET, WAIT, document, submission, until, until_status
from tests.integration.temporal_engines import cluster_on, opened, reported, serving_temporal
from tests.outside import require
from tests.ports import free_port

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

TIMEOUT_S = 90.0
ASK = "      call: http\n      with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
CALLS = document("".join(f"  - ask{number}:\n{ASK}" for number in range(5)))
DETACHED = {"temporal_report": "detached"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


async def kinds(engine: "TemporalEngine", execution_id: str) -> list[str]:
    """The events of a history that has ended."""
    from temporalio.api.enums.v1 import EventType

    handle = engine._client.get_workflow_handle(execution_id)
    await handle.result()
    found = (await handle.fetch_history()).events
    return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in found]


async def test_what_a_history_costs(address: str) -> None:
    """Tasks that only compute cost nothing, nor does the report of an execution that ends with them; effects an
    activity each, and one reports the end."""
    many = document("".join(f"  - keep{number}:\n      set: {{ n: {number} }}\n" for number in range(20)))
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        await engine.submit(submission(f"{cluster.queue}-sets", many))
        await engine.submit(submission(f"{cluster.queue}-calls", CALLS))
        task = ["WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"]
        step = ["ACTIVITY_TASK_SCHEDULED", "ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_COMPLETED", *task]
        found = await kinds(engine, f"{cluster.queue}-sets")
        ends = [["MARKER_RECORDED", "WORKFLOW_EXECUTION_COMPLETED"]]
        # A receiver that does not answer within a second is told by an activity.
        ends.append([ends[0][0], *step, ends[0][1]])
        assert found in [["WORKFLOW_EXECUTION_STARTED", *task, *end] for end in ends]
        found = await kinds(engine, f"{cluster.queue}-calls")
        # A receiver that takes its time is told again with the next effect, and that is no activity more.
        assert found.count("ACTIVITY_TASK_SCHEDULED") == 5 + 1
        for execution_id in (f"{cluster.queue}-sets", f"{cluster.queue}-calls"):
            sequences = [event.sequence_number for event in cluster.events[execution_id]]
            assert sequences == list(range(1, len(sequences) + 1))


async def test_effects_read_no_history_where_their_workflow_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has not taken the workflow's task reads it once."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        service, asked = engine._client.workflow_service, []

        async def read(request: Any, **options: Any) -> Any:
            asked.append(request.execution.workflow_id)
            return await histories(request, **options)

        histories = service.get_workflow_execution_history
        monkeypatch.setattr(service, "get_workflow_execution_history", read)
        await engine.submit(submission(f"{cluster.queue}-here", CALLS))
        await until_status(engine, f"{cluster.queue}-here", "completed", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        assert asked == []
        assert engine._activities is not None
        monkeypatch.setattr(engine._activities.starts, "knows", lambda _: True)
        await engine.submit(submission(f"{cluster.queue}-there", CALLS))
        await until_status(engine, f"{cluster.queue}-there", "completed", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
        assert asked == [f"{cluster.queue}-there"]


async def test_requests_are_not_compressed(address: str) -> None:
    """Beside a frontend on the same network that costs more than it saves."""
    host, port = address.split(":")
    sent, ends, word = bytearray(), list[asyncio.StreamWriter](), b"a" * 1_000

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, onward = await asyncio.open_connection(host, int(port))
        ends.extend((writer, onward))

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                if target is onward:
                    sent.extend(data)
                target.write(data)

        await asyncio.gather(pass_on(reader, onward), pass_on(answers, writer), return_exceptions=True)

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server, cluster_on(address) as cluster:
        relayed = {"temporal_service_address": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        async with cluster.engine(settings=relayed, works=False) as engine:
            await engine.submit(submission(f"{cluster.queue}-1", input_json=b'"%s"' % word))
            assert word in sent
        for end in ends:
            end.close()
        await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)


async def test_a_slow_receiver_slows_no_effect_down(address: str) -> None:
    """It has answered nothing yet when the last effect is performed."""
    performer = opened()
    async with (
        cluster_on(address, delay_ms=int(100_000 * limits.TEMPORAL_REPORT_WAIT_S_MAX)) as cluster,
        cluster.engine({"call_http": performer}) as engine,
    ):
        await engine.submit(submission(f"{cluster.queue}-1", CALLS))
        await until(lambda: len(performer.performed) == 5, "all effects", TIMEOUT_S)
        assert (await engine.get(f"{cluster.queue}-1")).acknowledged_sequence == 0


@pytest.mark.parametrize("text", [WAIT, CALLS], ids=["wait", "calls"])
async def test_detached_reports_are_those_of_attached_ones(address: str, text: str) -> None:
    """All events in their order, from the end of the walk on by a workflow of their own; both answer who asks."""
    told = []
    for settings in ({}, DETACHED):
        async with cluster_on(address) as cluster, cluster.engine(settings=settings) as engine:
            execution_id = f"{cluster.queue}-1"
            await engine.submit(submission(execution_id, text))
            events = await reported(cluster, execution_id)
            view = await until_status(engine, execution_id, "completed", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
            while view.acknowledged_sequence != len(events):
                view = await engine.get(execution_id)
            assert view.last_sequence == len(events)
            assert len(await engine.events(execution_id, 1, 100)) == len(events)
            told.append([text.replace(execution_id, "e-1") for text in events])
            found = await kinds(engine, execution_id)
            assert ("START_CHILD_WORKFLOW_EXECUTION_INITIATED" in found) == bool(settings)
    assert told[0] == told[1]


async def test_what_ends_at_once_is_the_same_whoever_takes_it_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is lost has told the receiver what Temporal does not have: the next one, later, tells the same."""
    from fastrunner.engine.temporal import workflow
    from fastrunner.engine.temporal.ends import result_of as sound

    told: list[bytes] = []
    failed: list[str] = []

    def lost(*_: Any) -> Any:
        failed.append("once more")
        raise AssertionError("the task ends here")

    async with cluster_on(address) as cluster:
        execution_id = f"{cluster.queue}-1"
        events = cluster.events.setdefault(execution_id, [])
        async with cluster.engine() as engine:
            monkeypatch.setattr(workflow, "result_of", lost)
            await engine.submit(submission(execution_id, SET))
            await until(lambda: bool(events) and events[-1].event_type in TERMINAL_EVENTS, "the last event", TIMEOUT_S)
            first = [event.SerializeToString() for event in events]
            await until(lambda: bool(failed), "the task's failure", TIMEOUT_S)
            monkeypatch.setattr(workflow, "result_of", sound)
            await asyncio.wait_for(engine._client.get_workflow_handle(execution_id).result(), TIMEOUT_S)
            told += await engine.events(execution_id, 1, 100)
        assert told == first
        # It is the task that has failed, and what it told, that are repeated.
        assert cluster.receiver.ledger.violations == []


@pytest.mark.parametrize("settings", [{}, DETACHED], ids=["attached", "detached"])
async def test_what_ends_at_once_waits_for_a_receiver_as_others_do(address: str, settings: dict[str, str]) -> None:
    """Detached it ends without; either way nothing is lost while nobody takes it."""
    nobody = {**settings, "stigmer_service_endpoint": f"127.0.0.1:{free_port()}"}
    async with cluster_on(address) as cluster:
        execution_id = f"{cluster.queue}-1"
        async with cluster.engine(settings=nobody) as engine:
            await engine.submit(submission(execution_id, SET))
            if settings:
                found = await kinds(engine, execution_id)
                assert "START_CHILD_WORKFLOW_EXECUTION_INITIATED" in found
            view = await until_status(engine, execution_id, "completed", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]
            assert view.acknowledged_sequence == 0
            age = engine._metrics.callback_oldest_age
            await until(lambda: age.value > 0.5, "the age of what waits", TIMEOUT_S)
        assert age.value == 0
        async with cluster.engine(settings=settings) as engine:
            events = await reported(cluster, execution_id)
            assert engine._metrics.callback_oldest_age.value == 0
            while view.acknowledged_sequence != len(events):
                view = await engine.get(execution_id)
            assert view.last_sequence == len(events)


@pytest.mark.parametrize("text", [CALLS, WAIT], ids=["taken along", "under way"])
async def test_a_detached_workflow_ends_without_the_receiver(address: str, text: str) -> None:
    """Its events are not lost: what reports them is no one's to cancel, nor is the execution to be deleted."""
    from temporalio.client import WorkflowExecutionStatus

    nobody = {**DETACHED, "stigmer_service_endpoint": f"127.0.0.1:{free_port()}"}
    async with cluster_on(address) as cluster:
        execution_id = f"{cluster.queue}-1"
        async with cluster.engine(settings=nobody) as engine:
            await engine.submit(submission(execution_id, text))
            assert "WORKFLOW_EXECUTION_COMPLETED" in await kinds(engine, execution_id)
            view = await engine.get(execution_id)
            assert (view.status, view.acknowledged_sequence) == ("completed", 0)
            await engine._client.get_workflow_handle(f"{execution_id}~report").cancel()
            with pytest.raises(WrongState, match="still to be reported"):
                await engine.delete(execution_id)
            with pytest.raises(UnknownExecution):
                await engine.get(f"{execution_id}~report")
        async with cluster.engine(settings=DETACHED) as engine:
            events = await reported(cluster, execution_id)
            handle = engine._client.get_workflow_handle(f"{execution_id}~report")
            await asyncio.wait_for(handle.result(), TIMEOUT_S)
            assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED
            assert (await engine.get(execution_id)).acknowledged_sequence == len(events)
            await engine.delete(execution_id)
