"""Support: one generation of the copy as whoever writes it has it: what comes next, and what a crash leaves of it.

Rules: a part is sent again and again, unchanged, until the store has it; then the place behind it is noted in the data
directory. So a crash leaves a store with one part more than is noted, at most, which is taken up by its hash. What is
noted needs no disk to wait for: a note that a power cut takes back, or spoils, only has another generation begin.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from fastrunner.base import limits
from fastrunner.blobs import BlobMissing, BlobStore
from fastrunner.engine.embedded.store.kept_journals import FOLDER_NAME
from fastrunner.replica.journals import Position
from fastrunner.replica.parts import ALIVE, BEGUN, FOLDER, Damaged, Part, digest_of, name_of

__all__ = ["Stream", "as_json"]

_NOTE_NAME: Final = "position.json"


@dataclass(slots=True)
class Stream:
    """A generation that is being written."""

    directory: str
    """Of which data directory it is."""
    generation: str
    """Its name; those that begin later sort behind."""
    number: int = 0
    """Of the next part."""
    previous: str = ""
    """Hash of the last one."""
    positions: dict[str, Position] = field(default_factory=dict)
    """Where the journal of each file has been read up to."""
    cut_ms: int = 0
    """What was acknowledged before is in the parts up to the last cut; 0 before the first one."""
    cut_number: int = -1
    """Which part that is."""
    manifest: str = ""
    """That of the last cut."""
    begun_size_bytes: int = 0
    """What its snapshot has."""
    added_size_bytes: int = 0
    """What has come since."""

    @classmethod
    def new(cls, directory: str, generation: str) -> "Stream":
        """One that has nothing yet."""
        return cls(directory, generation)

    @property
    def is_old(self) -> bool:
        """Whether a restore would have much to go through."""
        bound = max(
            limits.REPLICA_GENERATION_SIZE_BYTES_MIN, limits.REPLICA_GENERATION_GROWTH_MAX * self.begun_size_bytes
        )
        return self.number > limits.REPLICA_GENERATION_PARTS_MAX or self.added_size_bytes > bound

    @property
    def has_uncut_parts(self) -> bool:
        """Whether there are parts after the last cut."""
        return self.number != self.cut_number + 1

    def part(self, time_ms: int) -> Part:
        """The next part, empty."""
        return Part(self.generation, self.number, self.previous, time_ms)

    def stored(self, part: Part, data: bytes) -> None:
        """The store has the next part."""
        self.number, self.previous = part.number + 1, digest_of(data)
        self.positions.update(_positions(part.positions))
        if self.cut_ms:
            self.added_size_bytes += len(data)
        else:
            self.begun_size_bytes += len(data)
        if part.is_cut:
            self.cut_ms, self.cut_number, self.manifest = part.time_ms, part.number, part.manifest

    @property
    def begun_name(self) -> str:
        """What is there as long as the generation is."""
        return f"{FOLDER}/{self.directory}/{self.generation}/{BEGUN}"

    @property
    def alive_name(self) -> str:
        """Where it says until when it was written."""
        return f"{FOLDER}/{self.directory}/{self.generation}/{ALIVE}"

    def alive(self, time_ms: int) -> bytes:
        """What it says there."""
        return orjson.dumps({"number": self.cut_number, "time_ms": time_ms})

    # --- what a crash leaves ---

    def note(self, folder: Path, url: str) -> None:
        """Writes down where it stands. Raises OSError."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["positions"] = {name: as_json(position) for name, position in self.positions.items()}
        path = folder / FOLDER_NAME / _NOTE_NAME
        draft = path.with_suffix(".new")
        draft.write_bytes(orjson.dumps({"url": url, **fields}))
        os.replace(draft, path)

    @classmethod
    def noted(cls, folder: Path, url: str, directory: str) -> "Stream | None":
        """What was noted for a URL; None if nothing was, or nothing that can be read."""
        try:
            fields = orjson.loads((folder / FOLDER_NAME / _NOTE_NAME).read_bytes())
            positions = _positions(fields.pop("positions"))
            if fields.pop("url") != url or fields["directory"] != directory:
                return None
            return cls(**fields, positions=positions)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    async def is_in(self, store: BlobStore) -> bool:
        """Whether the store still has it. Raises StorageFailed."""
        try:
            await store.get(self.begun_name)
        except BlobMissing:
            return False
        return True

    async def take_up(self, store: BlobStore) -> bool:
        """Goes on behind what the store has of it; whether that is what was noted. Raises StorageFailed."""
        if not await self.is_in(store):
            return False
        try:
            last = await store.get(name_of(self.directory, self.generation, self.number - 1))
        except BlobMissing:
            return False
        if digest_of(last.data) != self.previous:
            return False
        try:
            data = (await store.get(name_of(self.directory, self.generation, self.number))).data
            part = Part.decode(data)
        except BlobMissing:
            return True
        except Damaged:
            return False
        if part.previous != self.previous:
            return False
        self.stored(part, data)
        return True


def as_json(position: Position) -> list[Any]:
    """A place, as parts and notes have it."""
    return [position.salts.hex(), position.frames, position.sums.hex()]


def _positions(fields: Mapping[str, list[Any]]) -> dict[str, Position]:
    return {
        name: Position(bytes.fromhex(salts), int(frames), bytes.fromhex(sums))
        for name, (salts, frames, sums) in fields.items()
    }
