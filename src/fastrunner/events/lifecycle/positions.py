"""Stage 6, events: how far each lifecycle sink has come in each shard: `lifecycle.db` in the data directory.

Rules: a position is noted after sending, so what is sent between a note and a crash is sent again. Sinks are called by
a hash of their URL, so there is nothing to seal. One that is taken out of the setting keeps its position.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import apsw

from fastrunner.engine.embedded.store.shared_file import SharedFile
from fastrunner.engine.embedded.store.statements import statements_in

__all__ = ["FILE_NAME", "Place", "PositionsFile"]

FILE_NAME: Final = "lifecycle.db"

Place = tuple[str, int]
"""(a sink's name, number of a shard)."""


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


_QUERIES: Final[Mapping[str, str]] = statements_in(_sql("queries"))
_SCHEMA: Final = (_sql("0001-positions"),)


class PositionsFile(SharedFile):
    """One connection; it belongs to one thread. Every method raises StorageFailed or StorageFull."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE_NAME, _SCHEMA)

    @property
    def may_be_lost(self) -> bool:
        """See SharedFile: sinks are new then."""
        return True

    def begin(self, names: Sequence[str], last_keys: Mapping[int, int]) -> dict[Place, int]:
        """How far sinks have come in shards, whose last rows are given: a new one begins behind those."""

        def note(db: apsw.Connection) -> dict[Place, int]:
            positions = {}
            for name in names:
                for shard, last_key in last_keys.items():
                    db.execute(_QUERIES["begin"], (name, shard, last_key))
                    noted = int(db.execute(_QUERIES["position"], (name, shard)).get)
                    # One beyond what there is comes from a shard that has been restored to what it was before.
                    positions[name, shard] = min(noted, last_key)
            return positions

        return self.written(note)

    def advance(self, positions: Mapping[Place, int]) -> None:
        """Notes how far sinks have come."""

        def note(db: apsw.Connection) -> None:
            for (name, shard), event_key in positions.items():
                db.execute(_QUERIES["advance"], (name, shard, event_key))

        self.written(note)
