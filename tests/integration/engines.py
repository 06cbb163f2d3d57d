"""Support: real engines over real files for tests, documents to run on them, a performer whose effects tests steer."""

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.access.sealing import DataKeys
from fastrunner.base import clock, limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definitions, EffectPerformer, ExecutionView, Resources, Submission
from fastrunner.engine.embedded.admit.admission import Admission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.errors import Unavailable, UnknownExecution
from fastrunner.events.bus import EventBus
from fastrunner.routing.placement import Places
from fastrunner.tracing.tracer import Tracer

__all__ = [
    "CALL",
    "ENDLESS",
    "SET",
    "TERMINAL",
    "WAIT",
    "Performer",
    "all_events",
    "assert_whole",
    "bus_of",
    "document",
    "engine_on",
    "events_of",
    "folder",
    "send",
    "submission",
    "until",
    "until_status",
]

TERMINAL = {"workflow_completed", "workflow_failed", "workflow_cancelled"}


def document(tasks: str, name: str = "test") -> str:
    """A document with the given `do` list, indented by two."""
    head = f"document:\n  dsl: '1.0.0'\n  namespace: tests\n  name: {name}\n  version: '1.0.0'\ndo:\n"
    return head + tasks


SET = document("  - one:\n      set: {a: 1}\n  - two:\n      set: {b: 2}\n")
"""Has no effects: accepted, executed and finished in one commit."""

CALL = document(
    "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "  - keep:\n      set: {kept: true}\n"
)
"""One effect, then a step."""

WAIT = document("  - rest:\n      wait: {milliseconds: 200}\n  - then:\n      set: {rested: true}\n")
"""A timer, then a step."""

ENDLESS = document("  - again:\n      set: {round: 1}\n      then: again\n")
"""Never ends by itself."""


@dataclass
class Performer:
    """Answers effects when told to, or at once."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Effects end once it is set."""
    performed: list[PerformEffect] = field(default_factory=list)
    """Every effect started, in order."""
    arguments: list[Mapping[str, Any]] = field(default_factory=list)
    """Theirs, in the same order."""
    interrupted: list[int] = field(default_factory=list)
    """Effects aborted."""
    failure: EffectFailure | None = None
    """What effects answer instead of a result; only type, status, title and detail count."""
    closed: bool = False

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        self.performed.append(effect)
        self.arguments.append(arguments)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.interrupted.append(effect.effect_id)
            raise
        if self.failure is not None:
            failure = self.failure
            return EffectFailure(effect.effect_id, failure.type, failure.status, failure.title, failure.detail)
        return EffectResult(effect.effect_id, {"answer": 42})

    async def close(self) -> None:
        self.closed = True


def admission_of(client_executions_per_s_max: float) -> Admission:
    """The admission of a runner with one worker, and room for any number of executions."""
    return Admission(Places.alone(), executions_max=10**9, client_executions_per_s_max=client_executions_per_s_max)


def folder() -> Path:
    """A new data directory, on the memory file system where it is large enough: fsync costs nothing there."""
    base = Path("/dev/shm")
    roomy = base.is_dir() and shutil.disk_usage(base).free > 2 * limits.DISK_FREE_SIZE_BYTES_MIN
    path = Path(tempfile.mkdtemp(prefix="fastrunner-test-", dir=base if roomy else None))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@asynccontextmanager
async def engine_on(
    path: Path,
    performer: EffectPerformer | None = None,
    *,
    shards: int = 1,
    listener: Callable[[Any], None] | None = None,
    drain_timeout_s: float = 0.0,
    wall_ms: Callable[[], int] = clock.wall_ms,
    definitions: Definitions | None = None,
    resources: Resources | None = None,
    data_keys: DataKeys | None = None,
    performers: Mapping[str, EffectPerformer] | None = None,
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[EmbeddedEngine]:
    """A started engine that owns all shards of `path`; drained at the end. `performers` are those of further kinds."""
    config = Config(data_dir=path, **settings)
    performers = {**(performers or {}), "call_http": performer or Performer()}
    bus = EventBus(path, lambda: engine.events_came(), Seals(data_keys), config.event_retention_s, wall_ms=wall_ms)
    engine = EmbeddedEngine(
        config,
        Metrics(),
        performers,
        definitions=definitions,
        resources=resources,
        events=bus,
        places=Places.alone(shards),
        wall_ms=wall_ms,
        data_keys=data_keys,
        tracer=tracer,
    )
    if listener is not None:
        engine.outbox.listen(listener)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.drain(drain_timeout_s)
        await bus.close()


def bus_of(engine: EmbeddedEngine) -> EventBus:
    """Where an engine's events are."""
    bus = engine._listeners._source
    assert isinstance(bus, EventBus)
    return bus


async def send(engine: EmbeddedEngine, *events: dict[str, Any], namespaces: frozenset[str] | None = None) -> list[int]:
    """Publishes CloudEvents, from which all but `id` and `data` may be left out; their keys."""
    common = {"specversion": "1.0", "type": "t", "source": "/tests"}
    return list(await bus_of(engine).publish([common | event for event in events], namespaces))


def submission(execution_id: str, text: str = SET, **changes: Any) -> Submission:
    """A request to execute `text`."""
    fields: dict[str, Any] = {
        "execution_id": execution_id,
        "document": text,
        "input_json": b"{}",
        "env_vars": {},
        "metadata": b"",
        "timeout_s_max": 0,
        "debug": False,
    }
    fields |= changes
    return Submission(input_value=orjson.loads(fields["input_json"]), **fields)


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
    """Waits until `condition` holds, failing with `what` after `timeout_s`."""
    deadline_s = clock.monotonic_s() + timeout_s
    pause_s = 0.002
    while not condition():
        assert clock.monotonic_s() < deadline_s, f"waited {timeout_s} s for: {what}"
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.1, 0.02)


async def until_status(
    engine: EmbeddedEngine, execution_id: str, *statuses: str, timeout_s: float = 30.0
) -> ExecutionView:
    """Waits until an execution's durable status is one of `statuses`."""
    deadline_s = clock.monotonic_s() + timeout_s
    pause_s = 0.002
    while True:
        try:
            view = await engine.get(execution_id)
        except (UnknownExecution, Unavailable):
            # Clients, too, ask again.
            view = None
        if view is not None and view.status in statuses:
            return view
        now = view.status if view else "unknown"
        assert clock.monotonic_s() < deadline_s, f"{execution_id} is {now} after {timeout_s} s, not {statuses}"
        await asyncio.sleep(pause_s)
        # On Temporal each look is a call that the server and the workflow answer.
        pause_s = min(pause_s * 1.25, 0.05)


async def all_events(engine: EmbeddedEngine, execution_id: str) -> list[WorkflowProgressEvent]:
    """The durable events of an execution so far, decoded."""
    messages: list[bytes] = []
    # A page ends at some megabytes.
    while page := await engine.events(execution_id, len(messages) + 1, 1_000_000):
        messages += page
    return [WorkflowProgressEvent.FromString(message) for message in messages]


async def events_of(engine: EmbeddedEngine, execution_id: str) -> list[str]:
    """The types of the durable events of an execution so far."""
    return [event.event_type for event in await all_events(engine, execution_id)]


async def assert_whole(engine: EmbeddedEngine, execution_id: str, terminal: str) -> list[str]:
    """An ended execution's events are contiguous from 1 and end in the one terminal event; gives their types."""
    events = await all_events(engine, execution_id)
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    types = [event.event_type for event in events]
    assert [each for each in types if each in TERMINAL] == [terminal]
    assert types[-1] == terminal
    return types
