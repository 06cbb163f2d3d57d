"""Support: a worker process: assembles the parts of the data path on one event loop, and takes them down in order.

Start: engine (its shards recover), lifecycle sinks, the folder of workflows, what others' shards hold (no new execution
lives there), callbacks (what the outbox holds), then the router (others may forward), then gRPC (clients may call),
then schedules, then `ready`. Stop: schedules, which another worker fires from now on; gRPC, so that clients move on to
other workers; then the engine comes to rest; callbacks, of its last commits too, while it can still write what was
acknowledged; lifecycle sinks, and its store; the router last, because it answers what others have forwarded. A request
that nobody answers any more goes to this worker's successor.

Rule: this module starts and stops parts and does nothing else; what a child process owes the supervisor is in `child`.
"""

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from fastrunner.access.egress import Egress
from fastrunner.access.principal import Principal
from fastrunner.access.secrets import Secrets
from fastrunner.base import clock, crash, descriptors, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.folders import GONE, identity_of
from fastrunner.base.logs import count_library_records, name_traces
from fastrunner.base.sinks import SinkAddress
from fastrunner.blobs import BlobStore, open_store
from fastrunner.config import Config, secret_variables
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Beginner, WorkerEngine
from fastrunner.engine.build import build_engine, event_door, shared_schedules
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.events.lifecycle.sender import Lifecycle
from fastrunner.events.schedules.book import Schedules
from fastrunner.events.sinks.sender import Sinks
from fastrunner.processes.child import serve_child
from fastrunner.processes.credentials import Credentials, Looks, worker_credentials
from fastrunner.processes.link import ChildContext, ExitCode, StartError
from fastrunner.processes.memory import MemoryReturn
from fastrunner.processes.ports import address_of
from fastrunner.processes.troubles import Troubles
from fastrunner.registry.registry import Registry
from fastrunner.registry.shared import SharedRegistry
from fastrunner.resources.resolver import Resolver
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.peers import Router
from fastrunner.routing.placement import Places
from fastrunner.service.handlers import Service
from fastrunner.service.status import status_of
from fastrunner.service.transport.listener import Listener
from fastrunner.service.transport.server import Server
from fastrunner.tasks import build_performers
from fastrunner.tasks.emit.sinks import HttpPost
from fastrunner.tracing.tracer import Tracer, new_tracer

if TYPE_CHECKING:
    from fastrunner.callback import CallbackPipeline
    from fastrunner.callback.direct import DirectReports


def run_worker(context: ChildContext) -> int:
    """Serves until SIGTERM; the exit code. Raises StartError if it cannot serve, whatever its predecessor does."""
    descriptors.allow()
    config = context.config
    credentials = worker_credentials(config)
    if identity_of(config.data_dir) != context.shared.folder:
        # What the other workers write is elsewhere.
        raise StartError(ExitCode.BOOT, GONE.format(f"the data directory {config.data_dir}"))
    listener = Listener()
    address = address_of(config.grpc_host, config.grpc_port)
    if context.waits and config.workers == 1:
        # Nobody else listens while the predecessor drains: calls wait here until this worker answers them.
        listener.listen(address, credentials.certificates)
    return serve_child(context, partial(Worker.start, listener=listener, address=address, credentials=credentials))


async def places_known(places: Places) -> None:
    """Waits until every worker has told what its shards hold, but not for long: without one, new executions are refused
    until it has, and everything else is served."""
    give_up_s = monotonic_s() + limits.PLACEMENT_KNOWN_WAIT_S_MAX
    while places.table.unknown(places.shard_count) and monotonic_s() < give_up_s:  # noqa: ASYNC110
        await asyncio.sleep(limits.PLACEMENT_KNOWN_INTERVAL_S)  # other processes write it


def _bus_of(context: ChildContext, metrics: Metrics) -> EventBus:
    """The bus of this machine; where Temporal keeps executions nobody publishes there."""
    config = context.config
    return EventBus(
        config.data_dir,
        context.shared.wakes.wake,
        Seals(context.shared.data_keys),
        config.event_retention_s,
        begun_ms=context.shared.begun_ms,
        has_sinks=config.event_sinks is not None,
        metrics=metrics,
    )


def _sinks_of(context: ChildContext, metrics: Metrics, egress: Egress) -> Sinks | None:
    """Who sends emitted events of this machine to the sinks that the settings name; None if there are none."""
    config = context.config
    if config.event_sinks is None or config.temporal_service_address is not None:
        return None
    addresses = SinkAddress.parse_all(config.event_sinks.get_secret_value())
    post = HttpPost(config, metrics, egress)
    return Sinks(config.data_dir, addresses, Seals(context.shared.data_keys), post, metrics)


