"""Stage 5, tasks: long work on the loop, a slice at a time.

Theory of operation: parsing JSON and decoding text hold the interpreter until they return, so in a helper thread they
would stop the loop just the same. Such work is written as a generator that yields every few hundred microseconds; here
it gets a slice of the loop's time, then everybody else has a turn.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s

__all__ = ["Pace", "in_slices"]

T = TypeVar("T")


class Pace:
    """The pace of work that is done in small parts."""

    def __init__(self) -> None:
        self._end_s = monotonic_s() + limits.HTTP_SLICE_MS / 1000

    async def rest(self) -> None:
        """To be awaited between parts: lets the others have a turn if the slice is used up."""
        if monotonic_s() >= self._end_s:
            await asyncio.sleep(0)
            self._end_s = monotonic_s() + limits.HTTP_SLICE_MS / 1000


async def in_slices(steps: Generator[None, None, T]) -> T:
    """What the generator returns; raises what it raises."""
    pace = Pace()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        await pace.rest()
