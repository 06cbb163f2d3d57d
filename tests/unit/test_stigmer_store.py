"""The Stigmer Service's stores: what is kept of events, what follows from them, and what a second time changes."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ErrorDetails
from fastrunner.base.clock import wall_ms
from fastrunner.errors import AlreadyRegistered, IdTaken, UnknownExecution, UnknownWorkflow
from fastrunner.stigmer.store import (
    ACCEPTED,
    RECORDED,
    REFUSED,
    REPORTED,
    Arrived,
    Execution,
    Filter,
    Refusal,
    Store,
    Taken,
    WorkflowKey,
)
from fastrunner.stigmer.store.sqlite import SqliteStore
from tests.mongodb import fresh_url
from tests.unit.stigmer_stores import RETENTION_S, arrived, counted, findings, new, opened, whole

Opening = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "mongodb"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Opens the same store, each time."""
    if request.param == "sqlite":

        async def make() -> Store:
            store = SqliteStore(tmp_path, RETENTION_S)
            await store.open()
            return store

        return make
    url = fresh_url(request.getfixturevalue("mongo_url"))
    return lambda: opened(url)


@pytest.fixture
async def store(opening: Opening) -> AsyncIterator[Store]:
    store = await opening()
    yield store
    await store.close()


async def test_an_execution_is_what_its_events_say(store: Store) -> None:
    events = whole("e", output_json='{"a":1}', message="done")
    taken = await store.take(events[:4])
    assert (taken.acknowledged, taken.stored, taken.duplicates) == ({"e": 4}, 4, 0)
    execution = await store.find("e")
    assert (execution.launch, execution.name, execution.standing.status) == (REPORTED, "order", "running")
    assert (execution.standing.started_ms, execution.standing.updated_ms) == (1001, 1004)
    await store.take([arrived("e", 5, "workflow_paused", message="later")])
    assert (await store.find("e")).standing.status == "paused"
    assert (await store.find("e")).standing.message == "later"
    taken = await store.take([arrived("e", 6, "workflow_resumed"), arrived("e", 7, "task_completed")])
    assert [(told.execution_id, told.last_sequence) for told in taken.told] == [("e", 7)]
    assert (await store.find("e")).standing.status == "running"
    taken = await store.take([arrived("e", 8, "workflow_completed", output_json='{"a":1}')])
    assert taken.ended == {"completed": 1}
    standing = (await store.find("e")).standing
    assert (standing.status, standing.output_json, standing.ended_ms) == ("completed", '{"a":1}', 1008)
    assert await findings(store) == []


async def test_an_error_is_kept(store: Store) -> None:
    await store.take(whole("e", end="workflow_failed", error=ErrorDetails(code="TIMEOUT_ERROR", status=408)))
    assert (await store.find("e")).standing.error_json == '{"code":"TIMEOUT_ERROR","status":408}'


async def test_equal_bytes_again_are_acknowledged_and_other_bytes_are_a_violation(store: Store) -> None:
    events = whole("e")
    await store.take(events)
    taken = await store.take(events)
    assert (taken.acknowledged, taken.stored, taken.duplicates, taken.told) == ({"e": 8}, 0, 8, [])
    changed = arrived("e", 3, "task_failed")
    taken = await store.take([changed, events[0]])
    assert (taken.acknowledged, taken.violations, taken.duplicates) == ({"e": 8}, {"changed": 1}, 1)
    page = await store.events_after("e", 2, 1, 10**6)
    assert page.messages == [events[2].message]
    assert await findings(store) == ["changed e"]


async def test_an_event_that_differs_behind_a_gap_counts_as_it_came_first(store: Store) -> None:
    events = whole("e")
    await store.take([events[7]])
    taken = await store.take([*events[:7], arrived("e", 8, "workflow_failed")])
    assert taken.violations == {"changed": 1}
    assert (await store.find("e")).standing.status == "completed"


