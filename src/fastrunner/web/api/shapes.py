"""Support: the bodies of the HTTP API. They check what comes, and are what `/openapi.json` tells.

Rules: names and units as in the protos; a time is in milliseconds since the epoch and 0 where it has not come; a text
that may hold any JSON exactly ends in `_json`. What is not known here is refused, not passed over.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fastrunner.base import limits

__all__ = [
    "CancelCommand",
    "Change",
    "CloudEvent",
    "Command",
    "Counts",
    "Document",
    "Event",
    "EventPage",
    "Execution",
    "ExecutionPage",
    "FieldProblem",
    "FireCommand",
    "Fired",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "Info",
    "NewSchedule",
    "NewWorkflow",
    "Problem",
    "Schedule",
    "ScheduleOptions",
    "SchedulePage",
    "Session",
    "StartExecution",
    "TaskPlace",
    "Trigger",
    "Workflow",
    "WorkflowPage",
    "WorkflowRef",
]

Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
LabelName = Annotated[
    str, Field(min_length=1, max_length=limits.LABEL_NAME_SIZE_BYTES_MAX, pattern=r"^[^=\x00-\x1f\x7f]+$")
]
LabelValue = Annotated[str, Field(max_length=limits.LABEL_VALUE_SIZE_BYTES_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]
Status = Literal["pending", "running", "completed", "failed", "cancelled", "paused"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NewWorkflow(_Shape):
    """A version of a workflow to be kept."""

    document: Annotated[str, Field(min_length=1, max_length=limits.DOCUMENT_SIZE_BYTES_MAX)]
    """The document, as YAML or JSON text. It says its namespace, name and version."""


class Workflow(_Shape):
    """One version of a workflow."""

    namespace: str
    """From its document."""
    name: str
    """From its document."""
    version: str
    """From its document."""
    created_ms: int
    """When it was created."""
    is_latest: bool
    """Whether no version of it is higher, in the order of semantic versions."""
    document: str | None = None
    """Its text; lists leave it out."""


class WorkflowPage(_Shape):
    """Some versions, by namespace and name, the highest version first."""

    workflows: list[Workflow]
    """Without their documents."""
    next: str | None = None
    """What `after` asks for to have what follows; null at the end."""


class WorkflowRef(_Shape):
    """Names a workflow."""

    namespace: Name
    """Of its document."""
    name: Name
    """Of its document."""
    version: Annotated[str, Field(max_length=253)] = ""
    """Of its document; empty: the latest when the execution is started."""


def _reachable(execution_id: str) -> str:
    """Whoever reads an address leaves these parts of a path out, however they are written."""
    if execution_id in (".", ".."):
        raise ValueError("no address could have that as a part: take another one")
    return execution_id


class StartExecution(_Shape):
    """An execution to be started."""

    id: Annotated[str, Field(max_length=limits.EXECUTION_ID_SIZE_BYTES_MAX), AfterValidator(_reachable)] = ""
    """The caller's id; asking for the same again is harmless, and something else under it is a conflict. Empty: one is
    made."""
    workflow: WorkflowRef
    """What to execute."""
    input: Any = None
    """The input: any JSON."""
    env: dict[Name, str] = Field(default_factory=dict, max_length=1000)
    """Values that the workflow may read as `$runtime.metadata.env`."""
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=limits.LABELS_COUNT_MAX)
    """What the caller calls the execution; shown with it."""
    timeout_s: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Upper bound on its duration, in seconds; 0: none but the document's own."""


class Execution(_Shape):
    """One execution as it stands."""

    id: str
    """The caller's id."""
    namespace: str
    """Of its workflow; empty, as the version is, where it was started by others than this service."""
    name: str
    """Of its workflow."""
    version: str
    """Of its workflow."""
    labels: dict[str, str]
    """What its caller calls it."""
    launch: Literal["recorded", "accepted", "refused", "reported"]
    """recorded: on its way to the runner; accepted: the runner has it; refused: the runner does not want it, or has
    lost it, `error` tells why; reported: others have started it."""
    status: Status
    """What it is, by its events."""
    last_sequence: int
    """Up to which number its events are shown: all of them, up to the first that is missing."""
    created_ms: int
    """When the service heard of it."""
    started_ms: int
    """When it began."""
    updated_ms: int
    """When the latest event happened."""
    ended_ms: int
    """When it ended."""
    gap_since_ms: int
    """Since when an event is missing, though later ones have come; 0: none is."""
    message: str
    """What the latest event about the whole execution says, for people."""
    error: dict[str, Any] | None
    """What it failed with: `code`, `message`, and what the DSL's error has."""
    output_json: str
    """Exact JSON text of its output; empty where it has none, or the event leaves it out."""
    waiting: str = ""
    """What it waits for, in one sentence of the runner's; empty while it has work to do, in lists and changes, and
    where the runner cannot be asked now."""


