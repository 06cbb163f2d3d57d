"""Stage 3, journal: the shards of one worker, and which of them an execution lives in.

Rule: the table of places says where an execution may live, the shard whether it does.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.errors import Stopping, UnknownExecution
from fastrunner.routing.placement import Places

__all__ = ["Shards"]

_NOT_NOW: Final = "this worker is starting or stopping: try again"


class Shards:
    """Those that are open, by number."""

    def __init__(self, places: Places) -> None:
        self.by_number: dict[int, Shard] = {}
        """The open ones."""
        self.closing = False
        """Whether nothing is to be found here any more."""
        self._places = places
        self._table = places.table

    def __iter__(self) -> Iterator[Shard]:
        return iter([*self.by_number.values()])

    def check_open(self) -> None:
        """Raises Unavailable unless all of them are there."""
        if self.closing or len(self.by_number) < len(self._places.shards):
            raise Stopping(_NOT_NOW)

    @property
    def home(self) -> Shard:
        """The one that takes new executions."""
        return self.by_number[self._places.shards[0]]

    def of(self, execution_id: str) -> Shard:
        """The shard an execution lives in. Raises UnknownExecution, Unavailable."""
        self.check_open()
        found = self.candidates(execution_id)
        if len(found) == 1:
            return found[0]
        for shard in found:
            if shard.holds(execution_id):
                return shard
        raise UnknownExecution(execution_id)

    def candidates(self, execution_id: str) -> Sequence[Shard]:
        """Where an execution may live, hardly ever more than one."""
        numbers = self._table.find(execution_id) or self._table.unknown(self._places.shard_count)
        return [self.by_number[number] for number in numbers if number in self.by_number]
