"""Generates Grafana's dashboards in deploy/grafana; `--check` writes nothing and exits 1 if one of them is stale.

A dashboard is rows, each of which is a question that somebody on call asks, and panels, which are its answers. `$S` in
an expression stands for the labels that the dashboard's variables choose.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'job="$job", instance=~"$instance"'
RATE = "[$__rate_interval]"
HEIGHT, WIDTH = 8, 24


@dataclass(frozen=True)
class Panel:
    """One answer: expressions by their legends, and what their values are in."""

    title: str
    unit: str
    queries: dict[str, str]
    text: str
    """What it means, and what to do about it."""
    stat: bool = False
    """A figure rather than curves: of now."""
    red_above: float | None = None
    red_below: float | None = None


Rows = dict[str, Sequence[Panel]]


def rate(metric: str, by: str = "", match: str = "") -> str:
    """Events a second, over what is chosen."""
    over = f" by ({by})" if by else ""
    return f"sum{over} (rate({metric}{{$S{match and ', ' + match}}}{RATE}))"


def quantile(share: float, metric: str, by: str = "", match: str = "") -> str:
    """Of a histogram, over what is chosen."""
    chosen = f"{{$S{match and ', ' + match}}}"
    return f"histogram_quantile({share}, sum by ({by and by + ', '}le) (rate({metric}_bucket{chosen}{RATE})))"


def now(metric: str, how: str = "sum") -> str:
    """A gauge, over what is chosen."""
    return f"{how}({metric}{{$S}})"


R, S = "workflow_runner_", "stigmer_"
CALLBACK_AGE = f"{R}callback_oldest_event_age_seconds"
FULL_IN = (
    f"min((({R}disk_free_bytes{{$S}} - {R}disk_reserve_bytes{{$S}}) / "
    f"-(deriv({R}disk_free_bytes{{$S}}[1h]) < 0)) or vector(31536000))"
)
"""Seconds until nothing new is taken, at the pace of the last hour; a year if the disk does not fill."""

FAILED = rate(f"{R}executions_finished_total", match='status="failed"')
UNANSWERED = rate(f"{R}router_forwards_total", match='code="UNAVAILABLE"')
NO_ROOM = rate(f"{R}executions_rejected_total", match='reason=~"AtCapacity|Overload|Storage.*|Unavailable"')

BEHIND = [
    Panel(
        "Oldest event not acknowledged",
        "s",
        {"age": now(CALLBACK_AGE, "max")},
        "How far the receiver is behind what has happened. Seconds are normal; else see callbacks.",
        stat=True,
        red_above=300,
    ),
    Panel(
        "Refused for want of room",
        "ops",
        {
            "refused": rate(
                f"{R}executions_rejected_total", match='reason=~"AtCapacity|Overload|Storage.*|Unavailable"'
            )
            + " or vector(0)"
        },
        "Executions a second that a client has to submit again. Above 0: see what fills up, below.",
        stat=True,
        red_above=0.1,
    ),
    Panel(
        "Accepted less finished",
        "ops",
        {"growing by": f"{rate(f'{R}executions_accepted_total')} - {rate(f'{R}executions_finished_total')}"},
        "Above 0 for long: more comes than ends. Waiting executions cost disk, not memory.",
        stat=True,
    ),
    Panel(
        "Executions",
        "ops",
        {
            "accepted": rate(f"{R}executions_accepted_total"),
            "{{status}}": rate(f"{R}executions_finished_total", "status"),
        },
        "What comes and what ends, a second.",
    ),
    Panel(
        "Late",
        "s",
        {
            "timers, p99": quantile(0.99, f"{R}timer_lateness_seconds"),
            "schedules, p99": quantile(0.99, f"{R}schedule_lateness_seconds"),
        },
        "How long after their moment waits end and schedules fire. Seconds: the workers are overloaded.",
    ),
    Panel(
        "How long callers wait",
        "s",
        {"{{grpc_method}}, p99": quantile(0.99, "grpc_server_handling_seconds", "grpc_method", 'grpc_type="unary"')},
        "Answers of the gRPC services. Acceptance includes one commit.",
    ),
]
WAITING_FOR = [
    Panel(
        "Effects in flight",
        "short",
        {"{{kind}}": f"sum by (kind) ({R}effects_in_flight{{$S}})"},
        "Calls and commands being performed now: a kind that piles up waits for its endpoints.",
    ),
    Panel(
        "How long effects take",
        "s",
        {"{{kind}}, p95": quantile(0.95, f"{R}effect_duration_seconds", "kind")},
        "By kind. A kind that slows down while the others do not is somebody else's.",
    ),
    Panel(
        "Effects that fail",
        "ops",
        {"{{kind}}": rate(f"{R}effects_total", "kind", 'outcome="failed"')},
        "A second, by kind; retries of documents count each.",
    ),
    Panel(
        "Unfinished executions",
        "short",
        {
            "active": now(f"{R}active_executions"),
            "of them waiting for a timer, an event or a person": now(f"{R}parked_executions"),
            "in memory": now(f"{R}resident_executions"),
        },
        "Active less waiting are those that compute or have effects in flight.",
    ),
    Panel(
        "Who takes nothing",
        "short",
        {
            "workers whose callbacks are suspended": now(f"{R}callback_breaker_open"),
            "sinks of events": now(f"{R}cloud_event_sinks_failing"),
            "sinks of the lifecycle": now(f"{R}lifecycle_sinks_failing"),
        },
        "Above 0: the receiver or a sink is away. What is for it is kept.",
    ),
    Panel(
        "Listeners",
        "short",
        {"things waited for": now(f"{R}listeners"), "events to be taken": now(f"{R}listener_events_waiting")},
        "Events that wait to be taken grow when executions take them more slowly than they come, or are paused.",
    ),
]
FAILS = [
    Panel(
        "Executions that fail",
        "percentunit",
        {"share": f"{FAILED} / ({rate(f'{R}executions_finished_total')} > 0)"},
        "Of those that end. `fastrunner list --failed` says which and why.",
    ),
    Panel(
        "Tasks that fail",
        "ops",
        {"{{kind}}": rate(f"{R}tasks_total", "kind", 'outcome="failed"')},
        "By kind; those that `try` catches count, too.",
    ),
    Panel(
        "Refused",
        "ops",
        {
            "{{reason}}": rate(f"{R}executions_rejected_total", "reason"),
            "egress: {{reason}}": rate(f"{R}egress_refused_total", "reason"),
        },
        "Executions by the class of the refusal, and calls that may not go where they were to go.",
    ),
]
FILLS_UP = [
    Panel(
        "Nothing new is taken in",
        "s",
        {"at the last hour's pace": FULL_IN},
        "When the disk of the data directory has less left than its reserve. A year: it does not fill.",
        stat=True,
        red_below=86400,
    ),
    Panel(
        "Active executions, of their bound",
        "percentunit",
        {"share": f"{now(f'{R}active_executions')} / {now(f'{R}active_executions_bound', 'max')}"},
        "At 100% new ones are refused: FASTRUNNER_EXECUTIONS_MAX.",
        stat=True,
        red_above=0.8,
    ),
    Panel(
        "Disk",
        "bytes",
        {
            "free, {{instance}}": f"{R}disk_free_bytes{{$S}}",
            "free in a day, {{instance}}": f"predict_linear({R}disk_free_bytes{{$S}}[6h], 86400)",
            "reserve, {{instance}}": f"{R}disk_reserve_bytes{{$S}}",
        },
        "Where the prediction meets the reserve, acceptance ends within a day: shorten retention, or get room.",
    ),
    Panel(
        "Data directory",
        "bytes",
        {"{{instance}}": f"{R}data_directory_bytes{{$S}}"},
        "Files never shrink by themselves: `fastrunner data compact`.",
    ),
    Panel(
        "Unfinished executions in a day",
        "short",
        {
            "now": now(f"{R}active_executions"),
            "in a day": f"sum(predict_linear({R}active_executions{{$S}}[6h], 86400))",
            "bound": now(f"{R}active_executions_bound", "max"),
        },
        "At the pace of the last six hours.",
    ),
    Panel(
        "Commits",
        "s",
        {"p50": quantile(0.5, f"{R}commit_duration_seconds"), "p99": quantile(0.99, f"{R}commit_duration_seconds")},
        "The disk's fsync. A full second is a disk that others use.",
    ),
]
WHOLE = [
    Panel(
        "Copy elsewhere, behind by",
        "s",
        {"{{instance}}": f"{R}replica_lag_seconds{{$S}}"},
        "What is acknowledged and younger than this is lost with the machine. 0 where there is no copy.",
    ),
    Panel(
        "What must be 0",
        "short",
        {
            "shards that cannot be used": now(f"{R}storage_failing"),
            "processes that cannot start": now(f"{R}processes_backing_off"),
            "strangers on the port": now(f"{R}port_strangers"),
            "workers replaced in an hour": f"sum(increase({R}worker_restarts_total{{$S}}[1h]))",
            "executions set aside in an hour": f"sum(increase({R}executions_set_aside_total{{$S}}[1h]))",
            "damaged records in an hour": f"sum(increase({R}damaged_records_total{{$S}}[1h])) or vector(0)",
        },
        "/readyz and the log have the reasons.",
    ),
    Panel(
        "Commits that failed, forwarded requests without an answer",
        "ops",
        {"commits": f"{rate(f'{R}commit_failures_total')} or vector(0)", "forwards": f"{UNANSWERED} or vector(0)"},
        "Both are tried again.",
    ),
]
REPORTED = [
    Panel(
        "Progress events",
        "ops",
        {"{{outcome}}": rate(f"{R}callback_events_total", "outcome")},
        "Acknowledged once; retried and failed as often as that happened.",
    ),
    Panel(
        "Calls of the receiver",
        "ops",
        {"{{method}} {{code}}": rate(f"{R}callback_attempts_total", "method, code")},
        "By what came of them: a gRPC code, NOT_TAKEN (acknowledged less), UNREADABLE or NOT_SENT.",
    ),
]
CALLBACKS: Rows = {
    "Does the receiver take what it is told?": [
        BEHIND[0],
        Panel(
            "Workers whose callbacks are suspended",
            "short",
            {"workers": now(f"{R}callback_breaker_open")},
            "After failures; each tries again by itself, ever more slowly, up to half a minute.",
            stat=True,
            red_above=0,
        ),
        Panel(
            "Given up in a day",
            "short",
            {"events": f'sum(increase({R}callback_events_total{{$S, outcome="dropped"}}[1d]))'},
            "Events that nobody took in time; GetEvents has them until retention ends.",
            stat=True,
            red_above=0,
        ),
        *REPORTED,
    ],
    "How far behind is it, and when will it have caught up?": [
        Panel(
            "Age of the oldest event",
            "s",
            {"{{instance}}": f"max by (instance) ({CALLBACK_AGE}{{$S}})"},
            "Falls by more than a second a second while it catches up.",
        ),
        Panel(
            "Events that wait in memory",
            "short",
            {"{{instance}}": f"sum by (instance) ({R}callback_queue_events{{$S}})"},
            "More wait on disk while it is full.",
        ),
        Panel(
            "Caught up in",
            "s",
            {"at the pace of five minutes": f"max({CALLBACK_AGE}{{$S}} / -(deriv({CALLBACK_AGE}{{$S}}[5m]) < 0))"},
            "Nothing while it does not catch up.",
        ),
    ],
    "Who else is told?": [
        Panel(
            "CloudEvents to sinks",
            "ops",
            {"{{outcome}}": rate(f"{R}cloud_events_sent_total", "outcome")},
            "Emitted ones.",
        ),
        Panel(
            "Lifecycle to sinks",
            "ops",
            {"{{outcome}}": rate(f"{R}lifecycle_events_sent_total", "outcome")},
            "Executions that have ended are kept until their sinks have taken it.",
        ),
        Panel(
            "Oldest that a sink has not taken",
            "s",
            {
                "emitted": now(f"{R}cloud_event_sinks_oldest_event_age_seconds", "max"),
                "lifecycle": now(f"{R}lifecycle_sinks_oldest_event_age_seconds", "max"),
            },
            "Grows while a sink is away.",
        ),
    ],
}
TEMPORAL: Rows = {
    "Is it behind?": [
        *BEHIND[1:4],
        Panel(
            "By replica",
            "ops",
            {"{{instance}}": rate(f"{R}executions_finished_total", "instance")},
            "Replicas share one task queue: one that ends nothing while the others do is cut off from Temporal.",
        ),
        Panel("Open executions", "short", {"open": now(f"{R}active_executions", "max")}, "Each replica knows all."),
        BEHIND[5],
    ],
    "Who is it waiting for?": [
        *WAITING_FOR[:3],
        Panel(
            "Calls that Temporal did not answer",
            "ops",
            {
                "{{grpc_method}}": rate("grpc_server_handled_total", "grpc_method", 'grpc_code="UNAVAILABLE"')
                + " or vector(0)"
            },
            "Refused with UNAVAILABLE: Temporal is away, or the replica drains. Its own dashboards say more.",
        ),
        Panel(
            "Durations",
            "s",
            {
                "p50": quantile(0.5, f"{R}execution_duration_seconds"),
                "p99": quantile(0.99, f"{R}execution_duration_seconds"),
            },
            "Of executions that have ended.",
        ),
    ],
    "Does the receiver take what it is told?": REPORTED,
    "What fails?": FAILS,
    "Is it whole?": [WHOLE[1]],
}
STIGMER: Rows = {
    "Is it behind?": [
        Panel(
            "Oldest missing event",
            "s",
            {"age": now(f"{S}oldest_gap_age_seconds", "max")},
            "What is shown of an execution ends before it. It grows while a runner is away, or has given up events.",
            stat=True,
            red_above=300,
        ),
        Panel(
            "On their way to the runner",
            "short",
            {"executions": now(f"{S}launches_waiting", "max")},
            "Recorded, and not yet taken: grows while the runner is away.",
            stat=True,
            red_above=100,
        ),
        Panel(
            "Waiting for the disk",
            "short",
            {"events": now(f"{S}events_waiting")},
            "At 50,000 reports are refused; runners keep them.",
            stat=True,
            red_above=25000,
        ),
        Panel(
            "Events",
            "ops",
            {"kept": rate(f"{S}events_stored_total"), "again": rate(f"{S}events_duplicate_total")},
            "Many that come again: a runner did not hear that they were kept.",
        ),
        Panel(
            "Executions",
            "ops",
            {
                "ended: {{status}}": rate(f"{S}executions_ended_total", "status"),
                "forgotten": rate(f"{S}executions_expired_total"),
            },
            "Ended by their status, and forgotten after their time.",
        ),
        Panel(
            "Launches",
            "ops",
            {"{{outcome}}": rate(f"{S}launches_total", "outcome")},
            "`again`: the runner gave no answer.",
        ),
    ],
    "Who is it waiting for?": [
        Panel(
            "Redis",
            "short",
            {"says what others take": now(f"{S}fanout_up", "min")},
            "0: without a Redis, or it is away; followers then hear within two seconds. Nothing is lost.",
        ),
        Panel(
            "Reports refused",
            "ops",
            {"{{code}}": f"{rate(f'{S}reports_refused_total', 'code')} or vector(0)"},
            "RESOURCE_EXHAUSTED is overload, UNAVAILABLE a store that cannot be written, or draining.",
        ),
        Panel("Followers", "short", {"clients": now(f"{S}followers")}, "Browsers and others that follow an execution."),
    ],
    "What fails?": [
        Panel(
            "What senders must not do",
            "ops",
            {"{{kind}}": rate(f"{S}violations_total", "kind")},
            "`changed`: other bytes under the same number. `after_end`: events after the last one.",
        ),
        Panel(
            "Followers",
            "ops",
            {
                "cut": rate(f"{S}followers_cut_total"),
                "news found late": rate(f"{S}followers_late_total"),
                "news not said": rate(f"{S}fanout_dropped_total"),
            },
            "Cut because they did not read; found by a look at the store; left to the others' looks.",
        ),
        Panel(
            "Requests that failed",
            "ops",
            {
                "{{operation}} {{status}}": rate(f"{S}http_requests_total", "operation, status", 'status=~"5.."')
                + " or vector(0)"
            },
            "Of the HTTP API.",
        ),
    ],
}
DASHBOARDS: dict[str, tuple[str, str, Rows]] = {
    "runner": (
        "fastrunner: runner",
        f"{R}active_executions",
        {
            "Is it behind?": BEHIND,
            "Who is it waiting for?": WAITING_FOR,
            "What fails?": FAILS,
            "What will fill up, and when?": FILLS_UP,
            "Is it whole?": WHOLE,
        },
    ),
    "callbacks": ("fastrunner: callbacks", f"{R}callback_queue_events", CALLBACKS),
    "temporal": ("fastrunner: replicas on Temporal", f"{R}active_executions", TEMPORAL),
    "stigmer": ("Stigmer Service", f"{S}events_waiting", STIGMER),
}
"""By the name of the file: title, a metric that all of its jobs have, rows."""


def variables(metric: str) -> list[dict[str, Any]]:
    chosen = {"type": "query", "datasource": SOURCE, "refresh": 2}
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "job", **chosen, "query": f"label_values({metric}, job)"},
        {
            "name": "instance",
            **chosen,
            "query": f'label_values({metric}{{job="$job"}}, instance)',
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
        },
    ]


def thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    if panel.red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    return {"mode": "absolute", "steps": steps}


def drawn(panel: Panel, place: dict[str, int], number: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "noValue": "none"}
    if panel.stat:
        defaults["thresholds"] = thresholds(panel)
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}
    queries = enumerate(panel.queries.items())
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options if panel.stat else {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression.replace("$S", CHOSEN), "legendFormat": legend}
            for at, (legend, expression) in queries
        ],
    }


def panels(rows: Rows) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, answers in rows.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}}
        top += 1
        for at in range(0, len(answers), 3):
            group = answers[at : at + 3]
            width, height = WIDTH // len(group), HEIGHT // 2 if all(each.stat for each in group) else HEIGHT
            for x, panel in enumerate(group):
                number += 1
                yield drawn(panel, {"h": height, "w": width, "x": x * width, "y": top}, number)
            top += height


def dashboard(name: str) -> str:
    """One, as Grafana imports it."""
    title, metric, rows = DASHBOARDS[name]
    made = {
        "title": title,
        "uid": f"fastrunner-{name}",
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["fastrunner"],
        "links": [{"type": "dashboards", "title": "others", "tags": ["fastrunner"], "asDropdown": True}],
        "templating": {"list": variables(metric)},
        "panels": list(panels(rows)),
    }
    return json.dumps(made, indent=2) + "\n"


def main() -> None:
    """Writes the files, or with --check compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a file is out of date")
    check = parser.parse_args().check
    for name in DASHBOARDS:
        target, text = FOLDER / f"{name}.json", dashboard(name)
        if not check:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            print(f"{target} is out of date: run `python tools/gen_dashboards.py`", file=sys.stderr)
            raise SystemExit(1)


if __name__ == "__main__":
    main()
