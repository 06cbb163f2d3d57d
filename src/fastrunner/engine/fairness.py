"""Stage 4, walk: fair shares of the loop: between clients, and between ordinary executions and endless ones.

Rules:
- Clients take turns one after the other, and the executions of one client in their order: a client with a hundred
  thousand of them delays another client's only one by a single turn.
- An execution that has told much draws what it tells further from one allowance of the worker: any number of endless
  loops together write no more than that, and leave the disk and the loop to others.
- Whose an execution is, is stored with its request: a restart changes nobody's share.
"""

from collections import deque

from fastrunner import limits
from fastrunner.clock import monotonic_s
from fastrunner.engine.execution import Execution

__all__ = ["Allowance", "FairQueue"]


class FairQueue:
    """Executions that wait for a turn."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Execution]] = {}
        self._clients: deque[str] = deque()
        """Those with a queue, in the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, execution: Execution) -> None:
        """Behind the others of its client."""
        client = execution.client
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = deque()
            self._clients.append(client)
        queue.append(execution)
        self._count += 1

    def pop(self) -> Execution:
        """The next client's first. Raises IndexError if nobody waits."""
        client = self._clients.popleft()
        queue = self._queues[client]
        execution = queue.popleft()
        if queue:
            self._clients.append(client)
        else:
            del self._queues[client]
        self._count -= 1
        return execution


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
