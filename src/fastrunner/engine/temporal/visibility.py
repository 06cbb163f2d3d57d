"""Stage 3, journal: which workflows are meant, in the words of Temporal's visibility.

Rule: what people have given is quoted.
"""

from datetime import timedelta
from typing import Final

import orjson

from fastrunner.base import limits

__all__ = ["ANSWER", "open_of", "quoted"]

ANSWER: Final = timedelta(seconds=limits.TEMPORAL_ANSWER_S_MAX)
"""How long a request may take."""


def quoted(text: str) -> str:
    """A text as queries to visibility have it."""
    return orjson.dumps(text).decode()


def open_of(workflow_type: str, task_queue: str) -> str:
    """The workflows of a type and a task queue that go on."""
    return (
        f"WorkflowType = {quoted(workflow_type)} AND ExecutionStatus = 'Running' AND TaskQueue = {quoted(task_queue)}"
    )
