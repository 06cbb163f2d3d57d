"""Support: every metric of the runner and of the Stigmer Service: name, help, labels, buckets; docs/metrics.md is
generated from here.

Rules: no execution id in a label, and no label whose values have no end; a series whose labels are known exists from
the start, at zero; what is counted often is looked up once. Counting is a store into shared memory (see `cells`), so it
costs a tenth of a microsecond and survives the process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from fastrunner.base.deaths import CAUSES
from fastrunner.base.library_logs import LIBRARIES
from fastrunner.counts.cells import Cells, Counter, Gauge, Histogram, Note, Segment
from fastrunner.progress.names import FINAL_STATUSES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["EXECUTION_SECONDS", "REFUSED_DESTINATIONS", "Definition", "Family", "Metrics", "StigmerMetrics"]

CALL_SECONDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""For what takes microseconds to seconds."""
EXECUTION_SECONDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 604800.0),
)
"""For what takes milliseconds to days; whole milliseconds, which is how the walk's clock counts."""
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
REFUSED_DESTINATIONS = (
    *("denied", "link_local", "loopback", "metadata", "no_host", "own_port", "private", "spelling"),
)
"""Why an effect may not go somewhere: `access.egress` has them from here."""
_KINDS = (
    *("set", "do", "switch", "for", "fork", "try", "raise", "wait", "call_http", "call_function", "run_workflow"),
    *("run_shell", "run_script", "emit", "listen", "run_container"),
    *("call_openapi", "call_grpc", "call_mcp", "call_a2a", "call_asyncapi"),
)
_EFFECTS = (
    *("call_http", "run_shell", "run_script", "emit", "run_container"),
    *("call_openapi", "call_grpc", "call_mcp", "call_a2a", "call_asyncapi"),
)
_OPEN: tuple[str, ...] = ()
"""Label values that are not known beforehand; few, though."""

Child = TypeVar("Child", Counter, Gauge, Histogram)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric."""

    name: str
    """As it is scraped, `_total` included."""
    kind: Literal["counter", "gauge", "histogram"]
    """Its type."""
    text: str
    """Its help."""
    labels: Mapping[str, Sequence[str]]
    """Label names, each with the values known beforehand; none if they are not."""
    bounds: tuple[float, ...] = ()
    """A histogram's buckets."""
    oldest: bool = False
    """Whether a gauge over all workers is the largest of theirs, not the sum."""

    @property
    def width(self) -> int:
        """Cells of one series."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Family(Generic[Child]):
    """A metric with labels."""

    def __init__(self, make: Callable[[tuple[str, ...]], Child]) -> None:
        self._make: Callable[[tuple[str, ...]], Child] = make
        self._children: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        """The series of some label values, in the order of the label names."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._make(values)
        return child


