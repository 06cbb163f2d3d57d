"""Stage 3, journal: whether the engine takes a new execution now.

Three bounds, each a refusal with the time after which to come again: how many executions one client may submit per
second, how many new ones may wait for their first commit at once, and how long they may wait for it. The last two are
the engine's own pace: what waits longer would be accepted later than its caller cares to know.

Rule: when the engine is behind, those are refused who have the most in it: a client with less than its share of what
waits is taken, up to twice the bound.
"""

from collections import OrderedDict
from dataclasses import dataclass

from fastrunner import limits
from fastrunner.clock import monotonic_s
from fastrunner.engine.execution import Execution
from fastrunner.errors import AtCapacity

__all__ = ["Admission"]


@dataclass(slots=True)
class _Bucket:
    """What a client may still submit."""

    left_count: float
    at_s: float


class Admission:
    """The admission of one worker."""

    def __init__(self, client_executions_per_s_max: float) -> None:
        """Takes this worker's share of the rate; ids spread evenly over workers."""
        self._rate_per_s = client_executions_per_s_max
        self._burst_count = max(1.0, client_executions_per_s_max)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting: OrderedDict[Execution, float] = OrderedDict()
        """New executions whose commit has not landed, with their times, oldest first."""
        self._waiting_by_client: dict[str, int] = {}

    def check(self, client: str) -> None:
        """Raises AtCapacity if a new execution of the client must be refused; counts it if not."""
        now_s = monotonic_s()
        self._check_backlog(client, now_s)
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(self._burst_count, now_s)
            if len(self._buckets) > limits.CLIENTS_KNOWN_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
            gained = (now_s - bucket.at_s) * self._rate_per_s
            bucket.left_count, bucket.at_s = min(self._burst_count, bucket.left_count + gained), now_s
        if bucket.left_count < 1.0:
            raise AtCapacity(
                "the client submits more executions per second than FASTRUNNER_CLIENT_EXECUTIONS_PER_S allows",
                retry_after_s=(1.0 - bucket.left_count) / self._rate_per_s,
            )
        bucket.left_count -= 1.0

    def _check_backlog(self, client: str, now_s: float) -> None:
        count = len(self._waiting)
        if count < limits.ADMISSION_EXECUTIONS_MIN:
            return
        oldest_s = now_s - next(iter(self._waiting.values()))
        if count < limits.UNCOMMITTED_EXECUTIONS_MAX and oldest_s < limits.ADMISSION_DELAY_S_MAX:
            return
        has_less = self._waiting_by_client.get(client, 0) * len(self._waiting_by_client) < count
        if not has_less or count >= 2 * limits.UNCOMMITTED_EXECUTIONS_MAX:
            raise AtCapacity(
                f"{count} executions wait for their first commit, the oldest for {oldest_s:.1f} s",
                retry_after_s=min(max(oldest_s, limits.OVERLOAD_RETRY_S_MIN), limits.OVERLOAD_RETRY_S_MAX),
            )

    def entered(self, execution: Execution) -> None:
        """A new execution waits for its first commit."""
        self._waiting[execution] = monotonic_s()
        client = execution.client
        self._waiting_by_client[client] = self._waiting_by_client.get(client, 0) + 1

    def left(self, execution: Execution) -> None:
        """Its first commit has landed, or it is no more; unknown ones are over."""
        if self._waiting.pop(execution, None) is None:
            return
        client = execution.client
        self._waiting_by_client[client] -= 1
        if not self._waiting_by_client[client]:
            del self._waiting_by_client[client]
