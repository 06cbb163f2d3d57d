"""Queries that come while an execution on Temporal gets on: whatever they hit, its events stay as they were told."""

import asyncio
from importlib.util import find_spec

from tests.crash.temporal_histories import Histories
from tests.integration.engines import CALL, Performer, submission, until
from tests.integration.temporal_engines import cluster_on, reported, serving_temporal
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

_COUNT = 8
_ENDED_COUNT = 2
"""Of them; somebody terminates their workflows."""
_UP_TO_THE_CALL = 4
"""Events."""
_TIMEOUT_S = 90.0


async def test_queries_that_wait_for_a_worker_change_no_event() -> None:
    """They are asked between two tasks of the workflow, and handed out when the next one is about to begin, or never is
    because the workflow was ended from outside."""
    from temporalio import activity
    from temporalio.worker import Worker

    from fastrunner.engine.temporal.messages import PERFORM, EffectOrder, EffectOutcome

    performed: list[EffectOrder] = []

    @activity.defn(name=PERFORM)
    async def perform(order: EffectOrder) -> EffectOutcome:
        performed.append(order)
        return EffectOutcome({"answer": 42})

    ids = [f"asked-{number}" for number in range(_COUNT)]
    ended, going_on = ids[:_ENDED_COUNT], ids[_ENDED_COUNT:]
    with serving_temporal() as address:
        async with cluster_on(address) as cluster:
            held = Performer()
            async with cluster.engine({"call_http": held}) as lost:
                for execution_id in ids:
                    await lost.submit(submission(execution_id, CALL))
                await until(lambda: len(held.performed) >= _COUNT, "effects", _TIMEOUT_S)
            async with cluster.engine(works=False) as asking:
                asked = [asyncio.ensure_future(asking.get(execution_id)) for execution_id in ids]
                # Workflows have nobody meanwhile, effects have.
                async with Worker(asking._client, task_queue=cluster.queue, activities=[perform]):
                    await until(lambda: len(performed) >= _COUNT, "effects that are performed again", _TIMEOUT_S)
                for execution_id in ended:
                    await asking._client.get_workflow_handle(execution_id).terminate("for a test")
                async with cluster.engine() as working:
                    await asyncio.gather(*asked, return_exceptions=True)
                    for execution_id in ended:
                        view = await working.get(execution_id)
                        # What was never taken up is not told either.
                        assert (view.status, view.last_sequence) == ("cancelled", _UP_TO_THE_CALL)
                    for execution_id in going_on:
                        await reported(cluster, execution_id)
                    histories = Histories()
                    await histories.read(address)
            assert sorted(histories.executions()) == sorted(ids)
            assert not histories.differences(cluster.receiver.ledger.encoded).keys() & set(going_on)
            assert histories.problems == []
