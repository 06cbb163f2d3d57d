"""Support: a data directory made from a copy elsewhere, for `fastrunner data restore --from`.

    parts, in their order -> pages written into files -> at the last cut they get their names, then the manifest

Rules: nothing is taken that does not prove itself: each part by its hash, and as the one that follows from the last.
What comes behind the last cut is left out, so all files are as of one moment. Only an empty folder is restored into, or
what a restore that was broken off has left in one; it is no data directory before it is whole on disk.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from fastrunner.base import limits
from fastrunner.blobs import Blob, BlobMissing, BlobStore, Listed
from fastrunner.engine.embedded.store.manifest import LOCK_NAME, MANIFEST_NAME, RESTORING, DataDirectoryRefused, locked
from fastrunner.replica.parts import ALIVE, Damaged, FilePages, Part, digest_of
from fastrunner.replica.retention import generations

__all__ = ["Restored", "restore_copy"]


Advance = Callable[[int], None]


@dataclass(slots=True)
class Restored:
    """What has been restored."""

    generation: str
    """From which one."""
    until_ms: int
    """Everything that was acknowledged before is there."""
    changed_ms: dict[str, int] = field(default_factory=dict)
    """Until when the parts were sent that last changed each file."""
    size_bytes: int = 0
    """What the files take."""
    left_out: list[str] = field(default_factory=list)
    """Sentences about what is in the copy and could not be used."""


async def restore_copy(
    store: BlobStore, folder: Path, begun: Callable[[int], Advance], generation: str = ""
) -> Restored:
    """Makes a data directory of a generation; by default of the one that was begun last, or, should that not be
    whole, the one before. `begun` is told how many parts there are.

    Raises DataDirectoryRefused, StorageFailed, OSError.
    """
    await asyncio.to_thread(folder.mkdir, 0o700, parents=True, exist_ok=True)
    with locked(folder):
        _refuse_if_used(folder)
        left_out: list[str] = []
        for name, listed in await _candidates(store, generation):
            restoring = _Restoring(folder, name)
            try:
                restored = await restoring.run(store, listed, begun(len(listed)))
            except Damaged as error:
                left_out.append(f"generation {name}: {error}")
                continue
            finally:
                restoring.close()
            restored.left_out = left_out + restored.left_out
            return restored
    raise DataDirectoryRefused("nothing there can be restored: " + "; ".join(left_out))


def _refuse_if_used(folder: Path) -> None:
    """Raises DataDirectoryRefused for a folder with anything but what a restore that was broken off has left."""
    is_broken_off = (folder / f"{MANIFEST_NAME}{RESTORING}").exists()
    for path in folder.iterdir():
        is_ours = path.name.endswith(RESTORING) or (is_broken_off and path.suffix == ".db")
        if path.name != LOCK_NAME and not is_ours:
            raise DataDirectoryRefused(f"{folder} is not empty ({path.name} is in it): name a folder that is")


async def _candidates(store: BlobStore, wanted: str) -> list[tuple[str, list[Listed]]]:
    """Generations, the one that was begun last first. Raises DataDirectoryRefused if there is none, or if it is to be
    said which one."""
    there = await generations(store)
    found = {key: names for key, names in there.items() if not wanted or key[1] == wanted}
    if not found:
        names = ", ".join(sorted(name for _, name in there))
        raise DataDirectoryRefused(
            f"there is no generation {wanted} there, but {names}" if names else "there is no copy of a data directory"
        )
    newest: dict[str, str] = {}
    for directory, name in sorted(found):
        newest[directory] = name
    if len(newest) > 1:
        raise DataDirectoryRefused(
            f"there are copies of {len(newest)} data directories there: name a generation of the one that is meant, "
            f"the last ones are {', '.join(sorted(newest.values()))}"
        )
    # Names sort as they were begun. One without until when it was written is just being begun, or was given up.
    whole = {key for key, names in found.items() if any(each.name.endswith(f"/{ALIVE}") for each in names)}
    return [(key[1], found[key]) for key in sorted(found, key=lambda key: (key in whole, key[1]), reverse=True)]


class _Restoring:
    """One generation on its way into a folder."""

    def __init__(self, folder: Path, generation: str) -> None:
        self._folder = folder
        self._generation = generation
        self._files: dict[str, int] = {}
        """Descriptors by name."""
        self._changed_ms: dict[str, int] = {}

    async def run(self, store: BlobStore, listed: Sequence[Listed], advance: Advance) -> Restored:
        """Restores it. Raises Damaged if it has no cut, StorageFailed, OSError."""
        for draft in (*self._folder.glob(f"*{RESTORING}"), *self._folder.glob("*.db")):
            draft.unlink()
        (self._folder / f"{MANIFEST_NAME}{RESTORING}").touch(mode=0o600)
        names = sorted(each.name for each in listed if each.name.rpartition("/")[2].isdigit())
        cut: Part | None = None
        behind: list[str] = []
        left_out: list[str] = []
        try:
            async for name, part in _parts(store, names, self._generation):
                if cut is not None and not part.is_cut:
                    # It counts only if another cut follows; there may be too many to keep them.
                    behind.append(name)
                else:
                    for each in behind:
                        await asyncio.to_thread(self._take, Part.decode((await store.get(each)).data))
                    behind.clear()
                    await asyncio.to_thread(self._take, part)
                    cut = part if part.is_cut else None
                advance(1)
        except (Damaged, BlobMissing) as error:
            left_out.append(str(error))
        if cut is None:
            raise Damaged(left_out[0] if left_out else "it was given up before all of the files were in it")
        if behind:
            left_out.append(f"{len(behind)} parts after the last cut, which another one was to follow")
        size_bytes = await asyncio.to_thread(self._complete, cut)
        until_ms = max(cut.time_ms, await self._alive_ms(store, listed, cut.number))
        return Restored(self._generation, until_ms, self._changed_ms, size_bytes, left_out)

    async def _alive_ms(self, store: BlobStore, listed: Sequence[Listed], cut_number: int) -> int:
        """Until when nothing was committed after a cut."""
        for each in listed:
            if each.name.endswith(f"/{ALIVE}"):
                try:
                    said = orjson.loads((await store.get(each.name)).data)
                    datetime.fromtimestamp(said["time_ms"] / 1000, UTC)
                    return int(said["time_ms"]) if said["number"] == cut_number else 0
                except (BlobMissing, ValueError, KeyError, TypeError, OverflowError, OSError):
                    # It is missing, or says no moment: then what the cut says has to do.
                    return 0
        return 0

    def _take(self, part: Part) -> None:
        for name, pages in part.files.items():
            self._write(name, pages)
            self._changed_ms[name] = part.time_ms

    def _write(self, name: str, pages: FilePages) -> None:
        descriptor = self._files.get(name)
        if descriptor is None:
            path = self._folder / f"{name}{RESTORING}"
            descriptor = self._files[name] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if pages.is_whole:
            os.ftruncate(descriptor, 0)
        for number, page in pages.pages.items():
            os.pwrite(descriptor, page, (number - 1) * pages.page_size_bytes)
        if pages.pages_count:
            os.ftruncate(descriptor, pages.pages_count * pages.page_size_bytes)

    def _complete(self, cut: Part) -> int:
        """Gives the files their names; how many bytes they have."""
        size_bytes = 0
        for name, descriptor in self._files.items():
            os.fsync(descriptor)
            size_bytes += os.fstat(descriptor).st_size
            (self._folder / f"{name}{RESTORING}").rename(self._folder / name)
        draft = self._folder / f"{MANIFEST_NAME}{RESTORING}"
        with draft.open("wb") as file:
            file.write(cut.manifest.encode())
            file.flush()
            os.fsync(file.fileno())
        _sync(self._folder)
        draft.rename(self._folder / MANIFEST_NAME)
        _sync(self._folder)
        return size_bytes

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


async def _parts(store: BlobStore, names: Sequence[str], generation: str) -> AsyncIterator[tuple[str, Part]]:
    """Parts that follow from one another, with their names. Raises Damaged, BlobMissing, StorageFailed."""
    previous, number = "", 0
    async for name, blob in _fetched(store, names):
        try:
            part = Part.decode(blob.data)
            if (part.generation, part.number, part.previous) != (generation, number, previous):
                raise Damaged("it does not follow from the one before")
        except Damaged as error:
            raise Damaged(f"part {number} and what follows, {len(names) - number} in all: {error}") from None
        yield name, part
        previous, number = digest_of(blob.data), number + 1


async def _fetched(store: BlobStore, names: Sequence[str]) -> AsyncIterator[tuple[str, Blob]]:
    """Objects in order, some of them fetched ahead. Raises BlobMissing, StorageFailed."""
    ahead: deque[tuple[str, asyncio.Task[Blob]]] = deque()
    waiting = iter(names)
    try:
        while True:
            while len(ahead) < limits.REPLICA_FETCHES_MAX and (name := next(waiting, None)) is not None:
                ahead.append((name, asyncio.create_task(store.get(name))))
            if not ahead:
                return
            name, fetching = ahead.popleft()
            yield name, await fetching
    finally:
        for _, fetching in ahead:
            fetching.cancel()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
