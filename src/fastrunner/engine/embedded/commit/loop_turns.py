"""Stage 3, journal: waiting by turns of the loop: for what is on its way already, and for no time."""

import asyncio
from collections.abc import Callable

from fastrunner.base import limits

__all__ = ["turns", "when_gathered"]


def when_gathered(count: Callable[[], int], action: Callable[[], None]) -> None:
    """Calls `action` after some turns of the loop, or later, while many come in them; `count` says how many."""
    loop = asyncio.get_running_loop()

    def look(turns_left: int, seen_count: int) -> None:
        if turns_left:
            loop.call_soon(look, turns_left - 1, seen_count)
        elif seen_count + limits.COMMIT_GROWTH_MIN <= (now_count := count()) < limits.COMMIT_GATHERED_MIN:
            loop.call_soon(look, limits.COMMIT_TURNS_MIN, now_count)
        else:
            action()

    loop.call_soon(look, limits.COMMIT_TURNS_MIN, 0)


async def turns(count: int) -> None:
    """Lets so many turns of the loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)
