"""Stage 3, journal: what ties a walk's workflow to the bus of events: changes go there, one after the other.

Rule: those of `workflow`. The bus is told by an activity, so that what it refuses for now is tried again, and is seen.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

from fastrunner._core import EventArrived, Subscribe, Unsubscribe, Wait, Walk
from fastrunner.base import limits
from fastrunner.engine.temporal.beside import Beside
from fastrunner.engine.temporal.event_messages import LISTEN, Change, Registration
from fastrunner.engine.temporal.listening import Listening

__all__ = ["Hearing"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=limits.TEMPORAL_REPORT_RETRY_S_MAX),
)


class Hearing:
    """The ear of one execution."""

    def __init__(self, execution_id: str, state_json: str, beside: Beside) -> None:
        """`state_json`: see Listening; `beside` does what nobody waits for."""
        self._beside = beside
        self.listening = Listening(state_json)
        self.telling: asyncio.Task[None] | None = None
        """That the bus is being told."""
        self._execution_id = execution_id
        self._untold: Sequence[Change] = ()
        """What the bus is being told."""

    def change(self, action: Subscribe | Unsubscribe, walk: Walk) -> None:
        """The walk waits for something, or does not any more."""
        if isinstance(action, Subscribe):
            self.listening.subscribes(action, walk.last_sequence)
        else:
            self.listening.unsubscribes(action.subscription_id)
        self._tell_of(walk)

    def restore(self, walk: Walk) -> None:
        """The walk waits as before its history was continued."""
        for action in walk.pending():
            if isinstance(action, Subscribe):
                self.listening.restores(action, walk.last_sequence)
        self._tell_of(walk)

    def take(self, walk: Walk) -> EventArrived | None:
        """The event that the walk takes next, if there is one."""
        arrived = self.listening.take(walk)
        self._tell_of(walk)
        return arrived

    def close(self, walk: Walk) -> None:
        """The walk has ended."""
        self.listening.close()
        self._tell_of(walk)

    def _tell_of(self, walk: Walk) -> None:
        if self.listening.changes and self.telling is None:
            self.telling = self._beside.begin(self._tell(walk.plan.namespace))

    async def _tell(self, namespace: str) -> None:
        while self.listening.changes:
            self._untold, self.listening.changes = self.listening.changes, []
            await workflow.execute_activity(
                LISTEN,
                Registration(self._execution_id, namespace, list(self._untold)),
                start_to_close_timeout=_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_RETRY,
                summary="what it waits for",
            )
            self._untold = ()
        self.telling = None

    def is_known(self, waited: Wait) -> bool:
        """Whether whoever sees that the walk waits may send what it waits for: the bus has been told."""
        untold = self.listening.unregistered(self._untold)
        return not isinstance(waited.action, Subscribe) or waited.action.subscription_id not in untold
