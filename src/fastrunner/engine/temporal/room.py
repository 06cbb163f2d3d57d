"""Stage 3, journal: how much one workflow task sends to Temporal: a message of more than 4 MiB is refused, for ever;
and how long a history gets before it is continued as a new one.

Rules: the same in every replay: what is counted follows from the history, and so does which workflow task it is, by the
history's length. What finds no room waits for the next one, which a timer makes.
"""

import asyncio
from typing import Final

from temporalio import workflow

from fastrunner.base import limits

__all__ = ["Room", "is_long"]

_CLAIM_SIZE_BYTES: Final = 1_024
"""About what is left of a payload that lies in the blob store, with all around it."""


def is_long(history_events_max: int, ratio: int = 1, *, heeds_builds: bool = True) -> bool:
    """Whether the history of the workflow that asks is to be continued, or has so many times that length;
    `heeds_builds`: a new build is a reason, too."""
    info = workflow.info()
    return (
        (heeds_builds and info.is_target_worker_deployment_version_changed())
        or info.is_continue_as_new_suggested()
        or info.get_current_history_length() >= ratio * history_events_max
        or info.get_current_history_size() >= ratio * limits.TEMPORAL_HISTORY_SIZE_BYTES_MAX
    )


class Room:
    """The room of one workflow's tasks."""

    def __init__(self, has_blobs: bool) -> None:
        self._has_blobs = has_blobs
        self._task = -1
        """Length of the history with the latest workflow task."""
        self._used_size_bytes = 0
        self._next: asyncio.Task[None] | None = None

    async def take(self, size_bytes: int) -> None:
        """Waits until there is room for a payload of about such a size. One that is alone has room in any case."""
        if self._has_blobs and size_bytes > limits.TEMPORAL_INLINE_SIZE_BYTES_MAX:
            size_bytes = 0
        while not self._has_taken(size_bytes + _CLAIM_SIZE_BYTES):
            if self._next is None or self._next.done():
                self._next = asyncio.create_task(workflow.sleep(0.001, summary="room for more"))
            await asyncio.shield(self._next)

    def _has_taken(self, size_bytes: int) -> bool:
        task = workflow.info().get_current_history_length()
        if task != self._task:
            self._task, self._used_size_bytes = task, 0
        if self._used_size_bytes and self._used_size_bytes + size_bytes > limits.TEMPORAL_TASK_SIZE_BYTES_MAX:
            return False
        self._used_size_bytes += size_bytes
        return True
