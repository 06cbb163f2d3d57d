"""Stage 3, journal: the registry's file: `registry.db` in the data directory, one for all workers.

Rules:
- Any worker writes it. A write transaction takes turns with those of the others, and is durable when it returns; it
  blocks for its fsync, so nobody calls it on the loop. Look-ups are short keyed reads of the last commit.
- What is read is what was written: a document proves itself by its hash.
- A connection is opened when it is first needed, and again after it could not be: a disk that fails for a while refuses
  what needs the registry, and nothing else.
"""

import fcntl
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.embedded.store import faults
from fastrunner.engine.embedded.store.connection import connect, read_all
from fastrunner.engine.embedded.store.statements import statements_in
from fastrunner.errors import AlreadyRegistered, Damaged, StorageFailed, StorageFull, UnknownWorkflow
from fastrunner.registry.versions import rank_of

__all__ = ["After", "RegistryFile"]

FILE_NAME: Final = "registry.db"
_SCHEMA_VERSION: Final = 1


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


_QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))

After = tuple[str, str, str]
"""(namespace, name, version) of the last definition of a page."""


class RegistryFile:
    """One connection to the registry; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._connection: apsw.Connection | None = None

    def _db(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> apsw.Connection:
        # One after the other: who makes the file a journal of its kind waits for nobody who does the same.
        with self._path.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._prepared(connect(self._path))

    def _prepared(self, connection: apsw.Connection) -> apsw.Connection:
        try:
            connection.set_busy_timeout(limits.REGISTRY_WAIT_MS_MAX)
            version = int(connection.execute(_QUERIES["schema_version"]).get)
            if version > _SCHEMA_VERSION:
                raise StorageFailed(
                    f"{self._path} has schema version {version}, this version of fastrunner reads up to "
                    f"{_SCHEMA_VERSION}: run the version that wrote it, or a newer one"
                )
            connection.execute(_QUERIES["journal"]).fetchall()
            connection.execute(_QUERIES["durable"]).fetchall()
            if version < _SCHEMA_VERSION:
                connection.execute(_sql("0001-definitions")).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _tried(self, action: Callable[[apsw.Connection], Any]) -> Any:
        try:
            return action(self._db())
        except (apsw.Error, OSError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StorageFailed | StorageFull:
        refusal = faults.refusal_of(error, self._path.name, limits.COMMIT_RETRY_DELAY_S_MAX)
        return refusal or StorageFailed(f"{self._path.name} cannot be used: {error}")

    def find(self, ref: DefinitionRef) -> Definition:
        """One version, or the highest one. Raises UnknownWorkflow, Damaged."""
        name = "select_definition" if ref.version else "select_latest"
        parameters = (ref.namespace, ref.name, ref.version) if ref.version else (ref.namespace, ref.name)
        rows = self._tried(lambda db: read_all(db, _QUERIES[name], parameters))
        if not rows:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        version, registered_ms, is_latest, digest, document = rows[0]
        if sha256(document.encode("utf-8", "replace")).digest() != digest:
            raise Damaged(
                f"the registered document of {ref.namespace}/{ref.name}:{version} is damaged: register it again"
            )
        found = DefinitionRef(ref.namespace, ref.name, version)
        return Definition(found, registered_ms, bool(is_latest), document)

    def register(self, ref: DefinitionRef, document: str, now_ms: int) -> bool:
        """Whether this call has registered it. Raises AlreadyRegistered if another text is."""
        return bool(self._tried(lambda db: self._written(db, lambda: self._register(db, ref, document, now_ms))))

    def _register(self, db: apsw.Connection, ref: DefinitionRef, document: str, now_ms: int) -> bool:
        key = (ref.namespace, ref.name, ref.version)
        digest = sha256(document.encode()).digest()
        rows = read_all(db, _QUERIES["select_hash"], key)
        if not rows:
            db.execute(_QUERIES["insert_definition"], (*key, rank_of(ref.version), now_ms, digest, document))
            return True
        if rows[0][0] != digest:
            raise AlreadyRegistered(ref.namespace, ref.name, ref.version)
        if rows[0][1] != document:
            db.execute(_QUERIES["heal_definition"], (*key, document))
        return False

    def delete(self, ref: DefinitionRef) -> None:
        """Removes a version. Raises UnknownWorkflow."""
        self._tried(lambda db: self._written(db, lambda: self._delete(db, ref)))

    def _delete(self, db: apsw.Connection, ref: DefinitionRef) -> None:
        db.execute(_QUERIES["delete_definition"], (ref.namespace, ref.name, ref.version))
        if not db.changes():
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)

    def _written(self, db: apsw.Connection, action: Callable[[], Any]) -> Any:
        """What an action gives whose writes are one transaction, durable now."""
        db.execute(_QUERIES["begin"])
        try:
            outcome = action()
            db.execute(_QUERIES["commit"])
        except BaseException:
            if db.in_transaction:
                db.execute(_QUERIES["rollback"])
            raise
        return outcome

    def page(
        self, namespace: str, name: str, within: frozenset[str] | None, after: After | None, count_max: int
    ) -> list[Definition]:
        """Definitions after a place, of some namespaces (None: of all), in the order of lists, without documents."""
        after_namespace, after_name, after_version = after or ("", "", "")
        parameters = {
            "namespace": namespace,
            "name": name,
            "within": None if within is None else orjson.dumps(sorted(within)).decode(),
            "after_namespace": after_namespace,
            "after_name": after_name,
            "after_rank": rank_of(after_version) if after_version else b"",
            "after_version": after_version,
            "count_max": count_max,
        }
        rows = self._tried(lambda db: read_all(db, _QUERIES["list_definitions"], parameters))
        return [Definition(DefinitionRef(*row), registered_ms, bool(latest)) for *row, registered_ms, latest in rows]

    def close(self) -> None:
        """Gives the file back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
