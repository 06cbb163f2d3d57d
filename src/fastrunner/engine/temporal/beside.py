"""Stage 3, journal: what a workflow has done beside its main line, as tasks that nobody awaits.

Rule: those of `workflow`. What fails beside fails the task of the workflow, which Temporal tries again, and never the
workflow: the main line looks with each step.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Beside"]


class Beside:
    """What goes on beside the main line of one workflow."""

    def __init__(self, whose: str) -> None:
        """`whose` it is, for messages."""
        self._whose = whose
        self.fault: BaseException | None = None
        """What has gone wrong."""

    def begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Has something done; what fails there is the workflow's own fault, and nothing goes on without."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._heed)
        return task

    def check(self) -> None:
        """Raises RuntimeError if something has gone wrong: whatever it is, it fails the task of the workflow."""
        if self.fault is not None:
            raise RuntimeError(f"{self._whose} has a fault") from self.fault

    def _heed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self.fault = task.exception()
