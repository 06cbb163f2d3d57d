"""Support: the operations of the HTTP API: one table of them, from which they are served and described.

Rules: an operation checks nothing that its row says; it gives a status and a body, or raises a refusal.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import orjson
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner._version import __version__
from fastrunner.access.principal import Principal, Role
from fastrunner.access.roles import Open, Wanted
from fastrunner.base import limits
from fastrunner.progress.names import STATUSES
from fastrunner.web.api import shapes
from fastrunner.web.api.backend import Backend

__all__ = [
    "OPERATIONS",
    "Answer",
    "Call",
    "Operation",
    "Parameter",
    "SessionStep",
    "Stream",
    "event_fields",
    "operations_of",
]

_SAFE_MAX: Final = 2**53 - 1
"""The largest integer that every reader of JSON has exactly."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value in the query."""

    name: str
    """As it is sent."""
    text: str
    """What it is."""
    default: str | int = ""
    """Where it is not sent; also tells its type."""
    minimum: int = 0
    """Of an integer."""
    maximum: int = _SAFE_MAX
    """Of an integer."""
    choices: tuple[str, ...] = ()
    """What a text may be, beside empty; nothing: any."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked."""

    backend: Backend
    """Who answers."""
    principal: Principal | None
    """Who asks; None: callers are not told apart."""
    path: Mapping[str, str]
    """Values in the path."""
    query: Mapping[str, Any]
    """Values of the operation's parameters."""
    body: Any
    """As the operation's shape; None if it has none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    """HTTP's."""
    body: BaseModel | bytes | None
    """A shape, JSON text, or nothing."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those that every answer has."""


Perform = Callable[[Call], Awaitable[Answer]]


class Stream(Enum):
    """What goes on for as long as its client likes (`stream.py`, `feed.py`)."""

    EVENTS = "events"
    """The events of an execution, as server-sent events."""
    FEED = "feed"
    """Executions that change, as server-sent events."""
    SOCKET = "socket"
    """The events of an execution over a WebSocket."""


