"""Support: a store on MongoDB whose service dies after so many single writes, and what it does until then."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pymongo.errors import BulkWriteError

from fastrunner.base.clock import wall_ms
from fastrunner.stigmer.store import Refusal, Store, WorkflowKey
from fastrunner.stigmer.store.mongodb.store import MongoStore
from tests.unit.stigmer_stores import arrived, new, whole


class Died(Exception):
    """The service, in the middle of something."""


class Mortal:
    """A collection whose client dies after so many single writes, in the middle of a bulk as well."""

    def __init__(self, collection: Any, life: "Life") -> None:
        self._collection = collection
        self._life = life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)
        if name in ("insert_many", "bulk_write"):
            return lambda works, **more: self._several(method, works, **more)
        if name.startswith(("insert", "update", "delete", "find_one_and")):
            return lambda *args, **more: self._single(method, *args, **more)
        self._life.check()
        return method

    async def _single(self, method: Any, *args: Any, **more: Any) -> Any:
        self._life.check()
        found = await method(*args, **more)
        self._life.spend(1)
        return found

    async def _several(self, method: Any, works: Sequence[Any], **more: Any) -> Any:
        self._life.check()
        count = min(len(works), self._life.left)
        try:
            found = await method(works[:count], **more)
        except BulkWriteError:
            self._life.spend(count)
            raise
        self._life.spend(count)
        return found


class Life:
    """How many writes are left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def check(self) -> None:
        if self.left <= 0:
            raise Died

    def spend(self, count: int) -> None:
        self.left -= count
        self.check()


def bound(store: MongoStore, life: Life) -> None:
    """Lets a store live so long."""
    for name in ("events", "executions", "commits", "counters", "violations", "workflows", "service"):
        setattr(store._database, name, Mortal(getattr(store._database, name), life))


def day(store: Store) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """What happens, step by step; whoever asked for a step that died asks again."""
    first, second = whole("first"), whole("second", 6)
    refusal = Refusal(3, "no")
    return [
        lambda: store.add_workflow(WorkflowKey("shop", "order", "1.0.0"), "text", 5),
        lambda: store.record(new("first")),
        lambda: store.record(new("refused")),
        lambda: store.take(first[:4]),
        lambda: store.launched("first", None, wall_ms()),
        lambda: store.launched("refused", refusal, wall_ms()),
        lambda: store.take([*second[:3], *second[5:9], *first[6:]]),
        lambda: store.record(new("second")),
        lambda: store.take([*first[4:], *second[3:5], arrived("third", 1, "workflow_started")]),
        lambda: store.expire(wall_ms() + 3_700_000, 10),
        lambda: store.take(second),
    ]