def _lifecycle_of(context: ChildContext, metrics: Metrics, egress: Egress) -> Lifecycle | None:
    """Who sends what becomes of this worker's executions to the sinks for that; None if there are none, or executions
    tell by themselves."""
    config = context.config
    if config.lifecycle_sinks is None or config.temporal_service_address is not None:
        return None
    addresses = SinkAddress.parse_all(config.lifecycle_sinks.get_secret_value())
    return Lifecycle(config.data_dir, addresses, HttpPost(config, metrics, egress), metrics)


def _registry_of(local: Registry | None, blobs: BlobStore | None) -> Registry | SharedRegistry:
    """Where registered workflows lie: in the data directory, or for all replicas in their blob store."""
    if local is not None:
        return local
    assert blobs is not None
    return SharedRegistry(blobs)


def _reports_of(config: Config, metrics: Metrics) -> "DirectReports | None":
    """Who sends what executions report by themselves; None if they do not, or nobody receives it."""
    if config.temporal_service_address is None or config.stigmer_service_endpoint is None:
        return None
    # Only now: gRPC's library, which a client needs, takes 14 MiB of every worker.
    from fastrunner.callback.direct import DirectReports

    return DirectReports(config, metrics)


def _callbacks_of(
    config: Config, engine: WorkerEngine, metrics: Metrics, tracer: Tracer | None
) -> "CallbackPipeline | None":
    """Who delivers what the outbox holds; None if there is none, or nobody receives it."""
    if engine.outbox is None or config.stigmer_service_endpoint is None:
        return None
    # As above.
    from fastrunner.callback import CallbackPipeline

    return CallbackPipeline(config, engine.outbox, metrics, wall_ms=clock.steady_ms, tracer=tracer)


def _tracer_of(config: Config, metrics: Metrics) -> Tracer | None:
    """What traces executions, None: nothing does; what is logged is told to both."""
    records = metrics.library_log_records
    count_library_records(lambda library: records.labels(library).inc())
    tracer = new_tracer(config, metrics)
    if tracer is not None:
        name_traces(tracer.ids_of)
    return tracer


