"""Stage 3, journal: traces of a worker's executions: begun with them, kept in their shards, on their way out.

Rules: what a commit has of spans is offered some time after it has landed, together with that of others, and leaves the
file when the collector has it; what a process before this one has left is offered when the shard is opened. What an
execution's row tells has no other row: which of those the collector has is known by commit.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from fastrunner._core import Plan
from fastrunner.base import limits
from fastrunner.base.clock import steady_ms_at
from fastrunner.engine import Submission, UnacknowledgedEvents
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.commit.spans import Told
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.changes import Accepted, Change
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.errors import StorageFailed
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import Tracer

__all__ = ["Traces"]


class _Landed(NamedTuple):
    """What is durable of an execution."""

    trace: ExecutionTrace
    execution_key: int
    shard_number: int
    spans: Sequence[Span]
    """What ended with it, which the file has."""
    accepted_ms: int
    """When it was accepted with it; 0: it was before."""


@dataclass(slots=True)
class _ByRow:
    """What is durable of executions of one shard whose rows tell their spans, and has not been offered.

    It is packed: objects that stay for some seconds keep what comes after them from the memory that is used all the
    time, which costs more than to make them.
    """

    packed: bytearray = field(default_factory=bytearray)
    """See `ExecutionTrace.packed`."""
    event_key: int = 0
    """The last row of events of the last commit that any of them came with."""


class Traces:
    """What is traced of one worker's executions."""

    def __init__(self, tracer: Tracer, shards: Shards) -> None:
        self._tracer = tracer
        self._root = tracer.sampler.root
        self._shards = shards
        self._landed: list[_Landed] = []
        """Of which nothing has been offered yet."""
        self._by_row: defaultdict[int, _ByRow] = defaultdict(_ByRow)
        """The same where rows tell spans, by shard."""
        self._by_row_count = 0
        tracer.find, tracer.tell = self._find, self.tell

    def begin(self, execution: Execution, accepted: Accepted, submission: Submission, plan: Plan, now_ms: int) -> None:
        """A new execution, and what is stored of it. One that another execution has started is traced if that is."""
        caller = submission.trace
        if caller is None and submission.parent is not None:
            return
        context = self._root() if caller is None else self._tracer.sampler.decide(caller)
        if context is None:
            return
        received_ms = steady_ms_at(submission.received_s) if submission.received_s else now_ms
        taken_ms = steady_ms_at(submission.taken_s) if submission.taken_s else 0
        execution.trace = ExecutionTrace(submission.execution_id, context, received_ms, taken_ms)
        execution.trace.workflow = (plan.namespace, plan.name, plan.version)
        accepted.trace = execution.trace.text

    def restored(self, execution: Execution, row: Unfinished) -> None:
        """One that has come back from the file."""
        if row.trace:
            execution.trace = ExecutionTrace.stored(row.trace, row.execution_id)

    def named(self, execution: Execution) -> None:
        """Its document is known again."""
        if execution.trace is not None and execution.walk is not None:
            plan = execution.walk.plan
            execution.trace.workflow = (plan.namespace, plan.name, plan.version)

    def committed(self, trace: ExecutionTrace, execution: Execution, change: Change, now_ms: int) -> None:
        """A change is durable."""
        accepted_ms = 0 if change.accepted is None else now_ms
        if not trace.context.is_sampled or not (change.spans or accepted_ms):
            return
        key, number = execution.execution_key, execution.shard_number
        if accepted_ms and change.finished_ms and change.status == "completed":
            by_row = self._by_row[number]
            by_row.packed += trace.packed(key, accepted_ms, change.finished_ms)
            by_row.event_key = self._shards.by_number[number].store.event_key_last
            self._by_row_count += 1
            # Told with its own.
            accepted_ms = 0
        if change.spans or accepted_ms:
            self._landed.append(_Landed(trace, key, number, change.spans, accepted_ms))
        if len(self._landed) + self._by_row_count < limits.TRACE_BATCH_SPANS_MAX // 2:
            self._tracer.expect()
        else:
            self.tell()

    def tell(self) -> None:
        """Offers what has landed since the last time."""
        landed, self._landed = self._landed, []
        for trace, execution_key, shard_number, spans, accepted_ms in landed:
            shard = self._shards.by_number[shard_number]
            if accepted_ms:
                self._offer_accepted(shard, execution_key, trace, accepted_ms)
            self._tracer.offer(spans, partial(shard.spans.settled, execution_key))
        by_row, self._by_row, self._by_row_count = self._by_row, defaultdict(_ByRow), 0
        for shard_number, untold in by_row.items():
            shard = self._shards.by_number[shard_number]
            found = ExecutionTrace.unpacked(untold.packed)
            told = shard.spans.told(untold.event_key, len(found))
            for trace, execution_key, accepted_ms, finished_ms in found:
                self._offer_accepted(shard, execution_key, trace, accepted_ms)
                self._offer_told(shard, trace, finished_ms, told)

    def _offer_accepted(self, shard: Shard, execution_key: int, trace: ExecutionTrace, accepted_ms: int) -> None:
        spans = trace.accepted(accepted_ms)
        for span in spans:
            shard.spans.keep(execution_key, span)
        self._tracer.offer(spans, partial(shard.spans.settled, execution_key))

    def _offer_told(self, shard: Shard, trace: ExecutionTrace, finished_ms: int, told: Told) -> None:
        """Offers the span that the row of a completed execution tells."""
        trace.ended("completed", None, finished_ms)
        self._tracer.offer(trace.gather(), lambda _: shard.spans.settled_told(told))

    def opened(self, shard: Shard) -> None:
        """Offers what the file still has. Raises StorageFailed."""
        waiting, damaged = shard.store.spans(limits.TRACE_QUEUE_SPANS_MAX)
        for execution_key, span in waiting:
            self._tracer.offer((span,), partial(shard.spans.settled, execution_key))
        for each in damaged:
            shard.spans.settled(*each)
        last_key = shard.store.event_key_last
        untold = shard.store.untold(last_key - limits.TRACE_ROWS_LOOKED_AT_MAX, limits.TRACE_QUEUE_SPANS_MAX)
        found = [(ExecutionTrace.stored(row.trace, row.execution_id), row) for row in untold]
        sampled = [(trace, row) for trace, row in found if trace is not None and trace.context.is_sampled]
        if sampled:
            told = shard.spans.told(last_key, len(sampled))
            for trace, row in sampled:
                trace.workflow = row.workflow
                self._offer_told(shard, trace, row.finished_ms, told)

    def name(self, rows: Sequence[UnacknowledgedEvents]) -> None:
        """Says of rows that were read what is traced of their executions."""
        known: dict[str, str] = {}
        for row in rows:
            if row.execution_id not in known:
                known[row.execution_id] = self._text_of(row.execution_id)
            row.trace = known[row.execution_id]

    def _text_of(self, execution_id: str) -> str:
        for shard in self._shards:
            try:
                text = shard.store.trace(execution_id)
            except StorageFailed:
                continue
            if text:
                return text
        return ""

    def _find(self, execution_id: str) -> ExecutionTrace | None:
        """What is traced of an execution that is in memory."""
        for shard in self._shards:
            execution = shard.live.get(execution_id)
            if execution is not None:
                return execution.trace
        return None