class SessionStep(Enum):
    """What a browser's session does (`sessions.py`)."""

    BEGIN = "begin"
    """It begins, or is renewed."""
    END = "end"
    """It ends."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    name: str
    """What it is called in the description and in metrics."""
    method: str
    """GET, POST or DELETE."""
    path: str
    """Below /api/v1."""
    role: Wanted
    """Which role a caller needs."""
    summary: str
    """A sentence."""
    perform: Perform | Stream | SessionStep
    """What does it."""
    answers: Mapping[int, type[BaseModel] | None]
    """Bodies by status, but those of refusals."""
    body: type[BaseModel] | None = None
    """What is sent."""
    has_optional_body: bool = False
    """Whether nothing may be sent as well."""
    query: tuple[Parameter, ...] = ()
    """What may stand in the query."""


_COUNT: Final = Parameter(
    "count", "Rows of the page, at most.", limits.API_PAGE_ROWS_DEFAULT, minimum=1, maximum=limits.API_PAGE_ROWS_MAX
)
_WHICH: Final = (
    Parameter("status", "Only those with this status.", choices=STATUSES),
    Parameter("namespace", "Only those of workflows of this namespace."),
    Parameter("name", "Only those of workflows of this name."),
    Parameter("version", "Only those of this version of a workflow."),
)


def event_fields(message: bytes) -> dict[str, Any]:
    """An encoded event as its JSON here: names of the proto, integers as numbers, fields without a value left out."""
    fields: dict[str, Any] = {}
    for descriptor, value in WorkflowProgressEvent.FromString(message).ListFields():
        if descriptor.name == "error":
            fields["error"] = MessageToDict(value, preserving_proto_field_name=True)
        elif descriptor.name == "iteration":
            fields["iteration"] = list(value)
        else:
            fields[descriptor.name] = value
    return fields


def _which(call: Call) -> dict[str, str]:
    return {parameter.name: call.query.get(parameter.name, "") for parameter in _WHICH}


async def _add_workflow(call: Call) -> Answer:
    workflow, is_new = await call.backend.add_workflow(call.principal, call.body)
    return Answer(201 if is_new else 200, workflow)


async def _list_workflows(call: Call) -> Answer:
    query = call.query
    page = await call.backend.page_workflows(
        call.principal, query["namespace"], query["name"], query["after"], query["count"]
    )
    return Answer(200, page)


async def _get_workflow(call: Call) -> Answer:
    path = call.path
    return Answer(
        200, await call.backend.find_workflow(call.principal, path["namespace"], path["name"], call.query["version"])
    )


async def _start(call: Call) -> Answer:
    started = await call.backend.start(call.principal, call.body)
    status = 202 if not started.has_answer else 201 if started.is_new else 200
    return Answer(status, started.execution)


async def _list_executions(call: Call) -> Answer:
    page = await call.backend.page(call.principal, _which(call), call.query["before"], call.query["count"])
    return Answer(200, page)


async def _count_executions(call: Call) -> Answer:
    return Answer(200, await call.backend.counts(call.principal, _which(call)))


async def _get_execution(call: Call) -> Answer:
    return Answer(200, await call.backend.explain(call.principal, call.path["id"]))


async def _get_events(call: Call) -> Answer:
    messages, last_sequence, has_ended = await call.backend.events(
        call.principal, call.path["id"], call.query["after"], call.query["count"]
    )
    fields = {
        "events": [event_fields(message) for message in messages],
        "last_sequence": last_sequence,
        "has_ended": has_ended,
    }
    return Answer(200, orjson.dumps(fields))


async def _get_document(call: Call) -> Answer:
    return Answer(200, await call.backend.document(call.principal, call.path["id"]))


async def _get_graph(call: Call) -> Answer:
    return Answer(200, await call.backend.graph(call.principal, call.path["id"]))


async def _get_info(call: Call) -> Answer:
    roles = Role if call.principal is None else call.principal.roles
    info = shapes.Info(
        product=call.backend.product,
        version=__version__,
        features=[operation.name for operation in operations_of(call.backend.lacks)],
        caller=None if call.principal is None else call.principal.name,
        roles=sorted(roles),
    )
    return Answer(200, info)


async def _cancel(call: Call) -> Answer:
    await call.backend.cancel(call.principal, call.path["id"], call.body)
    return Answer(204, None)


async def _pause(call: Call) -> Answer:
    await call.backend.pause(call.principal, call.path["id"], call.body)
    return Answer(204, None)


async def _resume(call: Call) -> Answer:
    await call.backend.resume(call.principal, call.path["id"], call.body)
    return Answer(204, None)


async def _list_schedules(call: Call) -> Answer:
    query = call.query
    page = await call.backend.page_schedules(call.principal, query["namespace"], query["after"], query["count"])
    return Answer(200, page)


async def _add_schedule(call: Call) -> Answer:
    schedule, is_new = await call.backend.add_schedule(call.principal, call.body)
    return Answer(201 if is_new else 200, schedule)


async def _pause_schedule(call: Call) -> Answer:
    await call.backend.pause_schedule(call.principal, call.path["id"], call.body)
    return Answer(204, None)


async def _resume_schedule(call: Call) -> Answer:
    await call.backend.resume_schedule(call.principal, call.path["id"], call.body)
    return Answer(204, None)


async def _delete_schedule(call: Call) -> Answer:
    await call.backend.delete_schedule(call.principal, call.path["id"])
    return Answer(204, None)


async def _fire_schedule(call: Call) -> Answer:
    return Answer(200, await call.backend.fire_schedule(call.principal, call.path["id"], call.body))


async def _send_event(call: Call) -> Answer:
    await call.backend.send_event(call.principal, call.body)
    return Answer(202, None)


_AFTER_EVENT: Final = Parameter("after", "Only events with higher numbers.", 0)

OPERATIONS: Final = (
    Operation(
        "createWorkflow", "POST", "/workflows", Role.ADMIN,
        "Keep a version of a workflow: 201 if it is new, 200 if it is there with this text; a version never changes.",
        _add_workflow, {201: shapes.Workflow, 200: shapes.Workflow}, body=shapes.NewWorkflow,
    ),
    Operation(
        "listWorkflows", "GET", "/workflows", Role.READ, "Versions of workflows, in pages, without their documents.",
        _list_workflows, {200: shapes.WorkflowPage},
        query=(
            Parameter("namespace", "Only those of this namespace."), Parameter("name", "Only those of this name."),
            Parameter("after", "What `next` of the page before says."), _COUNT,
        ),
    ),
    Operation(
        "getWorkflow", "GET", "/workflows/{namespace}/{name}", Role.READ,
        "One version of a workflow with its document.",
        _get_workflow, {200: shapes.Workflow},
        query=(Parameter("version", "Which; without it the latest."),),
    ),
    Operation(
        "startExecution", "POST", "/executions", Role.SUBMIT,
        "Start an execution: 201 if the runner has it, 200 if it had it before, 202 if it is recorded and the runner "
        "has not answered yet: it will be started.",
        _start, {201: shapes.Execution, 200: shapes.Execution, 202: shapes.Execution}, body=shapes.StartExecution,
    ),
    Operation(
        "listExecutions", "GET", "/executions", Role.READ, "Executions, the newest first, in pages.",
        _list_executions, {200: shapes.ExecutionPage},
        query=(*_WHICH, Parameter("before", "What `next` of the page before says."), _COUNT),
    ),
    Operation(
        "countExecutions", "GET", "/counts", Role.READ, "How many executions there are, exactly, by status.",
        _count_executions, {200: shapes.Counts}, query=_WHICH,
    ),
    Operation(
        "getExecution", "GET", "/executions/{id}", Role.READ, "One execution as it stands.",
        _get_execution, {200: shapes.Execution},
    ),
    Operation(
        "getEvents", "GET", "/executions/{id}/events", Role.READ, "Progress events of an execution, in pages.",
        _get_events, {200: shapes.EventPage}, query=(_AFTER_EVENT, _COUNT),
    ),
    Operation(
        "followEvents", "GET", "/executions/{id}/events/stream", Role.READ,
        "Progress events as server-sent events: those that there are, then as they come, until the last one. Goes on "
        "after the number in Last-Event-ID, else in `after`; 204 where nothing is to come.",
        Stream.EVENTS, {200: None, 204: None}, query=(_AFTER_EVENT,),
    ),
    Operation(
        "followEventsBySocket", "GET", "/executions/{id}/events/socket", Role.READ,
        "The same over a WebSocket, each message a JSON object: `type` is `progress`, with `id` and `event`; `reset`, "
        "with `execution`; or `end`. Goes on after the number in `after`.",
        Stream.SOCKET, {101: None}, query=(_AFTER_EVENT,),
    ),
    Operation(
        "getDocument", "GET", "/executions/{id}/document", Role.READ,
        "What an execution executes, as it was accepted, and where its tasks stand in it.",
        _get_document, {200: shapes.Document},
    ),
    Operation(
        "getGraph", "GET", "/executions/{id}/graph", Role.READ,
        "The tasks of what an execution executes and the ways between them, to be drawn.",
        _get_graph, {200: shapes.Graph},
    ),
    Operation(
        "followExecutions", "GET", "/feed", Role.READ,
        "Executions that change, as server-sent events without an end: `begin`, or `reset` where it does not go on "
        "from the cursor in Last-Event-ID, else in `after`; then `change` after `change`, each a Change.",
        Stream.FEED, {200: None}, query=(*_WHICH[1:], Parameter("after", "The cursor received last.")),
    ),
    Operation(
        "getInfo", "GET", "/info", Open.TO_CALLERS, "Who answers, which operations there are, and who asks.",
        _get_info, {200: shapes.Info},
    ),
    Operation(
        "beginSession", "POST", "/session", Open.TO_CALLERS,
        "Have the bearer token of this request kept in a cookie for some time, sealed; a request with such a cookie "
        "renews it.",
        SessionStep.BEGIN, {200: shapes.Session},
    ),
    Operation(
        "endSession", "DELETE", "/session", Open.TO_ALL, "Take the cookie back.", SessionStep.END, {204: None},
    ),
    Operation(
        "cancelExecution", "POST", "/executions/{id}/cancel", Role.CONTROL, "End an execution early.",
        _cancel, {204: None}, body=shapes.CancelCommand, has_optional_body=True,
    ),
    Operation(
        "pauseExecution", "POST", "/executions/{id}/pause", Role.CONTROL, "Stop an execution before its next task.",
        _pause, {204: None}, body=shapes.Command, has_optional_body=True,
    ),
    Operation(
        "resumeExecution", "POST", "/executions/{id}/resume", Role.CONTROL, "Let a paused execution go on.",
        _resume, {204: None}, body=shapes.Command, has_optional_body=True,
    ),
    Operation(
        "listSchedules", "GET", "/schedules", Role.READ, "Schedules, by id, in pages.",
        _list_schedules, {200: shapes.SchedulePage},
        query=(
            Parameter("namespace", "Only those of workflows of this namespace."),
            Parameter("after", "What `next` of the page before says."), _COUNT,
        ),
    ),
    Operation(
        "addSchedule", "POST", "/schedules", Role.SUBMIT,
        "Add a schedule, which starts executions from now on: 201 if it is new, 200 if the same request has added it "
        "before.",
        _add_schedule, {201: shapes.Schedule, 200: shapes.Schedule}, body=shapes.NewSchedule,
    ),
    Operation(
        "pauseSchedule", "POST", "/schedules/{id}/pause", Role.CONTROL,
        "Have a schedule start nothing until it is resumed.",
        _pause_schedule, {204: None}, body=shapes.Command, has_optional_body=True,
    ),
    Operation(
        "resumeSchedule", "POST", "/schedules/{id}/resume", Role.CONTROL, "Have a paused schedule go on.",
        _resume_schedule, {204: None}, body=shapes.Command, has_optional_body=True,
    ),
    Operation(
        "deleteSchedule", "POST", "/schedules/{id}/delete", Role.CONTROL,
        "Remove a schedule; what it has started goes on.",
        _delete_schedule, {204: None},
    ),
    Operation(
        "fireSchedule", "POST", "/schedules/{id}/fire", Role.SUBMIT,
        "Have a schedule start an execution now, also where it is paused.",
        _fire_schedule, {200: shapes.Fired}, body=shapes.FireCommand, has_optional_body=True,
    ),
    Operation(
        "sendEvent", "POST", "/events", Role.SUBMIT, "Send a CloudEvent to what listens: 202 once it is durable.",
        _send_event, {202: None}, body=shapes.CloudEvent,
    ),
)  # fmt: skip
"""All of them, in the order of the description."""


def operations_of(lacks: Collection[str]) -> list[Operation]:
    """Those that a backend has which lacks some."""
    return [operation for operation in OPERATIONS if operation.name not in lacks]
