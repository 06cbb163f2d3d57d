"""Stage 3, journal: why a worker's files cannot be used as they should be, and whom that is told.

Rule: each change is told once, as one text over all shards and the disk.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from fastrunner.base import limits
from fastrunner.base.deaths import Death
from fastrunner.base.folders import GONE, Identity, identity_of
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.disk import room, shortage
from fastrunner.engine.embedded.store.shared_file import identity_of_database, missing
from fastrunner.errors import StorageFailed, StorageFull

__all__ = ["StorageTroubles"]

_log = logging.getLogger(__name__)


class StorageTroubles:
    """The troubles of one worker with its data directory."""

    def __init__(self, folder: Path, shards: Shards, metrics: Metrics) -> None:
        self.disk_full: StorageFull | None = None
        """Set while the disk is nearly full."""
        self._gone: StorageFailed | None = None
        """Set while the folder, or a file in it, is not where it was."""
        self._identities = {folder: identity_of(folder)}
        """What is to be found where: the folder, and the files of open shards."""
        self._shared: dict[Path, Identity] = {}
        """Files that all processes share, as they were first seen."""
        self._unopened: StorageFull | StorageFailed | None = None
        """Why the shards cannot be opened yet."""
        self.listener: Callable[[str], None] | None = None
        """Hears why executions are not taken, and an empty text when they are again."""
        self._folder = folder
        self._shards = shards
        self._metrics = metrics
        self._told = ""
        self.look_at_disk()

    async def opened(self, shard: Shard, death: Death | None) -> None:
        """Opens a shard as soon as the disk lets it; what keeps it is told meanwhile."""
        delay_s = limits.COMMIT_RETRY_DELAY_S_MIN
        while True:
            try:
                await shard.open(death)
                break
            except (StorageFull, StorageFailed) as trouble:
                self._unopened = trouble
                self.changed()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, limits.COMMIT_RETRY_DELAY_S_MAX)
        self._unopened = None
        self._identities |= {path: self._identity(path) for path in shard.store.files if path.exists()}
        self.changed()

    @property
    def refusal(self) -> StorageFull | StorageFailed | None:
        """Why nothing new is taken, whatever shard it would go to."""
        return self._gone or self.disk_full

    def look_at_disk(self) -> bool:
        """Whether the disk is nearly full, or what is written to is gone: that is lost with the process."""
        moved = self._moved()
        if moved:
            if self._gone is None or self._gone.message != moved:
                self._gone = StorageFailed(moved, retry_after_s=10.0)
                _log.error("%s", moved)
            return True
        self._gone = None
        found = room(self._folder)
        if found is not None:
            self._metrics.disk_free.set(found.free_bytes)
            self._metrics.disk_reserve.set(found.reserve_bytes)
            self._metrics.data_files.set(found.files_bytes)
        self.disk_full = shortage(found, self.disk_full)
        return self.refusal is not None

    def _identity(self, path: Path) -> Identity | None:
        is_database = path.suffix == ".db" and path != self._folder
        return identity_of_database(path) if is_database else identity_of(path)

    def _moved(self) -> str:
        """What is not where it was, in words; empty if all is. Files that are being closed go."""
        for path, identity in self._identities.items():
            if self._identity(path) != identity and not self._shards.closing:
                return GONE.format(f"the data directory {path}" if path == self._folder else path)
        return ""

    def _shared_troubles(self) -> list[str]:
        """Of files that all processes share. Executions that need none of them are taken all the same."""
        troubles = []
        for lock in sorted(self._folder.glob("*.lock")):
            path = lock.with_suffix(".db")
            if path.name.startswith("shard-"):
                continue
            identity = identity_of_database(path)
            if identity is not None and identity == self._shared.setdefault(path, identity):
                continue
            trouble = GONE.format(path) if path in self._shared else missing(path)
            troubles += [trouble] if trouble else []
        return troubles

    def changed(self) -> None:
        """Something may have come or gone."""
        troubles = [shard.trouble for shard in self._shards if shard.trouble]
        if self._unopened is not None:
            troubles.append(self._unopened.message)
        if self._gone is not None:
            troubles.append(self._gone.message)
        self._metrics.storage_failing.set(len(troubles))
        if self._gone is None:
            troubles += self._shared_troubles()
        if self.disk_full is not None:
            troubles.append(self.disk_full.message)
        trouble = "; ".join(troubles)
        if trouble != self._told and not self._shards.closing:
            self._told = trouble
            if self.listener is not None:
                self.listener(trouble)