class Worker:
    """The parts of one worker, started."""

    def __init__(self, context: ChildContext, listener: Listener, credentials: Credentials) -> None:
        config = context.config
        # A successor of one that died of it lives, or nothing would ever recover.
        if config.crash_point and not context.follows_crash:
            crash.arm(config.crash_point, context.index)
        if config.crash_turn:
            crash.arm_turns(config.crash_turn)
        self._link = context.link
        self._index, self._wakes = context.index, context.shared.wakes
        self._metrics = Metrics(segment=context.segment)
        self._tracer = _tracer_of(config, self._metrics)
        is_local = config.temporal_service_address is None
        self._places = places = context.shared.places(context.index, config.workers, anywhere=not is_local)
        self._workflows_dir = config.workflows_dir
        blobs = None if config.blob_url is None else open_store(config.blob_url)
        local = Registry(config.data_dir) if blobs is None else None
        self._registry = _registry_of(local, blobs)
        self._bus = _bus_of(context, self._metrics)
        egress, secrets = Egress.of(config, serves=True), Secrets(config.secrets_dir, secret_variables())
        self._sinks = _sinks_of(context, self._metrics, egress)
        self._lifecycle = _lifecycle_of(context, self._metrics, egress)
        resources = Resolver(config, self._metrics, secrets, egress)
        door = event_door(config, self._metrics, self._bus, HttpPost(config, self._metrics, egress))
        self._performers = build_performers(config, self._metrics, egress, event_sink=door, descriptions=resources)
        self._reports = _reports_of(config, self._metrics)
        self._engine = build_engine(
            config,
            self._metrics,
            self._performers,
            secrets,
            local,
            self._registry,
            resources,
            self._bus,
            door,
            places,
            context.death,
            context.shared.data_keys,
            None if self._reports is None else self._reports.send,
            blobs,
            context.shared.temporal_keys,
            self._tracer,
        )
        # Registers with the engine, so it must be there before the engine starts.
        self._callbacks = _callbacks_of(config, self._engine, self._metrics, self._tracer)
        self._router = Router(places, context.folder.socket_of, self._metrics, status_of)
        # What a replica's own folder has is known to no other one.
        keeps = (config.data_dir, context.shared.data_keys)
        self._schedules = Schedules(*keeps, self._call, self._bus, self._metrics) if is_local else None
        self._service = Service(
            self._engine,
            self._router,
            self._metrics,
            context.is_short_handed,
            self._registry,
            door,
            self._schedules or shared_schedules(self._engine, self._call),
        )
        self._credentials = credentials
        served = (self._service, self._metrics, listener, credentials.gate, credentials.audit)
        self._server = Server(*served, traces=self._tracer is not None)
        self._troubles = Troubles(self._report_trouble)
        self._memory = MemoryReturn()
        self._looks = Looks()
        self._engine.watch_storage(self._troubles.storage)
        self._engine.watch_workers(context.is_short_handed)

    @classmethod
    async def start(cls, context: ChildContext, listener: Listener, address: str, credentials: Credentials) -> "Worker":
        """Starts the parts in order."""
        worker = cls(context, listener, credentials)
        worker._troubles.watch_descriptors()
        worker._memory.watch()
        worker._looks.begin([*credentials.looks, worker._server.look])
        worker._bus.start()
        if worker._sinks is not None:
            worker._sinks.start()
        asyncio.get_running_loop().add_reader(worker._wakes.fileno(worker._index), worker._look_for_events)
        await worker._engine.open()
        if worker._lifecycle is not None:
            await worker._lifecycle.begin(worker._engine.feed.rows())
        if worker._workflows_dir is not None:
            await worker._registry.load(worker._workflows_dir, partial(worker._engine.plan_of, client=""))
        if worker._engine.outbox is not None:
            await places_known(worker._places)
        if worker._callbacks is not None:
            await worker._callbacks.start()
        await worker._router.start(worker._service)
        await worker._server.start(address, credentials.certificates)
        for performer in worker._performers.values():
            if isinstance(performer, Beginner):
                performer.begin()
        # Last, so that a worker that dies of what it brings back has been ready: it is replaced as often as it takes.
        worker._engine.go_on()
        if worker._schedules is not None:
            worker._schedules.start()
        return worker

    async def _call(self, method: str, payload: bytes, principal: Principal | None) -> bytes:
        """A call of the runner by itself, on behalf of somebody."""
        peer = "schedules" if principal is None else principal.name
        reply = self._service.handle_unary(method, payload, CallFacts(peer, 0, False, principal))
        return reply if isinstance(reply, bytes) else await reply

    def _look_for_events(self) -> None:
        self._wakes.heard(self._index)
        self._engine.events_came()

    def _report_trouble(self, trouble: str) -> None:
        """Health and readiness go red while executions cannot be taken; the supervisor is told why."""
        self._server.set_troubled(bool(trouble))
        self._link.send("trouble", cause=trouble)

    async def drain(self, timeout_s: float) -> None:
        """Stops the parts in order."""
        end_s = monotonic_s() + timeout_s
        # In a rolling restart an owner's successor is just coming up: calls that wait for it should reach it.
        asyncio.get_running_loop().call_later(limits.DRAIN_WAITING_S_MAX, self._router.stop_waiting)
        asyncio.get_running_loop().remove_reader(self._wakes.fileno(self._index))
        self._troubles.close()
        self._memory.close()
        self._looks.close()
        if self._schedules is not None:
            await self._schedules.stop()
        await self._server.stop(min(limits.DRAIN_CALLS_S_MAX, timeout_s))
        # What the last commits bring is still called back, so some of the time is kept for that.
        left_s = max(0.0, end_s - monotonic_s())
        await self._engine.quiesce(max(left_s - limits.DRAIN_CALLBACKS_S_MAX, left_s / 2))
        if self._callbacks is not None:
            await self._callbacks.drain(min(limits.DRAIN_CALLBACKS_S_MAX, max(0.0, end_s - monotonic_s())))
        if self._lifecycle is not None:
            await self._lifecycle.close()
        if self._tracer is not None:
            # What the collector has now leaves the store with its last commit.
            await self._tracer.close(max(0.0, end_s - monotonic_s()))
        await self._engine.drain(max(0.0, end_s - monotonic_s()))
        if self._reports is not None:
            await self._reports.close()
        if self._sinks is not None:
            await self._sinks.close()
        await self._bus.close()
        if self._schedules is not None:
            self._schedules.close()
        self._registry.close()
        with contextlib.suppress(OSError):
            await self._router.close(limits.DRAIN_CALLS_S_MAX)
        await self._credentials.close()