class ExecutionPage(_Shape):
    """Some executions, the newest first."""

    executions: list[Execution]
    """As they stand."""
    next: str | None = None
    """What `before` asks for to have what follows; null at the end."""


class Change(_Shape):
    """What `data` of an event `change` of the feed holds."""

    cursor: str
    """Goes on after it."""
    execution: Execution
    """As it stands now."""


class TaskPlace(_Shape):
    """Where a task stands in its document."""

    reference: str
    """JSON pointer of the task, as `task_reference` of its events has it."""
    name: str
    """Its name."""
    kind: str
    """What it does: the key that says so, such as `set`, `call` or `for`."""
    line: int
    """Of its name, from 1."""
    column: int
    """Of its name, from 1."""
    end_line: int
    """Its last line."""


class Document(_Shape):
    """What an execution executes."""

    namespace: str
    """From the document."""
    name: str
    """From the document."""
    version: str
    """From the document."""
    document: str
    """The text as it was accepted."""
    tasks: list[TaskPlace]
    """Where its tasks stand, in its order. Tasks of functions and of what comes from elsewhere are not among them:
    their references go on from that of the task that calls."""


class GraphNode(_Shape):
    """A task, or the tasks that an extension puts before or after one."""

    reference: str
    """JSON pointer, as `task_reference` of its events has it."""
    name: str
    """As the document calls it."""
    kind: str
    """What it does, as TaskPlace has it; `extension` for the tasks of one."""
    parent: str
    """Reference of what it lies in; empty for the document's own list."""
    label: str
    """What it does, in short."""


class GraphEdge(_Shape):
    """A way that an execution may take."""

    source: str
    """Reference of a node, or `start:` and the reference of what holds the list that begins."""
    target: str
    """Reference of a node, or `end:` and the reference of what holds the list that ends; `end:` alone: all ends."""
    kind: Literal["next", "then", "case", "branch", "catch"]
    """next: nothing is said; then: the document says so; case: of a switch; branch: of a fork; catch: after an
    error."""
    label: str
    """When it is taken; empty: always."""


class Graph(_Shape):
    """The tasks of a document and the ways between them."""

    nodes: list[GraphNode]
    """In the order of the document; what holds others comes before them. Tasks of functions of the document, and of
    extensions, are there at each task that has them."""
    edges: list[GraphEdge]
    """Both ends of each are there."""


class Info(_Shape):
    """Who answers, and what there is."""

    product: Literal["stigmer", "runner"]
    """stigmer: a Stigmer Service, from its store; runner: a runner by itself."""
    version: str
    """Of the program."""
    features: list[str]
    """The operations that are served, by their ids in the description."""
    caller: str | None
    """Who asks; null where callers are not told apart."""
    roles: list[str]
    """What the caller may do; all roles where callers are not told apart."""


Int32 = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Trigger(_Shape):
    """What starts executions. Several at once start them each by itself."""

    every: Text = ""
    """Once in every such duration, in ISO 8601."""
    cron: Text = ""
    """At the minutes that a cron expression of five fields names."""
    after: Text = ""
    """So long after the end of the execution before, in ISO 8601."""
    on_json: Annotated[str, Field(max_length=65_536)] = ""
    """Whenever CloudEvents satisfy it: what `schedule.on` of a document says, as JSON text."""
    read: Text = ""
    """What an execution gets of those events: `data`, `envelope` or `raw`."""


class ScheduleOptions(_Shape):
    """How a schedule deals with its moments."""

    timezone: Text = ""
    """Whose clock cron expressions read; empty: UTC."""
    misfire: Literal["", "skip", "once", "all"] = ""
    """What becomes of moments at which nobody could start an execution; empty: once."""
    misfire_count_max: Int32 = 0
    """How many are made up for with `all`; 0: 100."""
    overlap: Literal["", "allow", "skip", "queue"] = ""
    """What becomes of moments while an execution is going on; empty: allow."""
    queue_count_max: Int32 = 0
    """How many wait with `queue`; 0: 100."""
    jitter_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    """By how much each moment is put off at most."""


