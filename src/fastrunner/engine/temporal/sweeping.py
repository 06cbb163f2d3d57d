"""Stage 3, journal: deletes blobs of payloads whose executions Temporal has forgotten.

    names in the store -> older than two days -> their owner -> does Temporal know it, or a schedule? -> delete

Rules: what an execution that is open, or kept, may read is never deleted. Blobs are written for the day that it is, so
nobody writes where something is deleted. A store belongs to one namespace of one cluster: of another one nothing is
known here.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from temporalio.client import Client, ScheduleActionStartWorkflow

from fastrunner.base import limits
from fastrunner.blobs import BlobStore
from fastrunner.engine.temporal.codec import PAYLOADS, day_of, execution_of, owner_of
from fastrunner.engine.temporal.visibility import quoted

__all__ = ["Sweep"]

_DAY_MS = 24 * 3_600_000


@dataclass
class Sweep:
    """One look at everything. Iterate over `unwanted` for what may go; what is counted is known at the end."""

    client: Client
    """Of the namespace that the store belongs to."""
    blobs: BlobStore
    """The store."""
    now_ms: int
    """The time, in milliseconds since the epoch."""
    kept_count: int = 0
    """Blobs that stay."""
    _is_known: dict[str, bool] = field(default_factory=dict)

    async def unwanted(self) -> AsyncIterator[str]:
        """Names of blobs that nobody reads any more. Raises RPCError, StorageFailed."""
        before = day_of(self.now_ms - limits.BLOB_GRACE_DAYS * _DAY_MS)
        scheduled = await self._scheduled()
        async for listed in self.blobs.names(PAYLOADS):
            day, *owner, _ = listed.name.removeprefix(PAYLOADS).split("/")
            if day < before and not await self._keeps("/".join(owner), scheduled):
                yield listed.name
            else:
                self.kept_count += 1

    async def _scheduled(self) -> set[str]:
        """Owners of what schedules have for executions that they will start."""
        owners: set[str] = set()
        async for listed in await self.client.list_schedules():
            described = await self.client.get_schedule_handle(listed.id).describe()
            if isinstance(described.schedule.action, ScheduleActionStartWorkflow):
                owners.add(owner_of(described.schedule.action.id))
        return owners

    async def _keeps(self, owner: str, scheduled: set[str]) -> bool:
        """Whether somebody may still read an owner's blobs."""
        if owner in scheduled:
            return True
        if owner not in self._is_known:
            execution_id = execution_of(owner)
            self._is_known[owner] = execution_id is None or await self._has(execution_id)
        return self._is_known[owner]

    async def _has(self, execution_id: str) -> bool:
        """Whether Temporal has an execution, or some that it, or a schedule of its name, has started."""
        parts = [f"WorkflowId = {quoted(execution_id)}"]
        parts += [f"WorkflowId STARTS_WITH {quoted(execution_id + mark)}" for mark in ("~", "-")]
        return (await self.client.count_workflows(" OR ".join(parts))).count > 0
