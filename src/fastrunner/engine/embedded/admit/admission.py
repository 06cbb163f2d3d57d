"""Stage 3, journal: whether the engine takes a new execution now.

Three bounds, each a refusal with the time after which to come again: how many executions one client may submit per
second, how many new ones may wait for their first commit at once, and, once they wait for long, how long.

Theory of operation: a burst passes: its executions wait, and are accepted. When many have waited beyond their bound, or
for a while everything has, more comes than the engine can take. Then, and until nothing has been refused for a while,
new ones are taken only while the oldest that waits is young: what is accepted is accepted soon.

Rule: when the engine is behind, those are refused who have the most in it: a client with less than its share of what
waits is taken, up to twice the bound.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import AtCapacity, ShortHanded

if TYPE_CHECKING:
    from fastrunner.engine.embedded.run.execution import Execution

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
        self.is_short_handed: Callable[[], bool] = lambda: False
        """Whether there may be too much to do only because a worker is being replaced."""
        self._rate_per_s = client_executions_per_s_max
        self._burst_count = max(1.0, client_executions_per_s_max)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting: OrderedDict[Execution, float] = OrderedDict()
        """New executions whose commit has not landed, with their times, oldest first."""
        self._waiting_by_client: dict[str, int] = {}
        self._strict_until_s = 0.0
        """Until when only what can be accepted soon is taken."""
        self._pause_s = 0.0
        """Between landings of commits, on average."""
        self._landed_s = self._judged_s = monotonic_s()
        self._shortest_wait_s = inf

    def check(self, client: str) -> None:
        """Raises AtCapacity or ShortHanded if a new execution of the client must be refused; counts it if not."""
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

    @property
    def _delay_s_max(self) -> float:
        if self.is_short_handed():
            return limits.SHORT_HANDED_DELAY_S_MAX
        return max(limits.ADMISSION_DELAY_S_MAX, 2 * self._pause_s)

    @property
    def is_late(self) -> bool:
        """Whether new executions wait longer than they should: whoever takes them up should take up fewer."""
        if len(self._waiting) < limits.ADMISSION_EXECUTIONS_MIN:
            return False
        return monotonic_s() - next(iter(self._waiting.values())) > self._delay_s_max

    def _check_backlog(self, client: str, now_s: float) -> None:
        count = len(self._waiting)
        if count < limits.ADMISSION_EXECUTIONS_MIN:
            return
        oldest_s = now_s - next(iter(self._waiting.values()))
        if count >= limits.ADMISSION_BURST_COUNT_MAX and oldest_s > limits.ADMISSION_BURST_S_MAX:
            self._strict_until_s = now_s + limits.ADMISSION_STRICT_S
        is_late = now_s < self._strict_until_s and oldest_s > self._delay_s_max
        if not is_late and count < limits.UNCOMMITTED_EXECUTIONS_MAX:
            return
        self._strict_until_s = now_s + limits.ADMISSION_STRICT_S
        has_less = self._waiting_by_client.get(client, 0) * len(self._waiting_by_client) < count
        if not has_less or count >= 2 * limits.UNCOMMITTED_EXECUTIONS_MAX:
            if self.is_short_handed():
                raise ShortHanded
            raise AtCapacity(
                f"{count} executions wait for their first commit, the oldest for {oldest_s:.1f} s",
                retry_after_s=min(max(4 * oldest_s, limits.OVERLOAD_RETRY_S_MIN), limits.OVERLOAD_RETRY_S_MAX),
            )

    def _landed(self, now_s: float, waited_s: float) -> None:
        """Judges the waits of a while by the shortest: when everything had to wait, there is a standing queue."""
        if now_s - self._landed_s > limits.ADMISSION_LANDING_S:
            # Executions of one commit land together; a slow disk must not look like too much work.
            self._pause_s += (min(now_s - self._landed_s, limits.ADMISSION_BURST_S_MAX) - self._pause_s) / 8
        self._landed_s = now_s
        self._shortest_wait_s = min(self._shortest_wait_s, waited_s)
        if now_s - self._judged_s < limits.ADMISSION_BURST_S_MAX:
            return
        if self._shortest_wait_s > self._delay_s_max:
            self._strict_until_s = now_s + limits.ADMISSION_STRICT_S
        self._judged_s, self._shortest_wait_s = now_s, inf

    def entered(self, execution: "Execution") -> None:
        """A new execution waits for its first commit."""
        self._waiting[execution] = monotonic_s()
        client = execution.client
        self._waiting_by_client[client] = self._waiting_by_client.get(client, 0) + 1

    def left(self, execution: "Execution") -> None:
        """Its first commit has landed, or it is no more; unknown ones are over."""
        since_s = self._waiting.pop(execution, None)
        if since_s is None:
            return
        now_s = monotonic_s()
        self._landed(now_s, now_s - since_s)
        client = execution.client
        self._waiting_by_client[client] -= 1
        if not self._waiting_by_client[client]:
            del self._waiting_by_client[client]