class _Definitions:
    """What counts: how metrics are defined, kept and collected."""

    PREFIX: ClassVar[str]
    """What every name begins with, but those that a convention gives."""

    def __init__(self, segment: Segment | None = None):
        """Counts in a segment, or in memory of its own."""
        self.definitions: dict[str, Definition] = {}
        """Every metric by name."""
        self._segment = segment
        self._counts = Cells(None if segment is None else segment.counts)
        # What is present goes with the process, so it lies in cells of its own.
        self._present = Cells(None if segment is None else segment.gauges)
        self.values = self._counts.values
        """The cells of counters and histograms."""

    def note(self, name: str) -> Note:
        """A note of that name; the same one for a successor."""
        return Note() if self._segment is None else self._segment.note(name)

    def collect(self) -> "Iterator[Metric]":
        """See prometheus_client's Collector."""
        from fastrunner.counts.scrape import families

        return families(self.definitions, [self._counts.read()], [self._present.read()])

    # --- kinds of metrics ---

    def _define(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        text: str,
        labels: Mapping[str, Sequence[str]],
        bounds: tuple[float, ...] = (),
        oldest: bool = False,
    ) -> Definition:
        full_name = name if name.startswith("grpc_") else f"{self.PREFIX}{name}"
        definition = Definition(full_name, kind, text, labels, bounds, oldest)
        self.definitions[full_name] = definition
        return definition

    def _series(
        self, definition: Definition, make: Callable[[Cells, int], Child], cells: Cells
    ) -> Callable[[tuple[str, ...]], Child]:
        return lambda values: make(cells, cells.place(definition.name, values, definition.width))

    def _family(self, definition: Definition, make: Callable[[Cells, int], Child], cells: Cells) -> Family[Child]:
        family: Family[Child] = Family(self._series(definition, make, cells))
        for values in product(*definition.labels.values()):
            family.labels(*values)
        return family

    def _define_api(self) -> None:
        """The HTTP API's, the same for whoever serves it."""
        self.requests = self._counters(
            "http_requests_total",
            "Requests of the HTTP API, by operation and status",
            {"operation": _OPEN, "status": _OPEN},
        )
        self.request_duration = self._histograms(
            "http_request_duration_seconds",
            "Time requests of the HTTP API took, by operation; those that follow are counted and not timed",
            CALL_SECONDS,
            {"operation": _OPEN},
        )
        self.followers = self._gauge("followers", "Clients that follow an execution, or all of them")
        self.followers_cut = self._counter("followers_cut_total", "Clients cut because they did not read")

    def count_request(self, operation: str, status: int, took_s: float | None) -> None:
        """An answer of the HTTP API; None: it is no matter of time."""
        self.requests.labels(operation, str(status)).inc()
        if took_s is not None:
            self.request_duration.labels(operation).observe(took_s)

    def _counter(self, name: str, text: str) -> Counter:
        return self._series(self._define(name, "counter", text, {}), Counter, self._counts)(())

    def _counters(self, name: str, text: str, labels: Mapping[str, Sequence[str]]) -> Family[Counter]:
        return self._family(self._define(name, "counter", text, labels), Counter, self._counts)

    def _gauge(self, name: str, text: str, *, oldest: bool = False) -> Gauge:
        return self._series(self._define(name, "gauge", text, {}, oldest=oldest), Gauge, self._present)(())

    def _gauges(self, name: str, text: str, labels: Mapping[str, Sequence[str]]) -> Family[Gauge]:
        return self._family(self._define(name, "gauge", text, labels), Gauge, self._present)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        definition = self._define(name, "histogram", text, {}, bounds)
        return self._series(definition, lambda cells, at: Histogram(cells, at, bounds), self._counts)(())

    def _histograms(
        self, name: str, text: str, bounds: tuple[float, ...], labels: Mapping[str, Sequence[str]]
    ) -> Family[Histogram]:
        definition = self._define(name, "histogram", text, labels, bounds)
        return self._family(definition, lambda cells, at: Histogram(cells, at, bounds), self._counts)


