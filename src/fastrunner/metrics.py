"""Support: every metric of the runner: name, help, labels.

Rules: made after the fork, in the process that counts (`PROMETHEUS_MULTIPROC_DIR` must be set before this module is
imported); no execution id in a label; hot paths count whole batches.
"""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

_SHORT_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def name_process(identity: str) -> None:
    """Makes this process count into files called `identity`; before its first metric.

    A name that a successor takes over, instead of the process id, lets counters go on where the predecessor stopped and
    keeps the number of files constant, however often workers are replaced. No two living processes may share it.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: identity)  # type: ignore[no-untyped-call]


class Metrics:
    """One process's metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry() if registry is None else registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"workflow_runner_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str, oldest: bool = False) -> Gauge:
            # Over all workers a count adds up, an age is the oldest one's.
            mode: Literal["livemax", "livesum"] = "livemax" if oldest else "livesum"
            return Gauge(f"workflow_runner_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"workflow_runner_{name}", text, labels, registry=registry, buckets=buckets)

        self.active_executions = gauge("active_executions", "Executions accepted and not finished")
        self.execution_duration = histogram(
            "execution_duration_seconds", "Time from acceptance to the end of an execution", _LONG_S, "status"
        )
        self.executions_accepted = counter("executions_accepted_total", "Executions accepted")
        self.executions_finished = counter("executions_finished_total", "Executions finished", "status")
        self.executions_rejected = counter("executions_rejected_total", "Executions refused", "reason")
        self.effects_in_flight = gauge("effects_in_flight", "Effects being performed", "kind")
        self.effects = counter("effects_total", "Effects performed", "kind", "outcome")
        self.effect_duration = histogram("effect_duration_seconds", "Time one effect took", _LONG_S, "kind")
        self.commit_executions = histogram("commit_executions", "Executions written by one commit", _COUNTS)
        self.commit_duration = histogram("commit_duration_seconds", "Time one commit took, fsync included", _SHORT_S)
        self.commit_failures = counter("commit_failures_total", "Commits that failed and are tried again", "cause")
        self.damaged_records = counter("damaged_records_total", "Stored records found damaged, by table", "table")
        self.storage_failing = gauge("storage_failing", "Shards that cannot be written or read now")
        self.plan_cache_hits = counter("plan_cache_hits_total", "Documents found compiled")
        self.plan_cache_misses = counter("plan_cache_misses_total", "Documents compiled")
        self.callback_events = counter("callback_events_total", "Progress events by what became of them", "outcome")
        self.callback_attempts = counter(
            "callback_attempts_total", "Callback calls by method and code", "method", "code"
        )
        self.callback_queue_events = gauge("callback_queue_events", "Events waiting to be acknowledged, in memory")
        self.callback_oldest_age = gauge(
            "callback_oldest_event_age_seconds", "Age of the oldest unacknowledged event", oldest=True
        )
        self.callback_breaker_open = gauge("callback_breaker_open", "1 while callbacks are suspended after failures")
        self.router_forwards = counter("router_forwards_total", "Requests forwarded to their owner", "code")
        self.router_duration = histogram("router_forward_duration_seconds", "Time a forwarded request took", _SHORT_S)
        self.worker_restarts = counter("worker_restarts_total", "Workers started again after a crash")
        self.timer_lateness = histogram(
            "timer_lateness_seconds", "How long after their deadline timers went off", _SHORT_S
        )
        self.parked_executions = gauge("parked_executions", "Executions that only wait: for a timer, or paused")
        self.resident_executions = gauge("resident_executions", "Executions in memory")
        self.grpc_handled = Counter(
            "grpc_server_handled_total",
            "RPCs completed on the server",
            ("grpc_service", "grpc_method", "grpc_code"),
            registry=registry,
        )
        self.grpc_duration = Histogram(
            "grpc_server_handling_seconds",
            "Time RPCs took on the server",
            ("grpc_service", "grpc_method"),
            registry=registry,
            buckets=_SHORT_S,
        )
