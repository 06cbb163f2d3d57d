"""The Stigmer Service's store on MongoDB: deaths between any two writes, several services at once, others' hands."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.errors import Damaged, StorageFailed, StorageFull, TooLarge
from fastrunner.stigmer.store import Arrived, Filter, WorkflowKey
from fastrunner.stigmer.store.mongodb.database import refusal_of
from fastrunner.stigmer.store.mongodb.store import MongoStore
from tests.integration.stigmer import until
from tests.mongodb import fresh_url
from tests.unit.stigmer_deaths import Died, Life, bound, day
from tests.unit.stigmer_stores import arrived, counted, findings, new, opened, whole


@pytest.fixture
def url(mongo_url: str) -> str:
    return fresh_url(mongo_url)


@pytest.fixture
async def store(url: str) -> AsyncIterator[MongoStore]:
    store = await opened(url)
    yield store
    await store.close()


async def test_a_service_may_die_between_any_two_writes(mongo_url: str) -> None:
    """Its successor, who is asked for the same again, and for what was to come, has everything once."""
    deaths = 0
    while True:
        deaths += 1
        url = fresh_url(mongo_url)
        store = await opened(url)
        bound(store, Life(deaths))
        at = 0
        try:
            for at, step in enumerate(day(store)):  # noqa: B007
                await step()
            await store.reconcile()
        except Died:
            pass
        else:
            await store.close()
            break
        await store.close()
        store = await opened(url)
        for step in day(store)[at:]:
            await step()
        assert await counted(store) == {"completed": 1, "running": 1}, deaths
        assert await findings(store) == [], deaths
        await store.close()
    assert deaths > 60


@pytest.mark.parametrize("seed", range(4))
async def test_several_services_that_take_at_once_have_everything_once(url: str, seed: int) -> None:
    """Parts of the same executions, in any order, some of them to several."""
    chance = random.Random(seed)
    stores = [await opened(url) for _ in range(3)]
    executions = {f"e{number}": whole(f"e{number}", chance.randrange(20)) for number in range(10)}
    sent = [event for each in executions.values() for event in each]
    sent += chance.choices(sent, k=len(sent) // 2)
    chance.shuffle(sent)

    async def report(store: MongoStore, events: Sequence[Arrived]) -> int:
        """As a runner does: again, until it is acknowledged."""
        stored, at = 0, 0
        while at < len(events):
            size = chance.randrange(1, 30)
            stored += (await store.take(events[at : at + size])).stored
            at += size
        return stored

    outcomes = await asyncio.gather(
        *(report(store, sent[place :: len(stores)]) for place, store in enumerate(stores)),
        *(stores[0].record(new(each)) for each in executions),
    )
    assert sum(outcomes[:3]) == sum(map(len, executions.values()))
    for execution_id, events in executions.items():
        # No one had to look again: whoever came last has folded all.
        page = await stores[1].events_after(execution_id, 0, 1000, 10**7)
        assert (page.messages, page.has_ended) == ([each.message for each in events], True)
    assert await counted(stores[2]) == {"completed": 10}
    assert await counted(stores[2], namespace="shop") == {"completed": 10}
    assert await findings(stores[0]) == []
    for store in stores:
        await store.close()


async def test_counters_move_by_themselves_also_those_of_a_dead_service(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STIGMER_COUNTING_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "STIGMER_MOVES_MAX", 2)
    dead = await opened(url, counts=False)
    for number in range(5):
        await dead.record(new(f"e{number}"))
    # It planned a batch, and performed half of it.
    bound(dead, Life(2))
    with pytest.raises(Died):
        await dead.reconcile()
    await dead.close()
    store = await opened(url)

    async def are_counted() -> bool:
        return dict(await store.counts(Filter())) == {"pending": 5}

    await until(are_counted, "all are counted")
    assert await findings(store) == []
    await store.close()


async def test_what_is_forgotten_late_spares_a_later_one_of_the_same_id(url: str) -> None:
    slow, quick = await opened(url), await opened(url)
    await slow.take(whole("e"))
    # The slow one dies after it has marked it, before it removes anything.
    bound(slow, Life(1))
    with pytest.raises(Died):
        await slow.expire(wall_ms() + 3_700_000, 10)
    await slow.close()
    assert (await quick.take(whole("e", 4))).acknowledged == {"e": 12}
    assert await quick.expire(wall_ms(), 10) == 0
    assert await counted(quick) == {"completed": 1}
    assert await findings(quick) == []
    await quick.close()


class Watched:
    """A collection after whose every use something else happens, as another service does it meanwhile."""

    def __init__(self, collection: Any, meanwhile: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._collection = collection
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)
        if name == "find":
            return method

        async def used(*args: Any, **more: Any) -> Any:
            try:
                return await method(*args, **more)
            finally:
                await self._meanwhile()

        return used


def between(store: MongoStore, meanwhile: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Lets something happen after each of a store's calls of the database."""
    for name in ("events", "executions", "counters", "violations", "service"):
        setattr(store._database, name, Watched(getattr(store._database, name), meanwhile))


