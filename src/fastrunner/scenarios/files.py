"""Support: scenario files, read and checked.

Rule: what is not known is refused, with the place in the file: a misspelt expectation would hold for ever.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastrunner._core import InvalidWorkflow, load
from fastrunner.base.limits import DURATION_MS_MAX
from fastrunner.errors import InvalidRequest, TooLarge
from fastrunner.events.attributes import checked

__all__ = [
    "MADE",
    "Duration",
    "Expected",
    "Happening",
    "Scenario",
    "ScenarioFile",
    "ScenarioRefused",
    "Stub",
    "read_file",
    "read_scenarios",
]

MADE: Final = {"specversion": "1.0", "id": "event", "source": "/scenario"}
"""What an event has that says nothing else; of ids each has its own."""
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ScenarioRefused(Exception):
    """A scenario file that cannot be used; the message says where and why."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Duration(_Shape):
    """A time span, as documents have it."""

    days: Annotated[float, Field(ge=0)] = 0
    hours: Annotated[float, Field(ge=0)] = 0
    minutes: Annotated[float, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0
    milliseconds: Annotated[float, Field(ge=0)] = 0

    @property
    def ms(self) -> int:
        """In milliseconds."""
        return round(self._exact_ms)

    @property
    def _exact_ms(self) -> float:
        hours = 24 * self.days + self.hours
        return 1000 * (60 * (60 * hours + self.minutes) + self.seconds) + self.milliseconds

    @model_validator(mode="after")
    def _bounded(self) -> "Duration":
        if self._exact_ms > DURATION_MS_MAX:
            raise ValueError("is more than a thousand years, the most that a duration of a document is")
        return self


class Failure(_Shape):
    """What a call fails with."""

    type: Annotated[str, Field(min_length=1)]
    """A short name such as `communication`, or a URI."""
    status: int = 500
    title: str = ""
    detail: str = ""


class Stub(_Shape):
    """Answers for a task that calls, or runs, something."""

    task: Annotated[str, Field(min_length=1)]
    """The task's name, or its JSON pointer."""
    expect: Any = None
    """What the arguments must have; objects may have more."""
    returns: Any = None
    """What the task puts out, before its `output`."""
    fails: Failure | None = None
    """What it fails with instead."""
    takes: Duration = Duration()
    """How long until it answers."""
    times: Annotated[int, Field(ge=1)] | None = None
    """How many calls it answers; without it any number, one where a later stub has the same task."""

    @model_validator(mode="after")
    def _either(self) -> "Stub":
        if self.fails is not None and "returns" in self.model_fields_set:
            raise ValueError("has both `returns` and `fails`: keep one")
        return self


class Command(_Shape):
    """What somebody tells the execution."""

    reason: str = ""
    force: bool = False


class Happening(_Shape):
    """Something that happens while the execution is under way."""

    after: Duration
    """Since its start."""
    event: dict[str, Any] | None = None
    """A CloudEvent, for whoever listens; `id`, `source` and `specversion` may be left out."""
    cancel: Command | None = None
    pause: Command | None = None
    resume: Command | None = None

    @model_validator(mode="after")
    def _one(self) -> "Happening":
        said = [each for each in (self.event, self.cancel, self.pause, self.resume) if each is not None]
        if len(said) != 1 or len(self.model_fields_set) != 2:
            raise ValueError("needs one of `event`, `cancel: {}`, `pause: {}` and `resume: {}` beside `after`")
        return self

    @model_validator(mode="after")
    def _taken(self) -> "Happening":
        """No runner takes an event that is none, so nobody would hear of it."""
        if self.event is not None:
            try:
                checked({**MADE, **self.event}, "event")
            except (InvalidRequest, TooLarge) as error:
                raise ValueError(str(error)) from None
        return self


class Expected(_Shape):
    """What must come of it; what is left out may be anything."""

    status: Literal["completed", "failed", "cancelled"] = "completed"
    output: Any = None
    """Exactly."""
    error: dict[str, Any] | None = None
    """What the error must have."""
    tasks: list[str] | None = None
    """The names, or JSON pointers, of the tasks that start, in order."""
    events: list[dict[str, Any]] | None = None
    """Progress events that must come in this order, with others between them."""
    emitted: list[dict[str, Any]] | None = None
    """The CloudEvents that are emitted, in order; each may have more."""
    lasts: Duration | None = None
    """How long it takes, exactly."""

    @property
    def has_output(self) -> bool:
        """Whether the output is said; null is one, too."""
        return "output" in self.model_fields_set

    @model_validator(mode="after")
    def _possible(self) -> "Expected":
        """What the status leaves no place for would be compared with nothing, and hold for ever."""
        if self.error is not None and self.status != "failed":
            raise ValueError(f"has an `error`, and the status {self.status}: only what is `failed` has one")
        if self.has_output and self.status != "completed":
            raise ValueError(f"has an `output`, and the status {self.status}: only what is `completed` has one")
        return self


class Scenario(_Shape):
    """One execution."""

    name: Annotated[str, Field(min_length=1)]
    input: Any = None
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, Any] = Field(default_factory=dict)
    start: datetime = _START
    """What time it is when it starts."""
    stubs: list[Stub] = Field(default_factory=list)
    during: list[Happening] = Field(default_factory=list)
    expect: Expected = Expected()

    @property
    def start_ms(self) -> int:
        """In milliseconds since the epoch."""
        start = self.start if self.start.tzinfo else self.start.replace(tzinfo=UTC)
        return round(start.timestamp() * 1000)

    @model_validator(mode="after")
    def _of_clocks(self) -> "Scenario":
        if self.start_ms <= 0:
            raise ValueError("`start` is not after 1970-01-01, where the clocks of runners begin")
        return self