async def test_only_the_prefix_without_a_gap_is_shown(store: Store) -> None:
    events = whole("e")
    taken = await store.take([events[0], *events[2:]])
    assert taken.acknowledged == {"e": 1}
    assert (await store.events_after("e", 0, 100, 10**6)).messages == [events[0].message]
    execution = await store.find("e")
    assert (execution.standing.last_sequence, execution.stored_sequence) == (1, 8)
    assert 0 < await store.oldest_gap_ms() <= wall_ms()
    assert await findings(store) == ["gap e"]
    taken = await store.take([events[1]])
    assert (taken.acknowledged, taken.told[0].last_sequence) == ({"e": 8}, 8)
    assert await store.oldest_gap_ms() == 0
    assert (await store.events_after("e", 0, 100, 10**6)).messages == [each.message for each in events]
    assert await findings(store) == []


async def test_what_follows_the_last_event_is_kept_and_changes_nothing(store: Store) -> None:
    await store.take(whole("e"))
    taken = await store.take([arrived("e", 9, "workflow_failed")])
    assert (taken.acknowledged, taken.violations) == ({"e": 9}, {"after_end": 1})
    assert (await store.find("e")).standing.status == "completed"
    assert await counted(store) == {"completed": 1}
    assert sorted(await findings(store)) == ["after_end e", "end e"]


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_in_any_portions_any_number_of_times_is_the_same(store: Store, seed: int) -> None:
    """Also from many at once, and over events that come while the first ones are written."""
    chance = random.Random(seed)
    ends = ["workflow_completed", "workflow_failed", "workflow_cancelled"]
    executions = {f"e{number}": whole(f"e{number}", chance.randrange(40), chance.choice(ends)) for number in range(12)}
    events = [event for each in executions.values() for event in each]
    sent = [*events, *chance.choices(events, k=len(events) // 2)]
    chance.shuffle(sent)
    portions: list[Sequence[Arrived]] = []
    while sent:
        size = chance.randrange(1, 200)
        portions.append(sent[:size])
        sent = sent[size:]
    outcomes: list[Taken] = []
    for at in range(0, len(portions), 4):
        outcomes += await asyncio.gather(*map(store.take, portions[at : at + 4]))
    assert sum(each.stored for each in outcomes) == len(events)
    for execution_id, expected in executions.items():
        found = await store.events_after(execution_id, 0, 1000, 10**7)
        assert found.messages == [each.message for each in expected]
        assert found.has_ended
    assert sum((await counted(store)).values()) == 12
    assert sum(sum(each.ended.values()) for each in outcomes) == 12
    assert await findings(store) == []


async def test_pages_of_events_end_at_their_size(store: Store) -> None:
    events = whole("e", 20)
    await store.take(events)
    page = await store.events_after("e", 0, 1000, 3 * len(events[3].message))
    assert 1 <= len(page.messages) <= 4
    assert page.last_sequence == len(events)
    # One that is larger than a page is one.
    assert len((await store.events_after("e", 5, 1000, 1)).messages) == 1
    with pytest.raises(UnknownExecution):
        await store.events_after("other", 0, 1, 1)


async def test_recorded_once_and_launched_once(store: Store) -> None:
    assert await store.record(new("e"))
    assert not await store.record(new("e"))
    with pytest.raises(IdTaken):
        await store.record(new("e", asked=b"something else"))
    execution = await store.find("e")
    assert (execution.launch, execution.standing.status, execution.labels) == (RECORDED, "pending", {"a": "b"})
    assert [(each.id, each.request) for each in await store.unlaunched(0, 10)] == [("e", b"e")]
    await store.launched("e", None, wall_ms())
    await store.launched("e", Refusal(3, "too late"), wall_ms())
    assert (await store.find("e")).launch == ACCEPTED
    assert await store.unlaunched(0, 10) == []
    assert not await store.record(new("e"))
    assert await counted(store) == {"pending": 1}
    assert await findings(store) == []


async def test_a_refused_execution_has_failed_unless_its_events_say_otherwise(store: Store) -> None:
    await store.record(new("refused"))
    await store.record(new("running"))
    await store.take(whole("running")[:4])
    for execution_id in ("refused", "running"):
        await store.launched(execution_id, Refusal(6, "taken"), wall_ms())
        assert (await store.find(execution_id)).launch == REFUSED
    refused = (await store.find("refused")).standing
    assert (refused.status, refused.message) == ("failed", "taken")
    assert (await store.find("running")).standing.status == "running"
    assert await counted(store) == {"failed": 1, "running": 1}
    assert await findings(store) == []
    # Another caller of the runner has used the id.
    await store.take(whole("refused"))
    assert (await store.find("refused")).standing.status == "completed"
    assert await counted(store) == {"completed": 1, "running": 1}
    assert await findings(store) == []


async def test_what_is_silent_and_lost_has_failed_unless_its_events_say_otherwise(store: Store) -> None:
    for execution_id in ("asked", "accepted", "lost", "gap"):
        await store.record(new(execution_id))
    await store.take([arrived("gap", 2), arrived("reported", 2), *whole("ended")])
    for execution_id in ("accepted", "lost", "gap"):
        await store.launched(execution_id, None, 1)
    later_ms = wall_ms() + 1
    found = await store.silent(later_ms, 0, 10)
    assert [each.id for each in found] == ["accepted", "lost"]
    assert await store.silent(later_ms, found[0].number, 10) == found[1:]
    assert (await store.silent(later_ms, 0, 1), await store.silent(1, 0, 10)) == (found[:1], [])
    why = Refusal(5, "nobody has it", "LOST")
    assert await store.lose("lost", why, 7)
    assert not await store.lose("lost", why, 8)
    for execution_id in ("asked", "gap", "reported", "ended", "unknown"):
        assert not await store.lose(execution_id, why, 7)
    lost = await store.find("lost")
    assert (lost.launch, lost.standing.status, lost.standing.ended_ms) == ("refused", "failed", 7)
    assert orjson.loads(lost.standing.error_json) == {"code": "LOST", "message": "nobody has it"}
    assert await counted(store) == {"pending": 4, "completed": 1, "failed": 1}
    await store.take(whole("lost"))
    assert (await store.find("lost")).standing.status == "completed"
    assert await counted(store) == {"pending": 4, "completed": 2}
    assert await findings(store) == ["gap gap", "gap reported"]


async def test_events_that_come_before_the_record_are_the_records(store: Store) -> None:
    await store.take(whole("e")[:4])
    assert await counted(store, namespace="shop") == {}
    assert await store.record(new("e"))
    assert await counted(store, namespace="shop") == {"running": 1}
    assert await counted(store) == {"running": 1}
    assert (await store.find("e")).standing.last_sequence == 4
    assert await findings(store) == []


async def test_lists_and_counts_by_every_filter(store: Store) -> None:
    for number in range(12):
        version = "1.0.0" if number % 2 else "2.0.0"
        await store.record(new(f"e{number}", namespace="shop" if number < 8 else "bank", version=version))
    await store.take([event for number in (0, 1, 8) for event in whole(f"e{number}")])
    assert await counted(store) == {"completed": 3, "pending": 9}
    assert await counted(store, namespace="shop", name="order", version="1.0.0") == {"completed": 1, "pending": 3}
    assert await counted(store, within=frozenset({"bank"})) == {"completed": 1, "pending": 3}
    assert await counted(store, status="completed", namespace="shop") == {"completed": 2}

    async def ids(before: int = 0, count_max: int = 100, **which: Any) -> list[str]:
        return [each.id for each in await store.page(Filter(**which), before, count_max)]

    assert await ids(status="completed") == ["e8", "e1", "e0"]
    assert await ids(status="pending", namespace="shop", version="2.0.0") == ["e6", "e4", "e2"]
    assert await ids(within=frozenset({"bank"})) == ["e11", "e10", "e9", "e8"]
    assert await ids(within=frozenset()) == []
    assert await ids(within=frozenset({"bank", "shop"}), status="completed") == ["e8", "e1", "e0"]
    assert await ids(within=frozenset({"bank"}), namespace="shop") == []
    assert await counted(store, within=frozenset({"bank"}), namespace="shop") == {}
    first = await store.page(Filter(), 0, 5)
    assert [each.id for each in first] == ["e11", "e10", "e9", "e8", "e7"]
    assert await ids(first[-1].number, 3) == ["e6", "e5", "e4"]
    all_of_them = await store.page(Filter(), 0, 100)
    for status, namespace, name, version in product(
        ("", "completed", "failed"), ("", "shop", "none"), ("", "order", "none"), ("", "2.0.0", "1.0.0")
    ):
        which = Filter(status, namespace, name, version)
        expected = [each for each in all_of_them if _is_let_through(each, which)]
        found: list[Execution] = []
        while page := await store.page(which, found[-1].number if found else 0, 2):
            found += page
        assert found == expected, which
        assert sum((await store.counts(which)).values()) == len(expected), which


def _is_let_through(execution: Execution, which: Filter) -> bool:
    says = (execution.standing.status, execution.namespace, execution.name, execution.version)
    wanted = (which.status, which.namespace, which.name, which.version)
    return all(not want or want == say for want, say in zip(wanted, says, strict=True))


async def test_workflows_and_their_versions(store: Store) -> None:
    for version in ("1.9.0", "1.10.0", "1.10.0-beta"):
        assert await store.add_workflow(WorkflowKey("shop", "order", version), f"text {version}", 5)
    assert not await store.add_workflow(WorkflowKey("shop", "order", "1.9.0"), "text 1.9.0", 6)
    with pytest.raises(AlreadyRegistered):
        await store.add_workflow(WorkflowKey("shop", "order", "1.9.0"), "another", 6)
    await store.add_workflow(WorkflowKey("bank", "pay", "1.0.0"), "pay", 7)
    latest = await store.find_workflow(WorkflowKey("shop", "order"))
    assert (latest.key.version, latest.document, latest.created_ms) == ("1.10.0", "text 1.10.0", 5)
    assert latest.is_latest
    assert not (await store.find_workflow(WorkflowKey("shop", "order", "1.9.0"))).is_latest
    with pytest.raises(UnknownWorkflow):
        await store.find_workflow(WorkflowKey("shop", "other"))
    pages = []
    after = None
    while page := await store.page_workflows("", "", None, after, 3):
        pages += [(each.key.name, each.key.version) for each in page]
        after = page[-1].key
    assert pages == [("pay", "1.0.0"), ("order", "1.10.0"), ("order", "1.10.0-beta"), ("order", "1.9.0")]
    assert len(await store.page_workflows("", "", frozenset({"bank"}), None, 10)) == 1
    assert len(await store.page_workflows("shop", "order", None, None, 10)) == 3


async def test_what_has_ended_is_forgotten_after_its_time(store: Store) -> None:
    await store.take([*whole("old"), *whole("other"), *whole("running")[:4]])
    await store.take([arrived("old", 2, "task_failed")])
    assert await store.expire(wall_ms(), 100) == 0
    later_ms = wall_ms() + 3_600_000
    assert await store.expire(later_ms, 1) == 1
    assert await store.expire(later_ms, 100) == 1
    assert await counted(store) == {"running": 1}
    assert [each.id for each in await store.page(Filter(), 0, 10)] == ["running"]
    assert await findings(store) == []


async def test_everything_is_there_after_a_restart(opening: Opening) -> None:
    for times in range(2):
        store = await opening()
        taken = await store.take(whole("e"))
        assert taken.duplicates == 8 * times
        await store.close()
