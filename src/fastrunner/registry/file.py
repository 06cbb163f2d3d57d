"""Stage 3, journal: the registry's file: `registry.db` in the data directory, one for all workers.

Rule: what is read is what was written: a document proves itself by its hash.
"""

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Final

import apsw
import orjson

from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.engine.embedded.store.statements import statements_in
from fastrunner.errors import AlreadyRegistered, Damaged, UnknownWorkflow
from fastrunner.registry.versions import rank_of

__all__ = ["FILE_NAME", "QUERIES", "SCHEMA_VERSION", "After", "RegistryFile", "is_whole"]

FILE_NAME: Final = "registry.db"


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))

_SCHEMA: Final = (_sql("0001-definitions"), _sql("0002-resources"))
SCHEMA_VERSION: Final = len(_SCHEMA)
"""Of the file as this version writes it."""

After = tuple[str, str, str]
"""(namespace, name, version) of the last definition of a page."""


class RegistryFile(SharedFile):
    """One connection to the registry; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE_NAME, _SCHEMA)

    def find(self, ref: DefinitionRef) -> Definition:
        """One version, or the highest one. Raises UnknownWorkflow, Damaged."""
        name = "select_definition" if ref.version else "select_latest"
        parameters = (ref.namespace, ref.name, ref.version) if ref.version else (ref.namespace, ref.name)
        rows = self.tried(lambda db: read_all(db, QUERIES[name], parameters))
        if not rows:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        version, registered_ms, is_latest, *proven = rows[0]
        if not is_whole(*proven):
            raise Damaged(
                f"the registered document of {ref.namespace}/{ref.name}:{version} is damaged: register it again"
            )
        found = DefinitionRef(ref.namespace, ref.name, version)
        return Definition(found, registered_ms, bool(is_latest), proven[1], proven[3])

    def has_text(self, document: str) -> bool:
        """Whether some version is registered with a text, and undamaged."""
        digest = sha256(document.encode()).digest()
        rows = self.tried(lambda db: read_all(db, QUERIES["select_by_hash"], (digest,)))
        return any(is_whole(*row) for row in rows)

    def register(self, ref: DefinitionRef, document: str, now_ms: int, pinned: str = "") -> bool:
        """Whether this call has registered it. Of a text that is, the texts from elsewhere stay those that it was
        registered with. Raises AlreadyRegistered if another text is."""
        return self.written(lambda db: self._register(db, ref, document, now_ms, pinned))

    def _register(self, db: apsw.Connection, ref: DefinitionRef, document: str, now_ms: int, pinned: str) -> bool:
        key = (ref.namespace, ref.name, ref.version)
        digest = sha256(document.encode()).digest()
        rows = read_all(db, QUERIES["select_hash"], key)
        if not rows:
            texts = (digest, document, _pinned_hash(pinned), pinned)
            db.execute(QUERIES["insert_definition"], (*key, rank_of(ref.version), now_ms, *texts))
            return True
        if rows[0][0] != digest:
            raise AlreadyRegistered(ref.namespace, ref.name, ref.version)
        if not is_whole(*rows[0]):
            db.execute(QUERIES["heal_definition"], (*key, document, _pinned_hash(pinned), pinned))
        return False

    def delete(self, ref: DefinitionRef) -> None:
        """Removes a version. Raises UnknownWorkflow."""
        self.written(lambda db: self._delete(db, ref))

    def _delete(self, db: apsw.Connection, ref: DefinitionRef) -> None:
        db.execute(QUERIES["delete_definition"], (ref.namespace, ref.name, ref.version))
        if not db.changes():
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)

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
        rows = self.tried(lambda db: read_all(db, QUERIES["list_definitions"], parameters))
        return [Definition(DefinitionRef(*row), registered_ms, bool(latest)) for *row, registered_ms, latest in rows]


def _pinned_hash(pinned: str) -> bytes | None:
    return sha256(pinned.encode()).digest() if pinned else None


def is_whole(digest: bytes, document: str, pinned_digest: bytes | None, pinned: str) -> bool:
    """Whether texts are those that were registered."""
    own, others = (text.encode("utf-8", "replace") for text in (document, pinned))
    return sha256(own).digest() == digest and pinned_digest == (sha256(others).digest() if others else None)
