"""Stage 1, service: schedules. Any worker answers, because all of them have one file; one of them fires.

Rules: a schedule is added only if what it executes would be executed now, on behalf of whoever adds it; a schedule of a
namespace that the caller has no access to is neither shown nor changed; a page token belongs to its filters.
"""

import base64
import binascii
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner._core import RenderFault
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2 as s
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.access.principal import check_namespace, check_references
from fastrunner.base import clock, limits
from fastrunner.engine import Engine, Lookups, Submission
from fastrunner.engine.schedules import Misfire, Overlap, Schedule, ScheduleBook, ScheduleOptions, ScheduleView, Trigger
from fastrunner.errors import DocumentRefused, InvalidRequest, TooLarge
from fastrunner.routing.facts import CallFacts
from fastrunner.service.decode import check_execution_id, check_reason, decode_plainly, parse
from fastrunner.service.submissions import warning_lines

if TYPE_CHECKING:
    from fastrunner._core import Plan

__all__ = ["Schedules"]

_PAGE_SIZE_DEFAULT: Final = 100
_LABEL: Final = "schedule"
_MISFIRES: Final = (Misfire.ONCE, Misfire.SKIP, Misfire.ONCE, Misfire.ALL)
_OVERLAPS: Final = (Overlap.ALLOW, Overlap.ALLOW, Overlap.SKIP, Overlap.QUEUE)
"""By number of the protos' enumerations."""
_FAR_MS: Final = 253_402_300_800_000
"""The year 10000, which no date shows."""


