"""Support: what one worker knows of where executions live, and whom it asks."""

import asyncio
from math import inf

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.base import limits
from fastrunner.engine.embedded.admit.admission import Admission
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.processes.shared import Shared
from fastrunner.processes.worker import places_known
from fastrunner.routing.placement import BACKLOG, Places


@pytest.fixture
def cluster() -> list[Places]:
    """What three workers of a directory with seven shards see."""
    shared = Shared.create(3, 7, bytes(16))
    return [shared.places(worker, 3) for worker in range(3)]


def known(cluster: list[Places]) -> None:
    for shard in range(7):
        cluster[0].table.set_known(shard, True)


def test_every_shard_has_one_owner_and_every_worker_a_shard() -> None:
    for worker_count in (1, 2, 3, 8):
        for shard_count in (8, 9, 15):
            shared = Shared.create(worker_count, shard_count, bytes(16))
            places = [shared.places(worker, worker_count) for worker in range(worker_count)]
            assert sorted(shard for each in places for shard in each.shards) == list(range(shard_count))
            assert [each.shards[0] for each in places] == list(range(worker_count))
            assert all(each.owner_of(shard) == each.worker for each in places for shard in each.shards)


def test_owners_are_those_of_the_shards_that_may_have_an_execution(cluster: list[Places]) -> None:
    known(cluster)
    assert cluster[0].owners_of("one") == ()
    assert cluster[1].table.claim("one", 4) == -1
    assert [places.owners_of("one") for places in cluster] == [(1,)] * 3
    assert cluster[2].table.claim("one", 5, (4,)) == -1
    assert cluster[0].table.claim("one", 3, (4, 5)) == -1
    assert [places.owners_of("one") for places in cluster] == [(0, 1, 2), (1, 0, 2), (2, 0, 1)]


def test_what_is_not_known_yet_may_be_anywhere_it_is_not_known(cluster: list[Places]) -> None:
    for shard in range(6):
        cluster[0].table.set_known(shard, True)
    assert cluster[1].owners_of("one") == (0,)


def test_batch_is_new_if_nobody_can_have_anything_of_it(cluster: list[Places]) -> None:
    requests = [WorkflowExecuteInput(workflow_execution_id=f"id-{at}", workflow_yaml="x") for at in "12"]
    items = [request.SerializeToString() for request in requests]
    assert not cluster[0].are_new(items), "shards may have them that are not known"
    known(cluster)
    assert cluster[0].are_new(items)
    # An id that comes twice is for the plain decoder.
    assert not cluster[0].are_new([*items, 2 * items[0]])
    assert not cluster[0].are_new([*items, b"\xff"])
    assert cluster[2].table.claim("id-2", 4) == -1
    assert [places.are_new(items) for places in cluster] == [False] * 3
    assert cluster[0].are_new(items[:1])
    assert cluster[2].table.release("id-2", 4)
    assert cluster[0].are_new(items)


def test_single_work_goes_to_the_least_busy_only_from_one_that_is_far_busier(cluster: list[Places]) -> None:
    """And always from one that takes nothing any more."""
    loads, enough = cluster[0].loads, limits.PLACEMENT_BACKLOG_MIN
    for worker, backlog in enumerate((enough - 1.0, 0.0, inf)):
        loads.set(worker, BACKLOG, backlog)
    assert [places.choose(1) for places in cluster] == [0, 1, 1]
    loads.set(0, BACKLOG, enough)
    assert cluster[0].choose(1) == 1
    loads.set(1, BACKLOG, 10)
    assert cluster[0].choose(limits.PLACEMENT_BATCH_COUNT_MIN - 1) == 0
    loads.set(0, BACKLOG, enough + 20)
    assert cluster[0].choose(limits.PLACEMENT_BATCH_COUNT_MIN - 1) == 1


def test_batches_are_spread_by_what_is_unanswered(cluster: list[Places]) -> None:
    """Those that this worker has handed on count before the other says so, and those of others when it does."""
    taken = []
    for _ in range(6):
        taken.append(cluster[0].choose(100))
        cluster[0].assign(taken[-1], 100)
    assert taken == [0, 1, 2, 0, 1, 2]
    cluster[0].assign(1, -200)
    assert cluster[0].choose(100) == 1
    cluster[1].assign(1, 150)
    assert [cluster[0].choose(count) for count in (100, 50)] == [0, 1]
    cluster[0].loads.set(1, BACKLOG, inf)
    cluster[0].assign(2, -100)
    assert [places.choose(100) for places in cluster] == [2, 2, 2]


def test_worker_that_has_just_had_much_to_do_counts_as_busy(
    cluster: list[Places], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that takes a worker's whole backlog away does not draw single executions to it."""
    monkeypatch.setattr(limits, "PLACEMENT_PEAK_AGE_S_MAX", 60.0)
    admission = Admission(cluster[1], executions_max=1_000, client_executions_per_s_max=1_000)
    executions = [Execution(1, key, f"e{key}", 0, b"", False) for key in range(limits.PLACEMENT_BACKLOG_MIN)]
    for execution in executions:
        admission.entered(execution, 0)
    cluster[0].loads.set(0, BACKLOG, limits.PLACEMENT_BACKLOG_MIN)
    cluster[0].loads.set(2, BACKLOG, inf)
    for execution in executions:
        admission.left(execution)
    assert cluster[0].loads.get(1, BACKLOG) == 0
    assert cluster[0].choose(1) == 0
    monkeypatch.setattr(limits, "PLACEMENT_PEAK_AGE_S_MAX", 0.0)
    assert cluster[0].choose(1) == 1


async def test_start_waits_for_what_other_shards_hold_but_not_for_ever(
    cluster: list[Places], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.ensure_future(places_known(cluster[0]))
    await asyncio.sleep(3 * limits.PLACEMENT_KNOWN_INTERVAL_S)
    assert not waiting.done()
    known(cluster)
    await asyncio.wait_for(waiting, 10)
    cluster[1].table.set_known(1, False)
    monkeypatch.setattr(limits, "PLACEMENT_KNOWN_WAIT_S_MAX", 0.05)
    await asyncio.wait_for(places_known(cluster[0]), 10)