async def test_what_is_forgotten_is_gone_whoever_counts_meanwhile(url: str) -> None:
    store, other = await opened(url, counts=False), await opened(url)
    await other.take(whole("e"))
    between(store, other.reconcile)
    assert await store.expire(wall_ms() + 3_700_000, 10) == 1
    assert await findings(other) == []
    assert await counted(other) == {}
    await store.close()
    await other.close()


async def test_events_that_come_while_theirs_is_forgotten_are_kept(url: str) -> None:
    """Those who send it again begin it anew: everything is there once, and nothing that nobody finds."""
    for calls in range(1, 12):
        store, other = await opened(url, counts=False), await opened(url)
        execution_id = f"e{calls}"
        await other.take(whole(execution_id))
        left = [calls]

        async def forgotten(
            other: MongoStore = other, left: list[int] = left, execution_id: str = execution_id
        ) -> None:
            left[0] -= 1
            if left[0] == 0:
                assert await other.expire(wall_ms() + 3_700_000, 10) == 1
                # And another one has had a part of it already.
                await other.take(whole(execution_id)[:2])

        between(store, forgotten)
        taken = await store.take(whole(execution_id))
        await store.close()
        page = await other.events_after(execution_id, 0, 100, 10**7)
        if left[0] <= 0 and len(page.messages) == 2:
            # It was forgotten after it was acknowledged.
            assert taken.acknowledged == {execution_id: 8}
        else:
            assert page.messages == [each.message for each in whole(execution_id)], calls
        assert await findings(other) == [], calls
        await other.expire(wall_ms() + 3_700_000, 10)
        await other.close()


async def test_verify_finds_what_is_wrong(store: MongoStore) -> None:
    for execution_id in ("lost", "status", "counted", "mixed", "torn"):
        await store.take(whole(execution_id))
    await store.add_workflow(WorkflowKey("shop", "order", "1.0.0"), "text", 5)
    await store.reconcile()
    database = store._database

    async def key(execution_id: str, sequence: int) -> str:
        return f"{(await store.find(execution_id)).number:016x}-{sequence:016x}"

    await database.events.delete_one({"_id": await key("lost", 3)})
    await database.executions.update_one({"_id": "status"}, {"$set": {"status": "running"}})
    await database.counters.update_one({"status": "completed"}, {"$inc": {"executions": 1}})
    other = await database.events.find_one({"_id": await key("torn", 2)})
    assert other is not None
    message = {"$set": {"message": other["message"]}}
    await database.events.update_one({"_id": await key("mixed", 2)}, message)
    await database.events.update_one({"_id": await key("torn", 4)}, {"$set": {"message": b"\xff"}})
    await database.events.insert_one({"_id": f"{999:016x}-{1:016x}", "message": arrived("stray", 1).message})
    await database.workflows.update_one({"name": "order"}, {"$set": {"document": "damaged"}})
    found = await findings(store)
    assert {"gap lost", "fold status", "unreadable mixed", "unreadable torn", "stray stray"} <= set(found)
    assert "counter /order//completed" in found
    with pytest.raises(Damaged, match="restore a backup"):
        await store.find_workflow(WorkflowKey("shop", "order", "1.0.0"))


async def test_what_a_document_cannot_hold_is_refused(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_DOCUMENT_EVENT_SIZE_BYTES_MAX", 1000)
    monkeypatch.setattr(limits, "STIGMER_DOCUMENT_REQUEST_SIZE_BYTES_MAX", 3)
    with pytest.raises(TooLarge, match="an event has"):
        await store.take([*whole("e"), arrived("e", 9, message="x" * 1000)])
    with pytest.raises(TooLarge, match="the execution has 4 bytes"):
        await store.record(new("long"))
    assert await store.page(Filter(), 0, 10) == []


async def test_changes_are_counted_together(url: str) -> None:
    """Executions that have changed several times are one batch, of one move each."""
    store = await opened(url, counts=False)
    for number in range(5):
        events = whole(f"e{number}")
        for at in range(0, len(events), 2):
            await store.take(events[at : at + 2])
    assert await counted(store) == {"completed": 5}
    moves = await store._database.service.find_one({"_id": "moves"})
    assert moves is not None
    assert moves["batch"] == 1
    await store.close()


@pytest.mark.parametrize(
    "url", ["mongo://secret-word", "mongodb://me:secret-word@host:port", "mongodb://a/?secret-word"]
)
def test_what_is_no_url_is_told_without_it(url: str) -> None:
    with pytest.raises(ValueError, match="no URL of a MongoDB") as refusal:
        MongoStore(url, retention_s=1.0)
    assert "secret-word" not in str(refusal.value)


async def test_a_database_of_a_later_version_is_left_alone(url: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        await client.get_default_database()["service"].insert_one({"_id": "schema", "version": 99})
    store = MongoStore(url, retention_s=1.0)
    with pytest.raises(StorageFailed, match="schema 99"):
        await store.open()
    await store.close()


def test_failures_are_told_by_what_helps() -> None:
    assert isinstance(refusal_of(OperationFailure("no space left", 14031)), StorageFull)
    assert isinstance(refusal_of(AutoReconnect("connection closed")), StorageFailed)
