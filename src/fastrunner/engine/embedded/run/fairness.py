"""Stage 4, walk: fair shares of the loop: between clients, and between ordinary executions and endless ones.

Rules:
- Clients take turns one after the other, and the executions of one client in their order: a client with a hundred
  thousand of them delays another client's only one by a single turn. So do effects
  that wait to be started.
- An execution that has told much draws what it tells further from one allowance of the worker: any number of endless
  loops together write no more than that, and leave the disk and the loop to others.
- Whose an execution is, is stored with its request: a restart changes nobody's share.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s

__all__ = ["Allowance", "FairQueue"]

Entry = TypeVar("Entry")


class FairQueue(Generic[Entry]):
    """What waits for a turn: executions, or effects that have not started."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Entry]] = {}
        self._clients: deque[str] = deque()
        """Those with a queue, in the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, client: str, entry: Entry) -> None:
        """Behind the others of its client."""
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = deque()
            self._clients.append(client)
        queue.append(entry)
        self._count += 1

    def pop(self) -> Entry:
        """The next client's first. Raises IndexError if nobody waits."""
        client = self._clients.popleft()
        queue = self._queues[client]
        entry = queue.popleft()
        if queue:
            self._clients.append(client)
        else:
            del self._queues[client]
        self._count -= 1
        return entry

    def take_back(self, client: str, entries: Sequence[Entry]) -> bool:
        """Takes out what a client pushed last; False, and nothing done, if that is not what it pushed last."""
        queue = self._queues.get(client, ())
        count = len(entries)
        if not 0 < count <= len(queue) or any(queue[index - count] != entry for index, entry in enumerate(entries)):
            return False
        if count == len(queue):
            del self._queues[client]
            self._clients.remove(client)
        else:
            for _ in entries:
                self._queues[client].pop()
        self._count -= count
        return True


class Allowance:
    """Bytes of events that long executions may tell, all of one worker together. It may be overdrawn by a slice."""

    def __init__(self) -> None:
        self._left_bytes: float = limits.LONG_EVENTS_SIZE_BYTES_PER_S_MAX
        self._at_s = monotonic_s()

    def spend(self, size_bytes: int) -> None:
        """Draws from it."""
        self._left_bytes -= size_bytes

    def wait_s(self) -> float:
        """How long until there is something to draw; 0.0: there is now."""
        rate = limits.LONG_EVENTS_SIZE_BYTES_PER_S_MAX
        now_s = monotonic_s()
        self._left_bytes = min(rate, self._left_bytes + (now_s - self._at_s) * rate)
        self._at_s = now_s
        return 0.0 if self._left_bytes > 0 else -self._left_bytes / rate
