"""Stage 3, journal: whether the engine takes a new execution now.

Bounds, each a refusal with the time after which to come again: how many executions may be unfinished and how many one
client may submit per second, which all workers share; how many new ones may wait for their first commit here at once,
how much memory they may take meanwhile, and, once they wait for long, how long.

Theory of operation: a burst passes: its executions wait, and are accepted. When many have waited beyond their bound, or
for a while everything has, more comes than the engine can take. Then, and until nothing has been refused for a while,
new ones are taken only while the oldest that waits is young: what is accepted is accepted soon.

Rule: when the engine is behind, those are refused who have the most in it: a client with less than its share of what
waits is taken, up to twice the bound. So it is with what waits for other things; see `Shares`.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from fastrunner._wire import json_parts
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import Submission
from fastrunner.errors import AtCapacity, ShortHanded
from fastrunner.routing.placement import ACTIVE, BACKLOG, BACKLOG_PEAK, BACKLOG_PEAK_AT_S, Places

if TYPE_CHECKING:
    from fastrunner.engine.embedded.run.execution import Execution

__all__ = ["Admission", "Shares", "memory_size_bytes"]

_VALUE_SIZE_BYTES = 64
"""An object or an array, or one more key with its value; an element of an array takes some 40."""


class Shares:
    """A bound on what waits for something, shared by clients."""

    def __init__(self, amount_max: int) -> None:
        self.taken = 0
        """What waits, of all clients."""
        self._amount_max = amount_max
        self._by_client: dict[str, int] = {}

    def has_room(self, client: str, amount: int) -> bool:
        """Whether so much more may wait: up to the bound, or up to twice the bound for who has less than its share."""
        taken = self.taken + amount
        if taken <= self._amount_max:
            return True
        mine = self._by_client.get(client, 0) + amount
        return taken <= 2 * self._amount_max and mine * len(self._by_client) <= self.taken

    def take(self, client: str, amount: int) -> None:
        """So much more waits."""
        self.taken += amount
        self._by_client[client] = self._by_client.get(client, 0) + amount

    def give_back(self, client: str, amount: int) -> None:
        """So much waits no more."""
        self.taken -= amount
        left = self._by_client.get(client, 0) - amount
        if left > 0:
            self._by_client[client] = left
        else:
            self._by_client.pop(client, None)


def memory_size_bytes(submission: Submission) -> int:
    """What a submission takes in memory until it is durable, no less than it does: its input as text and as objects."""
    text = submission.input_json
    size_bytes = 2 * len(text) + len(submission.metadata) + _VALUE_SIZE_BYTES * json_parts(text)
    for name, value in chain(submission.env_vars.items(), submission.labels.items()):
        size_bytes += 2 * (len(name) + len(value) + _VALUE_SIZE_BYTES)
    return size_bytes + limits.UNCOMMITTED_EXECUTION_SIZE_BYTES


class Admission:
    """The admission of one worker."""

    def __init__(self, places: Places, *, executions_max: int, client_executions_per_s_max: float) -> None:
        """Both bounds are the runner's, whichever worker is asked."""
        self.is_short_handed: Callable[[], bool] = lambda: False
        """Whether there may be too much to do only because a worker is being replaced."""
        self._executions_max = executions_max
        self._rate_per_s = client_executions_per_s_max
        self._burst_count = max(1.0, self._rate_per_s)
        self._worker = places.worker
        self._loads = places.loads
        self._memory = Shares(limits.UNCOMMITTED_SIZE_BYTES_MAX)
        """Bytes of what has been submitted and is not durable yet."""
        self._waiting: OrderedDict[Execution, tuple[float, int]] = OrderedDict()
        """New executions whose commit has not landed, oldest first: since when, and what has been reserved for them."""
        self._waiting_by_client: dict[str, int] = {}
        self._strict_until_s = 0.0
        """Until when only what can be accepted soon is taken."""
        self._pause_s = 0.0
        """Between landings of commits, on average."""
        self._landed_s = self._judged_s = monotonic_s()
        self._shortest_wait_s = inf
        self._peak_count = 0
        self._peak_at_s = 0.0

    def check(self, client: str) -> None:
        """Raises AtCapacity or ShortHanded if a new execution of the client must be refused; counts it if not."""
        if self._loads.total(ACTIVE) >= self._executions_max:
            raise AtCapacity(
                f"{self._executions_max} executions are unfinished, the bound set by FASTRUNNER_EXECUTIONS_MAX"
            )
        now_s = monotonic_s()
        self._check_backlog(client, now_s)
        wait_s = self._loads.take(client, 1.0, self._rate_per_s, self._burst_count, now_s)
        if wait_s > 0.0:
            raise AtCapacity(
                "the client submits more executions per second than FASTRUNNER_CLIENT_EXECUTIONS_PER_S allows",
                retry_after_s=wait_s,
            )

    @property
    def has_room_for_subflows(self) -> bool:
        """Whether there are not far more executions than clients may start."""
        return self._loads.total(ACTIVE) < limits.SUBFLOW_EXECUTIONS_RATIO_MAX * self._executions_max

    def reserve(self, client: str, size_bytes: int) -> None:
        """Memory for a submission until it is durable or refused. Raises AtCapacity."""
        if not self._memory.has_room(client, size_bytes):
            raise AtCapacity(
                f"submissions that wait for their first commit take {self._memory.taken >> 20} MiB",
                retry_after_s=limits.UNCOMMITTED_SIZE_RETRY_S,
            )
        self._memory.take(client, size_bytes)

    def release(self, client: str, size_bytes: int) -> None:
        """Gives back what was reserved for a submission that is refused."""
        self._memory.give_back(client, size_bytes)

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
        return monotonic_s() - next(iter(self._waiting.values()))[0] > self._delay_s_max

    def _check_backlog(self, client: str, now_s: float) -> None:
        count = len(self._waiting)
        if count < limits.ADMISSION_EXECUTIONS_MIN:
            return
        oldest_s = now_s - next(iter(self._waiting.values()))[0]
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

    def _tell_peak(self, count: int, now_s: float) -> None:
        """Tells the other workers how many have waited lately; of one commit only the first execution makes it more."""
        if count > self._peak_count or now_s - self._peak_at_s > limits.PLACEMENT_PEAK_AGE_S_MAX / 2:
            self._peak_count, self._peak_at_s = count, now_s
            self._loads.set(self._worker, BACKLOG_PEAK, count)
            self._loads.set(self._worker, BACKLOG_PEAK_AT_S, now_s)

    def entered(self, execution: "Execution", size_bytes: int) -> None:
        """A new execution waits for its first commit; so much has been reserved for it."""
        self._waiting[execution] = (monotonic_s(), size_bytes)
        self._loads.set(self._worker, BACKLOG, len(self._waiting))
        client = execution.client
        self._waiting_by_client[client] = self._waiting_by_client.get(client, 0) + 1

    def left(self, execution: "Execution") -> None:
        """Its first commit has landed, or it is no more; unknown ones are over."""
        waiting = self._waiting.pop(execution, None)
        if waiting is None:
            return
        since_s, size_bytes = waiting
        self._loads.set(self._worker, BACKLOG, len(self._waiting))
        now_s = monotonic_s()
        self._tell_peak(len(self._waiting) + 1, now_s)
        self._landed(now_s, now_s - since_s)
        client = execution.client
        self._memory.give_back(client, size_bytes)
        left = self._waiting_by_client[client] - 1
        if left:
            self._waiting_by_client[client] = left
        else:
            del self._waiting_by_client[client]
