"""Support: which executions are traced, and the way of their spans to the collector.

Theory of operation: a span that has ended waits in a bounded queue; one task takes what is there, some time after the
first came or once they are a batch, and has a thread export it: a request costs as much as some hundred spans. Whoever
has many things to tell tells them just before that, together: one now and then, in the middle of other work, takes ten
times as long as one of a hundred. What the
collector cannot take for now is kept and tried again after a pause; what it refuses for good is dropped, for it would
keep all others from their way. Where the queue is full, new spans are dropped: a collector that is away costs memory
within a bound, and no execution ever waits for it. What is dropped is counted. Whoever keeps a span elsewhere until it
is settled, exported or dropped, hears of that.

Rules: made in each worker, after the fork. The library is loaded by the first span that is exported.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import getrandbits, random, randrange
from typing import Final, NamedTuple, Protocol

from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.tracing.context import NO_SPAN, TraceContext
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.span import Span

__all__ = ["ALL", "TAKEN", "Answer", "Exporter", "Sampler", "Settled", "Tracer", "new_tracer"]

_log = logging.getLogger(__name__)

_ALL: Final = 1 << 64


class Answer(NamedTuple):
    """What became of an export."""

    is_final: bool
    """Whether the collector has had its say; otherwise they are to be sent again."""
    refused_count: int = 0
    """How many of them it will never take; ALL: it takes none."""
    reason: str = ""
    """Why not, for people."""
    pause_s: float = 0.0
    """How long it wants to be left alone; 0: it does not say."""


ALL: Final = -1
TAKEN: Final = Answer(is_final=True)


class Exporter(Protocol):
    """What takes spans to the collector."""

    def export(self, spans: Sequence[Span]) -> Answer:
        """Blocks until there is an answer."""

    def close(self) -> None:
        """Ends an export under way, too."""


Settled = Callable[[str], None]
"""Told the id of a span that is on its way no more."""


class Sampler:
    """Which executions are traced."""

    def __init__(self, *, ratio: float, is_parent_based: bool) -> None:
        """`ratio` of traces; `is_parent_based`: a caller's own decision goes before it."""
        self._ratio = ratio
        self._bound = round(ratio * _ALL)
        self._is_parent_based = is_parent_based

    def decide(self, caller: TraceContext | None) -> TraceContext | None:
        """Where an execution is, with what is decided of it; None: in no trace, and not sampled."""
        if caller is None:
            return self.root()
        is_sampled = caller.is_sampled
        if not self._is_parent_based:
            is_sampled = int(caller.trace_id[16:], 16) < self._bound
        return TraceContext(caller.trace_id, caller.span_id, is_sampled, caller.state)

    def root(self) -> TraceContext | None:
        """That of an execution whose caller is in no trace. Asked of each of them: nothing is cheaper than a number."""
        if random() >= self._ratio:
            return None
        # One that whoever decides by the trace's id decides alike.
        return TraceContext(f"{getrandbits(64):016x}{randrange(self._bound) or 1:016x}", NO_SPAN, True)