class Metrics(_Definitions):
    """Those of one process of a runner."""

    PREFIX = "workflow_runner_"

    def __init__(self, registry: "CollectorRegistry | None" = None, segment: Segment | None = None):
        """Counts in a segment, or in memory of its own; a registry, if given, can collect it.

        In a segment counters go on where a predecessor stopped. No two living processes may count in the same one.
        """
        super().__init__(segment)
        self._define_executions()
        self._define_storage()
        self._define_callbacks()
        self._define_traces()
        self._define_cloud_events()
        self._define_schedules()
        self._define_listeners()
        self._define_processes()
        self._define_replica()
        self._define_rpcs()
        self._define_api()
        if registry is not None:
            registry.register(self)

    # --- definitions ---

    def _define_executions(self) -> None:
        statuses, kinds = {"status": sorted(FINAL_STATUSES)}, {"kind": _KINDS}
        self.active_executions = self._gauge("active_executions", "Executions accepted and not finished")
        self.execution_duration = self._histograms(
            "execution_duration_seconds", "Time from acceptance to the end of an execution", EXECUTION_SECONDS, statuses
        )
        self.executions_accepted = self._counter("executions_accepted_total", "Executions accepted")
        self.executions_finished = self._counters("executions_finished_total", "Executions finished", statuses)
        self.executions_rejected = self._counters(
            "executions_rejected_total", "Executions refused, by the class of the refusal", {"reason": _OPEN}
        )
        self.parked_executions = self._gauge(
            "parked_executions", "Executions that only wait: for a timer or an event, or paused"
        )
        self.executions_bound = self._gauge(
            "active_executions_bound", "Active executions at which new ones are refused", oldest=True
        )
        self.resident_executions = self._gauge("resident_executions", "Executions in memory")
        self.tasks = self._counters(
            "tasks_total",
            "Tasks that ended; those that were interrupted are not counted",
            {**kinds, "outcome": ("completed", "failed")},
        )
        self.task_duration = self._histograms(
            "task_duration_seconds",
            "Time from a task's first event to its last, in whole milliseconds",
            EXECUTION_SECONDS,
            kinds,
        )
        self.expressions_over_budget = self._counter(
            "expression_budget_exceeded_total", "Expressions that were ended because they used up their budget"
        )
        self.timer_lateness = self._histogram(
            "timer_lateness_seconds", "How long after their deadline timers went off", CALL_SECONDS
        )
        effects = {"kind": _EFFECTS}
        self.effects_in_flight = self._gauges("effects_in_flight", "Effects being performed", effects)
        self.effects = self._counters(
            "effects_total", "Effects performed", {**effects, "outcome": ("completed", "failed", "interrupted")}
        )
        self.effect_duration = self._histograms(
            "effect_duration_seconds", "Time one effect took", EXECUTION_SECONDS, effects
        )
        self.egress_refused = self._counters(
            "egress_refused_total",
            "Calls refused because of where they were to go, by the reason",
            {"reason": REFUSED_DESTINATIONS},
        )
        self.descriptions = self._counters(
            "descriptions_total",
            "Times that the description of a service was needed, by where it came from: pinned with the execution, "
            "kept in memory, shared with others who waited for it, unchanged as its server said, fetched; or failed",
            {"outcome": ("pinned", "kept", "shared", "unchanged", "fetched", "failed")},
        )
        self.plan_cache_hits = self._counter("plan_cache_hits_total", "Documents found compiled")
        self.plan_cache_misses = self._counter("plan_cache_misses_total", "Documents compiled")

    def _define_storage(self) -> None:
        self.commit_executions = self._histogram("commit_executions", "Executions written by one commit", _COUNTS)
        self.commit_duration = self._histogram(
            "commit_duration_seconds", "Time one commit took, fsync included", CALL_SECONDS
        )
        self.commit_failures = self._counters(
            "commit_failures_total", "Commits that failed and are tried again", {"cause": _OPEN}
        )
        self.executions_set_aside = self._counters(
            "executions_set_aside_total",
            "Executions paused because worker after worker died in a turn of them, by what the last one died of",
            {"reason": CAUSES},
        )
        self.damaged_records = self._counters(
            "damaged_records_total", "Stored records found damaged, by table", {"table": _OPEN}
        )
        self.storage_failing = self._gauge("storage_failing", "Shards that cannot be written or read now")
        self.disk_free = self._gauge(
            "disk_free_bytes", "What the disk of the data directory has left for the runner", oldest=True
        )
        self.disk_reserve = self._gauge(
            "disk_reserve_bytes", "Free space on that disk below which nothing new is taken", oldest=True
        )
        self.data_files = self._gauge("data_directory_bytes", "Size of the data directory's own files", oldest=True)

    def _define_callbacks(self) -> None:
        self.callback_events = self._counters(
            "callback_events_total",
            "Progress events by what became of them: acknowledged once; retried and failed as often as that happened",
            {"outcome": ("acknowledged", "retried", "failed", "dropped")},
        )
        self.callback_attempts = self._counters(
            "callback_attempts_total",
            "Callback calls by method and what came of them: a gRPC code, NOT_TAKEN, UNREADABLE or NOT_SENT",
            {"method": _OPEN, "code": _OPEN},
        )
        self.callback_queue_events = self._gauge(
            "callback_queue_events", "Events in memory that wait to be acknowledged"
        )
        self.callback_oldest_age = self._gauge(
            "callback_oldest_event_age_seconds", "Age of the oldest unacknowledged event", oldest=True
        )
        self.callback_breaker_open = self._gauge(
            "callback_breaker_open", "Workers whose callbacks are suspended after failures"
        )

    def _define_traces(self) -> None:
        self.spans = self._counters(
            "spans_total",
            "Spans of traces by what became of them: exported or dropped once; failed as often as an export did",
            {"outcome": ("exported", "failed", "dropped")},
        )
        self.spans_queued = self._gauge("spans_queued", "Spans in memory that wait for the collector")

    def _define_cloud_events(self) -> None:
        self.events_published = self._counters(
            "cloud_events_published_total",
            "CloudEvents that were published, and those that had been before",
            {"outcome": ("new", "duplicate")},
        )
        self.events_expired = self._counter(
            "cloud_events_expired_total", "CloudEvents deleted because they outlived the retention"
        )
        self.events_sent = self._counters(
            "cloud_events_sent_total",
            "Emitted CloudEvents by what became of them at each sink: retried as often as that happened",
            {"outcome": ("delivered", "retried", "dropped")},
        )
        self.event_sinks_failing = self._gauge("cloud_event_sinks_failing", "Sinks that take no CloudEvents now")
        self.event_sinks_oldest_age = self._gauge(
            "cloud_event_sinks_oldest_event_age_seconds",
            "Age of the oldest emitted CloudEvent that a sink has not taken",
            oldest=True,
        )
        self.lifecycle_events = self._counters(
            "lifecycle_events_sent_total",
            "Lifecycle CloudEvents by what became of them at each sink: retried as often as that happened",
            {"outcome": ("delivered", "retried", "dropped")},
        )
        self.lifecycle_sinks_failing = self._gauge(
            "lifecycle_sinks_failing", "Sinks that take no lifecycle CloudEvents now, as each worker counts them"
        )
        self.lifecycle_oldest_age = self._gauge(
            "lifecycle_sinks_oldest_event_age_seconds",
            "Age of the oldest lifecycle CloudEvent that a sink has not taken",
            oldest=True,
        )
        self.event_commit_events = self._histogram(
            "cloud_event_commit_events", "CloudEvents written by one commit", _COUNTS
        )
        self.event_commit_duration = self._histogram(
            "cloud_event_commit_duration_seconds",
            "Time one commit of CloudEvents took, its turn and fsync included",
            CALL_SECONDS,
        )

    def _define_schedules(self) -> None:
        self.schedules = self._gauge("schedules", "Schedules, paused ones included")
        self.schedule_leaders = self._gauge(
            "schedule_leaders", "Workers that fire schedules: one, but for a moment when another one takes over"
        )
        self.schedule_moments = self._counters(
            "schedule_moments_total",
            "Moments of schedules by what became of them: started an execution, failed to, missed while nobody could "
            "fire, left out because an execution was going on",
            {"outcome": ("started", "failed", "missed", "overlapped")},
        )
        self.schedule_lateness = self._histogram(
            "schedule_lateness_seconds",
            "How long after their moment executions of schedules were started, put off ones included",
            EXECUTION_SECONDS,
        )

    def _define_listeners(self) -> None:
        self.listeners = self._gauge("listeners", "Things that executions wait for as CloudEvents")
        self.inbox_rows = self._gauge("listener_events_waiting", "CloudEvents that listeners are still to take")
        self.events_matched = self._counter(
            "listener_events_matched_total", "CloudEvents found to be for a listener, once for each listener"
        )
        self.events_delivered = self._counter("listener_events_taken_total", "CloudEvents that executions have taken")
        self.listeners_behind = self._counter(
            "listeners_behind_total", "Times a listener had as many events waiting as it may have"
        )
        self.listener_gaps = self._counter(
            "listener_gaps_total", "Times a listener that was behind may have missed events that had expired"
        )

    def _define_processes(self) -> None:
        self.router_forwards = self._counters(
            "router_forwards_total", "Requests forwarded to their owner, by the code of the answer", {"code": _OPEN}
        )
        self.router_duration = self._histogram(
            "router_forward_duration_seconds", "Time a forwarded request took", CALL_SECONDS
        )
        self.library_log_records = self._counters(
            "library_log_records_total",
            "Records that libraries logged in workers; few of one kind are written",
            {"logger": LIBRARIES},
        )
        self.worker_restarts = self._counter(
            "worker_restarts_total", "Workers started again because one crashed or could not start"
        )
        self.start_failures = self._counters(
            "start_failures_total",
            "Processes that ended before they were ready: refused to start, died or hung",
            {"role": ("worker", "web")},
        )
        self.backing_off = self._gauge(
            "processes_backing_off", "Processes that wait for their next start after crashes or failed starts"
        )
        self.port_strangers = self._gauge(
            "port_strangers", "Sockets of other programs that listen where the runner does and take its connections"
        )

    def _define_replica(self) -> None:
        self.replica_lag_seconds = self._gauge(
            "replica_lag_seconds", "Age of the moment until which everything acknowledged is in the copy elsewhere"
        )
        self.replica_lag_bytes = self._gauge(
            "replica_lag_bytes", "About how much is committed and not yet in the copy elsewhere"
        )
        self.replica_down = self._gauge(
            "replica_down", "Whether there should be a process that copies elsewhere, and is none that is ready: 1 or 0"
        )
        self.replica_parts = self._counter("replica_parts_total", "Objects sent to the copy elsewhere")
        self.replica_bytes = self._counter("replica_bytes_total", "Bytes sent to the copy elsewhere")
        self.replica_generations = self._counters(
            "replica_generations_total",
            "Times the copy elsewhere began with everything, by why: first, renewed because the one before was long, "
            "or gap because what it lacked was not kept",
            {"reason": ("first", "gap", "renewed")},
        )
        self.replica_troubles = self._counter(
            "replica_troubles_total", "Times nothing could be sent to the copy elsewhere any more"
        )

    def _define_rpcs(self) -> None:
        method = {"grpc_type": _OPEN, "grpc_service": _OPEN, "grpc_method": _OPEN}
        self.grpc_started = self._counters("grpc_server_started_total", "RPCs begun on the server", method)
        self.grpc_handled = self._counters(
            "grpc_server_handled_total", "RPCs completed on the server, by code", {**method, "grpc_code": _OPEN}
        )
        self.grpc_duration = self._histograms(
            "grpc_server_handling_seconds", "Time RPCs took on the server", CALL_SECONDS, method
        )
        self.connections_cut = self._counter(
            "connections_cut_total",
            "gRPC connections cut: idle ones when there were nearly too many, and those with the most unread replies",
        )


