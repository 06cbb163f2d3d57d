"""What a Stigmer Service on MongoDB leaves between two writes is finished by others, though nobody sends any more."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.stigmer.store import EventsPage, Filter, Inspected, Taken, Told
from fastrunner.stigmer.store.mongodb.documents import event_key
from fastrunner.stigmer.store.mongodb.store import MongoStore
from tests.integration.stigmer import until
from tests.mongodb import fresh_url
from tests.unit.stigmer_deaths import Died, Life, bound
from tests.unit.stigmer_stores import arrived, counted, findings, new, opened, whole

ALL = 10**7


@pytest.fixture
def url(mongo_url: str) -> str:
    return fresh_url(mongo_url)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AFTER_S", 0.0)
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AGAIN_S", 0.0)


@pytest.fixture
async def store(url: str) -> AsyncIterator[MongoStore]:
    store = await opened(url, counts=False)
    yield store
    await store.close()


async def settled(store: MongoStore) -> Taken:
    """What becomes of all that is left: it has to be there twice."""
    await store.settle()
    return await store.settle()


async def dead(url: str, writes: int) -> MongoStore:
    """A service that lives for so many writes."""
    store = await opened(url, counts=False)
    bound(store, Life(writes))
    return store


async def shown(store: MongoStore, execution_id: str) -> EventsPage:
    return await store.events_after(execution_id, 0, 1000, ALL)


async def test_nobody_has_to_send_again_what_a_death_left_stored(mongo_url: str) -> None:
    """Between any two writes: what is stored is folded and counted, what is nobody's is gone, no note stays."""
    deaths = 0
    while True:
        deaths += 1
        url = fresh_url(mongo_url)
        store = await dead(url, deaths)
        try:
            for step in day(store):
                await step()
        except Died:
            await store.close()
        else:
            await store.close()
            break
        store = await opened(url, counts=False)
        await settled(store)
        await store.expire(wall_ms(), 10)
        await store.reconcile()
        # What was not stored is missing, and nothing else is wrong.
        assert set(await findings(store)) <= {"gap second", "after_end first"}, deaths
        assert await store._database.commits.count_documents({}) == 0, deaths
        for execution in await store.page(Filter(), 0, 10):
            assert execution.stored_sequence == execution.standing.last_sequence or execution.gap_since_ms, deaths
        await store.close()
    assert deaths > 30


def day(store: MongoStore) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """What a service does, step by step."""
    first, second = whole("first"), whole("second", 3)
    return [
        lambda: store.record(new("first")),
        lambda: store.take([*first[:2], *second[:2], *second[5:7]]),
        lambda: store.launched("first", None, wall_ms()),
        lambda: store.take([*first[2:], second[3], arrived("first", 9)]),
        lambda: store.expire(wall_ms() + 3_700_000, 10),
        lambda: store.take([second[2], *first[:2]]),
    ]


async def test_all_of_it_is_told(url: str, store: MongoStore) -> None:
    """Also what its service had folded: nobody knows whether it had told of it."""
    events = whole("first")
    await store.take(whole("second")[:2])
    await store.reconcile()
    one = await dead(url, 1000)
    await one.take([*events, *whole("second")[2:4]])
    # The note of a service that lives is as good as one of a dead one.
    taken = await settled(store)
    assert sorted(taken.told, key=lambda told: told.execution_id) == [Told("first", 8), Told("second", 4)]
    assert (taken.stored, taken.ended) == (0, {})
    await one.close()
    # Dead after the note, two executions, and events.
    other = await dead(url, 1 + 2 + 1 + 16)
    with pytest.raises(Died):
        await other.take([*whole("third"), *whole("fourth")])
    await other.close()
    assert (await shown(store, "third")).last_sequence == 0
    taken = await settled(store)
    assert {*taken.told} == {Told("third", 8), Told("fourth", 8)}
    assert taken.ended == {"completed": 2}
    assert await counted(store) == {"completed": 3, "running": 1}


async def test_an_event_after_the_end_is_a_violation_once_whoever_dies(mongo_url: str) -> None:
    for writes in range(1, 8):
        url = fresh_url(mongo_url)
        store = await opened(url, counts=False)
        await store.take(whole("e"))
        await store.reconcile()
        mortal = await dead(url, writes)
        with contextlib.suppress(Died):
            await mortal.take([arrived("e", 9)])
        await mortal.close()
        await settled(store)
        await store.take([arrived("e", 9)])
        [violation] = await store.inspect_violations()
        assert (violation.sequence, violation.kind, violation.times) == (9, "after_end", 1), writes
        assert (await store.find("e")).standing.last_sequence == 9
        await store.close()


