"""Stage 3, journal: a shard's writer thread, where COMMIT and its fsync block nobody.

Rule: one commit at a time; the loop's thread touches the store's writing connection only while none is under way.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

__all__ = ["CommitWriter", "Writer", "WriterFactory"]


class CommitWriter(Protocol):
    """What a shard asks of its writer."""

    def request(self) -> None:
        """Starts a commit; `landed` hears on the loop how it went."""

    def stop(self) -> None:
        """Ends the writer; a commit under way still lands."""


WriterFactory = Callable[[str, Callable[[], None], Callable[[BaseException | None], None]], CommitWriter]
"""Makes a writer from a name, what commits, and what hears of it."""


class Writer:
    """Runs `commit` in a thread of its own and reports on the loop."""

    def __init__(self, name: str, commit: Callable[[], None], landed: Callable[[BaseException | None], None]) -> None:
        self._commit = commit
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def request(self) -> None:
        """See CommitWriter."""
        self._jobs.put(True)

    def stop(self) -> None:
        """See CommitWriter; waits for the thread."""
        self._jobs.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._jobs.get():
            error: BaseException | None = None
            try:
                self._commit()
            except BaseException as raised:
                error = raised
            self._loop.call_soon_threadsafe(self._landed, error)
