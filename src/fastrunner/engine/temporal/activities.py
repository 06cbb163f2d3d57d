"""Stage 5, tasks: the activities of executions: effects, children to prepare, reports.

Rules: arguments are rendered here, from the capsule in the order and this process's own secrets, so no history has
them. The document is that of the workflow's own first event, so any worker can perform what any other has scheduled.
What an effect fails with is its outcome and no failure of the activity: Temporal performs it again only when its worker
is lost or stops. Every activity sends heartbeats, by which it hears that nobody wants its outcome any more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from zlib import crc32

import orjson
from temporalio import activity
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, Plan, RenderFault
from fastrunner.base import clock, limits
from fastrunner.engine import (
    LATEST,
    Authorizer,
    Definition,
    DefinitionRef,
    EffectPerformer,
    KeepingPerformer,
    LingeringPerformer,
    Report,
    ReportRefused,
    SecretSource,
)
from fastrunner.engine.embedded.run.family import child_id_of
from fastrunner.engine.failures import shown
from fastrunner.engine.subflow_outcomes import failed, refused
from fastrunner.engine.temporal.client import Connection
from fastrunner.engine.temporal.histories import Beginnings
from fastrunner.engine.temporal.messages import (
    PERFORM,
    PREPARE,
    REPORT,
    EffectOrder,
    EffectOutcome,
    Prepared,
    WalkStart,
    told,
    unpacked,
)
from fastrunner.engine.temporal.plans import plan_of
from fastrunner.engine.temporal.starts import Memo, check_env, check_size, keywords
from fastrunner.engine.temporal.tracing import Traces, child_trace
from fastrunner.errors import AtCapacity, RunnerError, StorageFailed, TooLarge, Unavailable

__all__ = ["AT_ONCE", "Activities", "beating"]

_log = logging.getLogger(__name__)

AT_ONCE: Final = timedelta(milliseconds=1)
"""The pause after an attempt whose worker stops: another one is there."""
_NO_RECEIVER: Final = "this worker has no STIGMER_SERVICE_ENDPOINT: set the same one for all workers"

T = TypeVar("T")


class Registered(Protocol):
    """Where children come from."""

    async def compiled_ref(self, ref: DefinitionRef) -> tuple[Definition, Plan]:
        """A registered workflow that this engine executes. Raises RunnerError."""


class Activities:
    """The activities of one worker."""

    def __init__(
        self,
        connection: Connection,
        performers: Mapping[str, EffectPerformer],
        secrets: SecretSource | None,
        registered: Registered,
        report: Report | None,
        is_sealed: bool,
        own_queue: Callable[[], str],
        traces: Traces | None,
    ) -> None:
        """`report`: None where no receiver is configured; `is_sealed`: whether histories are; `own_queue` gives a task
        queue that this worker alone takes effects from; `traces`: None where nothing is traced."""
        self._connection = connection
        self._performers = performers
        # Whether somebody is one takes as long as rendering a call does, so nobody asks for each effect.
        self._authorizers = {kind: each for kind, each in performers.items() if isinstance(each, Authorizer)}
        self._keeping = {kind: each for kind, each in performers.items() if isinstance(each, KeepingPerformer)}
        self._with_rest = {kind: each for kind, each in performers.items() if isinstance(each, LingeringPerformer)}
        self._secrets = secrets
        self._registered = registered
        self._report = report
        self._is_sealed = is_sealed
        self._own_queue = own_queue
        self._traces = traces
        self.starts = Beginnings(connection, WalkStart)
        """What the workflows that ask here began with."""
        self._lingering: set[asyncio.Task[None]] = set()
        self._away_until_s = 0.0
        """Until then nothing is told at once: the receiver has taken nothing."""

    async def close(self) -> None:
        """Ends what goes on of effects that have had an outcome."""
        for task in self._lingering:
            task.cancel()
        await asyncio.gather(*self._lingering, return_exceptions=True)

    # --- effects ---

    @activity.defn(name=PERFORM)
    async def perform(self, order: EffectOrder) -> EffectOutcome:
        """Performs an effect, and sends the events that its order has meanwhile."""
        given = await self._start()
        reporting = self._sent(order, given.trace) if order.events else None
        if self._traces is not None:
            self._traces.enter(given.trace, activity.info().workflow_id or "", order.effect_id)
        try:
            answer = await self._performed(order, given)
            if reporting is not None:
                answer = replace(answer, acknowledged=await _soon(reporting))
            await self._keep(answer)
            return answer
        finally:
            if reporting is not None:
                reporting.cancel()

    async def _performed(self, order: EffectOrder, given: WalkStart) -> EffectOutcome:
        plan = _plan(given)
        effect = _effect(plan, order)
        try:
            outcome = await beating(self._outcome(plan, effect))
            answer = self._told(order.kind, outcome, given.has_blobs)
        except ApplicationError:
            raise
        except Exception:
            # Performers answer for the remote side; what escapes one is our own fault.
            answer = told(_internal_error(effect), given.has_blobs)
        self._linger(effect)
        return replace(answer, is_again=activity.info().attempt > 1)

    def _told(self, kind: str, outcome: EffectResult | EffectFailure, has_blobs: bool) -> EffectOutcome:
        if isinstance(outcome, EffectFailure):
            return told(shown(outcome), has_blobs)
        answer = told(outcome, has_blobs)
        performer = self._keeping.get(kind)
        if performer is not None and answer.failure is None and performer.keeps(outcome):
            return replace(answer, kept_by=self._own_queue())
        return answer

    async def _keep(self, answer: EffectOutcome) -> None:
        """Puts what is large into the blob store before the activity ends, however long that is away: an activity that
        cannot tell its outcome is performed again."""
        has_blobs = (await self._start()).has_blobs
        if has_blobs and len(orjson.dumps(answer.value)) > limits.TEMPORAL_INLINE_SIZE_BYTES_MAX // 2:
            await beating(self._kept(answer))

    async def _kept(self, answer: EffectOutcome) -> None:
        info = activity.info()
        belongs = WorkflowSerializationContext(info.namespace, info.workflow_id or "")
        converter = self._connection.client.data_converter.with_context(belongs)
        while True:
            try:
                await converter.encode([answer])
                return
            except StorageFailed as error:
                _log.warning("the result of an effect waits for the blob store: %s", error)
                await asyncio.sleep(limits.TEMPORAL_BLOB_PAUSE_S)

    async def _outcome(self, plan: Plan, effect: PerformEffect) -> EffectResult | EffectFailure:
        performer = self._performers[effect.kind]
        authorization: Mapping[str, Any] | None = None
        try:
            secrets = self._secrets_of(plan)
            policy = plan.render_policy(effect.capsule, secrets)
            authorizer = None if policy is None else self._authorizers.get(effect.kind)
            if policy is not None and authorizer is not None:
                proof = await authorizer.authorize(effect, policy["authentication"])
                if isinstance(proof, EffectFailure):
                    return proof
                authorization = proof
            arguments = plan.render(effect.capsule, self._secrets_of(plan), authorization)
        except RenderFault as fault:
            return EffectFailure.whole(effect.effect_id, fault.error)
        return await performer.perform(effect, arguments)

    def _secrets_of(self, plan: Plan) -> Mapping[str, Any]:
        return {} if self._secrets is None or not plan.secrets else self._secrets.read(plan.secrets)

    def _linger(self, effect: PerformEffect) -> None:
        performer = self._with_rest.get(effect.kind)
        if performer is not None:
            task = asyncio.create_task(_lingered(performer, effect))
            self._lingering.add(task)
            task.add_done_callback(self._lingering.discard)

    async def _start(self) -> WalkStart:
        """The input of the workflow that has asked."""
        info = activity.info()
        return await self.starts.of(info.workflow_id or "", info.workflow_run_id or "")

    # --- children ---

    @activity.defn(name=PREPARE)
    async def prepare(self, order: EffectOrder, depth: int) -> Prepared:
        """Finds the workflow that an effect starts; what it is refused for is the effect's failure."""
        given = await self._start()
        plan = _plan(given)
        try:
            arguments = plan.render(_effect(plan, order).capsule, self._secrets_of(plan))
        except RenderFault as fault:
            return Prepared(failure=_failure(EffectFailure.whole(order.effect_id, fault.error)))
        try:
            return await beating(self._prepared(given, arguments, depth, order))
        except (AtCapacity, Unavailable) as refusal:
            raise ApplicationError(refusal.message, type=type(refusal).__name__) from None
        except RunnerError as refusal:
            return Prepared(failure=_failure(refused(order.effect_id, arguments, refusal)))

    async def _prepared(
        self, given: WalkStart, arguments: Mapping[str, Any], depth: int, order: EffectOrder
    ) -> Prepared:
        version = "" if arguments["version"] == LATEST else arguments["version"]
        ref = DefinitionRef(arguments["namespace"], arguments["name"], version)
        definition, plan = await self._registered.compiled_ref(ref)
        check_env(plan, given.env, self._is_sealed)
        input_json = orjson.dumps(arguments.get("input", {}))
        if len(input_json) > limits.INPUT_SIZE_BYTES_MAX:
            raise TooLarge(f"the input has {len(input_json)} bytes: at most {limits.INPUT_SIZE_BYTES_MAX} are allowed")
        parent_id = activity.info().workflow_id or ""
        trace = child_trace(
            given.trace, parent_id, order.effect_id, child_id_of(parent_id, order.effect_id), clock.steady_ms()
        )
        start = WalkStart(
            document=definition.document,
            pinned=definition.pinned,
            input_json=input_json.decode(),
            env=given.env,
            timeout_ms_max=0,
            seed=crc32(order.idempotency_key.encode()),
            reports=given.reports,
            grace_ms=given.grace_ms,
            detached=given.detached,
            accepted_ms=clock.wall_ms(),
            is_pinned=given.is_pinned,
            history_events_max=given.history_events_max,
            debug=given.debug,
            depth=depth,
            parent_id=parent_id,
            has_blobs=given.has_blobs,
            lifecycle=dict.fromkeys(given.lifecycle, 0),
            trace=trace,
        )
        check_size(start)
        memo = Memo.of(plan, clock.wall_ms(), b"", b"", {}, parent_id)
        return Prepared(start, memo.entries(), keywords(plan), bool(arguments["await"]))

    # --- reports ---

    def _sent(self, order: EffectOrder, trace: str) -> "asyncio.Task[int]":
        return asyncio.create_task(_taken(self._reporter(trace), unpacked(order.events), order.events_last))

    def _reporter(self, trace: str) -> Report:
        """Who sends events of an execution of which `trace` is traced."""
        if self._report is None:
            raise ApplicationError(_NO_RECEIVER)
        return self._report if self._traces is None else partial(self._traces.reported, trace, self._report)

    @activity.defn(name=REPORT)
    async def report(self, execution_id: str, messages: bytes, last: int, trace: str = "") -> int:
        """Sends events of an execution; gives the sequence number up to which the receiver has them. Raises
        ApplicationError if it has taken none, for Temporal to try again."""
        reporter = self._reporter(trace)
        if activity.info().is_local and clock.monotonic_s() < self._away_until_s:
            raise ApplicationError("the receiver has just taken nothing", type="NotTaken")
        try:
            return await beating(reporter(execution_id, messages, last))
        except (ReportRefused, asyncio.CancelledError) as error:
            self._away_until_s = clock.monotonic_s() + limits.TEMPORAL_REPORT_AT_ONCE_S_MAX
            if isinstance(error, ReportRefused):
                raise ApplicationError(str(error), type="NotTaken") from None
            raise


