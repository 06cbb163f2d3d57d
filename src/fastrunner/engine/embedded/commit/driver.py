"""Stage 3, journal: what a shard asks of the engine around it.

Rule: a shard knows what is durable and the engine what follows from it, so everything here is called on the loop, after
the commit unless it says otherwise.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from fastrunner._core import PerformEffect, Plan
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.residency import Vacancies
from fastrunner.engine.embedded.store.changes import Change, InboxChange
from fastrunner.engine.embedded.store.reader import Unfinished

__all__ = ["Driver"]


class Driver(Vacancies, Protocol):
    """What a shard asks of the engine around it."""

    def gathered(self, execution: Execution) -> None:
        """The execution's events are being committed: its walk may go on."""

    def heard(self, execution: Execution, change: Change) -> None:
        """What the execution waits for changes with a commit that is being gathered."""

    def inbox_landed(self, shard_number: int, inbox: InboxChange) -> None:
        """What listeners are to have is durable."""

    def committed(self, execution: Execution, change: Change) -> None:
        """The change is durable: start its effects, announce its events."""

    def landed(self) -> None:
        """All changes of a commit have been told."""

    def restored(self, execution: Execution, effects: list[PerformEffect]) -> None:
        """The execution is back in memory: perform its effects again, arm its timer, let it go on."""

    def evicted(self, execution: Execution) -> None:
        """The execution goes on in the file only."""

    def ended(self, execution: Execution) -> None:
        """The execution has ended, or is out of service: nothing comes of it any more."""

    def comes_back(self, execution: Execution, row: Unfinished) -> None:
        """The execution comes from the file: what is traced of it goes on."""

    def secrets_of(self, plan: Plan) -> Mapping[str, Any]:
        """The current values of the secrets that a document names."""

    def storage_changed(self) -> None:
        """The shard's `refusal` has come or gone."""
