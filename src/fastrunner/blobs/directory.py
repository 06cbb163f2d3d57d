"""Stage 3, journal: blobs in a folder, maybe on a volume that many machines mount.

Rules: a file is written under a name of its own, reaches the disk, and then gets its name in one step, which reaches
the disk, too; so nobody sees half of one, whenever a machine is lost. Work is done in threads: volumes may be slow.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

from fastrunner.blobs import Blob, BlobMissing, Listed
from fastrunner.errors import StorageFailed

__all__ = ["Directory"]

T = TypeVar("T")

_DRAFT: Final = ".draft-"


class Directory:
    """See BlobStore."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: bytes) -> None:
        """See BlobStore."""
        await self._tried(lambda: self._write(name, data, os.replace))

    async def put_new(self, name: str, data: bytes) -> bool:
        """See BlobStore."""

        def written() -> bool:
            try:
                self._write(name, data, os.link)
            except FileExistsError:
                return False
            return True

        return await self._tried(written)

    async def get(self, name: str) -> Blob:
        """See BlobStore."""

        def read() -> Blob:
            try:
                with (self._folder / name).open("rb") as file:
                    return Blob(file.read(), *_marks(os.fstat(file.fileno())))
            except FileNotFoundError:
                raise BlobMissing(name) from None

        return await self._tried(read)

    async def names(self, prefix: str) -> AsyncIterator[Listed]:
        """See BlobStore."""
        for listed in await self._tried(lambda: list(self._below(prefix))):
            yield listed

    async def delete(self, name: str) -> None:
        """See BlobStore. Folders that become empty stay: somebody may be about to write there."""
        await self._tried(lambda: (self._folder / name).unlink(missing_ok=True))

    def _write(self, name: str, data: bytes, give_name: Callable[[Path, Path], None]) -> None:
        path = self._folder / name
        made = _make_folders(path.parent)
        draft = path.with_name(f"{_DRAFT}{uuid4().hex}")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            give_name(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        for folder in (path.parent, *made):
            _sync_folder(folder)

    def _below(self, prefix: str) -> Iterator[Listed]:
        for folder, _, files in os.walk(self._folder / prefix):
            for file in files:
                path = Path(folder, file)
                if not file.startswith(_DRAFT):
                    try:
                        facts = path.stat()
                    except FileNotFoundError:
                        # Deleted meanwhile.
                        continue
                    # Of a pipe nobody would ever have the end.
                    if stat.S_ISREG(facts.st_mode):
                        yield Listed(path.relative_to(self._folder).as_posix(), *_marks(facts))

    async def _tried(self, action: Callable[[], T]) -> T:
        try:
            # Whoever asked may leave; what has begun is finished.
            return await asyncio.shield(asyncio.to_thread(action))
        except OSError as error:
            raise StorageFailed(f"the blob store in {self._folder} cannot be used: {error.strerror}") from None


def _make_folders(folder: Path) -> list[Path]:
    """Makes what is missing; gives the folders that have got a new name."""
    changed: list[Path] = []
    missing = folder
    while not missing.exists():
        missing = missing.parent
        changed.append(missing)
    folder.mkdir(parents=True, exist_ok=True)
    return changed


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _marks(facts: os.stat_result) -> tuple[int, str]:
    """When a file was written, and what tells it from others of its name."""
    return facts.st_mtime_ns // 1_000_000, f"{facts.st_mtime_ns}-{facts.st_ino}-{facts.st_size}"