class Tracer:
    """The tracing of one worker."""

    def __init__(self, sampler: Sampler, make_exporter: Callable[[], Exporter], metrics: Metrics) -> None:
        """`make_exporter` is called in a thread, when there is something to export."""
        self.sampler = sampler
        """Decides which executions are traced."""
        self._make_exporter = make_exporter
        self._exporter: Exporter | None = None
        self._counts = {outcome: metrics.spans.labels(outcome) for outcome in ("exported", "failed", "dropped")}
        self._queued = metrics.spans_queued
        self._queue: deque[tuple[Span, Settled | None]] = deque()  # bounded in `offer`
        self._thread = ThreadPoolExecutor(1, "fastrunner-traces")
        self._task: asyncio.Task[None] | None = None
        self._is_closing, self._is_due = asyncio.Event(), asyncio.Event()
        self._trouble = ""
        self.find: Callable[[str], ExecutionTrace | None] = _nothing
        """What is traced of an execution by its id, if it is in memory; the engine sets it."""
        self.tell: Callable[[], None] = _nothing_to_tell
        """Offers what has been put off; the engine sets it."""

    def ids_of(self, execution_id: str) -> tuple[str, str] | None:
        """Trace and span of an execution that is sampled, for its log lines."""
        trace = self.find(execution_id)
        return None if trace is None or not trace.context.is_sampled else (trace.context.trace_id, trace.root_id)

    @property
    def waiting_count(self) -> int:
        """Spans that wait for the collector."""
        return len(self._queue)

    def offer(self, spans: Iterable[Span], settled: Settled | None = None) -> None:
        """Has spans exported soon; `settled` hears of each, once."""
        for span in spans:
            if len(self._queue) >= limits.TRACE_QUEUE_SPANS_MAX:
                self._counts["dropped"].inc()
                if settled is not None:
                    settled(span.span_id)
                continue
            self._queue.append((span, settled))
        self._queued.set(len(self._queue))
        if len(self._queue) >= limits.TRACE_BATCH_SPANS_MAX:
            self._is_due.set()
        if self._queue:
            self.expect()

    def expect(self) -> None:
        """There is something to export, or to be told, soon."""
        if self._task is None and not self._is_closing.is_set():
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(_report)

    async def _run(self) -> None:
        """Exports until nothing has come for a while."""
        retry_s = limits.TRACE_RETRY_PAUSE_S_MIN
        try:
            while True:
                # Spans wait for company, until they are a batch or the worker stops.
                if retry_s == limits.TRACE_RETRY_PAUSE_S_MIN:
                    await _rest(self._is_due, limits.TRACE_EXPORT_DELAY_S)
                self.tell()
                if not self._queue:
                    return
                answer = await self._export()
                if answer.is_final:
                    retry_s = limits.TRACE_RETRY_PAUSE_S_MIN
                elif self._is_closing.is_set():
                    return
                else:
                    asked_s = min(answer.pause_s, limits.TRACE_RETRY_PAUSE_ASKED_S_MAX)
                    await _rest(self._is_closing, max(asked_s, min(retry_s, limits.TRACE_RETRY_PAUSE_S)))
                    retry_s = min(2 * retry_s, limits.TRACE_RETRY_PAUSE_S)
        finally:
            self._task = None

    async def _export(self) -> Answer:
        """Exports what comes next."""
        batch = [self._queue[at] for at in range(min(len(self._queue), limits.TRACE_BATCH_SPANS_MAX))]
        spans = [span for span, _ in batch]
        answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, spans)
        self._tell(answer)
        if not answer.is_final:
            self._counts["failed"].inc(len(batch))
            return answer
        for span, settled in batch:
            self._queue.popleft()
            if settled is not None:
                settled(span.span_id)
        refused_count = len(batch) if answer.refused_count == ALL else min(answer.refused_count, len(batch))
        self._counts["exported"].inc(len(batch) - refused_count)
        self._counts["dropped"].inc(refused_count)
        self._queued.set(len(self._queue))
        if len(self._queue) < limits.TRACE_BATCH_SPANS_MAX and not self._is_closing.is_set():
            self._is_due.clear()
        return answer

    def _answer(self, spans: Sequence[Span]) -> Answer:
        # In the thread: loading the library takes a while.
        if self._exporter is None:
            try:
                self._exporter = self._make_exporter()
            except OSError as error:
                return Answer(False, 0, f"the exporter cannot be made: {error}")
        try:
            return self._exporter.export(spans)
        except Exception as error:
            # It would fail again, and keep the others from their way.
            _log.exception("exporting %d spans failed inside the runner", len(spans))
            return Answer(True, ALL, type(error).__name__)

    def _tell(self, answer: Answer) -> None:
        """Says what goes wrong when that begins, and when it is over."""
        if answer.reason == self._trouble:
            return
        self._trouble = answer.reason
        if not answer.reason:
            _log.info("spans are exported again")
        elif answer.is_final:
            _log.warning("the collector refuses spans for good, and they are dropped: %s", answer.reason)
        else:
            _log.warning("spans cannot be exported, and wait: %s", answer.reason)

    async def close(self, timeout_s: float) -> None:
        """Exports what is there within a time, but not a long one; what is left and kept elsewhere the next start
        exports."""
        self._is_closing.set()
        self._is_due.set()
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=min(timeout_s, limits.TRACE_DRAIN_S_MAX))
            task.cancel()
        if self._queue:
            _log.warning("%d spans could not be exported before the end", len(self._queue))
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


def new_tracer(config: Config, metrics: Metrics) -> Tracer | None:
    """The tracing of one worker by its settings; None: nothing is traced. Call on the worker's loop."""
    if not config.traces:
        return None

    def make_exporter() -> Exporter:
        from fastrunner.tracing.otlp import OtlpExporter

        return OtlpExporter(config)

    sampler = Sampler(ratio=config.traces_ratio, is_parent_based=config.otel_traces_sampler.is_parent_based)
    return Tracer(sampler, make_exporter, metrics)


async def _rest(event: asyncio.Event, pause_s: float) -> None:
    """Waits for a while, or until something happens."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), pause_s)


def _nothing(_execution_id: str) -> None:
    """Nothing is traced of it."""


def _nothing_to_tell() -> None:
    """Nobody puts anything off."""


def _report(task: "asyncio.Task[None]") -> None:
    """A task that dies must be heard of."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("exporting spans failed inside the runner", exc_info=task.exception())
