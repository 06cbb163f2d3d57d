"""Support: a Temporal server for tests, engines on it, and the receiver that they report to.

Rule: the library is imported by whoever needs it, not with this module: it takes half a second.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.access.egress import Egress
from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.base.sinks import SinkAddress
from fastrunner.callback.direct import DirectReports
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definition, DefinitionRef, EffectPerformer
from fastrunner.errors import UnknownWorkflow
from fastrunner.progress.names import TERMINAL_EVENTS
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions, serve_receiver
from fastrunner.tasks.emit.perform import Emit
from fastrunner.tasks.emit.sinks import HttpPost
from tests.integration.engines import Performer, until
from tests.integration.temporal_server import TemporalServer

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

__all__ = ["Cluster", "Registered", "cluster_on", "reported", "serving_temporal", "shown"]

_REPORTED_S_MAX = 90.0


@contextmanager
def serving_temporal() -> Iterator[str]:
    """A development server of Temporal, in memory; gives its address."""
    server = TemporalServer()
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


@dataclass
class Registered:
    """Registered workflows, by name."""

    documents: Mapping[str, str] = field(default_factory=dict)

    def find(self, ref: DefinitionRef) -> Definition:
        document = self.documents.get(ref.name)
        if document is None:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        return Definition(ref, 0, True, document)

    async def look_up(self, ref: DefinitionRef) -> Definition:
        return self.find(ref)


class Cluster:
    """One task queue of a server, and the receiver of what its executions report."""

    def __init__(self, address: str, receiver: Receiver, port: int) -> None:
        self.address = address
        self.queue = f"tests-{uuid4().hex}"
        self.receiver = receiver
        self.events: dict[str, list[WorkflowProgressEvent]] = {}
        """What the receiver has taken, by execution."""
        self.port = port

    @asynccontextmanager
    async def engine(
        self,
        performers: Mapping[str, EffectPerformer] | None = None,
        *,
        documents: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        works: bool = True,
        settings: Mapping[str, Any] | None = None,
        bus_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX,
        sinks: str = "",
        **options: Any,
    ) -> "AsyncIterator[TemporalEngine]":
        """A replica; one that does not work only takes calls. `settings` are further ones of its configuration."""
        from fastrunner.engine.temporal.engine import TemporalEngine
        from fastrunner.engine.temporal.events import TemporalEvents

        given: dict[str, Any] = {
            "temporal_service_address": self.address,
            "stigmer_service_endpoint": f"127.0.0.1:{self.port}",
            "stigmer_service_use_tls": False,
            "drain_timeout_s": 1.0,
            "workers": 1,
        }
        config = Config(**{**given, **(settings or {})})
        metrics = Metrics(CollectorRegistry())
        reports = DirectReports(config, metrics)
        door = TemporalEvents(
            config.event_retention_s,
            metrics,
            sinks=SinkAddress.parse_all(sinks),
            post=HttpPost(config, metrics, Egress.of(config)),
            history_events_max=bus_events_max,
        )
        engine = TemporalEngine(
            config,
            metrics,
            {"call_http": opened(), "emit": Emit(door, metrics), **(performers or {})},
            events=door,
            definitions=Registered(documents or {}),
            secrets=Secrets(variables=secrets),
            report=reports.send,
            task_queue=self.queue,
            **options,
        )
        await engine.open()
        if works:
            engine.go_on()
        try:
            yield engine
        finally:
            await engine.drain(1.0)
            await reports.close()


def opened() -> Performer:
    """A performer that answers at once."""
    performer = Performer()
    performer.gate.set()
    return performer


@asynccontextmanager
async def cluster_on(address: str, **options: Any) -> AsyncIterator[Cluster]:
    """A task queue and a receiver of its own."""
    given = ReceiverOptions(port=0, quiet=True, **options)
    receiver = Receiver(given, lambda event: cluster.events.setdefault(event.workflow_execution_id, []).append(event))
    async with serve_receiver(receiver, given) as port:
        cluster = Cluster(address, receiver, port)
        yield cluster
        assert receiver.ledger.violations == []


def shown(events: list[WorkflowProgressEvent]) -> list[str]:
    """Events but for their times, to be compared: every field of each, so texts are equal if bytes are."""
    texts = []
    for event in events:
        copy = WorkflowProgressEvent()
        copy.CopyFrom(event)
        copy.timestamp_ms = 0
        texts.append(str(copy))
    return texts


async def reported(cluster: Cluster, execution_id: str) -> list[str]:
    """The events that the receiver has once it has the last one, but for their times."""
    events = cluster.events.setdefault(execution_id, [])
    await until(lambda: events and events[-1].event_type in TERMINAL_EVENTS, "the last event", _REPORTED_S_MAX)
    return shown(events)
