"""Support: `fastrunner status`: whether a runner is behind, what runs, what fails, how slow it is, on one screen.

Rules: figures come from where others may have them too (/metrics, /readyz, ListExecutions), and each says since when or
of how many it is. What one of the two ports does not answer is said, and the other's is shown.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from fastrunner.base.clock import wall_ms
from fastrunner.base.printable import printable
from fastrunner.cli.access import Access, access_options
from fastrunner.cli.arguments import EXIT_INTERRUPTED, Number, Since
from fastrunner.config import ConfigurationError, runner_ports

if TYPE_CHECKING:
    from fastrunner.cli.client import Client
    from fastrunner.cli.scrape import Http, Metrics

EXIT_NOT_READY = 1
EXIT_UNREACHABLE = 4
_FAILED_LOOKED_AT = 200
"""Failed executions that are grouped, the newest ones."""
_FAILURES_SHOWN = 5
_LISTED_MAX = 1000
"""Of a listing that is only counted."""
_UNFINISHED = ("running", "pending", "paused")
_FINISHED = ("completed", "failed", "cancelled")
_SHARES = (0.5, 0.95, 0.99)


@dataclass(slots=True)
class Seen:
    """What one look at a runner has found."""

    now_ms: int
    """When it was."""
    since_ms: int
    """What is older is not recent."""
    grpc: str = ""
    """host:port of its gRPC services."""
    http: str = ""
    """host:port of /metrics and /readyz."""
    troubles: list[str] = field(default_factory=list)
    """What was not answered, and why."""
    readiness: dict[str, Any] | None = None
    """What /readyz says."""
    metrics: "Metrics | None" = None
    """What /metrics says."""
    counts: dict[str, str] | None = None
    """Unfinished executions by status; `1000+` beyond a page."""
    recent: Counter[str] | None = None
    """Of the executions accepted since `since_ms`, how many are what."""
    recent_cut: bool = False
    """Whether there were more than a page of them."""
    failures: list[dict[str, Any]] | None = None
    """Failed executions in groups, as `_grouped` makes them."""


@click.command()
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval-s", default=2.0, show_default=True, type=Number(0.2, 3600), help="With --watch.")
@click.option("--since", "since", default="10m", show_default=True, metavar="10m|TIME", help="What counts as recent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text; a line per look.")
@click.option("--target", default=None, metavar="HOST:PORT", help="Its gRPC port.  [FASTRUNNER_TARGET]")
@access_options
@click.option("--http-tls", is_flag=True, help="Connect to its HTTP port with TLS, too.")
@click.option(
    "--http-target", default=None, metavar="HOST:PORT", help="Its HTTP port.  [port: FASTRUNNER_HTTP_PORT, else 8080]"
)
@click.pass_context
def status(
    context: click.Context,
    /,
    watch: bool,
    interval_s: float,
    since: str,
    as_json: bool,
    target: str | None,
    http_target: str | None,
    http_tls: bool,
    **access: Any,
) -> None:
    """Show how a runner is: is it behind, what runs, what fails, how slow is it?

    A runner on this machine is found by the ports.json of its data directory (FASTRUNNER_DATA_DIR) unless a target is
    given. Durations are the bounds of histogram buckets: at most so long. Exits with 0 if it is ready, 1 if not, 4 if
    one of its ports does not answer.
    """
    from fastrunner.cli.client import Client
    from fastrunner.cli.scrape import Http

    try:
        grpc_target, http_target = runner_ports(target, http_target)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    shown = Access(**access)
    client = Client(grpc_target, shown, 10.0)
    http = Http(http_target, shown, tls=http_tls)
    try:
        while True:
            since_ms = Since().convert(since, None, context)
            seen = _look(client, grpc_target, http, since_ms)
            _show(seen, as_json, watch)
            if not watch:
                break
            time.sleep(interval_s)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(_exit_code(seen))


def _exit_code(seen: Seen) -> int:
    if seen.readiness is not None and not seen.readiness["ready"]:
        return EXIT_NOT_READY
    return EXIT_UNREACHABLE if seen.troubles else 0


# --- looking ---


def _look(client: "Client", grpc_target: str, http: "Http", since_ms: int) -> Seen:
    from fastrunner.cli.scrape import Unreachable, read_metrics, read_readiness

    seen = Seen(wall_ms(), since_ms, grpc_target, http.target)
    try:
        seen.readiness = read_readiness(http)
        seen.metrics = read_metrics(http)
    except Unreachable as error:
        seen.troubles.append(f"http {http.target}: {error}; is it elsewhere? give --http-target")
    _list(client, seen)
    return seen


def _list(client: "Client", seen: Seen) -> None:
    import grpc

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

    def page(**filters: Any) -> Any:
        return client.invoke("ListExecutions", query_pb2.ListExecutionsRequest(**filters))

    try:
        counts = {}
        for name in _UNFINISHED:
            reply = page(statuses=[name], page_size=_LISTED_MAX)
            counts[name] = f"{len(reply.executions)}{'+' if reply.next_page_token else ''}"
        seen.counts = counts
        reply = page(accepted_from_ms=seen.since_ms, page_size=_LISTED_MAX)
        seen.recent = Counter(execution.status for execution in reply.executions)
        seen.recent_cut = bool(reply.next_page_token)
        seen.failures = _grouped(page(statuses=["failed"], page_size=_FAILED_LOOKED_AT).executions)
    except grpc.RpcError as error:
        failed: Any = error
        seen.troubles.append(
            f"grpc {seen.grpc}: {failed.code().name}: {failed.details()}; is it elsewhere? give --target"
        )


def _grouped(executions: Iterable[Any]) -> list[dict[str, Any]]:
    """Failed executions by workflow and error, the most frequent first; of each the latest one's id and end."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for execution in executions:
        workflow = f"{execution.workflow_namespace}/{execution.workflow_name}"
        error = execution.error
        what = f"{error.status} {error.title or error.type.rsplit('/', 1)[-1]}"
        group = groups.setdefault(
            (workflow, what),
            {"workflow": workflow, "error": what, "type": error.type, "count": 0, "latest_ms": 0, "latest_id": ""},
        )
        group["count"] += 1
        if execution.finished_ms >= group["latest_ms"]:
            group["latest_ms"], group["latest_id"] = execution.finished_ms, execution.execution_id
    return sorted(groups.values(), key=lambda group: -int(group["count"]))


