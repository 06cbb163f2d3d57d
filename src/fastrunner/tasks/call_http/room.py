"""Stage 5, tasks: memory for the bodies that a worker reads.

Theory of operation: what a body takes is counted as it comes, the first bytes of each apart, so that small responses
wait for nobody. Where there is no room, reading waits, and flow control makes the server wait. Waiters could each hold
a part and none get further, so the one that has waited longest without room goes on beyond the bound, one at a time:
the bound plus one body is the most there can be.
"""

import asyncio
from collections import deque

from fastrunner.base import limits

__all__ = ["Room", "Share"]


class Room:
    """The memory of one worker's bodies."""

    def __init__(self) -> None:
        self._used_size_bytes = 0
        self._beyond: Share | None = None
        self._waiting: deque[tuple[asyncio.Future[None], Share, int]] = deque()

    @property
    def used_size_bytes(self) -> int:
        """What shares hold now."""
        return self._used_size_bytes

    def share(self) -> "Share":
        """A share for one response, to be closed."""
        return Share(self)

    def _grants(self, share: "Share", size_bytes: int) -> bool:
        if self._used_size_bytes + size_bytes > limits.HTTP_RESPONSES_SIZE_BYTES_MAX:
            if self._beyond not in (None, share):
                return False
            self._beyond = share
        self._used_size_bytes += size_bytes
        share.counted_size_bytes += size_bytes
        return True

    async def _take(self, share: "Share", size_bytes: int) -> None:
        # Whoever waits goes first, but the one that may go beyond the bound waits for nobody.
        if (not self._waiting or share is self._beyond) and self._grants(share, size_bytes):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((granted, share, size_bytes))
        await granted

    def _give_back(self, share: "Share") -> None:
        self._used_size_bytes -= share.counted_size_bytes
        share.counted_size_bytes = 0
        if self._beyond is share:
            self._beyond = None
        while self._waiting:
            granted, waiting, size_bytes = self._waiting[0]
            if not granted.done():
                if not self._grants(waiting, size_bytes):
                    return
                granted.set_result(None)
            self._waiting.popleft()


class Share:
    """What one response holds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._uncounted_size_bytes = limits.HTTP_RESPONSE_SMALL_SIZE_BYTES
        self.counted_size_bytes = 0
        """What of it counts against the bound."""

    async def grow(self, size_bytes: int) -> None:
        """Waits until there is room for so many bytes more."""
        if size_bytes <= self._uncounted_size_bytes:
            self._uncounted_size_bytes -= size_bytes
            return
        counted_size_bytes = size_bytes - self._uncounted_size_bytes
        self._uncounted_size_bytes = 0
        await self._room._take(self, counted_size_bytes)

    def close(self) -> None:
        """Gives everything back."""
        self._room._give_back(self)
