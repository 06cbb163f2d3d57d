"""Stage 3, journal: traces of executions on Temporal: decided where one is accepted, told by its workflow.

    a request -> where it is in a trace, and whether it is sampled: a text in the workflow's input, as on one machine
              -> turns of the walk -> spans, by `tracing/execution` -> the worker that has taken the turn -> the tracer
    activities -> calls, children and reports carry the place of their effect or their execution

Theory of operation: a workflow tells the spans of its execution itself, at the times of its history and under ids that
follow from the trace, so every replay makes the same ones. It asks nothing of Temporal for that: a history is the same
with and without. As counts are (see `counting`), spans are told by the turn that is no replay, through a function of
the worker. A task of the workflow that Temporal does not take is taken again and tells the same spans again: the worker
knows those it has just told.

Rules: those of `workflow`. What a worker has been told lies in a file of its replica until the collector has it.
Workflows run in threads, and the tracer belongs to the loop.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from temporalio import activity, workflow
from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowInterceptorClassInput

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, Plan, Walk
from fastrunner.base import limits
from fastrunner.base.clock import steady_ms, steady_ms_at
from fastrunner.engine import Report, Submission
from fastrunner.engine.failures import error_of
from fastrunner.progress.wire import frames
from fastrunner.tracing.context import CURRENT, TraceContext
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.kept import SpanFile
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import Tracer

if TYPE_CHECKING:
    from fastrunner._core import Outcome

__all__ = ["Traces", "WalkTrace", "child_trace", "tell_accepted"]

_TELL: Final = "fastrunner.trace"


class Traces(Interceptor):
    """What one worker does for traces. Construct it on the worker's loop."""

    def __init__(self, tracer: Tracer, kept: SpanFile) -> None:
        """`kept` has what waits for the collector; it is closed with this."""
        self._tracer = tracer
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        self._latest: dict[str, None] = {}
        """Ids of spans that have been told, the oldest first."""
        self._in_memory: WeakValueDictionary[str, ExecutionTrace] = WeakValueDictionary()
        tracer.find = self._in_memory.get

    async def open(self) -> None:
        """Has exported what workers before this one have left."""
        self._tracer.offer(await self._kept.open(), self._kept.settled)

    def close(self) -> None:
        """Nothing more is told, or exported."""
        self._kept.close()

    def begun(self, submission: Submission) -> ExecutionTrace | None:
        """What is traced of an execution that is to be accepted."""
        context = self._tracer.sampler.decide(submission.trace)
        if context is None:
            return None
        received_ms = steady_ms_at(submission.received_s) if submission.received_s else steady_ms()
        taken_ms = steady_ms_at(submission.taken_s) if submission.taken_s else 0
        return ExecutionTrace(submission.execution_id, context, received_ms, taken_ms)

    def accepted(self, trace: ExecutionTrace) -> None:
        """It is in Temporal's store."""
        self.tell(trace.accepted(steady_ms()))

    def enter(self, text: str, execution_id: str, effect_id: int) -> None:
        """What is sent from here on in this task of asyncio is sent by an effect."""
        trace = ExecutionTrace.stored(text, execution_id) if text else None
        CURRENT.set(TraceContext.unsampled() if trace is None else trace.place_of(effect_id))

    async def reported(self, text: str, report: Report, execution_id: str, messages: bytes, last: int) -> int:
        """Reports events of an execution, and tells that. Raises what the report does."""
        trace = ExecutionTrace.stored(text, execution_id) if text else None
        CURRENT.set(None if trace is None else trace.place)
        began_ms = steady_ms()
        taken = await report(execution_id, messages, last)
        if trace is not None and trace.context.is_sampled:
            first = last - len(frames(messages)) + 1
            self.tell((trace.callback(first, taken, began_ms, steady_ms(), None, _attempt()),))
        return taken

    def tell(self, spans: Sequence[Span]) -> None:
        """Has spans exported that have not just been. Call on the loop."""
        news = [span for span in spans if span.span_id not in self._latest]
        self._latest.update(dict.fromkeys(span.span_id for span in news))
        while len(self._latest) > limits.TRACE_TOLD_SPANS_MAX:
            del self._latest[next(iter(self._latest))]
        self._kept.keep(news)
        self._tracer.offer(news, self._kept.settled)

    def remember(self, execution_id: str, trace: ExecutionTrace) -> None:
        """A workflow is in memory: lines of the log find its trace. Call on the loop."""
        self._in_memory[execution_id] = trace

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See Interceptor; nothing is intercepted."""
        input.unsafe_extern_functions[_TELL] = self._soon
        return None

    def _soon(self, told: Callable[["Traces"], None]) -> None:
        # A worker that is about to end tells no more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(told, self)


class WalkTrace:
    """What a workflow tells of its execution; nothing where that is not traced."""

    __slots__ = ("_began_ms", "_trace")

    def __init__(self, text: str, execution_id: str, began_ms: int) -> None:
        """`text` is of the workflow's input, `began_ms` the earliest time there is."""
        self._began_ms = began_ms
        self._trace = trace = ExecutionTrace.stored(text, execution_id) if text else None
        if trace is not None:
            _to_worker(lambda traces: traces.remember(execution_id, trace))

    def named(self, plan: Plan) -> None:
        """Its document is known."""
        if self._trace is not None:
            self._trace.workflow = (plan.namespace, plan.name, plan.version)

    def asked(self, effect: PerformEffect, rested_ms: int) -> None:
        """The walk asks for an effect; its clock is behind by `rested_ms`."""
        if self._trace is not None:
            self._trace.asked(effect, is_again=False, behind_ms=rested_ms)

    def performed(self, effect_id: int, *, is_again: bool) -> None:
        """An effect has an outcome, which the walk takes next; `is_again`: it had been performed in vain before."""
        if self._trace is not None and is_again:
            self._trace.resumed(effect_id)

    def answered(self, outcome: "Outcome") -> None:
        """The walk takes something, perhaps the outcome of an effect."""
        if self._trace is not None and isinstance(outcome, EffectResult | EffectFailure):
            self._trace.answered(outcome.effect_id, error_of(outcome), self._now_ms)

    def given_up(self, effect_id: int) -> None:
        """Nobody waits for an effect any more."""
        if self._trace is not None:
            self._trace.given_up(effect_id, self._now_ms)

    def ended(self, walk: Walk) -> None:
        """The execution has ended."""
        if self._trace is not None:
            self._trace.ended(walk.status, walk.error if walk.status == "failed" else None, self._now_ms)

    def tell(self) -> None:
        """Has the worker know what has ended since the last call, unless this is a replay."""
        spans = () if self._trace is None else self._trace.gather()
        if spans and not workflow.unsafe.is_replaying():
            _to_worker(lambda traces: traces.tell(spans))

    @property
    def _now_ms(self) -> int:
        """The time of the workflow task: traces do not rest."""
        return max(_task_ms(), self._began_ms)


def child_trace(text: str, execution_id: str, effect_id: int, child_id: str, now_ms: int) -> str:
    """What is traced of an execution that an effect of another one starts; `text` is that of the other one."""
    parent = ExecutionTrace.stored(text, execution_id) if text else None
    return "" if parent is None else ExecutionTrace(child_id, parent.place_of(effect_id), now_ms).text


def tell_accepted(text: str, execution_id: str) -> None:
    """Call in a workflow that has started another one: that is in Temporal's store."""
    trace = ExecutionTrace.stored(text, execution_id) if text else None
    if trace is not None and not workflow.unsafe.is_replaying():
        spans = trace.accepted(_task_ms())
        _to_worker(lambda traces: traces.tell(spans))


def _attempt() -> str:
    """Which attempt of which activity this is."""
    info = activity.info()
    return f"{info.workflow_id} {info.activity_id} {info.attempt}"


def _task_ms() -> int:
    return int(workflow.now().timestamp() * 1000)


def _to_worker(told: Callable[[Traces], None]) -> None:
    soon = workflow.extern_functions().get(_TELL)
    if soon is not None:
        soon(told)
