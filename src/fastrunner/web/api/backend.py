"""Support: who answers the HTTP API: the Stigmer Service from its store.

Rule: a method raises RunnerError and nothing else that a client could cause; its words are told.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from fastrunner.access.principal import Principal
from fastrunner.web.api import shapes

__all__ = ["Backend", "Changed", "Feed", "Following", "Started"]


class Following(Protocol):
    """One who follows an execution."""

    @property
    def is_over(self) -> bool:
        """Whether whoever serves it stops: the client is to come again."""

    def tell(self) -> None:
        """Ends a wait, as if there were more."""

    async def wait(self, timeout_s: float) -> bool:
        """Whether there may be more since the last time; false if nothing was said for so long."""


@dataclass(frozen=True, slots=True)
class Changed:
    """An execution that is another one than before."""

    cursor: str
    """Goes on after it."""
    execution_json: bytes
    """As it stands: JSON text of an Execution, made once for all who are told."""


class Feed(Protocol):
    """One who follows all executions."""

    @property
    def cursor(self) -> str:
        """From which on nothing is left out."""

    @property
    def is_new(self) -> bool:
        """Whether the feed does not go on from where the client wanted: executions are to be listed anew after it."""

    @property
    def is_over(self) -> bool:
        """Whether whoever serves it stops: the client is to come again."""

    async def read(self, timeout_s: float) -> Sequence[Changed]:
        """What has changed since the last time, each execution once; nothing if nothing has for so long."""


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a request to start an execution."""

    execution: shapes.Execution
    """As it stands."""
    is_new: bool
    """Whether this request has recorded it."""
    has_answer: bool
    """Whether the runner has said yes or no."""


class Backend(Protocol):
    """Every method: `principal` is who asks; None: callers are not told apart. Raises RunnerError."""

    @property
    def product(self) -> Literal["stigmer", "runner"]:
        """Who answers."""

    @property
    def lacks(self) -> Collection[str]:
        """Names of the operations that there are not here; their methods are not called."""

    async def add_workflow(self, principal: Principal | None, new: shapes.NewWorkflow) -> tuple[shapes.Workflow, bool]:
        """Keeps a version; whether it was not there. Raises DocumentRefused, AlreadyRegistered."""

    async def find_workflow(
        self, principal: Principal | None, namespace: str, name: str, version: str
    ) -> shapes.Workflow:
        """One version with its document; without a version the latest."""

    async def page_workflows(
        self, principal: Principal | None, namespace: str, name: str, after: str, count_max: int
    ) -> shapes.WorkflowPage:
        """Versions after a place, which an earlier page has told."""

    async def start(self, principal: Principal | None, new: shapes.StartExecution) -> Started:
        """Records an execution and has the runner start it."""

    async def find(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """One execution, by what is kept of it."""

    async def explain(self, principal: Principal | None, execution_id: str) -> shapes.Execution:
        """The same, with what it waits for, as far as that can be said."""

    async def page(
        self, principal: Principal | None, which: dict[str, str], before: str, count_max: int
    ) -> shapes.ExecutionPage:
        """Executions before a place; `which` has status, namespace, name and version, empty or not."""

    async def events(
        self, principal: Principal | None, execution_id: str, after: int, count_max: int, *, is_told: bool = False
    ) -> tuple[list[bytes], int, bool]:
        """Encoded events after a number; up to which number there are events; whether it has ended. `is_told`: who asks
        follows the execution, and wants what it was told of, which others may be reading already."""

    def follow(self, principal: Principal | None, execution_id: str, after: int) -> AbstractContextManager[Following]:
        """Follows an execution while the context is open: hears of events after a number. Raises AtCapacity."""

    def feed(self, principal: Principal | None, which: dict[str, str], after: str) -> AbstractAsyncContextManager[Feed]:
        """Follows executions while the context is open, after a cursor if there is one; `which` has namespace, name
        and version, empty or not. Raises AtCapacity."""

    async def page_schedules(
        self, principal: Principal | None, namespace: str, after: str, count_max: int
    ) -> shapes.SchedulePage:
        """Schedules after a place, which an earlier page has told."""

    async def add_schedule(self, principal: Principal | None, new: shapes.NewSchedule) -> tuple[shapes.Schedule, bool]:
        """Adds a schedule; whether it was not there."""

    async def pause_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """Has a schedule start nothing until it is resumed."""

    async def resume_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """Has a paused schedule start executions again."""

    async def delete_schedule(self, principal: Principal | None, schedule_id: str) -> None:
        """Removes a schedule."""

    async def fire_schedule(
        self, principal: Principal | None, schedule_id: str, command: shapes.FireCommand
    ) -> shapes.Fired:
        """Has a schedule start an execution now, whatever its moments and whether or not it is paused."""

    async def send_event(self, principal: Principal | None, event: shapes.CloudEvent) -> None:
        """Sends an event to whatever listens."""

    async def cancel(self, principal: Principal | None, execution_id: str, command: shapes.CancelCommand) -> None:
        """Ends an execution early."""

    async def pause(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """Stops an execution before its next task."""

    async def resume(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """Lets a paused execution go on."""

    async def counts(self, principal: Principal | None, which: dict[str, str]) -> shapes.Counts:
        """How many those are."""

    async def document(self, principal: Principal | None, execution_id: str) -> shapes.Document:
        """What an execution executes, with the places of its tasks. Raises UnknownDocument."""

    async def graph(self, principal: Principal | None, execution_id: str) -> bytes:
        """The tasks of that document and the ways between them: JSON text of a Graph. Raises UnknownDocument."""
