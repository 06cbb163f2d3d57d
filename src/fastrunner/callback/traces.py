"""Stage 7, callback: what is traced of one delivery.

Theory of operation: a delivery has events of many executions, and each that is traced has a span of it in its own
trace. What goes along with the call is the place of the first of these executions; the spans of the others have a link
to it.

Rules: a span is told once the receiver has taken something of an execution, from its first attempt on, under an id that
follows from the first event: so what is sent again, by this process or the next one, is the same span.
"""

from collections.abc import Mapping, Sequence

from fastrunner.base.clock import steady_ms
from fastrunner.callback.queue import Lane, Parcel
from fastrunner.engine import Outbox
from fastrunner.tracing.context import CURRENT, TraceContext
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.tracer import Tracer

__all__ = ["TracedDelivery"]


class TracedDelivery:
    """One delivery, as traces have it; begins when it is made, in the task that delivers."""

    def __init__(self, tracer: Tracer, outbox: Outbox, parcels: Sequence[Parcel]) -> None:
        self._tracer = tracer
        self._outbox = outbox
        self._began_ms = steady_ms()
        self._carrier: TraceContext | None = None
        self._traces: dict[Lane, tuple[int, ExecutionTrace]] = {}
        for parcel in [each for each in parcels if each.lane.trace]:
            lane = parcel.lane
            if lane in self._traces:
                continue
            trace = ExecutionTrace.stored(lane.trace, lane.execution_id)
            if trace is None:
                continue
            self._traces[lane] = parcel.first, trace
            if self._carrier is None or not self._carrier.is_sampled:
                self._carrier = trace.place
        CURRENT.set(self._carrier)

    def ended(self, taken: Mapping[Lane, int]) -> None:
        """The receiver has every lane's events up to a sequence number; call before the outbox hears of that."""
        if not self._traces:
            return
        now_ms = steady_ms()
        for lane, (first, trace) in self._traces.items():
            last = taken[lane]
            if trace.context.is_sampled and last >= first:
                carrier = None if trace.place == self._carrier else self._carrier
                span = trace.callback(first, last, self._began_ms, now_ms, carrier)
                self._tracer.offer((span,), self._outbox.keep_span(lane.execution_id, span))