async def test_a_note_is_settled_twice_before_it_goes(
    url: str, store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was on its way to the database may be stored after the first time."""
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AGAIN_S", 3600.0)
    await store.take(whole("e")[:2])
    await store.reconcile()
    mortal = await dead(url, 1)
    with pytest.raises(Died):
        await mortal.take(whole("e")[2:])
    await mortal.close()
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AFTER_S", 3600.0)
    assert (await settled(store)).told == []
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AFTER_S", 0.0)
    assert (await store.settle()).told == [Told("e", 2)]
    assert (await store.settle()).told == []
    key = event_key((await store.find("e")).number, 3)
    await store._database.events.insert_one({"_id": key, "message": whole("e")[2].message})
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AGAIN_S", 0.0)
    assert (await store.settle()).told == [Told("e", 3)]
    assert (await store.settle()).told == []
    assert await findings(store) == []


async def test_whoever_lives_removes_the_note_of_what_is_whole(url: str) -> None:
    store = await opened(url)
    for number in range(3):
        await store.take(whole(f"e{number}"))

    async def is_clear() -> bool:
        return await store._database.commits.count_documents({}) == 0

    await until(is_clear, "nothing is noted")
    await store.close()


async def test_only_so_much_is_settled_at_one_look(
    url: str, store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first, a few executions at once; one that is damaged keeps none of the others."""
    monkeypatch.setattr(limits, "STIGMER_SETTLED_COMMITS_MAX", 2)
    monkeypatch.setattr(limits, "STIGMER_SETTLED_AT_ONCE_MAX", 2)
    executions = 5
    for death in range(3):
        mortal = await dead(url, 1 + executions + 1 + 8 * executions)
        with pytest.raises(Died):
            await mortal.take([event for each in range(executions) for event in whole(f"e{death}-{each}")])
        await mortal.close()
    key = event_key((await store.find("e0-1")).number, 4)
    await store._database.events.update_one({"_id": key}, {"$set": {"message": b"\xff"}})
    await store.settle()
    told = [(await store.settle()).told for _ in range(3)]
    assert [len(each) for each in told] in ([9, 5, 0], [10, 4, 0])
    assert await counted(store) == {"completed": 14, "pending": 1}


@pytest.mark.parametrize("seed", range(2))
async def test_several_may_settle_while_others_take(url: str, seed: int) -> None:
    """What the dead ones have stored, and what others store of the same executions: all of it once."""
    chance = random.Random(seed)
    stores = [await opened(url, counts=False) for _ in range(3)]
    executions = {f"e{number}": whole(f"e{number}", chance.randrange(12)) for number in range(8)}
    for _ in range(4):
        mortal = await dead(url, chance.randrange(3, 40))
        with contextlib.suppress(Died):
            await mortal.take([event for events in executions.values() for event in events if chance.random() < 0.4])
        await mortal.close()
    late = [event for events in executions.values() for event in events]
    chance.shuffle(late)

    async def take() -> None:
        for first in range(0, len(late), 7):
            await stores[0].take(late[first : first + 7])

    async def settle(store: MongoStore) -> None:
        for _ in range(4):
            await store.settle()
            await store.reconcile()

    await asyncio.gather(take(), *map(settle, stores[1:]))
    for execution_id, events in executions.items():
        assert (await shown(stores[2], execution_id)).messages == [each.message for each in events]
    assert await counted(stores[0]) == {"completed": 8}
    assert await findings(stores[1]) == []
    for store in stores:
        await store.close()


async def test_one_that_was_recorded_and_forgotten_leaves_nothing(url: str, store: MongoStore) -> None:
    """Events that reach the database after their execution has gone are nobody's, and removed."""
    await store.record(new("e"))
    mortal = await dead(url, 1)
    with pytest.raises(Died):
        await mortal.take(whole("e"))
    await mortal.close()
    number = (await store.find("e")).number
    await store.take(whole("e"))
    assert await store.expire(2**53, 10) == 1
    await store._database.events.insert_one({"_id": event_key(number, 1), "message": whole("e")[0].message})
    assert await findings(store) == ["stray e"]
    await settled(store)
    assert await findings(store) == []


async def test_only_so_much_is_inspected_at_once(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many executions, or so many events; what is forgotten between them is left out."""
    for number in range(9):
        await store.take(whole(f"e{number}", number))
    await store._database.executions.update_many({"_id": {"$in": ["e1", "e2"]}}, {"$set": {"is_expired": True}})
    monkeypatch.setattr(limits, "STIGMER_INSPECTED_MAX", 2)
    monkeypatch.setattr(limits, "STIGMER_INSPECTED_EVENTS_MAX", 15)
    sizes: list[int] = []
    found: list[Inspected] = []
    after = 0
    while some := await store.inspect(after):
        after = some[-1].execution.number
        sizes.append(len(some))
        found += some
    assert [each.execution.id for each in found] == ["e0", "e3", "e4", "e5", "e6", "e7", "e8"]
    assert sizes == [2, 2, 1, 1, 1]
    for each in found:
        assert [message for _, message in each.events] == list((await shown(store, each.execution.id)).messages)