class ScenarioFile(_Shape):
    """All scenarios of a document."""

    workflow: str = ""
    """The document's file, from this one; default: NAME.yaml beside NAME.test.yaml."""
    resources: dict[str, str] = Field(default_factory=dict)
    """Files for what the document has from elsewhere, by its URL."""
    scenarios: Annotated[list[Scenario], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> "ScenarioFile":
        names = [scenario.name for scenario in self.scenarios]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two scenarios are called {twice[0]!r}: give each a name of its own")
        return self


def read_scenarios(path: Path) -> ScenarioFile:
    """A file's scenarios, `workflow` made a path. Raises ScenarioRefused, OSError."""
    try:
        given = load(read_file(path))
    except InvalidWorkflow as error:
        problem = error.problems[0]
        raise ScenarioRefused(f"{path}:{problem.line}:{problem.column}: {problem.message}") from None
    if not isinstance(given, dict):
        raise ScenarioRefused(f"{path}: expected a mapping with `scenarios`")
    try:
        read = ScenarioFile.model_validate(given)
    except ValidationError as error:
        raise ScenarioRefused(f"{path}: {_sentence(error.errors()[0])}") from None
    workflow = path.parent / read.workflow if read.workflow else _document_of(path)
    return read.model_copy(update={"workflow": str(workflow)})


def read_file(path: Path) -> bytes:
    """A file that a file of scenarios names. Raises ScenarioRefused, OSError."""
    if "\0" in str(path):
        raise ScenarioRefused(f"{path}: no file's name has the character U+0000")
    return path.read_bytes()


def _sentence(problem: Any) -> str:
    place = "/".join(str(part) for part in problem["loc"])
    message = (
        str(problem["msg"]).removeprefix("Value error, ").replace("Extra inputs are not permitted", "is not known")
    )
    return f"/{place}: {message[:1].lower()}{message[1:]}"


def _document_of(path: Path) -> Path:
    name = path.name
    for ending in (".test.yaml", ".test.yml", ".test.json"):
        if name.endswith(ending):
            return path.with_name(name.removesuffix(ending) + ending.removeprefix(".test"))
    raise ScenarioRefused(f"{path}: `workflow` is not given, and the file's name does not end with .test.yaml")
