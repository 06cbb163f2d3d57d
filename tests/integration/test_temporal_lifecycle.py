"""Lifecycle sinks of executions on Temporal: what they have on one machine, in order, however long they were away."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from fastrunner.base import limits
from fastrunner.errors import WrongState
from fastrunner.progress.names import FINAL_STATUSES
from tests.integration.engines import SET, document, submission, until_status
from tests.integration.temporal_engines import cluster_on, serving_temporal
from tests.integration.temporal_replays import replayed
from tests.integration.test_event_sinks import receiving, until
from tests.integration.test_lifecycle import FAULTY, OF_SET, Told
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

CALLING = document(
    "  - rest: {wait: {milliseconds: 300}}\n  - again: {run: {workflow: {namespace: test, name: child,"
    " version: 1.0.0, input: {}}}}\n"
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


async def test_sinks_are_told_what_becomes_of_executions(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of children, too; a sink that is away holds up no execution and no other sink, and has everything later; what it
    lacks is not deleted before."""
    monkeypatch.setattr(limits, "EVENT_SINK_PAUSE_S_MAX", 0.5)
    async with receiving() as one:
        async with receiving() as away:
            port = away.port
        sinks = f"http://127.0.0.1:{one.port}/in batch:http://127.0.0.1:{port}/in"
        settings = {"lifecycle_sinks": sinks, "egress_allow": "127.0.0.1"}
        async with (
            cluster_on(address) as cluster,
            cluster.engine(documents={"child": SET}, settings=settings, history_events_max=12) as engine,
        ):
            ids = [f"{cluster.queue}-{number}" for number in range(3)]
            for execution_id, text in zip(ids, (SET, FAULTY, CALLING), strict=True):
                await engine.submit(submission(execution_id, text))
            for execution_id in ids:
                await until_status(engine, execution_id, *FINAL_STATUSES, timeout_s=90)  # type: ignore[arg-type]
            child = f"{ids[2]}~1"
            wanted = [*ids, child]

            def has_all(told: Told) -> bool:
                return all(
                    told.of[each] and told.types(each)[-1] in ("workflow.completed", "workflow.faulted")
                    for each in wanted
                )

            await until(lambda: has_all(Told(one)))
            assert Told(one).ids(ids[0]) == OF_SET
            with pytest.raises(WrongState):
                async with asyncio.timeout(60):
                    await engine.delete(ids[0])
            async with receiving(port) as back:
                await until(lambda: has_all(Told(back)))
                for each in wanted:
                    assert Told(back).ids(each) == Told(one).ids(each)
                    assert Told(back).types(each) == Told(one).types(each)
            await replayed(engine._client, *wanted, *(f"{each}~lifecycle" for each in wanted))
