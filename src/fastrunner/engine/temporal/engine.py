"""Stage 3, journal: the distributed engine, as one worker has it: a client of Temporal, and a worker of its task queue.

    submit -> plan -> refusals of this engine -> start of the workflow -> answer
    commands -> cancel or update; queries -> memo, visibility, and the workflow's own answer

Rules: everything durable is Temporal's: any worker of any replica answers for any execution, and none keeps anything
that another one would need. A workflow's id is the execution's, so a start is idempotent; the digest in its memo tells
the same request from another one.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from uuid import uuid4
from zlib import crc32

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from fastrunner._core import Plan, Problem
from fastrunner.access.principal import check_namespace, check_references
from fastrunner.access.sealing import DataKeys, Sealer
from fastrunner.base import clock, limits
from fastrunner.base.sinks import SinkAddress
from fastrunner.blobs import BlobStore
from fastrunner.config import Config, Reporting
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import (
    Definition,
    DefinitionRef,
    EffectPerformer,
    EventRows,
    ExecutionPage,
    ExecutionQuery,
    ExecutionView,
    FeedItem,
    Lookups,
    Report,
    Resources,
    SecretSource,
    Submission,
)
from fastrunner.engine.embedded.admit.compiling import Compiler
from fastrunner.engine.embedded.admit.digest import env_text, ref_hash, request_digest
from fastrunner.engine.embedded.admit.plans import CachedPlan, PlanCache
from fastrunner.engine.temporal.activities import Activities
from fastrunner.engine.temporal.bus_workflow import EventsWorkflow
from fastrunner.engine.temporal.client import Connection, sentence_of
from fastrunner.engine.temporal.codec import converter_of
from fastrunner.engine.temporal.counting import OpenCounts, WalkCounts
from fastrunner.engine.temporal.events import EventActivities, TemporalEvents
from fastrunner.engine.temporal.executions import Executions
from fastrunner.engine.temporal.handover import ReportWorkflow
from fastrunner.engine.temporal.histories import Told
from fastrunner.engine.temporal.instances import Instances
from fastrunner.engine.temporal.lifecycle import LifecycleSinks
from fastrunner.engine.temporal.messages import TASK_QUEUE, WALK, WalkStart
from fastrunner.engine.temporal.schedule_workflow import ScheduleWorkflow
from fastrunner.engine.temporal.schedules import TemporalSchedules
from fastrunner.engine.temporal.sinks import SinkWorkflow
from fastrunner.engine.temporal.starts import Memo, check_env, check_size, keywords, typed
from fastrunner.engine.temporal.supported import problems_of
from fastrunner.engine.temporal.telling import TellWorkflow
from fastrunner.engine.temporal.tracing import Traces
from fastrunner.engine.temporal.workflow import WalkWorkflow
from fastrunner.errors import (
    DocumentRefused,
    IdTaken,
    NotServed,
    RunnerError,
    Stopping,
    StorageFailed,
    Unavailable,
    UnknownExecution,
    UnknownWorkflow,
)
from fastrunner.events.schedules.calls import Call
from fastrunner.tracing.kept import SpanFile
from fastrunner.tracing.tracer import Tracer

__all__ = ["TemporalEngine"]

_log = logging.getLogger(__name__)

_STARTED = "running"
_REMEMBERED_WAIT = timedelta(seconds=limits.TEMPORAL_REMEMBERED_WAIT_S)
_HEARTBEAT_THROTTLE = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S / 5)
_POLLERS = PollerBehaviorAutoscaling(minimum=2, maximum=limits.TEMPORAL_POLLERS_MAX, initial=5)

# The engine has a method called `list`, so annotations within the class cannot say it.
_Messages = list[bytes]


async def _stopped(worker: Worker | None, running: "asyncio.Task[None] | None", timeout_s: float) -> None:
    """Has a worker take no more, and lets what it has in hand end within a time."""
    if worker is None or running is None or running.done():
        return
    try:
        async with asyncio.timeout(timeout_s + limits.TEMPORAL_ANSWER_S_MAX):
            await worker.shutdown()
    except TimeoutError:
        running.cancel()


def _deployment_of(config: Config) -> WorkerDeploymentConfig | None:
    """Which version of the runner a worker is; None: executions go from any version to any other."""
    name, build_id = config.temporal_deployment_name, config.temporal_worker_build_id
    if name is None:
        return None
    version = WorkerDeploymentVersion(name, build_id)
    return WorkerDeploymentConfig(version, True, VersioningBehavior.PINNED)


class _NoFeed:
    """What becomes of executions is known to their workflows, and to no worker."""

    def follow(self, after: Mapping[int, int]) -> AsyncGenerator[FeedItem, None]:  # noqa: ARG002 - see ChangeFeed
        """See ChangeFeed. Raises NotServed."""
        raise NotServed("changes of all executions are not told where Temporal keeps executions: list them, or ask")

    def rows(self) -> Sequence[EventRows]:
        """There are none in this process."""
        return ()


class TemporalEngine:
    """The distributed engine of one worker. Construct it on the worker's loop, `open`, then `go_on`."""

    outbox = None
    """None: workflows report by activities."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        performers: Mapping[str, EffectPerformer],
        *,
        secrets: SecretSource | None = None,
        definitions: Lookups | None = None,
        resources: Resources | None = None,
        report: Report | None = None,
        blobs: BlobStore | None = None,
        keys: DataKeys | None = None,
        events: TemporalEvents | None = None,
        tracer: Tracer | None = None,
        shows_open: bool = True,
        task_queue: str = TASK_QUEUE,
        history_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX,
        workflows_cached_max: int = limits.TEMPORAL_WORKFLOWS_CACHED_MAX,
    ) -> None:
        """`report` sends events to the receiver, None: there is none; `blobs` take large values, `keys` seal histories;
        `events` is its door to the bus, None: one of its own; `tracer` traces executions, None: nothing does;
        `shows_open`: whether this worker of its replica shows how many executions there are. Raises ValueError without
        an address."""
        self._connection = Connection(config, converter_of(None if keys is None else Sealer(keys), blobs))
        self._config = config
        self._metrics = metrics
        self._performers = performers
        self._secrets = secrets
        self._definitions = definitions
        self._resources = resources
        self._report = report
        self._blobs = blobs
        self._is_sealed = keys is not None
        self.events_door = events or TemporalEvents(config.event_retention_s, metrics)
        """Where CloudEvents are published."""
        self._task_queue = task_queue
        self._history_events_max = history_events_max
        self._workflows_cached_max = workflows_cached_max
        self._plans = PlanCache(metrics)
        self._compiler = Compiler(self._plans, resources, config.refusal, config.default_catalog)
        self.feed = _NoFeed()
        """See Engine."""
        self._executions: Executions | None = None
        self._activities: Activities | None = None
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None
        self._keeper: Worker | None = None
        """What takes the effects that this worker alone can go on with."""
        self._keeper_running: asyncio.Task[None] | None = None
        self._listener: Callable[[str], None] = lambda _: None
        self._draining = False
        self._schedules: TemporalSchedules | None = None
        sinks = "" if config.lifecycle_sinks is None else config.lifecycle_sinks.get_secret_value()
        self._lifecycle = LifecycleSinks(SinkAddress.parse_all(sinks), self.events_door.post, metrics)
        self._traces = None if tracer is None else Traces(tracer, SpanFile(config.data_dir / "spans"))
        self._open = OpenCounts(self._connection, task_queue, metrics) if shows_open else None

    # --- life ---

    def schedules(self, call: Call) -> TemporalSchedules:
        """The schedules of the task queue; `call` calls this worker. Call before `go_on`."""
        given = (self._connection, self.events_door, self._task_queue, call, self._metrics, self._history_events_max)
        self._schedules = TemporalSchedules(*given)
        return self._schedules

    async def start(self) -> None:
        """Connects and goes on. Raises Unavailable."""
        await self.open()
        self.go_on()

    async def open(self) -> None:
        """Connects, waiting for what does not answer; from here on executions are taken, and commands."""
        if self._traces is not None:
            await self._traces.open()
        delay_s = limits.COMMIT_RETRY_DELAY_S_MIN
        while True:
            try:
                await self._connection.connect()
                self._executions = Executions(self._connection)
                await self._executions.register_attributes()
                if self._blobs is not None:
                    # What cannot be written is told now, and not by the first large value.
                    await self._blobs.put("about.json", b'{"written_by": "fastrunner", "format": 1}')
                await self.events_door.connect(self._connection, self._task_queue)
                break
            except (OSError, RPCError, RuntimeError, StorageFailed, ValueError) as error:
                trouble = error.message if isinstance(error, StorageFailed) else sentence_of(error, self._config)
                self._listener(trouble)
                _log.warning("%s", trouble)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, limits.COMMIT_RETRY_DELAY_S_MAX)
        self._listener("")

    def go_on(self) -> None:
        """Begins to take workflow tasks and activities."""
        given = (self._connection, self._performers, self._secrets, self, self._report, self._is_sealed)
        self._activities = Activities(*given, self._own_queue, self._traces)
        events = EventActivities(self._connection, self.events_door)
        self._worker = Worker(
            self._client,
            task_queue=self._task_queue,
            workflows=[WalkWorkflow, ReportWorkflow, TellWorkflow, EventsWorkflow, SinkWorkflow, ScheduleWorkflow],
            activities=[
                *(self._activities.perform, self._activities.prepare, self._activities.report),
                *(events.listen, events.deliver, events.send, self._lifecycle.tell),
                *(() if self._schedules is None else (self._schedules.looks.look,)),
            ],
            unsandboxed_workflow_runner=Instances(),
            max_cached_workflows=self._workflows_cached_max,
            sticky_queue_schedule_to_start_timeout=_REMEMBERED_WAIT,
            interceptors=[
                WalkCounts(self._metrics),
                Told(self._activities.starts),
                *(() if self._traces is None else (self._traces,)),
            ],
            deployment_config=_deployment_of(self._config),
            workflow_task_poller_behavior=_POLLERS,
            activity_task_poller_behavior=_POLLERS,
            max_concurrent_workflow_tasks=limits.TEMPORAL_WORKFLOW_TASKS_MAX,
            max_concurrent_activities=limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX,
            max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
            default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
            graceful_shutdown_timeout=timedelta(seconds=self._config.drain_timeout_s),
        )
        self._running = asyncio.create_task(self._worker.run())
        self._running.add_done_callback(self._ended)
        self._connection.watch(self._replaced)
        if self._open is not None:
            self._open.start()

    def _own_queue(self) -> str:
        """A task queue that only this worker takes effects from, from now on: those that it has something open for.
        Empty if it stops."""
        assert self._activities is not None
        if self._draining:
            return ""
        if self._keeper is None:
            self._keeper = Worker(
                self._client,
                task_queue=f"{self._task_queue}-worker-{uuid4().hex}",
                activities=[self._activities.perform],
                max_concurrent_activities=limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX,
                max_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
                default_heartbeat_throttle_interval=_HEARTBEAT_THROTTLE,
                graceful_shutdown_timeout=timedelta(seconds=self._config.drain_timeout_s),
            )
            self._keeper_running = asyncio.create_task(self._keeper.run())
            self._keeper_running.add_done_callback(self._ended)
        return self._keeper.task_queue

    def _replaced(self, client: Client) -> None:
        for worker in (self._worker, self._keeper):
            if worker is not None:
                worker.client = client

    def _ended(self, running: "asyncio.Task[None]") -> None:
        if not running.cancelled() and running.exception() is not None:
            _log.error("the worker of Temporal's task queue has ended", exc_info=running.exception())
            self._listener("the worker of Temporal's task queue has ended: see the log")

    def watch_storage(self, listener: Callable[[str], None]) -> None:
        """Has `listener` told why executions are not taken. Call before `open`."""
        self._listener = listener

    def watch_workers(self, is_short_handed: Callable[[], bool]) -> None:
        """See WorkerEngine; other replicas are there while a worker is replaced, so nothing depends on it."""

    def events_came(self) -> None:
        """See WorkerEngine; the bus that Temporal keeps delivers by itself."""

    async def quiesce(self, timeout_s: float) -> None:
        """Takes nothing new; effects in flight may end for `timeout_s`, then another worker performs them again."""
        self._draining = True
        self._compiler.stop()
        if self._open is not None:
            await self._open.close()
        await self.events_door.close()
        parts = ((self._worker, self._running), (self._keeper, self._keeper_running))
        await asyncio.gather(*(_stopped(worker, running, timeout_s) for worker, running in parts))
        if self._activities is not None:
            await self._activities.close()
        await self.events_door.close_sinks()
        await self._connection.close()

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing new, and closes performers and resources."""
        await self.quiesce(timeout_s)
        if self._traces is not None:
            self._traces.close()
        await asyncio.gather(*(performer.close() for performer in self._performers.values()))
        if self._resources is not None:
            await self._resources.close()

    @property
    def is_late(self) -> bool:
        """See Engine: how long a start takes is Temporal's, and its own limits hold."""
        return False

    # --- documents ---

    async def validate(self, document: str, client: str, *, fetches: bool = True) -> Sequence[Problem]:
        """See Engine."""
        problems = await self._compiler.problems_of(document, client, fetches=fetches)
        if any(problem.severity == "error" or problem.code == "not-fetched" for problem in problems):
            return problems
        plan = (await self._compiler.compiled(document, client, fetches=fetches)).plan
        return [*problems_of(plan), *problems]

    async def plan_of(self, document: str, client: str) -> Plan:
        """See Engine."""
        return (await self._compiled(document, client, "")).plan

    async def compiled_ref(self, ref: DefinitionRef) -> tuple[Definition, Plan]:
        """See Registered."""
        definition = await self._registered(ref)
        return definition, (await self._compiled(definition.document, "", definition.pinned)).plan

    async def _registered(self, ref: DefinitionRef) -> Definition:
        if self._definitions is None:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        return await self._definitions.look_up(ref)

    async def _compiled(self, document: str, client: str, pinned: str) -> CachedPlan:
        """The plan of a document that is executed here. Raises DocumentRefused, ResourceUnavailable, AtCapacity,
        Unavailable."""
        cached = self._compiler.plan_of(document, client, pinned)
        if cached is None:
            cached = await self._compiler.outcome_of(document, pinned)
        problems = problems_of(cached.plan)
        if problems:
            raise DocumentRefused(problems)
        return cached

    # --- submissions ---

    def submit(self, submission: Submission) -> "asyncio.Future[str]":
        """See Engine."""
        return asyncio.ensure_future(self._submit(submission))

    async def _submit(self, submission: Submission) -> str:
        try:
            return await self._started(submission)
        except RunnerError as refusal:
            self._metrics.executions_rejected.labels(type(refusal).__name__).inc()
            raise

    async def _started(self, submission: Submission) -> str:
        client, ref = self._open_client(), submission.ref
        if ref is not None:
            check_namespace(submission.principal, ref.namespace)
            definition = await self._registered(ref)
            submission.document, submission.pinned = definition.document, definition.pinned
        cached = await self._compiled(submission.document, submission.client, submission.pinned)
        plan = cached.plan
        check_namespace(submission.principal, plan.namespace)
        check_references(submission.principal, plan.namespaces_run)
        check_env(plan, submission.env_vars, self._is_sealed)
        hashed = self._plans.hash_of(submission.document) if ref is None else ref_hash(ref)
        digest = request_digest(submission, hashed, env_text(submission.env_vars))
        trace = None if self._traces is None else self._traces.begun(submission)
        start = self._start_of(submission, cached, digest, "" if trace is None else trace.text)
        check_size(start)
        memo = Memo.of(plan, clock.wall_ms(), digest, submission.metadata, submission.labels, "")
        try:
            await client.start_workflow(
                WALK,
                start,
                id=submission.execution_id,
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo=memo.entries(),
                search_attributes=typed(keywords(plan), submission.labels),
                static_summary=f"{plan.namespace}/{plan.name}:{plan.version}",
                # Where builds keep their executions Temporal says which of them takes a new one.
                request_eager_start=self._worker is not None and not start.is_pinned,
                rpc_timeout=timedelta(seconds=limits.TEMPORAL_ANSWER_S_MAX),
            )
            self._metrics.executions_accepted.inc()
            if self._traces is not None and trace is not None:
                self._traces.accepted(trace)
        except WorkflowAlreadyStartedError:
            await self._check_same(submission.execution_id, digest)
        except RPCError as error:
            raise Unavailable(f"Temporal has not taken the execution ({error.message}): try again") from None
        submission.temporal_workflow_id = submission.execution_id
        submission.warnings = plan.submission_warnings
        return _STARTED

    async def _check_same(self, execution_id: str, digest: bytes) -> None:
        """Raises IdTaken if another request, or another workflow, has the id."""
        try:
            known = (await self._all.memo(execution_id)).digest
        except UnknownExecution:
            known = ""
        if known != digest.hex():
            raise IdTaken(execution_id) from None

    def _start_of(self, submission: Submission, cached: CachedPlan, digest: bytes, trace: str) -> WalkStart:
        return WalkStart(
            document=submission.document,
            pinned=cached.pinned,
            input_json=submission.input_json.decode(),
            env=dict(submission.env_vars),
            timeout_ms_max=submission.timeout_s_max * 1000,
            seed=crc32(digest),
            reports=self._report is not None and not submission.silent,
            grace_ms=int(self._config.cancel_grace_s * 1000),
            history_events_max=self._history_events_max,
            debug=submission.debug,
            has_blobs=self._blobs is not None,
            detached=self._config.temporal_report is Reporting.DETACHED,
            accepted_ms=clock.wall_ms(),
            is_pinned=self._config.temporal_deployment_name is not None,
            lifecycle=dict.fromkeys(self._lifecycle.names, 0),
            trace=trace,
        )

    def _open_client(self) -> Client:
        if self._draining or self._executions is None:
            raise Stopping("the worker is stopping: try again")
        return self._client

    @property
    def _client(self) -> Client:
        return self._connection.client

    @property
    def _all(self) -> Executions:
        """All executions. Raises Stopping."""
        self._open_client()
        assert self._executions is not None
        return self._executions

    # --- commands ---

    async def cancel(self, execution_id: str, reason: str, force: bool) -> None:
        """See Engine. Graceful, it is Temporal's own cancel, which needs no worker to be durable."""
        if force:
            await self._all.control(execution_id, "kill", reason, "cancelled")
        else:
            await self._all.cancel(execution_id, reason)

    async def pause(self, execution_id: str, reason: str) -> None:
        """See Engine."""
        await self._all.control(execution_id, "pause", reason, "paused")

    async def resume(self, execution_id: str, reason: str) -> None:
        """See Engine."""
        await self._all.control(execution_id, "resume", reason, "resumed")

    def delete(self, execution_id: str) -> Awaitable[None]:
        """See Engine."""
        return self._all.delete(execution_id)

    # --- queries ---

    def get(self, execution_id: str) -> Awaitable[ExecutionView]:
        """See Engine."""
        return self._all.get(execution_id)

    def list(self, query: ExecutionQuery) -> Awaitable[ExecutionPage]:
        """See Engine; from visibility, which is a moment behind."""
        return self._all.list(query)

    def count(self, query: ExecutionQuery) -> Awaitable[Mapping[str, int]]:
        """See Engine; from visibility, which is a moment behind."""
        return self._all.count(query)

    def document(self, execution_id: str) -> Awaitable[str]:
        """See Engine; from the history, which needs no worker."""
        return self._all.document(execution_id)

    def events(self, execution_id: str, from_sequence: int, count_max: int) -> Awaitable[_Messages]:
        """See Engine; those that the workflow still holds."""
        return self._all.events(execution_id, from_sequence, count_max)

    async def subscribe(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """See Engine."""
        async for message in self._all.follow(execution_id, from_sequence, lambda: self._draining):
            yield message
