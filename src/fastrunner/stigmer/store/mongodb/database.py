"""Support: the connection to MongoDB: how it is made, its indexes, and what its failures are here.

Rule: the URL, which may hold a password, is in no log and no error.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from pymongo import ASCENDING, DESCENDING, AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, DuplicateKeyError, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fastrunner.base import limits
from fastrunner.errors import StorageFailed, StorageFull
from fastrunner.stigmer.store.mongodb.documents import Document

__all__ = ["Database", "failing"]

P = ParamSpec("P")
T = TypeVar("T")
Collection = AsyncCollection[Document]

_SCHEMA_VERSION: Final = 1
_NAME: Final = "stigmer"
"""The database where the URL names none."""
_DISK_FULL: Final = frozenset({14031, 28})
_INDEXES: Final[Mapping[str, tuple[tuple[tuple[str, int], ...], ...]]] = {
    # The filters of lists, each with its order; then what is to be started, counted, forgotten, and what waits.
    "executions": (
        (("number", DESCENDING),),
        (("status", ASCENDING), ("number", DESCENDING)),
        (("namespace", ASCENDING), ("number", DESCENDING)),
        (("namespace", ASCENDING), ("name", ASCENDING), ("number", DESCENDING)),
        (("namespace", ASCENDING), ("name", ASCENDING), ("status", ASCENDING), ("number", DESCENDING)),
        (("name", ASCENDING), ("number", DESCENDING)),
        (("version", ASCENDING), ("number", DESCENDING)),
        (("launch", ASCENDING), ("number", ASCENDING)),
        (("is_due", ASCENDING), ("number", ASCENDING)),
        (("expires_ms", ASCENDING),),
        (("gap_since_ms", ASCENDING),),
    ),
    "workflows": ((("namespace", ASCENDING), ("name", ASCENDING), ("rank", DESCENDING), ("version", DESCENDING)),),
    "violations": ((("execution_id", ASCENDING), ("sequence", ASCENDING)),),
}


class Database:
    """One connection pool, and the collections; made and used on one loop."""

    def __init__(self, url: str) -> None:
        """Raises ValueError, without the URL, if it is none."""
        call_ms = int(limits.STIGMER_STORE_CALL_S_MAX * 1000)
        find_ms = int(limits.STIGMER_STORE_FIND_S_MAX * 1000)
        try:
            self._client: AsyncMongoClient[Document] = AsyncMongoClient(
                url, appname="fastrunner-stigmer", socketTimeoutMS=call_ms, connectTimeoutMS=find_ms,
                serverSelectionTimeoutMS=find_ms, waitQueueTimeoutMS=call_ms,
            )  # fmt: skip
            found: AsyncDatabase[Document] = self._client.get_default_database(_NAME).with_options(
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=WriteConcern("majority", j=True),
            )
        except (InvalidURI, ConfigurationError, ValueError, TypeError):
            raise ValueError(
                "is no URL of a MongoDB: expected mongodb://user:password@host:port/database or mongodb+srv://..., "
                "with user and password escaped as in URLs"
            ) from None
        self.events: Collection = found["events"]
        self.executions: Collection = found["executions"]
        self.commits: Collection = found["commits"]
        self.counters: Collection = found["counters"]
        self.violations: Collection = found["violations"]
        self.workflows: Collection = found["workflows"]
        self.service: Collection = found["service"]
        self._database = found

    async def open(self) -> None:
        """Makes what is missing of indexes and single documents."""
        await self.seed({"_id": "schema", "version": _SCHEMA_VERSION})
        schema = await self.service.find_one({"_id": "schema"})
        if schema is None or schema["version"] != _SCHEMA_VERSION:
            raise StorageFailed(
                f"the database {self._database.name} has schema {schema and schema['version']}, and this version of "
                f"fastrunner has {_SCHEMA_VERSION}: run the version that wrote it, or a newer one"
            )
        await self.seed({"_id": "numbers", "value": 0})
        await self.seed({"_id": "moves", "batch": 0, "plan": None})
        for name, keys in _INDEXES.items():
            for key in keys:
                await self._database[name].create_index(list(key))

    async def take_numbers(self, count: int) -> int:
        """The first of so many numbers that nobody else has."""
        found = await self.service.find_one_and_update({"_id": "numbers"}, {"$inc": {"value": count}})
        assert found is not None, "it is there since the store was opened"
        return int(found["value"]) + 1

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.close()

    async def seed(self, document: Document) -> None:
        """Keeps one of the service's documents, unless it is there."""
        try:
            await self.service.insert_one(document)
        except DuplicateKeyError:
            return


def failing(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method of the store that raises StorageFailed or StorageFull where the driver raises its own errors."""

    @wraps(method)
    async def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except PyMongoError as error:
            raise refusal_of(error) from None

    return tried


def refusal_of(error: PyMongoError) -> StorageFailed | StorageFull:
    """What a failure of the driver is to others. Its words name servers, which are no secret, at length."""
    code = getattr(error, "code", None)
    words = " ".join(str(error).partition(", full error:")[0].partition(", Timeout:")[0].split())
    if code in _DISK_FULL:
        return StorageFull(f"MongoDB's disk is full: {words[:300]}")
    return StorageFailed(f"MongoDB cannot be used ({type(error).__name__}: {words[:300]}): try again")
