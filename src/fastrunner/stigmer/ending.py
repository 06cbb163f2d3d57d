"""Support: tasks that go on until the service stops.

Rule: they are cancelled until they have ended: libraries lose a cancellation that comes in the middle of connecting.
"""

import asyncio
from typing import Any, Final

__all__ = ["ended"]

_PATIENCE_S: Final = 0.5


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks; returns when all have ended, however."""
    pending = {*tasks}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PATIENCE_S)
    await asyncio.gather(*tasks, return_exceptions=True)