# --- showing ---


def _show(seen: Seen, as_json: bool, watch: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(_figures(seen)))
        return
    if watch and sys.stdout.isatty():
        click.clear()
    for line in _lines(seen):
        click.echo(line)


def _figures(seen: Seen) -> dict[str, Any]:
    metrics = seen.metrics
    return {
        "at_ms": seen.now_ms,
        "ready": None if seen.readiness is None else seen.readiness["ready"],
        "reason": "" if seen.readiness is None else seen.readiness["reason"],
        "workers": None if seen.readiness is None else seen.readiness["workers"],
        "unanswered": seen.troubles,
        "unfinished": seen.counts,
        "recent": seen.recent,
        "failures": seen.failures,
        "durations_s": None if metrics is None else {name: _quantiles(metrics, *args) for name, *args in _SLOW},
        "callback_queue_events": None if metrics is None else metrics.total("callback_queue_events"),
        "callback_oldest_event_age_s": None if metrics is None else metrics.total("callback_oldest_event_age_seconds"),
        "receiver_suspended_by_workers": None if metrics is None else metrics.total("callback_breaker_open"),
    }


_SLOW = (
    ("executions", "execution_duration_seconds"),
    ("http calls", "effect_duration_seconds"),
    ("commits", "commit_duration_seconds"),
    ("timers late", "timer_lateness_seconds"),
)
"""What has a duration that matters, and its histogram."""


def _quantiles(metrics: "Metrics", name: str) -> list[float] | None:
    """At most how many seconds half of them, 95 and 99 in 100 took; None if there were none."""
    from fastrunner.cli.scrape import quantile

    buckets = metrics.buckets(name)
    found = [quantile(buckets, share) for share in _SHARES]
    return None if None in found else [_bounded(value, buckets) for value in found if value is not None]