class Schedules:
    """Answers the methods of schedules."""

    def __init__(
        self, engine: Engine, book: ScheduleBook, definitions: Lookups, admit: Callable[[str, int], None]
    ) -> None:
        self._engine = engine
        self._book = book
        self._definitions = definitions
        self._admit = admit
        """Raises AtCapacity if a client asks for more than the worker can do now."""

    async def add(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers AddSchedule. Raises InvalidRequest, DocumentRefused, UnknownWorkflow, PermissionDenied,
        ScheduleExists, AtCapacity, Unavailable."""
        self._admit(facts.peer, 1)
        request = parse(s.AddScheduleRequest, payload)
        submission = _submission(request.execution)
        document = submission.document
        if submission.ref is not None:
            check_namespace(facts.principal, submission.ref.namespace)
            document = (await self._definitions.look_up(submission.ref)).document
        plan = await self._engine.plan_of(document, facts.peer)
        check_namespace(facts.principal, plan.namespace)
        if submission.ref is None:
            check_references(facts.principal, plan.namespaces_run)
        _check_env(submission, plan)
        now_ms = clock.wall_ms()
        if request.HasField("trigger"):
            trigger = _of_plan(await self._given(request.trigger, facts), now_ms, "trigger")
        else:
            trigger = _of_plan(plan, now_ms)
        schedule = Schedule(
            schedule_id=_checked_id(request.schedule_id or f"{plan.namespace}.{plan.name}"),
            namespace=plan.namespace,
            name=plan.name,
            version=plan.version if submission.ref is None else submission.ref.version,
            trigger=trigger,
            options=_options(request.options, trigger),
            request=request.execution.SerializeToString(deterministic=True),
            # Moments of `every` count from a whole second: ids are shorter.
            added_ms=now_ms // 1000 * 1000,
            principal=facts.principal,
        )
        request.schedule_id = schedule.schedule_id
        view, created = await self._book.add(schedule, sha256(request.SerializeToString(deterministic=True)).digest())
        if not created:
            check_namespace(facts.principal, view.schedule.namespace)
        return s.AddScheduleResponse(
            schedule=_shown(view), created=created, warnings=warning_lines(plan.warnings)
        ).SerializeToString()

    async def _given(self, trigger: s.ScheduleTrigger, facts: CallFacts) -> "Plan":
        """A document with the trigger of a request: the rules of documents hold for it. Raises InvalidRequest."""
        names = ("every", "cron", "after", "read")
        section: dict[str, Any] = {name: getattr(trigger, name) for name in names if getattr(trigger, name)}
        if trigger.on_json:
            try:
                section["on"] = orjson.loads(trigger.on_json)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest("trigger.on_json", f"trigger.on_json is not JSON: {error}") from None
        document = {
            "document": {"dsl": "1.0.0", "namespace": _LABEL, "name": _LABEL, "version": "1.0.0"},
            "schedule": section,
            "do": [{"nothing": {"set": {"it": None}}}],
        }
        try:
            return await self._engine.plan_of(orjson.dumps(document).decode(), facts.peer)
        except DocumentRefused as refusal:
            problem = refusal.problems[0]
            field = ".".join(("trigger", *problem.pointer.split("/")[2:]))
            raise InvalidRequest(field, f"{field}: {problem.message}") from None

    async def list(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ListSchedules."""
        request = parse(s.ListSchedulesRequest, payload)
        if request.page_size < 0:
            raise InvalidRequest("page_size", f"page_size is {request.page_size}: it must be 0 (100) or more")
        count_max = min(request.page_size or _PAGE_SIZE_DEFAULT, limits.LIST_PAGE_SIZE_MAX)
        within = None if facts.principal is None else facts.principal.namespaces
        if request.namespace:
            check_namespace(facts.principal, request.namespace)
        found = await self._book.page(request.namespace, within, _after(request), count_max)
        token = ""
        if len(found) == count_max:
            place = orjson.dumps([request.namespace, found[-1].schedule.schedule_id])
            token = base64.urlsafe_b64encode(place).decode("ascii")
        return s.ListSchedulesResponse(schedules=map(_shown, found), next_page_token=token).SerializeToString()

    async def pause(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers PauseSchedule. Raises UnknownSchedule, PermissionDenied."""
        request = parse(s.PauseScheduleRequest, payload)
        await self._check(request.schedule_id, facts)
        view = await self._book.pause(request.schedule_id, check_reason(request.reason))
        return s.PauseScheduleResponse(schedule=_shown(view)).SerializeToString()

    async def resume(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ResumeSchedule. Raises UnknownSchedule, PermissionDenied."""
        request = parse(s.ResumeScheduleRequest, payload)
        check_reason(request.reason)
        await self._check(request.schedule_id, facts)
        view = await self._book.resume(request.schedule_id)
        return s.ResumeScheduleResponse(schedule=_shown(view)).SerializeToString()

    async def delete(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers DeleteSchedule. Raises UnknownSchedule, PermissionDenied."""
        request = parse(s.DeleteScheduleRequest, payload)
        await self._check(request.schedule_id, facts)
        await self._book.delete(request.schedule_id)
        return s.DeleteScheduleResponse().SerializeToString()

    async def fire(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers FireSchedule. Raises UnknownSchedule, PermissionDenied, and what refuses an execution."""
        request = parse(s.FireScheduleRequest, payload)
        if len(request.key.encode()) > limits.SCHEDULE_KEY_SIZE_BYTES_MAX:
            raise TooLarge(
                f"key has {len(request.key.encode())} bytes: at most {limits.SCHEDULE_KEY_SIZE_BYTES_MAX} are allowed"
            )
        if request.key:
            check_execution_id(request.key, "key")
        self._admit(facts.peer, 1)
        await self._check(request.schedule_id, facts)
        execution_id = await self._book.fire(request.schedule_id, request.key)
        return s.FireScheduleResponse(execution_id=execution_id).SerializeToString()

    async def backfill(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers BackfillSchedule. Raises UnknownSchedule, PermissionDenied, InvalidRequest, and what refuses an
        execution."""
        request = parse(s.BackfillScheduleRequest, payload)
        for field in ("from_ms", "until_ms"):
            if not 0 < getattr(request, field) <= _FAR_MS:
                raise InvalidRequest(
                    field, f"{field} is {getattr(request, field)}: give a moment in milliseconds since the epoch"
                )
        if request.until_ms <= request.from_ms:
            raise InvalidRequest("until_ms", "until_ms is not after from_ms: the range has no moment")
        await self._check(request.schedule_id, facts)
        done = await self._book.backfill(request.schedule_id, request.from_ms, request.until_ms)
        moments = (s.BackfilledMoment(moment_ms=each.moment_ms, execution_id=each.execution_id) for each in done)
        return s.BackfillScheduleResponse(moments=moments).SerializeToString()

    async def _check(self, schedule_id: str, facts: CallFacts) -> None:
        """Raises UnknownSchedule; PermissionDenied for one of a namespace that the caller has no access to."""
        if not schedule_id:
            raise InvalidRequest("schedule_id", "schedule_id is empty: say which schedule is meant")
        check_namespace(facts.principal, (await self._book.get(schedule_id)).schedule.namespace)


# --- what is added ---


def _submission(execution: WorkflowExecuteInput) -> Submission:
    """What is executed each time, checked as any request to execute. Raises InvalidRequest, TooLarge."""
    if execution.workflow_execution_id:
        raise InvalidRequest(
            "execution.workflow_execution_id",
            "execution.workflow_execution_id must be empty: each execution gets an id of its own, made of its moment",
        )
    try:
        submission = decode_plainly(_with_id(execution))
    except InvalidRequest as error:
        raise InvalidRequest(f"execution.{error.field}", f"execution: {error.message}") from None
    if _LABEL in submission.labels:
        raise InvalidRequest(
            "execution.labels", f"execution.labels has {_LABEL!r}, which names the schedule itself: choose another name"
        )
    if len(submission.labels) >= limits.LABELS_COUNT_MAX:
        raise InvalidRequest(
            "execution.labels",
            f"execution.labels has {len(submission.labels)} names: {limits.LABELS_COUNT_MAX - 1} are allowed beside "
            f"{_LABEL!r}",
        )
    return submission


def _with_id(execution: WorkflowExecuteInput) -> bytes:
    """The request with an id, as those have that are decoded."""
    with_id = WorkflowExecuteInput()
    with_id.CopyFrom(execution)
    with_id.workflow_execution_id = _LABEL
    return with_id.SerializeToString()


def _check_env(submission: Submission, plan: "Plan") -> None:
    """Raises InvalidRequest for a variable that the document holds to be secret: schedules are kept for long."""
    for name in plan.secrets:
        if name in submission.env_vars:
            raise InvalidRequest(
                "execution.env_vars",
                f"execution.env_vars has {name!r}, which the document names in use.secrets: give the value to the "
                "runner as a secret, or choose another name for the variable",
            )


def _checked_id(schedule_id: str) -> str:
    """Raises InvalidRequest."""
    check_execution_id(schedule_id, "schedule_id")
    size_bytes = len(schedule_id.encode())
    if size_bytes > limits.SCHEDULE_ID_SIZE_BYTES_MAX:
        raise InvalidRequest(
            "schedule_id",
            f"schedule_id has {size_bytes} bytes: at most {limits.SCHEDULE_ID_SIZE_BYTES_MAX} are allowed",
        )
    if "~" in schedule_id:
        raise InvalidRequest("schedule_id", "schedule_id has a `~`, which stands before the moment in executions' ids")
    return schedule_id


def _of_plan(plan: "Plan", now_ms: int, where: str = "schedule") -> Trigger:
    """The trigger of a document. Raises InvalidRequest."""
    field = "trigger" if where == "trigger" else "execution.workflow_yaml"
    try:
        section = plan.schedule(now_ms)
    except RenderFault as fault:
        raise InvalidRequest(field, f"{fault.error['instance']}: {fault.error['detail']}") from None
    if section is None:
        raise InvalidRequest(
            "trigger",
            "the document has no `schedule`, and the request has no trigger: say when it is to be executed (every, "
            "cron, after, on)",
        )
    for name in ("every", "after"):
        ms = section.get(f"{name}_ms")
        if ms is not None and ms < limits.SCHEDULE_INTERVAL_MS_MIN:
            raise InvalidRequest(
                field, f"{where}.{name} is {ms} ms: at least {limits.SCHEDULE_INTERVAL_MS_MIN} ms are allowed"
            )
    return Trigger(
        every_ms=section.get("every_ms", 0),
        after_ms=section.get("after_ms", 0),
        cron=section.get("cron", ""),
        on=section.get("on"),
        read=section.get("read", "data"),
    )


def _options(options: s.ScheduleOptions, trigger: Trigger) -> ScheduleOptions:
    """Raises InvalidRequest."""
    for field, policies in (("misfire", _MISFIRES), ("overlap", _OVERLAPS)):
        if not 0 <= getattr(options, field) < len(policies):
            raise InvalidRequest(
                f"options.{field}", f"options.{field} is {getattr(options, field)}: there is no such policy"
            )
    jitter_ms_max = min(limits.SCHEDULE_JITTER_MS_MAX, trigger.every_ms or limits.SCHEDULE_JITTER_MS_MAX)
    for field, highest in (
        ("misfire_count_max", limits.SCHEDULE_MISFIRES_MAX),
        ("queue_count_max", limits.SCHEDULE_QUEUE_MAX),
        ("jitter_ms", jitter_ms_max),
    ):
        value = getattr(options, field)
        if not 0 <= value <= highest:
            raise InvalidRequest(f"options.{field}", f"options.{field} is {value}: 0 to {highest} are allowed")
    if trigger.on is not None and options.overlap == s.OVERLAP_POLICY_QUEUE:
        raise InvalidRequest(
            "options.overlap",
            "options.overlap is `queue`, and the schedule starts by events, which are not kept for as long as an "
            "execution may last: choose `allow` or `skip`",
        )
    return ScheduleOptions(
        timezone=options.timezone or "UTC",
        misfire=_MISFIRES[options.misfire],
        misfire_count_max=options.misfire_count_max or limits.SCHEDULE_MISFIRES_DEFAULT,
        overlap=_OVERLAPS[options.overlap],
        queue_count_max=options.queue_count_max or limits.SCHEDULE_QUEUE_DEFAULT,
        jitter_ms=options.jitter_ms,
    )


# --- what is shown ---


def _shown(view: ScheduleView) -> s.Schedule:
    schedule, options, trigger = view.schedule, view.schedule.options, view.schedule.trigger
    return s.Schedule(
        schedule_id=schedule.schedule_id,
        namespace=schedule.namespace,
        name=schedule.name,
        version=schedule.version,
        trigger=s.ScheduleTrigger(
            every=_duration(trigger.every_ms),
            cron=trigger.cron,
            after=_duration(trigger.after_ms),
            on_json="" if trigger.on is None else orjson.dumps(trigger.on).decode(),
            read="" if trigger.on is None else trigger.read,
        ),
        options=s.ScheduleOptions(
            timezone=options.timezone,
            misfire=s.MisfirePolicy.ValueType(_MISFIRES.index(options.misfire, 1)),
            misfire_count_max=options.misfire_count_max,
            overlap=s.OverlapPolicy.ValueType(_OVERLAPS.index(options.overlap, 1)),
            queue_count_max=options.queue_count_max,
            jitter_ms=options.jitter_ms,
        ),
        paused=view.is_paused,
        reason=view.reason,
        added_ms=schedule.added_ms,
        added_by=schedule.principal.name if schedule.principal is not None else "",
        next_ms=view.next_ms,
        last_ms=view.last_ms,
        last_execution_id=view.last_execution_id,
        last_error=view.last_error,
        queued_count=view.queued_count,
        **{
            f"{outcome}_count": view.counts.get(outcome, 0) for outcome in ("started", "failed", "missed", "overlapped")
        },
    )


def _duration(ms: int) -> str:
    """In ISO 8601; empty for 0."""
    if not ms:
        return ""
    seconds, rest_ms = divmod(ms, 1000)
    parts = ""
    for unit, size_s in (("H", 3600), ("M", 60)):
        count, seconds = divmod(seconds, size_s)
        parts += f"{count}{unit}" if count else ""
    if seconds or rest_ms:
        parts += f"{seconds}.{rest_ms:03d}".rstrip("0").rstrip(".") + "S"
    return f"PT{parts}"


def _after(request: s.ListSchedulesRequest) -> str:
    if not request.page_token:
        return ""
    found: Any
    try:
        found = orjson.loads(base64.urlsafe_b64decode(request.page_token))
        of_namespace, after = found
    except (binascii.Error, ValueError, TypeError):
        after = None
    if not isinstance(after, str):
        raise InvalidRequest("page_token", "page_token is none: give next_page_token of the page before")
    if of_namespace != request.namespace:
        raise InvalidRequest("page_token", "page_token belongs to other filters: keep them while paging")
    return after
