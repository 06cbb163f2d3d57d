"""Support: a whole worker in the test's process, whose time passes when there is nothing else to wait for.

It is put together as `processes/worker.py` does it, without processes and sockets of its own: documents come in as
requests to the service, hosts are stand-ins (see `hosts`), everything between is the runner's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2 as s
from fastrunner.access.principal import Principal
from fastrunner.access.secrets import Secrets
from fastrunner.base import clock
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.events.schedules.book import Schedules
from fastrunner.registry.registry import Registry
from fastrunner.resources.resolver import Resolver
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.placement import Places
from fastrunner.service.handlers import Service
from fastrunner.tasks import build_performers
from tests.conformance.hosts import Hosts
from tests.local_router import LocalRouter

__all__ = ["World", "until", "world"]

DEADLINE_S = 60.0
LOOK_INTERVAL_S = 0.002
DRAIN_TIMEOUT_S = 5.0

R = TypeVar("R", bound=Message)
T = TypeVar("T")


class World:
    """One worker and all it needs."""

    def __init__(self, folder: Path, hosts: Hosts, secrets: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """`settings` are the worker's; `secrets` are values by name."""
        self.hosts = hosts
        self._skipped_ms = 0
        self._files = folder / "files"
        self._files.mkdir()
        config = load_config(data_dir=folder / "data", resources_dir=self._files, **settings)
        config.data_dir.mkdir()
        metrics = Metrics()
        around: dict[str, Any] = {"resolver": hosts, "ssl_context": hosts.trust}
        known = Secrets(None, {name: json.dumps(value) for name, value in secrets.items()})
        resources = Resolver(config, metrics, known, **around)
        self._registry = Registry(config.data_dir)
        self.bus = EventBus(config.data_dir, self._wake, Seals(None), config.event_retention_s, wall_ms=self.now_ms)
        performers = build_performers(config, metrics, event_sink=self.bus, descriptions=resources, **around)
        self._engine = EmbeddedEngine(
            config,
            metrics,
            performers,
            secrets=known,
            definitions=self._registry,
            resources=resources,
            events=self.bus,
            places=Places.alone(),
            wall_ms=self.now_ms,
        )
        self._schedules = Schedules(config.data_dir, None, self._call, self.bus, metrics)
        router = LocalRouter()
        self._service = Service(self._engine, router, metrics, lambda: False, self._registry, self.bus, self._schedules)

    def now_ms(self) -> int:
        """The world's time, in milliseconds since the epoch."""
        return clock.wall_ms() + self._skipped_ms

    def skip(self, duration_ms: int) -> None:
        """Has so much time passed."""
        self._skipped_ms += duration_ms

    def put_file(self, name: str, text: str) -> None:
        """A file that documents may read."""
        path = self._files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def start(self) -> None:
        """Starts the parts that have to be."""
        self.bus.start()
        await self._engine.start()
        self._schedules.start()

    async def close(self) -> None:
        """Stops them; what runs is left as it is."""
        await self._schedules.stop()
        await self._engine.drain(DRAIN_TIMEOUT_S)
        await self.bus.close()
        self._schedules.close()
        self._registry.close()

    # --- as a client ---

    async def call(self, method: str, request: Message, reply: type[R]) -> R:
        """One call of the runner. Raises RunnerError."""
        return reply.FromString(await self._call(method, request.SerializeToString(), None))

    async def submit(self, execution_id: str, document: str, input_: Any) -> None:
        """Has a document executed. Raises RunnerError."""
        request = m.WorkflowExecuteInput(
            workflow_execution_id=execution_id, workflow_yaml=document, input_json=json.dumps(input_)
        )
        await self.call("ExecuteAsync", request, m.WorkflowExecuteResponse)

    async def get(self, execution_id: str) -> q.Execution:
        """What is known of an execution. Raises UnknownExecution."""
        request = q.GetExecutionRequest(execution_id=execution_id)
        return (await self.call("GetExecution", request, q.GetExecutionResponse)).execution

    async def cancel(self, execution_id: str) -> None:
        """Ends an execution. Raises RunnerError."""
        await self.call("CancelExecution", m.CancelExecutionRequest(execution_id=execution_id), Empty)

    async def register(self, document: str) -> None:
        """Registers a definition for others to run."""
        await self.call(
            "RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=document), r.RegisterWorkflowResponse
        )

    async def schedule(self, document: str) -> str:
        """Adds a document's schedule; its id."""
        request = s.AddScheduleRequest(execution=m.WorkflowExecuteInput(workflow_yaml=document))
        reply = await self.call("AddSchedule", request, s.AddScheduleResponse)
        return reply.schedule.schedule_id

    async def started_by(self, schedule_id: str) -> Sequence[str]:
        """Ids of what a schedule has started."""
        request = q.ListExecutionsRequest(labels={"schedule": schedule_id})
        page = await self.call("ListExecutions", request, q.ListExecutionsResponse)
        return [each.execution_id for each in page.executions]

    async def publish(self, *events: Mapping[str, Any]) -> None:
        """Sends events, at once and in order."""
        await self.bus.publish(events, None)

    async def _call(self, method: str, payload: bytes, principal: Principal | None) -> bytes:
        reply = self._service.handle_unary(method, payload, CallFacts("test", 0, False, principal))
        return reply if isinstance(reply, bytes) else await reply

    def _wake(self) -> None:
        self._engine.events_came()


@asynccontextmanager
async def world(
    folder: Path, hosts: Hosts, secrets: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A started one, stopped at the end."""
    world = World(folder, hosts, secrets or {}, settings)
    await world.start()
    try:
        yield world
    finally:
        await world.close()


async def until(condition: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first true value of `condition`."""
    deadline_s = clock.monotonic_s() + DEADLINE_S
    while not (found := await condition()):
        assert clock.monotonic_s() < deadline_s, f"waited {DEADLINE_S} s for: {what}"
        await asyncio.sleep(LOOK_INTERVAL_S)
    return found
