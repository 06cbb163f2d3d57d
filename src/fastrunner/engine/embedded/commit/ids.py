"""Stage 3, journal: the ids of one shard, as others need them: in the table of places, and in a second copy on disk.

Theory of operation. When the shard is opened, the table is made to say what the file says: what a predecessor claimed
and did not commit goes. From then on an id enters the table before its execution is written, and the copy before the
commit; both may name more ids than live here, and never fewer. If the file's index cannot be read, the copy stands in
for it: then no id of the shard is accepted anew elsewhere. Without either, nobody can tell what is new.

Rules: only the shard's owner calls any of this. Nothing is let go of while a commit that has failed may still turn out
to be in the file, as it may if the process is killed before the next one: then another worker may have the id, too.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fastrunner._wire import Placement, TableBusy
from fastrunner.base import limits
from fastrunner.engine.embedded.store.changes import Change
from fastrunner.engine.embedded.store.identities import Identities
from fastrunner.errors import StorageFailed

__all__ = ["ShardIds"]

_log = logging.getLogger(__name__)


class ShardIds:
    """Which executions one shard has."""

    def __init__(self, number: int, path: Path, table: Placement, key: bytes) -> None:
        """`path` is the shard's file, `key` the table's."""
        self._number = number
        self._table = table
        self._copy = Identities(path.with_suffix(".ids"), key)
        self._held: list[str] | None = None
        """What is let go of with the next commit; None while that need not be waited for."""

    def settle(self, stored: Callable[[], Iterator[str]]) -> None:
        """Makes table and copy say what the file says. Raises StorageFailed."""
        try:
            self._settle(stored)
        except TableBusy as error:
            raise StorageFailed(f"shard {self._number} cannot be opened: {error}") from error
        except OSError as error:
            raise StorageFailed(f"the second copy of shard {self._number}'s ids cannot be used: {error}") from error

    def _settle(self, stored: Callable[[], Iterator[str]]) -> None:
        copy = self._copy.open()
        try:
            self._table.settle(self._number, stored())
        except StorageFailed as error:
            if copy.is_whole:
                _log.error("the ids of shard %d are taken from their second copy: %s", self._number, error.message)
                self._table.settle_hashes(self._number, copy.hashes)
            else:
                _log.error(
                    "the ids of shard %d cannot be read, nor can their second copy (%s): no runner of this directory "
                    "can tell what is new. Restore the shard from a backup: %s",
                    self._number,
                    copy.trouble,
                    error.message,
                )
            self._table.set_known(self._number, copy.is_whole)
            return
        hashes = self._table.hashes(self._number)
        if not copy.is_whole or copy.hash_count > 2 * len(hashes) // 8 + limits.IDS_COPY_SURPLUS_COUNT_MAX:
            self._copy.rewrite(hashes)
        self._table.set_known(self._number, True)

    def write(self, changes: Iterable[Change]) -> None:
        """Writes down the new ids of a commit; call before it. Raises OSError: then there must be no commit."""
        hash_of = self._table.hash_of
        hashes = [hash_of(change.execution_id) for change in changes if change.accepted is not None]
        if hashes:
            self._copy.append(hashes)

    def release(self, execution_id: str) -> None:
        """Lets others have an id. One that stays in the table costs them a question, until the next start."""
        if self._held is not None:
            self._held.append(execution_id)
            return
        with suppress(TableBusy):
            self._table.release(execution_id, self._number)

    def hold(self) -> None:
        """A commit has failed: what it has written may be in the file, until another one has overwritten it."""
        if self._held is None:
            self._held = []

    def landed(self) -> None:
        """A commit is in the file, and none that had failed before."""
        held, self._held = self._held, None
        for execution_id in held or ():
            self.release(execution_id)

    def close(self) -> None:
        """Lets go of the copy."""
        self._copy.close()
