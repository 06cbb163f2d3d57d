"""Support: which executions have changed lately, for those who follow all of them.

Each change has a number, one more than the one before it. An execution is known by its latest change only, so whoever
reads on from a number learns of each execution once, however often it has changed meanwhile. The ones that have not
changed for longest are forgotten; who comes with a number from before that, or from another process, begins anew.

Rule: nothing of it is kept anywhere: what an execution is, is read from the store.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable

from fastrunner.base import limits

__all__ = ["Changes"]


class Changes:
    """Those of one process."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._numbers: OrderedDict[str, int] = OrderedDict()
        """The latest change of each execution, the lowest first."""
        self._forgotten = 0
        self.last = 0
        """Number of the latest change."""

    def tell(self, execution_ids: Iterable[str]) -> None:
        """Executions have changed, which the store has already."""
        numbers = self._numbers
        for execution_id in execution_ids:
            self.last += 1
            numbers[execution_id] = self.last
            numbers.move_to_end(execution_id)
        while len(numbers) > limits.API_FEED_CHANGES_MAX:
            self._forgotten = numbers.popitem(last=False)[1]

    def begin_anew(self) -> None:
        """Nobody goes on from a number that was given before now."""
        self._process = secrets.token_hex(4)
        self.last += 1
        self._forgotten = self.last
        self._numbers.clear()

    def cursor(self, number: int) -> str:
        """A number as a client has it."""
        return f"{self._process}-{number}"

    def number_of(self, cursor: str) -> int | None:
        """The number that a client has; None if what followed it is not known any more, or never was."""
        process, _, digits = cursor.partition("-")
        if process != self._process or not (digits.isascii() and digits.isdigit() and len(digits) < 19):
            return None
        number = int(digits)
        return number if self.knows_after(number) else None

    def knows_after(self, number: int) -> bool:
        """Whether all changes after a number are known."""
        return self._forgotten <= number <= self.last

    def after(self, number: int, count_max: int) -> list[tuple[int, str]]:
        """The first so many executions that have changed after a number, with their latest changes, in their order."""
        found = []
        for execution_id, changed in reversed(self._numbers.items()):
            if changed <= number:
                break
            found.append((changed, execution_id))
        found.reverse()
        return found[:count_max]
