"""Stage 3, journal: waiting by turns of the loop: for what is on its way already, and for no time."""

import asyncio
from collections.abc import Callable

__all__ = ["after_turns", "turns"]


def after_turns(count: int, action: Callable[[], None]) -> None:
    """Calls `action` after so many turns of the loop."""
    if count:
        asyncio.get_running_loop().call_soon(after_turns, count - 1, action)
    else:
        action()


async def turns(count: int) -> None:
    """Lets so many turns of the loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)
