"""Stage 3, journal: one shard: its executions in memory and the loop of its commits.

Theory of operation: turns of walks mark executions dirty. A commit gathers what is dirty into one batch, writes its
rows on the loop's thread, and hands COMMIT to the writer thread. While that runs, walks go on and dirt gathers for the
next commit, which starts when this one lands: an idle shard commits at once, a busy one in batches that grow
with its load.

Rules:
- Callers are answered, effects started and events announced only by `_land`, after the commit.
- A commit that fails is kept and tried again with back-off. Executions it would have accepted are refused instead
  (nobody was told they exist), and no new ones are taken until a commit lands.
- A change that cannot be written whatever the disk does fails its own execution, never the shard.
- An execution whose stored state is damaged ends as failed, with an event that says so; what is left of it is kept.
- One that is the death of worker after worker is paused, without a turn of it; see `marks.py` and `verdicts.py`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import orjson

from fastrunner._core import Cancel, Resume, Walk
from fastrunner.base import crash, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.crash import CrashPoint, TurnPart
from fastrunner.base.deaths import Death
from fastrunner.base.redaction import hide
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.admit.plans import PlanCache, StoredPlans
from fastrunner.engine.embedded.commit import verdicts
from fastrunner.engine.embedded.commit.acknowledgements import Acknowledgements
from fastrunner.engine.embedded.commit.counting import CommitCounts
from fastrunner.engine.embedded.commit.driver import Driver
from fastrunner.engine.embedded.commit.ids import ShardIds
from fastrunner.engine.embedded.commit.inbox import Inbox
from fastrunner.engine.embedded.commit.loop_turns import turns, when_gathered
from fastrunner.engine.embedded.commit.orders import Orders
from fastrunner.engine.embedded.commit.retention import Retention
from fastrunner.engine.embedded.commit.spans import ShardSpans
from fastrunner.engine.embedded.commit.writer import CommitWriter, WriterFactory
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.family import family_of
from fastrunner.engine.embedded.run.residency import Loader
from fastrunner.engine.embedded.store.changes import Batch, Change, Settled, Waiter
from fastrunner.engine.embedded.store.faults import refusal_of
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.marks import Marks, Suspect
from fastrunner.engine.embedded.store.reader import Unfinished
from fastrunner.errors import (
    Damaged,
    ShardDamaged,
    Stopping,
    StorageFailed,
    StorageFull,
    Unavailable,
    UnknownExecution,
    WrongState,
)
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.routing.placement import Places

__all__ = ["Shard"]

_log = logging.getLogger(__name__)


class Shard:
    """One shard, owned by this worker."""

    def __init__(
        self,
        number: int,
        store: Store,
        driver: Driver,
        plans: PlanCache,
        config: Config,
        metrics: Metrics,
        wall_ms: Callable[[], int],
        make_writer: WriterFactory,
        places: Places,
    ) -> None:
        self.number = number
        self.store = store
        self.live: dict[str, Execution] = {}
        """Executions in memory by id: unfinished ones, and finished ones until their commit has landed."""
        self.broken_count = 0
        """Those of them that the core failed on: they stay there so that nobody tries them again."""
        self.unfinished_count = 0
        self.parked_count_at_open = 0
        """Executions of the file that only waited when it was opened."""
        self.loader = Loader(store, driver, self.live.__contains__, self._restore, wall_ms, driver.storage_changed)
        self.refusal: StorageFull | StorageFailed | None = None
        """Why nothing new is taken; None while commits land."""
        self.orders = Orders(
            store, self.live, self.loader, driver.gathered, self.answer, int(config.cancel_grace_s * 1000)
        )
        """What parents have their children do."""
        self.inbox, self.spans = Inbox(self._plan_commit), ShardSpans(self._plan_commit)
        """What listeners are to have; what is traced of callbacks, and need not be kept any longer."""
        self._driver = driver
        self._ids = ShardIds(number, store.path, places.table, places.key)
        self.plans = StoredPlans(plans, store.document)
        """Those of the documents of the file."""
        self._metrics = metrics
        self._counts = CommitCounts(metrics, number)
        self._wall_ms = wall_ms
        store.on_damage = lambda damage: metrics.damaged_records.labels(damage.table).inc()
        self.retention = Retention(store, config, metrics)
        """Which of them go, and when."""
        self._execution_key_last = 0
        self._dirty: deque[Execution] = deque()
        self._verdicts: deque[Change] = deque()
        self._acknowledgements = Acknowledgements(self._plan_commit)
        self._commit_planned, self._commit_begun_s = False, 0.0
        self._flying: Batch | None = None
        self._unwritten: Batch | None = None
        self._retry_handle: asyncio.TimerHandle | None = None
        self._retry_delay_s = limits.COMMIT_RETRY_DELAY_S_MIN
        self._landings = asyncio.Event()
        self._closing = False
        self._make_writer = make_writer
        self._writer: CommitWriter
        self.marks = Marks(store.path.with_suffix(".marks"))
        """Whose turn runs."""

    # --- opening and recovery ---

    async def open(self, death: Death | None) -> None:
        """Opens the file, waiting for a predecessor to let go of it, and sets aside what that died of once too often.

        Raises DataDirectoryRefused, Unavailable, and StorageFull or StorageFailed while the disk does not let it be
        opened.
        """
        deadline_s = monotonic_s() + limits.SHARD_OWNER_WAIT_S_MAX
        while not self.store.try_lock():
            if monotonic_s() > deadline_s:
                self.store.unlock()
                raise Unavailable(f"{self.store.path} is still held by another worker")
            await asyncio.sleep(0.01)
        counts = self.store.open()
        self._counts.recover(self.store.progress)
        self.inbox.begin(self.store.events_position())
        self._ids.settle(self.store.ids)
        self._execution_key_last = counts.execution_key_last
        self.loader.begin(counts.execution_key_last)
        self.unfinished_count = counts.unfinished
        self.parked_count_at_open = counts.parked
        self.retention.finished_count = counts.finished
        self._writer = self._make_writer(f"shard-{self.number}", self.store.commit, self._landed)
        self.marks.open()
        with suppress(StorageFailed):
            # Where the file cannot be read now, whoever is suspected stays so until the next start.
            self._judge(death)

    def _judge(self, death: Death | None) -> None:
        suspect = self.marks.judge(death, self.store.standing)
        if suspect is not None:
            verdicts.log_suspect(self.number, suspect)
        for condemned in self.marks.condemned(self.store.standing):
            row = self.store.unfinished(condemned.execution_key)
            if row is not None:
                self._set_aside(row, condemned)

    def find(self, execution_id: str) -> Execution | Unfinished | str:
        """The execution, restored if need be; the row of one that is set aside; the final status of one out of memory.
        Raises UnknownExecution, Damaged."""
        execution = self.live.get(execution_id)
        if execution is not None:
            return execution
        acceptance = self.store.acceptance(execution_id)
        if acceptance is None:
            raise UnknownExecution(execution_id)
        key, _, status = acceptance
        if status in FINAL_STATUSES:
            return status
        row = self.store.unfinished(key)
        if row is None:
            raise self.store.damaged(execution_id, "its row cannot be read")
        return row if row.aside else self._restore(row)

    def holds(self, execution_id: str) -> bool:
        """Whether an execution lives here. Raises StorageFailed."""
        return execution_id in self.live or self.store.acceptance(execution_id) is not None

    def _restore(self, row: Unfinished) -> Execution:
        """Brings an execution back from its snapshot. One whose stored state is damaged ends as failed; one that the
        core fails on stays as it is, broken. Raises Unavailable."""
        execution = Execution(
            self.number, row.execution_key, row.execution_id, row.accepted_ms, row.request_digest, row.debug
        )
        execution.silent, execution.parked = row.silent, row.parked
        execution.family = family_of(self.store.parent(row.execution_key, self.number))
        self._driver.comes_back(execution, row)
        self.live[row.execution_id] = execution
        self.marks.begin(row.execution_key, monotonic_s())
        try:
            crash.strike(TurnPart.RESTORE, row.execution_id)
            if row.damage:
                raise Damaged(row.damage)
            plan = self.plans.get(row.plan_key).plan
            input_value, env = orjson.loads(row.input_json), orjson.loads(row.env_json)
            secrets = self._driver.secrets_of(plan)
            hide([env[name] for name in plan.secrets if name in env])
            walk = Walk.restore(plan, row.execution_id, input_value, row.snapshot, env=env, secrets=secrets)
            effects = execution.restored(walk, row, self._wall_ms())
        except Unavailable:
            del self.live[row.execution_id]
            raise
        except Damaged as damage:
            execution.stored = True
            self._fail(execution, row.last_sequence, f"the runner's copy of this execution is damaged: {damage}")
        except Exception:
            execution.stored = True
            self.quarantine(execution)
        else:
            for order in self.orders.take(row.execution_key):
                execution.deliver(order)
            self._driver.restored(execution, effects)
            if execution.finished_ms:
                self.mark(execution)
        finally:
            self.marks.end()
        return execution

    def evict(self, execution: Execution) -> None:
        """Lets an idle execution go on in the file only; the loader or a command brings it back."""
        crash.reach(CrashPoint.BEFORE_EVICTION)
        del self.live[execution.execution_id]
        if execution.effects_unstarted:
            self.loader.requeue(execution.execution_key)
        self._driver.evicted(execution)
        # Timers that are dead may hold on to the object for a while.
        execution.walk = None
        crash.reach(CrashPoint.AFTER_EVICTION)

    @property
    def trouble(self) -> str:
        """Why the file cannot be used as it should be; empty if it can."""
        refusal = self.refusal or self.loader.failure
        return "" if refusal is None else refusal.message

    # --- executions ---

    def admit(self, execution_id: str, accepted_ms: int, request_digest: bytes, debug: bool) -> Execution:
        """A new execution in memory; it exists for callers once its first commit has landed."""
        self._execution_key_last += 1
        execution = Execution(self.number, self._execution_key_last, execution_id, accepted_ms, request_digest, debug)
        self.live[execution_id] = execution
        self.unfinished_count += 1
        return execution

    def quarantine(self, execution: Execution) -> None:
        """Call inside an exception handler: the core failed on this execution. It stays as its last commit has it, and
        is tried again at the next start; one that was never committed is refused."""
        _log.exception("the core failed on an execution", extra={"execution_id": execution.execution_id})
        self._abandon(execution, RuntimeError("the runner failed on this execution; its log has the reason"))

    def _fail(self, execution: Execution, last_sequence: int, detail: str) -> None:
        """Ends an execution that cannot go on, with the next commit; `last_sequence` is that of its last stored
        event."""
        execution.broken = True
        execution.refuse(Damaged(f"execution {execution.execution_id!r} fails: {detail}"))
        self._pronounce(verdicts.failure(execution, last_sequence, self._wall_ms(), detail))

    def _set_aside(self, row: Unfinished, suspect: Suspect) -> None:
        """Pauses an execution with the next commit, in the place of its walk."""
        execution = self._outside(row, asyncio.get_running_loop().create_future())
        _log.error(
            "set aside: worker died %d times in a turn of this execution (%s)",
            suspect.deaths_count,
            suspect.cause_name,
            extra={"execution_id": row.execution_id},
        )
        self._metrics.executions_set_aside.labels(suspect.cause_name).inc()
        name = self.store.event_facts(row.execution_key).name
        self._pronounce(verdicts.pause(execution, name, row.last_sequence, self._wall_ms(), suspect))

    def answer(self, row: Unfinished, command: Cancel | Resume) -> "asyncio.Future[None]":
        """Cancels or resumes an execution that is set aside; done when that is durable."""
        name = self.store.event_facts(row.execution_key).name
        landing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        execution = self._outside(row, landing)
        self._pronounce(verdicts.answer(execution, name, row.last_sequence, self._wall_ms(), command))
        return landing

    def _outside(self, row: Unfinished, landing: "asyncio.Future[None]") -> Execution:
        # Nobody may be waiting for one that cannot be written any more.
        landing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        execution = self.live[row.execution_id] = verdicts.outside(self.number, row, landing)
        execution.family = family_of(self.store.parent(row.execution_key, self.number))
        self._driver.comes_back(execution, row)
        return execution

    def _pronounce(self, verdict: Change) -> None:
        self._verdicts.append(verdict)
        self._plan_commit()

    def _abandon(self, execution: Execution, error: BaseException) -> None:
        execution.broken = True
        execution.refuse(error)
        if not execution.stored:
            del self.live[execution.execution_id]
            self.unfinished_count -= 1
            self._ids.release(execution.execution_id)
        else:
            self.broken_count += 1
        self._driver.ended(execution)

    def delete(self, execution_id: str) -> "asyncio.Future[None]":
        """Forgets a finished execution with the next commit; done when that is durable.

        Raises UnknownExecution, WrongState, Damaged.
        """
        if execution_id in self.live:
            raise WrongState(f"execution {execution_id!r} has not ended: cancel it first, or wait for its end")
        under_way = self._flying or self._unwritten or Batch()
        settled = (self._acknowledgements.of(execution_id), under_way.acknowledgements.get(execution_id, Settled()))
        deleted = self.retention.ask(execution_id, max(map(max, settled)), self._wall_ms())
        self._plan_commit()
        return deleted

    def release(self, execution_id: str) -> None:
        """Lets others have an id that was claimed and will not be written."""
        self._ids.release(execution_id)

    def mark(self, execution: Execution) -> None:
        """The execution has something to commit; if nothing new can be taken now, a new one is refused."""
        if self.refusal is not None and execution.accepted is not None:
            self._refuse(execution, self.refusal)
            return
        if not execution.dirty and not execution.broken:
            execution.dirty = True
            self._dirty.append(execution)
        self._plan_commit()

    def acknowledge(self, execution_id: str, acknowledged: int = 0, given_up: int = 0) -> None:
        """Takes along with the next commit what need not be sent any more, or makes one for it after a while."""
        self._acknowledgements.note(execution_id, acknowledged, given_up)

    def retain(self) -> None:
        """Looks for executions whose retention has ended; call now and then."""
        if self.retention.wake(self._wall_ms()):
            self._plan_commit()

    # --- commits ---

    def _plan_commit(self) -> None:
        if not self._commit_planned and self._flying is None and self._retry_handle is None:
            self._commit_planned = True
            when_gathered(self._dirty.__len__, self._begin_commit)

    def _begin_commit(self) -> None:
        if self._closing:
            return
        # What is asked for while it is gathered comes along, or follows when this one has landed.
        self._commit_planned = True
        batch, self._unwritten = self._unwritten or self._gather(), None
        self._commit_planned = False
        # What could not be written may have been refused by now; whether the disk is back is still to be found out.
        batch.probe = self.refusal is not None
        if not batch:
            return
        self._commit_begun_s = monotonic_s()
        try:
            crash.reach(CrashPoint.BEFORE_JOURNAL_WRITE)
            self._ids.write(batch.changes)
            self.store.write(batch)
            self._counts.begin(batch, self.live)
            crash.reach(CrashPoint.AFTER_JOURNAL_WRITE)
        except Exception as error:
            self._failed(batch, error)
        else:
            self._flying = batch
            self._writer.request()

    def _gather(self) -> Batch:
        now_ms = self._wall_ms()
        began_s = monotonic_s()
        end_s = began_s + limits.COMMIT_GATHER_MS_MAX / 1000
        batch, begins = Batch(), False
        while self._verdicts and len(batch.changes) < limits.COMMIT_EXECUTIONS_MAX:
            batch.changes.append(self._verdicts.popleft())
        while self._dirty and len(batch.changes) < limits.COMMIT_EXECUTIONS_MAX:
            execution = self._dirty.popleft()
            execution.dirty = False
            if execution.broken:
                continue
            self.marks.begin(execution.execution_key, began_s)
            try:
                if crash.blows and execution.stored:
                    crash.strike(TurnPart.SNAPSHOT, execution.execution_id)
                change = execution.gather(now_ms)
                if change.listening is not None:
                    self._driver.heard(execution, change)
                    begins = begins or bool(change.listening.started)
                batch.changes.append(change)
                if change.family is not None:
                    for child in self.orders.unaccepted(change.family):
                        self._refuse(child, Stopping("its parent does not wait for this execution any more"))
            except Exception:
                self.quarantine(execution)
                continue
            if not execution.finished_ms or execution.inbox or execution.interrupted:
                self._driver.gathered(execution)
            if monotonic_s() >= end_s:
                break
        self.marks.end()
        batch.inbox = self.inbox.take(begins)
        batch.spans = self.spans.take()
        batch.acknowledgements = self._acknowledgements.take()
        batch.deletions = self.retention.take(now_ms, sum(change.finished_ms > 0 for change in batch.changes))
        return batch

    def _landed(self, error: BaseException | None) -> None:
        batch, self._flying = self._flying, None
        assert batch is not None
        if error is not None:
            self._ids.hold()
            self._failed(batch, error)
            return
        self._ids.landed()
        self._set_refusal(None)
        self._retry_delay_s = limits.COMMIT_RETRY_DELAY_S_MIN
        self._counts.measured(len(batch.changes), monotonic_s() - self._commit_begun_s)
        self._counts.landed()
        for change in batch.changes:
            self._land(change)
        if batch.inbox:
            self._driver.inbox_landed(self.number, batch.inbox)
        self._driver.landed()
        if batch.acknowledgements:
            crash.reach(CrashPoint.AFTER_CALLBACK_ACK)
        self.retention.deleted(batch.deletions)
        for deletion in batch.deletions:
            self._ids.release(deletion.execution_id)
        self._landings.set()
        if self._dirty or self._verdicts or self.retention.due or self.inbox:
            # Not here and now: what the loop has to hand out first comes along, a fifth more to a busy shard's commit.
            self._plan_commit()

    def _set_refusal(self, refusal: StorageFull | StorageFailed | None) -> None:
        changed = str(refusal) != str(self.refusal)
        self.refusal = refusal
        if changed:
            if refusal is None:
                _log.info("shard %d can be written again", self.number)
            self._driver.storage_changed()

    def _land(self, change: Change) -> None:
        """What follows a durable change."""
        execution = self.live[change.execution_id]
        execution.stored = True
        execution.flying = False
        execution.request_digest = None
        for waiter in change.waiters:
            waiter.settle()
        self._driver.committed(execution, change)
        if change.finished_ms and (execution.broken or not (execution.dirty or execution.inbox)):
            del self.live[change.execution_id]
            self.unfinished_count -= 1
            self.retention.finished_count += 1
            self._driver.ended(execution)
        elif execution.landing is not None:
            # Whoever asks next finds it in the file, and what was resumed comes back like all that runs there.
            del self.live[change.execution_id]
            if not change.parked:
                self.loader.requeue(change.execution_key)

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """Keeps what must not be lost, refuses what nobody was promised, tries again later."""
        self._counts.dropped()
        refusal = refusal_of(error, self.store.path.name, self._retry_delay_s)
        if (refusal is None or isinstance(refusal, ShardDamaged)) and self._drop_unwritable(batch):
            self._unwritten = batch
            self._plan_commit()
            return
        refusal = refusal or StorageFailed(f"{self.store.path.name} cannot be written: {error}", self._retry_delay_s)
        _log.error("a commit of shard %d failed, trying again in %.1f s: %s", self.number, self._retry_delay_s, error)
        self._metrics.commit_failures.labels(type(refusal).__name__).inc()
        self._set_refusal(refusal)
        kept = []
        for change in batch.changes:
            if change.accepted is None:
                kept.append(change)
            else:
                self._refuse(self.live[change.execution_id], refusal, change.waiters)
        # Neither will those be taken that the next commit would have brought.
        for execution in self._dirty:
            if execution.accepted is not None and not execution.broken:
                self._refuse(execution, refusal)
        batch.changes = kept
        if isinstance(refusal, ShardDamaged):
            self._disappoint(batch, refusal)
        self._unwritten = batch
        self._retry_handle = asyncio.get_running_loop().call_later(self._retry_delay_s, self._retry)
        self._retry_delay_s = min(2 * self._retry_delay_s, limits.COMMIT_RETRY_DELAY_S_MAX)
        self._landings.set()

    def _disappoint(self, batch: Batch, refusal: ShardDamaged) -> None:
        """Has nobody wait for what no disk that comes back will take; it is kept, and written should it be taken."""
        for waiter in (each for change in batch.changes for each in change.waiters):
            waiter.fail(refusal)
        for execution in self._dirty:
            execution.refuse_waiters(refusal)
        self.retention.fail(refusal)

    def _refuse(self, execution: Execution, error: BaseException, waiters: Sequence[Waiter] = ()) -> None:
        """Forgets an execution that would have been accepted."""
        self._metrics.executions_rejected.labels(type(error).__name__).inc()
        for waiter in waiters:
            waiter.fail(error)
        self._abandon(execution, error)

    def _drop_unwritable(self, batch: Batch) -> bool:
        """Takes out of a batch what no disk would take, and fails the executions concerned; whether there was any."""
        try:
            found = self.store.unwritable(batch)
        except Exception as error:
            _log.error("the parts of a commit of shard %d could not be tried one by one: %s", self.number, error)
            return False
        for position, reason in found.changes.items():
            self._fail_unwritable(batch.changes[position], reason)
        for execution_id in found.acknowledgements:
            _log.error("an acknowledgement cannot be written", extra={"execution_id": execution_id})
            del batch.acknowledgements[execution_id]
        for row in found.inbox:
            batch.inbox.rows.remove(row)
            self.inbox.give_up(row)
        self.retention.skip(found.deletions)
        batch.changes = [change for position, change in enumerate(batch.changes) if position not in found.changes]
        batch.deletions = [deletion for deletion in batch.deletions if deletion not in found.deletions]
        return bool(found)

    def _fail_unwritable(self, change: Change, error: Exception) -> None:
        execution = self.live[change.execution_id]
        reason = "the runner cannot store this execution's state; its log has the reason"
        _log.error("a change cannot be written: %r", error, extra={"execution_id": change.execution_id})
        self._metrics.damaged_records.labels("unwritable").inc()
        if change.accepted is not None:
            self._refuse(execution, RuntimeError(reason), change.waiters)
            return
        for waiter in change.waiters:
            waiter.fail(RuntimeError(reason))
        if execution.broken:
            # Not even its end can be written: it stays as its last commit has it, until the next start.
            self._abandon(execution, RuntimeError(reason))
            return
        stored_sequence = change.events.first_sequence - 1 if change.events else change.last_sequence
        self._fail(execution, stored_sequence, reason)

    def _retry(self) -> None:
        self._retry_handle = None
        self._begin_commit()

    # --- closing ---

    async def flush(self, deadline_s: float) -> None:
        """Waits until every execution's changes are durable, or until a time on the monotonic clock."""
        while self._dirty or self._verdicts or self._flying or self._unwritten or self.retention.asked_count:
            self._plan_commit()
            self._landings.clear()
            try:
                await asyncio.wait_for(self._landings.wait(), max(0.0, deadline_s - monotonic_s()))
            except TimeoutError:
                break

    async def close(self, timeout_s: float) -> None:
        """Commits what there is, then closes the file; callers whose commit cannot land by then get Unavailable."""
        deadline_s = monotonic_s() + timeout_s
        await self.flush(deadline_s)
        if self.spans.end() or self._acknowledgements:
            self._plan_commit()
            await turns(2 + limits.COMMIT_TURNS_MIN)
            await self.flush(deadline_s)
        self._closing = True
        # A commit under way ends in the thread; its landing must not find the file closed.
        self._writer.stop()
        await asyncio.sleep(0)
        self._acknowledgements.close()
        self.spans.close()
        if self._retry_handle is not None:
            self._retry_handle.cancel()
        # A commit that failed may yet turn out to be in the file; what was in none cannot.
        unknown = Unavailable(
            "the worker is stopping, and what became of the last commit is not known: look, then retry"
        )
        for change in self._unwritten.changes if self._unwritten else ():
            for waiter in change.waiters:
                waiter.fail(unknown)
        for execution in self._dirty:
            for waiter in execution.waiters:
                waiter.fail(Stopping("the worker is stopping: retry"))
        self.retention.fail(unknown)
        self.marks.close()
        self._ids.close()
        self.store.close()
