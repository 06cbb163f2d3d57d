"""Stage 3, journal: what parents have their children do: given to those in memory, kept for the others until they are.

Rule: an order is in the file before it is here, and stays there until the child's commit that has done it. So it may be
given twice, after a restart; commands that find nothing to do do nothing.
"""

import asyncio
from collections.abc import Callable, Sequence

from fastrunner._core import Cancel
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.family import KILL, HandedDown, command_of
from fastrunner.engine.embedded.run.residency import Loader
from fastrunner.engine.embedded.store.changes import FamilyChange
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["Orders"]


class Orders:
    """The orders of one shard."""

    def __init__(
        self,
        store: Store,
        live: dict[str, Execution],
        loader: Loader,
        enqueue: Callable[[Execution], None],
        end_aside: Callable[[Unfinished, Cancel], object],
        grace_ms: int,
    ) -> None:
        """`enqueue` gives an execution its turn; `end_aside` cancels one that the runner has set aside."""
        self._store = store
        self._live = live
        self._loader = loader
        self._enqueue = enqueue
        self._end_aside = end_aside
        self._grace_ms = grace_ms
        self._waiting: dict[int, list[HandedDown]] = {}
        """By execution key, for those that are not in memory."""

    def give_all(self) -> None:
        """Those in the file. Raises StorageFailed."""
        for parent_id, child_id, number, order in self._store.orders():
            self.give(parent_id, child_id, number, order)

    def give(self, parent_id: str, child_id: str, number: int, order: str) -> None:
        """Has a child do what its parent did; one that has ended, or never came to be, does nothing."""
        handed = HandedDown(command_of(order, parent_id, self._grace_ms), number)
        child = self._live.get(child_id)
        if child is None:
            self._keep(child_id, handed)
        elif child.landing is not None:
            # A verdict on it is being committed.
            child.landing.add_done_callback(lambda _: self._later(parent_id, child_id, number, order))
        elif not child.broken:
            child.deliver(handed)
            self._enqueue(child)

    def _later(self, parent_id: str, child_id: str, number: int, order: str) -> None:
        # What follows the landing comes first.
        asyncio.get_running_loop().call_soon(self.give, parent_id, child_id, number, order)

    def _keep(self, child_id: str, handed: HandedDown) -> None:
        acceptance = self._store.acceptance(child_id)
        if acceptance is None or acceptance[2] in FINAL_STATUSES:
            return
        execution_key = acceptance[0]
        if acceptance[2] == "paused":
            row = self._store.unfinished(execution_key)
            if row is not None and row.aside:
                if isinstance(handed.command, Cancel):
                    self._end_aside(row, handed.command)
                return
        self._waiting.setdefault(execution_key, []).append(handed)
        self._loader.requeue(execution_key)

    def unaccepted(self, family: FamilyChange) -> Sequence[Execution]:
        """Children that their parent gives up before a commit has them: none may come after the parent's."""
        given_up = [self._live.get(child_id) for child_id, order in family.orders if order == KILL]
        return [child for child in given_up if child is not None and child.accepted is not None]

    def take(self, execution_key: int) -> Sequence[HandedDown]:
        """What an execution that comes back into memory is to do."""
        return self._waiting.pop(execution_key, ())