class NewSchedule(_Shape):
    """A schedule to add."""

    id: Annotated[str, Field(max_length=200)] = ""
    """Its id; empty: namespace and name of the workflow."""
    workflow: WorkflowRef
    """What is executed each time. A Stigmer Service takes the version that is there now, also where the latest is
    meant."""
    input: Any = None
    """The input: any JSON."""
    env: dict[Name, str] = Field(default_factory=dict, max_length=1000)
    """As of an execution."""
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=limits.LABELS_COUNT_MAX)
    """As of an execution."""
    timeout_s: Int32 = 0
    """As of an execution."""
    trigger: Trigger | None = None
    """What starts executions; null: what the `schedule` of the document says."""
    options: ScheduleOptions = ScheduleOptions()
    """How moments are dealt with."""


class Schedule(_Shape):
    """A schedule."""

    id: str
    """Its id."""
    namespace: str
    """Of its workflow."""
    name: str
    """Of its workflow."""
    version: str
    """Of its workflow; empty: the latest when it starts an execution."""
    trigger: Trigger
    """What starts executions."""
    options: ScheduleOptions
    """How it deals with its moments."""
    paused: bool
    """Whether it is paused."""
    reason: str
    """Why it is paused."""
    added_ms: int
    """When it was added."""
    added_by: str
    """Who has added it; empty where callers are not told apart."""
    next_ms: int
    """When it starts an execution next; 0: not known, or never."""
    last_ms: int
    """The moment that has started the latest execution."""
    last_execution_id: str
    """The id of that execution."""
    last_error: str
    """Why the latest moment has started nothing."""
    queued_count: int
    """Moments that wait for the end of an execution."""
    started_count: int
    """Moments that have started one."""
    failed_count: int
    """Moments for which the runner refused one."""
    missed_count: int
    """Missed moments that have started none."""
    overlapped_count: int
    """Moments that have started none because one was going on."""


class SchedulePage(_Shape):
    """Some schedules, by id."""

    schedules: list[Schedule]
    """As they are."""
    next: str | None = None
    """What `after` asks for to have what follows; null at the end."""


class Fired(_Shape):
    """What a schedule has started."""

    execution_id: str
    """The id of the execution."""


class FireCommand(_Shape):
    """A firing by hand."""

    key: Annotated[str, Field(max_length=limits.SCHEDULE_KEY_SIZE_BYTES_MAX)] = ""
    """Makes asking again harmless: the same key is the same execution. Empty: each request starts one."""


class CloudEvent(_Shape):
    """A CloudEvent 1.0 in its JSON format. Further attributes are texts, integers or booleans."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    specversion: Literal["1.0"]
    """1.0"""
    id: Name
    """Unique together with `source`."""
    source: Annotated[str, Field(min_length=1, max_length=1024)]
    """Where it comes from, a URI reference."""
    type: Annotated[str, Field(min_length=1, max_length=1024)]
    """What happened."""


class Session(_Shape):
    """Of a browser."""

    ends_ms: int
    """Until when the cookie is good: renew it before; 0 where there is none, because none is needed."""


class Counts(_Shape):
    """How many executions there are. Exact for every filter there is; where Temporal keeps executions, as of some
    moments ago."""

    by_status: dict[str, int]
    """Those without any are left out."""
    total: int
    """The sum."""


class Event(_Shape):
    """A progress event: the fields of WorkflowProgressEvent that have a value, by their names in the proto."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    workflow_execution_id: str
    """The execution."""
    sequence_number: int
    """1 for its first event, then one more each."""
    event_type: str
    """Such as `task_completed`."""


class EventPage(_Shape):
    """Some events of an execution, in their order."""

    events: list[Event]
    """From the number that was asked for on, without a gap."""
    last_sequence: int
    """Up to which number there are events; ask on from the last one of this page while it is lower."""
    has_ended: bool
    """Whether none comes after that."""


class Command(_Shape):
    """What to tell an execution."""

    reason: Text = ""
    """Why; carried in the event."""


class CancelCommand(Command):
    """How to end an execution early."""

    force: bool = False
    """Interrupt running effects now instead of letting them end within the grace period."""


class FieldProblem(_Shape):
    """What is wrong with one field, or one place of a document."""

    field: str
    """The field of the body, or the JSON pointer into the document."""
    message: str
    """What is wrong and what is allowed."""
    code: str | None = None
    """Of a document: a stable code, such as `unknown-key`."""
    line: int | None = None
    """Of a document: from 1."""
    column: int | None = None
    """Of a document: from 1."""


class Problem(_Shape):
    """Why a request is refused (RFC 9457)."""

    type: str = "about:blank"
    """A URI of the kind of problem: the status tells it."""
    title: str
    """What the status means."""
    status: int
    """The status of the answer."""
    detail: str
    """What is wrong, and what helps."""
    problems: list[FieldProblem] | None = None
    """Every single one, where there are several."""
