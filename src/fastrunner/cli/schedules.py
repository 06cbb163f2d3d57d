"""Support: the commands of schedules: `schedule add`, `list`, `pause`, `resume`, `delete`, `fire`, `backfill`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from fastrunner.base.moments import rfc3339
from fastrunner.base.printable import printable
from fastrunner.cli.arguments import WorkflowName, document_path, read_input, read_pairs
from fastrunner.cli.remote import client_of, connection_options, json_option, text_of, workflow_ref

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_POLICIES = {"misfire": ("once", "skip", "all"), "overlap": ("allow", "skip", "queue")}


class _Span(click.ParamType[int]):
    """A length of time in milliseconds: `500ms`, `30s`, `5m`, `1h`."""

    name = "span"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See ParamType."""
        number = value.rstrip("mhs")
        unit = value[len(number) :]
        if not number.isdigit() or unit not in _UNITS_MS:
            self.fail(f"{value!r} is none, such as 500ms, 30s, 5m or 1h", param, ctx)
        return int(number) * _UNITS_MS[unit]


class _Moment(click.ParamType[int]):
    """A date and time as milliseconds since the epoch; without an offset, in UTC."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See ParamType."""
        try:
            when = datetime.fromisoformat(value)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            return (when - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is none, such as 2026-11-29, 2026-11-29T08:00 or 2026-11-29T08:00+01:00", param, ctx)


@click.group()
def schedule() -> None:
    """Have a runner start executions again and again: at intervals, by cron, after the one before, or by events.

    One worker fires, whichever; when it dies another one goes on. An execution's id is made of its schedule and its
    moment, such as nightly~2026-11-29T03:00:00Z, so no moment starts two. All have the label schedule=ID:
    `fastrunner list --label schedule=nightly` shows them.

    \b
    fastrunner schedule add nightly.yaml --id nightly --timezone Europe/Berlin
    fastrunner schedule add --workflow shop/report --cron '0 3 * * mon-fri'
    fastrunner schedule add poll.yaml --every PT10S --overlap skip
    fastrunner schedule list
    fastrunner schedule fire nightly
    """


@schedule.command()
@click.argument("file", type=document_path, required=False)
@click.option(
    "--workflow", type=WorkflowName(), default=None, metavar="NAME", help="A registered one instead of a file."
)
@click.option("--id", "schedule_id", default="", help="The schedule's id; default: the workflow's NAMESPACE.NAME.")
@click.option("--every", default="", metavar="DURATION", help="Once in every such ISO 8601 duration: PT15M.")
@click.option("--cron", default="", metavar="EXPRESSION", help="Minute, hour, day of month, month, day of week.")
@click.option("--after", default="", metavar="DURATION", help="So long after the end of the execution before.")
@click.option("--timezone", default="", metavar="NAME", help="Whose clock --cron reads: Europe/Berlin; default: UTC.")
@click.option(
    "--misfire",
    type=click.Choice(_POLICIES["misfire"]),
    default="once",
    show_default=True,
    help="What the moments start at which nobody could fire: one execution for the latest, none, or each of them one.",
)
@click.option(
    "--misfire-max", default=0, type=click.IntRange(0), metavar="COUNT", help="So many of `all` at most; default: 100."
)
@click.option(
    "--overlap",
    type=click.Choice(_POLICIES["overlap"]),
    default="allow",
    show_default=True,
    help="Whether a moment starts an execution while one is going on; `queue` lets it wait for its end.",
)
@click.option(
    "--queue-max", default=0, type=click.IntRange(0), metavar="COUNT", help="So many wait at most; default: 100."
)
@click.option("--jitter", default="0s", type=_Span(), metavar="SPAN", help="Put each moment off by up to 30s, say.")
@click.option("--input", "input_text", default=None, metavar="JSON|@FILE", help="The workflow's input; @-: from stdin.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For $runtime.metadata.env; repeatable.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Of each execution; repeatable.")
@click.option("--timeout-s", default=0, type=click.IntRange(0), help="Upper bound on each execution; 0: none.")
@json_option
@connection_options
def add(
    file: Path | None,
    workflow: tuple[str, str, str] | None,
    schedule_id: str,
    every: str,
    cron: str,
    after: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a schedule for a document, or for a registered workflow.

    Without --every, --cron or --after it is what the document's own `schedule` says. Without a version --workflow means
    the latest one at each moment. Executions start on behalf of whoever adds the schedule, with their namespaces. The
    same command again changes nothing.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2, schedules_pb2
    from fastrunner.cli.present import json_line, say

    if (file is None) is (workflow is None):
        raise click.UsageError("give the FILE of a document, or --workflow NAMESPACE/NAME[:VERSION]; not both")
    policies = {name: _POLICIES[name].index(options.pop(name)) for name in _POLICIES}
    execution = messages_pb2.WorkflowExecuteInput(
        workflow_yaml="" if file is None else text_of(file),
        workflow_ref=workflow_ref(workflow),
        env_vars=read_pairs(options.pop("env")),
        labels=read_pairs(options.pop("labels"), "--label"),
        input_json=read_input(options.pop("input_text"), file),
    )
    timeout_s = options.pop("timeout_s")
    if timeout_s:
        execution.config.max_timeout_seconds = timeout_s
    request = schedules_pb2.AddScheduleRequest(
        schedule_id=schedule_id,
        execution=execution,
        trigger=schedules_pb2.ScheduleTrigger(every=every, cron=cron, after=after) if every or cron or after else None,
        options=schedules_pb2.ScheduleOptions(
            timezone=options.pop("timezone"),
            misfire=schedules_pb2.MisfirePolicy.Value(
                f"MISFIRE_POLICY_{_POLICIES['misfire'][policies['misfire']]}".upper()
            ),
            misfire_count_max=options.pop("misfire_max"),
            overlap=schedules_pb2.OverlapPolicy.Value(
                f"OVERLAP_POLICY_{_POLICIES['overlap'][policies['overlap']]}".upper()
            ),
            queue_count_max=options.pop("queue_max"),
            jitter_ms=options.pop("jitter"),
        ),
    )
    reply = client_of(**options).call("AddSchedule", request)
    for warning in reply.warnings:
        say(f"{file or 'registered document'}:{warning}")
    if as_json:
        json_line(reply)
    else:
        click.echo(f"{printable(reply.schedule.schedule_id)}{'' if reply.created else ' (was added)'}")


@schedule.command("list")
@click.option("--namespace", default="", help="Only schedules of this namespace.")
@json_option
@connection_options
def list_schedules(namespace: str, as_json: bool, **connection: Any) -> None:
    """List schedules: workflow, trigger, next moment, what became of moments so far, and what went wrong last."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2
    from fastrunner.cli.present import json_line

    client = client_of(**connection)
    request = schedules_pb2.ListSchedulesRequest(namespace=namespace)
    while True:
        page = client.call("ListSchedules", request)
        for found in page.schedules:
            if as_json:
                json_line(found)
            else:
                click.echo(_line(found))
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--reason", default="", help="Shown, and kept in the audit log.")
@connection_options
def pause(schedule_id: str, reason: str, **connection: Any) -> None:
    """Have a schedule start nothing until it is resumed. What it has started goes on."""
    _changed("Pause", schedule_id, "paused", connection, reason=reason)


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--reason", default="", help="Kept in the audit log.")
@connection_options
def resume(schedule_id: str, reason: str, **connection: Any) -> None:
    """Have a paused schedule start executions again. Moments that have passed meanwhile start none."""
    _changed("Resume", schedule_id, "resumed", connection, reason=reason)


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@connection_options
def delete(schedule_id: str, **connection: Any) -> None:
    """Remove a schedule. What it has started goes on."""
    _changed("Delete", schedule_id, "deleted", connection)


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--key", default="", help="The same key again starts nothing again; default: a new one.")
@json_option
@connection_options
def fire(schedule_id: str, key: str, as_json: bool, **connection: Any) -> None:
    """Start an execution of a schedule now, whatever its moments, its policies and its being paused say."""
    import uuid

    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2
    from fastrunner.cli.present import json_line

    request = schedules_pb2.FireScheduleRequest(schedule_id=schedule_id, key=key or str(uuid.uuid4()))
    reply = client_of(**connection).call("FireSchedule", request)
    if as_json:
        json_line(reply)
    else:
        click.echo(printable(reply.execution_id))


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--from", "from_ms", type=_Moment(), required=True, metavar="TIME", help="The first moment.")
@click.option("--until", "until_ms", type=_Moment(), required=True, metavar="TIME", help="Moments are before this one.")
@json_option
@connection_options
def backfill(schedule_id: str, from_ms: int, until_ms: int, as_json: bool, **connection: Any) -> None:
    """Start an execution for each moment of a range that has started none yet, at most 1000.

    Times are in UTC unless they say otherwise. The same range again starts nothing, as long as the executions are kept.
    """
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2
    from fastrunner.cli.present import json_line

    request = schedules_pb2.BackfillScheduleRequest(schedule_id=schedule_id, from_ms=from_ms, until_ms=until_ms)
    for moment in client_of(**connection).call("BackfillSchedule", request).moments:
        if as_json:
            json_line(moment)
        else:
            click.echo(printable(moment.execution_id))


def _changed(verb: str, schedule_id: str, done: str, connection: dict[str, Any], **fields: str) -> None:
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2
    from fastrunner.cli.present import say

    request = getattr(schedules_pb2, f"{verb}ScheduleRequest")(schedule_id=schedule_id, **fields)
    client_of(**connection).call(f"{verb}Schedule", request)
    say(f"{schedule_id}: {done}")


def _line(found: Any) -> str:
    """A schedule in one line."""
    trigger = [
        f"{name} {getattr(found.trigger, name)}" for name in ("every", "cron", "after") if getattr(found.trigger, name)
    ]
    trigger += ["on events"] if found.trigger.on_json else []
    if found.trigger.cron and found.options.timezone != "UTC":
        trigger.append(f"({found.options.timezone})")
    if found.paused:
        what = f"paused{': ' + found.reason if found.reason else ''}"
    else:
        what = (
            f"next {rfc3339(found.next_ms, 'seconds')}"
            if found.next_ms
            else "waits for an event, or the end of an execution"
        )
    counts = [
        f"{count} {name}"
        for name in ("started", "failed", "missed", "overlapped")
        if (count := getattr(found, f"{name}_count"))
    ]
    counts += [f"{found.queued_count} waiting"] if found.queued_count else []
    workflow = f"{found.namespace}/{found.name}:{found.version or 'latest'}"
    words = [found.schedule_id, workflow, " ".join(trigger), what, ", ".join(counts)]
    words += [f"last error: {found.last_error}"] if found.last_error else []
    return printable("  ".join(word for word in words if word))