async def beating(work: Awaitable[T]) -> T:
    """Waits for something, with heartbeats; cancelled, it cancels that."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(limits.TEMPORAL_HEARTBEAT_S / 4, beat)

    timer = loop.call_later(limits.TEMPORAL_HEARTBEAT_S / 4, beat)
    try:
        return await work
    except asyncio.CancelledError:
        if activity.is_worker_shutdown():
            # Another worker takes it at once, and need not wait until this one is missed.
            raise ApplicationError("the worker stops", type="Stopping", next_retry_delay=AT_ONCE) from None
        raise
    finally:
        timer.cancel()


async def _taken(report: Report, messages: bytes, last: int) -> int:
    """Up to where the receiver has everything; 0 if that is not known."""
    try:
        return await report(activity.info().workflow_id or "", messages, last)
    except ReportRefused:
        # The workflow still has them.
        return 0


async def _soon(reporting: "asyncio.Task[int]") -> int:
    """What the receiver answers, unless it takes its time: the outcome of an effect does not wait for that."""
    if reporting.done():
        return reporting.result()
    done, _ = await asyncio.wait({reporting}, timeout=limits.TEMPORAL_REPORT_WAIT_S_MAX)
    return reporting.result() if done else 0


async def _lingered(performer: LingeringPerformer, effect: PerformEffect) -> None:
    try:
        await performer.linger(effect)
    except Exception:
        _internal_error(effect)


def _plan(start: WalkStart) -> Plan:
    return plan_of(start.document, start.pinned)


def _effect(plan: Plan, order: EffectOrder) -> PerformEffect:
    capsule = plan.load_capsule(unpacked(order.capsule))
    return PerformEffect(order.effect_id, order.kind, capsule, order.idempotency_key, order.reference)


def _failure(failure: EffectFailure) -> dict[str, Any] | None:
    return told(shown(failure), False).failure


def _internal_error(effect: PerformEffect) -> EffectFailure:
    """Call inside an exception handler: the runner failed on an effect. The workflow must hear of it."""
    _log.exception("effect %s failed inside the runner", effect.kind, extra={"effect": effect.idempotency_key})
    return failed(effect.effect_id, "runtime", "Internal error", f"{effect.kind} failed in the runner", 500)
