"""Stage 3, journal: the embedded engine, over the shards one worker owns.

    submit -> plan -> shard.admit -> scheduler: first turn -> shard: dirty -> commit -> answer, effects, events

Rules: everything runs on the worker's loop except COMMIT (one writer thread per shard) and listings (one helper
thread). This module connects the parts; what decides on a submission is `submissions.py`, turns are
`run/execution.py`, their order `run/scheduler.py`, durability `commit/shard.py` and `store/file.py`.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastrunner._core import Cancel, EffectFailure, EffectResult, Pause, PerformEffect, Plan, Problem, Resume
from fastrunner.base import clock, crash, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.crash import CrashPoint, TurnPart
from fastrunner.base.deaths import Death
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import (
    Definitions,
    EffectPerformer,
    EventSource,
    Parent,
    Resources,
    SecretSource,
    Submission,
    UnacknowledgedEvents,
)
from fastrunner.engine.embedded.admit.admission import Admission
from fastrunner.engine.embedded.admit.plans import PlanCache
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.commit.writer import Writer, WriterFactory
from fastrunner.engine.embedded.feed import Feed
from fastrunner.engine.embedded.listeners import Listeners
from fastrunner.engine.embedded.outbox import ShardOutbox
from fastrunner.engine.embedded.queries import Answers, Queries
from fastrunner.engine.embedded.run.commands import Command, applies
from fastrunner.engine.embedded.run.effects import EffectRunner
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.residency import Residents
from fastrunner.engine.embedded.run.scheduler import Scheduler
from fastrunner.engine.embedded.run.subscriptions import Subscriptions
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.storage import StorageTroubles
from fastrunner.engine.embedded.store.changes import Change, InboxChange
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.marks import BEGAN_AT, KEY_AT
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.engine.embedded.store.seals import DataKeys, Seals
from fastrunner.engine.embedded.subflows import Subflows
from fastrunner.engine.embedded.submissions import Submissions
from fastrunner.engine.embedded.tracing import Traces
from fastrunner.errors import (
    Damaged,
    ShardDamaged,
    Stopping,
    StorageFailed,
)
from fastrunner.progress.wire import describe
from fastrunner.routing.placement import ACTIVE, BACKLOG, BATCHED, Places
from fastrunner.tracing.tracer import Tracer

__all__ = ["EmbeddedEngine"]

_log = logging.getLogger(__name__)

# The engine has a method called `list`, so annotations within the class cannot say it.
_Messages = list[bytes]


class EmbeddedEngine(Answers):
    """The durable engine of one worker. Construct it on the worker's loop, `outbox.listen`, then `start`."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        performers: Mapping[str, EffectPerformer],
        *,
        secrets: SecretSource | None = None,
        definitions: Definitions | None = None,
        resources: Resources | None = None,
        events: EventSource | None = None,
        places: Places | None = None,
        wall_ms: Callable[[], int] | None = None,
        make_store: Callable[..., Store] = Store,
        make_writer: WriterFactory = Writer,
        death: Death | None = None,
        data_keys: DataKeys | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`secrets` is where those come from, `definitions` where registered workflows are, `resources` where texts
        from elsewhere come from, `events` where CloudEvents are: None if there are none. `places` is what this worker
        shares with the others, None if there are none; `death` is how the worker before this one died, if nobody asked
        it to; `data_keys` seal what is stored, None: it is not; `tracer` traces executions, None: nothing does.

        The engine closes the performers and the resources when it has drained. The simulation passes a clock, stores
        and writers of its own.
        """
        self._config = config
        self._metrics = metrics
        self._performers = performers
        self._secrets = secrets
        self._resources = resources
        self._places = places = places or Places.alone()
        self._wall_ms = wall_ms = wall_ms or clock.SteadyClock()
        self._make_store = make_store
        self._make_writer = make_writer
        self._death = death
        self._data_keys = data_keys
        self._plans = PlanCache(metrics)
        self._shards = Shards(places)
        self._queries = Queries(self._shards)
        self.outbox = ShardOutbox(self._shards, self._queries)
        """What the callbacks read."""
        self.traces = self.outbox.traces = None if tracer is None else Traces(tracer, self._shards)
        """See Host."""
        self._effects = EffectRunner(
            performers,
            self._deliver,
            lambda each: self._shards.by_number[each.shard_number].marks,
            self.secrets_of,
            lambda *asked: self._subflows.start(*asked),
            self._settle,
            traces=tracer is not None,
        )
        self._subflows = Subflows(self, self._shards)
        self._scheduler = Scheduler(self._take_turn, wall_ms)
        self._listeners = Listeners(self, self._shards, events, self._scheduler.enqueue, metrics)
        self._residents = Residents(config.parked_resident_max, limits.PARKED_RESIDENT_SIZE_BYTES_MAX)
        self.feed = Feed(self._shards)
        """See Engine."""
        self._subscriptions = Subscriptions(self._queries.page, self.feed)
        self._admission = Admission(
            places,
            executions_max=config.executions_max,
            client_executions_per_s_max=config.client_executions_per_s,
        )
        sealed = data_keys is not None
        within = (self._shards, places, self._admission, self._plans)
        asked = (config.refusal, config.default_catalog)
        self._submissions = Submissions(self, *within, definitions, resources, metrics, wall_ms, sealed, *asked)
        metrics.executions_bound.set(config.executions_max)
        self._draining = False
        self._storage = StorageTroubles(config.data_dir, self._shards, metrics)
        self._active_count = 0
        self._parked_count = 0
        self._background: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop
        """Its own; asking for the one that runs is a call of the system's each time."""

    # --- life ---

    async def start(self) -> None:
        """Opens the shards and goes on. Raises as `open`."""
        await self.open()
        self.go_on()

    async def open(self) -> None:
        """Opens the shards, waiting for a disk that is full or fails. From here on executions are taken, and commands.

        Raises DataDirectoryRefused, Unavailable.
        """
        self._loop = asyncio.get_running_loop()
        for number in self._places.shards:
            path = self._config.data_dir / f"shard-{number:04d}.db"
            store = self._make_store(path, outbox=self.outbox.listener is not None)
            store.seals = Seals(self._data_keys)
            shard = Shard(
                number,
                store,
                self,
                self._plans,
                self._config,
                self._metrics,
                self._wall_ms,
                self._make_writer,
                self._places,
            )
            await self._storage.opened(shard, self._death)
            self._shards.by_number[number] = shard
            if self.traces is not None:
                self.traces.opened(shard)
            self._count_active(shard.unfinished_count)
            self._parked_count += shard.parked_count_at_open
        self.landed()

    def go_on(self) -> None:
        """Begins to bring back what runs."""
        for cell in (BACKLOG, BATCHED):
            self._places.loads.set(self._places.worker, cell, 0)
        for shard in self._shards:
            with suppress(StorageFailed):
                shard.orders.give_all()
        self._background = [self._loop.create_task(shard.loader.run()) for shard in self._shards]
        self._background += [self._loop.create_task(self._retain()), self._loop.create_task(self._listeners.run())]
        for task in self._background:
            task.add_done_callback(_report)

    async def _retain(self) -> None:
        while True:
            await asyncio.sleep(limits.RETENTION_INTERVAL_S)
            for shard in self._shards:
                shard.retain()
            self._watch_disk()
            # Recovery and walks that only went to sleep change the gauges without a commit.
            self.landed()

    def _watch_disk(self) -> None:
        was_full = self._scheduler.held
        # An endless loop would eat what is left, and with it the room to write down that somebody cancelled it.
        self._scheduler.held = self._storage.look_at_disk()
        if was_full and not self._scheduler.held:
            for shard in self._shards:
                for execution in shard.live.values():
                    self.gathered(execution)
        self.storage_changed()

    def watch_workers(self, is_short_handed: Callable[[], bool]) -> None:
        """Asks `is_short_handed` whether there may be too much to do only because a worker is being replaced."""
        self._admission.is_short_handed = is_short_handed

    def watch_storage(self, listener: Callable[[str], None]) -> None:
        """Has `listener` told on the loop why executions are not taken, and with an empty text when they are again.

        Call before `start`.
        """
        self._storage.listener = listener

    def storage_changed(self) -> None:
        """See Driver."""
        self._storage.changed()

    async def quiesce(self, timeout_s: float) -> None:
        """Refuses new executions, lets effects in flight end for `timeout_s`, and waits for the commits of all that.

        Effects that do not end in time are aborted without an outcome: the next start performs them again.
        """
        if self._draining:
            return
        deadline_s = monotonic_s() + timeout_s
        self._draining = True
        self._submissions.compiler.stop()
        # Nobody places anything here any more.
        self._places.loads.set(self._places.worker, BACKLOG, math.inf)
        self._scheduler.stop()
        self._effects.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        aborted = await self._effects.drain(timeout_s)
        if aborted:
            _log.warning("%d effects did not end in time and will be performed again", aborted)
        while self._scheduler.busy:  # noqa: ASYNC110
            await asyncio.sleep(0)  # passes are callbacks of this loop; each sleep lets one run
        await asyncio.gather(*(shard.flush(deadline_s) for shard in self._shards))

    async def drain(self, timeout_s: float) -> None:
        """Comes to rest (see `quiesce`), writes the last acknowledgements and closes."""
        deadline_s = monotonic_s() + timeout_s
        await self.quiesce(timeout_s)
        if self.traces is not None:
            self.traces.tell()
        self._shards.closing = True
        self._queries.close()
        left_s = max(1.0, deadline_s - monotonic_s())
        await asyncio.gather(*(shard.close(left_s) for shard in self._shards))
        self._subscriptions.close()
        for performer in self._performers.values():
            await performer.close()
        if self._resources is not None:
            await self._resources.close()
        self._shards.by_number.clear()
        self._parked_count = 0
        self._show_counts()

    # --- submissions ---

    @property
    def is_late(self) -> bool:
        """See Engine."""
        return self._admission.is_late

    def submit(self, submission: Submission) -> "asyncio.Future[str]":
        """See Engine."""
        answer: asyncio.Future[str] = self._loop.create_future()
        self._submissions.judge(submission, answer)
        return answer

    def check_open(self, shard: Shard) -> None:
        """See Host."""
        if self._draining:
            raise Stopping("the worker is stopping: try again")
        refusal = shard.refusal or self._storage.refusal
        if refusal is not None:
            raise refusal
        unknown = self._places.table.unknown(self._places.shard_count)
        if unknown:
            raise StorageFailed(
                f"whether the id is new cannot be told: what shard {unknown[0]} holds is not known. Its worker is "
                "still starting, or its file is damaged: then the log says so, and a backup helps"
            )

    def secrets_of(self, plan: Plan) -> Mapping[str, Any]:
        """See Host, Driver."""
        return self._secrets.read(plan.secrets) if self._secrets is not None and plan.secrets else {}

    def is_wanted(self, parent: Parent) -> bool:
        """See Host."""
        return self._subflows.is_wanted(parent)

    @property
    def is_stopping(self) -> bool:
        """See Subflows."""
        return self._draining

    @property
    def may_drive_on(self) -> bool:
        """See Listeners."""
        return not self._draining and not self._scheduler.held

    def events_came(self) -> None:
        """See WorkerEngine."""
        self._listeners.wake()

    @property
    def has_room_for_subflows(self) -> bool:
        """See Subflows."""
        return self._admission.has_room_for_subflows

    def waiting_changed(self) -> None:
        """See Host."""
        self._count_active(0)

    def accepted(self, execution: Execution) -> None:
        """See Host."""
        self._count_active(1)
        self._scheduler.enter(execution)

    def _count_active(self, change: int) -> None:
        self._active_count += change
        count = self._active_count + self._submissions.waiting_count
        self._places.loads.set(self._places.worker, ACTIVE, count)

    async def validate(self, document: str, client: str, *, fetches: bool = True) -> Sequence[Problem]:
        """See Engine."""
        return await self._submissions.compiler.problems_of(document, client, fetches=fetches)

    async def plan_of(self, document: str, client: str) -> Plan:
        """See Engine."""
        return (await self._submissions.compiler.compiled(document, client)).plan

    # --- control ---

    async def cancel(self, execution_id: str, reason: str, force: bool) -> None:
        """See Engine."""
        crash.reach(CrashPoint.BEFORE_CANCEL)
        await self._command(execution_id, Cancel(reason, force, int(self._config.cancel_grace_s * 1000)))
        crash.reach(CrashPoint.AFTER_CANCEL)

    async def pause(self, execution_id: str, reason: str) -> None:
        """See Engine."""
        await self._command(execution_id, Pause(reason))

    async def resume(self, execution_id: str, reason: str) -> None:
        """See Engine."""
        crash.reach(CrashPoint.BEFORE_RESUME)
        await self._command(execution_id, Resume(reason))
        crash.reach(CrashPoint.AFTER_RESUME)

    async def delete(self, execution_id: str) -> None:
        """See Engine."""
        await self._writable(execution_id).delete(execution_id)

    def _writable(self, execution_id: str) -> Shard:
        """The shard of an execution, for a command. Raises ShardDamaged at once: no disk that comes back would have the
        command answered."""
        shard = self._shards.of(execution_id)
        if isinstance(shard.refusal, ShardDamaged):
            raise shard.refusal
        return shard

    async def _command(self, execution_id: str, command: Command) -> None:
        shard = self._writable(execution_id)
        execution = shard.find(execution_id)
        while isinstance(execution, Execution) and execution.landing is not None:
            # A verdict on it is being committed: what it is then, the file tells.
            await asyncio.shield(execution.landing)
            execution = shard.find(execution_id)
        if isinstance(execution, str):
            applies(command, execution_id, execution)
            return
        if isinstance(execution, Unfinished):
            if not isinstance(command, Pause):
                await asyncio.shield(shard.answer(execution, command))
            return
        if execution.broken:
            raise Damaged(f"execution {execution_id!r} is out of service: the runner's log has the reason")
        future: asyncio.Future[None] = self._loop.create_future()
        execution.deliver(command, future)
        self._scheduler.enqueue(execution)
        await future

    # --- turns: called by the scheduler and the effect runner ---

    def _take_turn(self, execution: Execution) -> None:
        shard = self._shards.by_number[execution.shard_number]
        marks = shard.marks
        if execution.stored:
            self._residents.leave(execution)
            # As `Marks.begin` and `end`, without two calls for every turn.
            marks.times[BEGAN_AT] = self._scheduler.pass_began_s
            marks.keys[KEY_AT] = execution.execution_key
        now_ms = self._wall_ms()
        deadline_ms = execution.walk.wake_at_ms if execution.walk is not None else 0
        if 0 < deadline_ms <= now_ms:
            self._metrics.timer_lateness.observe((now_ms - deadline_ms) / 1000)
        try:
            if crash.blows and execution.stored:
                crash.strike(TurnPart.TURN, execution.execution_id)
            changed = execution.turn(now_ms)
        except Exception:
            shard.quarantine(execution)
            return
        finally:
            marks.keys[KEY_AT] = 0
        self._interrupt(execution)
        parked = execution.waits_only
        if parked is not execution.parked:
            self._set_parked(execution, parked)
        if execution.listening is not None:
            self._listeners.feed(execution)
        if changed:
            shard.mark(execution)
        else:
            self._settle(execution)

    def _set_parked(self, execution: Execution, parked: bool) -> None:
        self._parked_count += parked - execution.parked
        execution.parked = parked

    def _settle(self, execution: Execution) -> None:
        """Sees to it that what has nothing to do here takes no memory for long."""
        if execution.idle and not execution.effects_unstarted:
            self._residents.park(execution)

    def _interrupt(self, execution: Execution) -> None:
        if execution.interrupted:
            for effect_id in execution.interrupted:
                self._effects.interrupt(execution, effect_id)
            execution.interrupted = ()

    def answer(self, execution: Execution, outcome: EffectResult | EffectFailure) -> None:
        """See Subflows."""
        # What is under way for it finds that somebody else has answered.
        execution.effects_unstarted.pop(outcome.effect_id, None)
        execution.tasks.pop(outcome.effect_id, None)
        self._deliver(execution, outcome)

    def _deliver(self, execution: Execution, outcome: EffectResult | EffectFailure) -> None:
        execution.deliver(outcome)
        self._scheduler.enqueue(execution)

    # --- Driver: called by the shards ---

    def gathered(self, execution: Execution) -> None:
        """See Driver."""
        self._interrupt(execution)
        self._listeners.feed(execution)
        self._scheduler.enqueue(execution)

    def heard(self, execution: Execution, change: Change) -> None:
        """See Driver."""
        self._listeners.heard(execution, change)

    def inbox_landed(self, shard_number: int, inbox: InboxChange) -> None:
        """See Driver."""
        self._listeners.inbox_landed(shard_number, inbox)

    def committed(self, execution: Execution, change: Change) -> None:
        """See Driver."""
        if change.accepted is None:
            crash.reach(CrashPoint.AFTER_OUTCOME_COMMIT)
        else:
            self._admission.left(execution)
        if execution.family is not None or change.family is not None:
            self._subflows.committed(execution, change)
        if change.listening is not None:
            self._listeners.committed(execution, change)
        if execution.trace is not None and self.traces is not None:
            self.traces.committed(execution.trace, execution, change, self._wall_ms())
        if change.effects:
            self._start_effects(execution, change.effects)
        row = change.events
        if row is not None:
            self._announce(execution, row, change.finished_ms > 0)
        if not change.finished_ms:
            self._settle(execution)
            if execution.landing is not None:
                self._set_parked(execution, change.parked)

    def _start_effects(self, execution: Execution, effect_ids: Sequence[int]) -> None:
        """Starts effects, or lets them wait for a place: a few in memory, the others in the shard's backlog."""
        for effect_id in effect_ids:
            self._effects.start(execution, effect_id)
        if self._effects.waiting_count > limits.EFFECTS_WAITING_RESIDENT_MAX // 2 and execution.idle:
            shard = self._shards.by_number[execution.shard_number]
            # While there is a backlog it comes first, so others leave room for it.
            crowded = shard.loader.backlog or self._effects.waiting_count > limits.EFFECTS_WAITING_RESIDENT_MAX
            if crowded and shard.loader.may_evict(execution) and self._effects.withdraw(execution):
                shard.evict(execution)

    def _announce(self, execution: Execution, row: UnacknowledgedEvents, finished: bool) -> None:
        if execution.debug:
            for line in describe(row.messages):
                _log.info("%s", line, extra={"execution_id": execution.execution_id})
        self._subscriptions.announce(row, finished)
        if self.outbox.listener is not None and not execution.silent:
            self.outbox.listener(row)

    def landed(self) -> None:
        """See Driver."""
        for execution in self._residents.surplus():
            shard = self._shards.by_number[execution.shard_number]
            # One that has just been asked something parks again after its turn. One that ends soon stays until it has:
            # its deadline is not looked for any more.
            if execution.idle and shard.loader.may_evict(execution):
                shard.evict(execution)
        self._show_counts()

    def _show_counts(self) -> None:
        self._metrics.active_executions.set(self._active_count)
        self._metrics.parked_executions.set(self._parked_count)
        self._metrics.resident_executions.set(self._live_count())

    def restored(self, execution: Execution, effects: list[PerformEffect]) -> None:
        """See Driver."""
        for effect in effects:
            self._effects.start(execution, effect.effect_id)
        if self.traces is not None:
            self.traces.named(execution)
        self._scheduler.arm(execution)
        self._listeners.restored(execution)
        self._scheduler.enqueue(execution)

    def comes_back(self, execution: Execution, row: Unfinished) -> None:
        """See Driver."""
        if self.traces is not None:
            self.traces.restored(execution, row)

    def evicted(self, execution: Execution) -> None:
        """See Driver."""
        self._scheduler.disarm(execution)
        self._listeners.evicted(execution)

    def for_timers(self) -> bool:
        """See Vacancies."""
        return not self._draining and self._live_count() < limits.RESIDENT_EXECUTIONS_MAX

    def for_backlog(self) -> bool:
        """See Vacancies."""
        full = self._effects.waiting_count >= limits.EFFECTS_WAITING_RESIDENT_MAX
        return not full and self._live_count() < limits.RESIDENT_EXECUTIONS_MAX

    def _live_count(self) -> int:
        return sum(len(shard.live) - shard.broken_count for shard in self._shards)

    def ended(self, execution: Execution) -> None:
        """See Driver."""
        execution.effects_unstarted.clear()
        for effect_id in list(execution.tasks):
            self._effects.interrupt(execution, effect_id)
        self._scheduler.disarm(execution)
        self._listeners.ended(execution)
        self._residents.leave(execution)
        if not execution.stored:
            self._admission.left(execution)
        self._count_active(-1)
        if execution.parked:
            execution.parked = False
            self._parked_count -= 1

    # --- queries, beside those of Answers ---

    def subscribe(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """See Engine."""
        return self._subscriptions.follow(execution_id, from_sequence)


def _report(task: "asyncio.Task[None]") -> None:
    """A background task that dies must be heard of."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("a background task of the engine failed", exc_info=task.exception())