class StigmerMetrics(_Definitions):
    """Those of a Stigmer Service."""

    PREFIX = "stigmer_"

    def __init__(self) -> None:
        super().__init__()
        self.events_stored = self._counter("events_stored_total", "Progress events kept")
        self.events_duplicate = self._counter("events_duplicate_total", "Progress events that were kept already")
        self.violations = self._counters(
            "violations_total", "What senders of progress must not do", {"kind": ("changed", "after_end")}
        )
        self.reports_refused = self._counters(
            "reports_refused_total", "Calls of ReportProgress and ReportProgressBatch refused, by code", {"code": _OPEN}
        )
        self.executions_ended = self._counters(
            "executions_ended_total", "Executions whose last event has come", {"status": sorted(FINAL_STATUSES)}
        )
        self.executions_settled = self._counter(
            "executions_settled_total", "Executions looked after because nobody knew whether their commit was whole"
        )
        self.executions_lost = self._counter(
            "executions_lost_total", "Executions of which nothing came, and which the runner does not have"
        )
        self.executions_expired = self._counter("executions_expired_total", "Executions forgotten after their time")
        self.launches = self._counters(
            "launches_total",
            "Answers of the runner to executions to start, and attempts that had none",
            {"outcome": ("accepted", "refused", "again")},
        )
        self.launches_waiting = self._gauge("launches_waiting", "Recorded executions on their way to the runner")
        self.events_waiting = self._gauge("events_waiting", "Events that wait for their commit")
        self.gap_age = self._gauge("oldest_gap_age_seconds", "Age of the oldest event that is missing", oldest=True)
        self.followers_late = self._counter(
            "followers_late_total", "Followed executions whose news a look at the store had to find"
        )
        self.fanout_up = self._gauge("fanout_up", "Whether Redis says what other services take: 1 or 0")
        self.fanout_dropped = self._counter("fanout_dropped_total", "News that was not said to other services")
        self._define_api()