def _bounded(value: float, buckets: list[tuple[float, float]]) -> float:
    return buckets[-2][0] if math.isinf(value) and len(buckets) > 1 else value


def _lines(seen: Seen) -> Iterable[str]:
    yield from _readiness(seen)
    yield from _running(seen)
    yield from _failing(seen)
    if seen.metrics is not None:
        yield from _slow(seen.metrics)
        yield from _behind(seen.metrics)


def _row(name: str, text: str, colour: str | None = None) -> str:
    return f"{click.style(f'{name:<10}', bold=True)}{click.style(printable(text), fg=colour)}"


def _readiness(seen: Seen) -> Iterable[str]:
    where = f"grpc {seen.grpc}, http {seen.http}"
    if seen.readiness is not None:
        ready, reason = seen.readiness["ready"], seen.readiness["reason"]
        text = ("ready" if ready else "not ready") + (f": {reason}" if reason else "")
        yield _row("runner", text, "green" if ready and not reason else "yellow" if ready else "red")
        workers = seen.readiness["workers"]
        states = Counter(worker["state"] for worker in workers)
        restarts = sum(worker["restarts"] for worker in workers)
        yield _row("workers", ", ".join(f"{count} {state}" for state, count in states.items())
                   + (f", {restarts} restarts" if restarts else ""))  # fmt: skip
    yield _row("at", where)
    for trouble in seen.troubles:
        yield _row("", trouble, "red")


def _running(seen: Seen) -> Iterable[str]:
    if seen.counts is not None:
        yield _row("now", ", ".join(f"{count} {name}" for name, count in seen.counts.items()))
    if seen.recent is not None:
        from fastrunner.cli.present import span

        total = f"{sum(seen.recent.values())}{'+' if seen.recent_cut else ''}"
        ends = ", ".join(f"{seen.recent[name]} {name}" for name in _FINISHED)
        yield _row("recent", f"{total} accepted in {span(seen.now_ms - seen.since_ms, parts=1)}: {ends}")


def _failing(seen: Seen) -> Iterable[str]:
    if seen.failures is None:
        return
    from fastrunner.cli.present import span

    if not seen.failures:
        yield _row("failing", "nothing", "green")
    for number, group in enumerate(seen.failures[:_FAILURES_SHOWN]):
        ago = span(seen.now_ms - group["latest_ms"], parts=1)
        text = f"{group['count']} x {group['workflow']}: {group['error']}  (latest {ago} ago: {group['latest_id']})"
        yield _row("" if number else "failing", text, "red")
    if len(seen.failures) > _FAILURES_SHOWN:
        yield _row("", f"{len(seen.failures) - _FAILURES_SHOWN} kinds more: fastrunner list --failed")


def _slow(metrics: "Metrics") -> Iterable[str]:
    shown = [(name, found) for name, metric in _SLOW if (found := _quantiles(metrics, metric)) is not None]
    for number, (name, found) in enumerate(shown):
        half, most, nearly_all = map(_seconds, found)
        text = f"{name:<12} p50 {half:>8}  p95 {most:>8}  p99 {nearly_all:>8}" + (
            "" if number else "  (since its start)"
        )
        yield _row("" if number else "slow", text)


def _seconds(value: float) -> str:
    return f"{1000 * value:g} ms" if value < 1 else f"{value:g} s"


def _behind(metrics: "Metrics") -> Iterable[str]:
    queued, oldest_s = metrics.total("callback_queue_events"), metrics.total("callback_oldest_event_age_seconds")
    suspended = metrics.total("callback_breaker_open")
    text = f"{queued:g} events wait for the receiver"
    if oldest_s:
        text += f", the oldest for {_seconds(round(oldest_s, 1))}"
    if suspended:
        text += f"; it is suspended by {suspended:g} workers"
    yield _row("behind", text, "red" if suspended else None)
    refused = metrics.by("executions_rejected_total", "reason")
    if refused:
        yield _row(
            "refused", ", ".join(f"{count:g} {reason}" for reason, count in refused.items()) + " (since its start)"
        )
    if metrics.total("storage_failing"):
        yield _row("storage", f"{metrics.total('storage_failing'):g} shards cannot be written or read", "red")
