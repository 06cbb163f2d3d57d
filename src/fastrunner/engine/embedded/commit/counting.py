"""Stage 3, journal: what a commit counts: executions accepted and finished, tasks ended.

Theory of operation: it is counted when the commit has landed. A worker that is killed between the two would count too
little, and one that counted before too much. So what a commit is about to count is noted first, where a successor finds
it, with one of the commit's own changes: whether the file has that change tells whether the commit has landed.

Rule: a commit is counted once: by `landed`, or by the successor's `recover`.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

import orjson

from fastrunner.counts.definitions import EXECUTION_SECONDS, Metrics
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.tallies import TaskSums
from fastrunner.errors import RunnerError
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["CommitCounts"]

Progress = Callable[[str], "tuple[int, int, bool] | None"]
"""Key, last sequence number and whether it has finished, of an execution by id; None if the file has none."""


class CommitCounts:
    """What the commit under way of one shard counts."""

    def __init__(self, metrics: Metrics, shard_number: int) -> None:
        self._values = metrics.values
        self._commit_executions, self._commit_duration = metrics.commit_executions, metrics.commit_duration
        self._note = metrics.note(f"shard-{shard_number}")
        self._accepted_at = metrics.executions_accepted.at
        # Looking a label up costs as much as counting.
        self._finished = {
            status: (metrics.executions_finished.labels(status).at, duration.at, duration.sum_at)
            for status, duration in ((each, metrics.execution_duration.labels(each)) for each in FINAL_STATUSES)
        }
        self._tasks = TaskSums(metrics)
        self._deltas: dict[int, float] = {}

    def begin(self, batch: Batch, live: Mapping[str, Execution]) -> None:
        """A batch has been written and is about to be committed; its executions are in `live`."""
        deltas: defaultdict[int, float] = defaultdict(float)
        tallies: list[bytes] = []
        witness = None
        for change in batch.changes:
            if change.accepted is not None:
                deltas[self._accepted_at] += 1
            if change.events is None:
                continue
            witness = change
            tallies += change.tallies
            # One that has ended is committed again, without events, if somebody asked for something meanwhile.
            if change.finished_ms:
                finished_at, buckets_at, sum_at = self._finished[change.status]
                duration_s = (change.finished_ms - live[change.execution_id].accepted_ms) / 1000
                deltas[finished_at] += 1
                deltas[buckets_at + bisect_left(EXECUTION_SECONDS, duration_s)] += 1
                deltas[sum_at] += duration_s
        self._tasks.add(b"".join(tallies))
        for at, amount in self._tasks.take():
            deltas[at] += amount
        self._deltas = deltas
        if witness is not None:
            self._note.write(orjson.dumps((witness.execution_id, witness.last_sequence, list(deltas.items()))))

    def measured(self, executions_count: int, duration_s: float) -> None:
        """A commit has landed that took so long."""
        self._commit_executions.observe(executions_count)
        self._commit_duration.observe(duration_s)

    def landed(self) -> None:
        """The commit is durable."""
        for at, amount in self._deltas.items():
            self._values[at] += amount
        self.dropped()

    def dropped(self) -> None:
        """There is no commit under way any more."""
        self._deltas = {}
        self._note.clear()

    def recover(self, progress: Progress) -> None:
        """Counts what a killed predecessor committed and could not count."""
        noted = self._note.read()
        if noted:
            execution_id, sequence, deltas = orjson.loads(noted)
            with suppress(RunnerError):
                found = progress(execution_id)
                if found is not None and found[1] >= sequence:
                    self._deltas = dict(deltas)
        self.landed()
