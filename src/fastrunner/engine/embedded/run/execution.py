"""Stage 3, journal: one unfinished execution in memory: its walk, and what has happened since its last commit.

Rules:
- The walk is ahead of the file by at most one commit in flight and one being gathered; nothing it yields leaves this
  object before the commit that makes it durable. The exception is an interrupt: nobody wants that effect's outcome.
- Deliveries (outcomes of effects, timers, commands) queue in the inbox and are taken one per turn.
- A walk that has more steps to take waits while too many of its events await their commit.
"""

from asyncio import Future, Task
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    InterruptEffect,
    MoreSteps,
    Pause,
    PerformEffect,
    Resume,
    Subscribe,
    TimerDue,
    Turn,
    Unsubscribe,
    Walk,
)
from fastrunner.base import crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.admit.plans import CachedPlan
from fastrunner.engine.embedded.run.commands import Command, applies
from fastrunner.engine.embedded.run.family import RUN_WORKFLOW, Family, HandedDown
from fastrunner.engine.embedded.run.listening import Listening, Offered
from fastrunner.engine.embedded.store.changes import Accepted, Change, Waiter
from fastrunner.engine.embedded.store.large_values import Claims, DividedSnapshot, divide
from fastrunner.engine.failures import error_of
from fastrunner.errors import RunnerError
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.progress.wire import told_later
from fastrunner.tracing.execution import ExecutionTrace
from fastrunner.tracing.span import Span

if TYPE_CHECKING:
    from fastrunner._core import Action, Outcome
    from fastrunner.engine.embedded.store.reader import Unfinished

__all__ = ["Execution", "StartFacts"]

_NO_EFFECTS: Final[dict[int, Any]] = {}
"""Of all executions that have none, which saves each an empty dict. Nobody puts anything into it."""


@dataclass(slots=True)
class StartFacts:
    """What the first slice of a walk needs; dropped after it."""

    plan: CachedPlan
    """The compiled document."""
    input: Any
    """The decoded input."""
    env: Mapping[str, str]
    """The request's env_vars."""
    timeout_ms_max: int
    """Upper bound on the duration in milliseconds; 0: none."""
    seed: int
    """Feeds the walk's jitter."""
    secrets: Mapping[str, Any]
    """What `$secrets` may hold."""


class Execution:
    """One unfinished execution, or one whose last commit has not landed."""

    __slots__ = (
        "_divided",
        "_effects_new",
        "_events",
        "_events_first",
        "_events_last",
        "_input_size_bytes",
        "_sequence_shift",
        "_settled",
        "_tallies",
        "accepted",
        "accepted_ms",
        "broken",
        "client",
        "debug",
        "dirty",
        "effects_unstarted",
        "events_size_bytes",
        "events_told_size_bytes",
        "execution_id",
        "execution_key",
        "family",
        "finished_ms",
        "flying",
        "inbox",
        "interrupted",
        "landing",
        "listening",
        "more",
        "parked",
        "queued",
        "request_digest",
        "shard_number",
        "silent",
        "start",
        "state_size_bytes",
        "stored",
        "tasks",
        "timer_ms",
        "trace",
        "waiters",
        "walk",
    )

    def __init__(
        self,
        shard_number: int,
        execution_key: int,
        execution_id: str,
        accepted_ms: int,
        request_digest: bytes,
        debug: bool,
    ) -> None:
        self.shard_number = shard_number
        self.execution_key = execution_key
        self.execution_id = execution_id
        self.accepted_ms = accepted_ms
        self.request_digest: bytes | None = request_digest
        """Tells a repeated request from a different one; None once a commit has landed: whoever repeats it is rare, and
        the file has it."""
        self.debug = debug
        self.silent = False
        """Whether its events are for no receiver."""
        self.accepted: Accepted | None = None
        """Set until the first commit is gathered."""
        self.start: StartFacts | None = None
        """Set until the first slice."""
        self.walk: Walk | None = None
        self.stored = False
        """Whether a commit with this execution has landed."""
        self.broken = False
        """The core failed on it: it stays as its last commit has it until the next start."""
        self.landing: Future[None] | None = None
        """Of an execution that is here only until a verdict on it is durable: ends then."""
        self.finished_ms = 0
        self.more = False
        """The walk has steps to take without any outcome."""
        # A deque would take 760 bytes, empty or not; more than a few deliveries hardly ever wait.
        self.inbox: tuple[tuple[Outcome | HandedDown | Offered, Future[None] | None], ...] = ()
        self.queued = False
        """Whether the scheduler holds it."""
        self.dirty = False
        """Whether the shard will gather it."""
        self.flying = False
        """Whether a commit with it has been gathered and has not landed."""
        self.parked = False
        """Whether it only waits: for a timer, or paused."""
        self.timer_ms = 0
        """The deadline the scheduler's heap holds for it; 0: none."""
        self.effects_unstarted: dict[int, PerformEffect] = _NO_EFFECTS
        """Effects whose commit has not landed, or that wait for their turn or for a place."""
        self.tasks: dict[int, Task[None]] = _NO_EFFECTS
        """Effects being performed."""
        # From here on tuples: most are empty most of the time, and an empty tuple takes no memory.
        self.interrupted: tuple[int, ...] = ()
        """Effects to abort; the driver empties it after each turn."""
        self.waiters: tuple[Waiter, ...] = ()
        self.client = ""
        """Who submitted it."""
        self.family: Family | None = None
        """What it has to do with other executions, if it has."""
        self.listening: Listening | None = None
        """The events that it waits for, if it has ever waited for any since it is in memory."""
        self.trace: ExecutionTrace | None = None
        """What is traced of it, if anything is."""
        self.events_size_bytes = 0
        self.state_size_bytes = 0
        """Its input and its last snapshot, as a measure of the memory it takes."""
        self._input_size_bytes = 0
        self._divided: DividedSnapshot | None = None
        """Its last snapshot, if that is large."""
        self.events_told_size_bytes = 0
        """Of all events since it is in memory."""
        self._events: tuple[bytes, ...] = ()
        self._events_first = 0
        self._events_last = 0
        self._effects_new: tuple[int, ...] = ()
        self._tallies: tuple[bytes, ...] = ()
        self._settled = True
        self._sequence_shift = 0
        """Events told in the place of a walk that has ended without them."""

    # --- what happens to it ---

    def deliver(self, outcome: "Outcome | HandedDown | Offered", future: "Future[None] | None" = None) -> None:
        """What its walk takes in one of the next turns; who sent a command hears through `future`."""
        self.inbox += ((outcome, future),)

    def _ask(self, effect: PerformEffect, *, is_again: bool = False) -> None:
        if self.effects_unstarted is _NO_EFFECTS:
            self.effects_unstarted = {}
        self.effects_unstarted[effect.effect_id] = effect
        if self.trace is not None:
            self.trace.asked(effect, is_again=is_again)
        if effect.kind == RUN_WORKFLOW:
            self._own_family().asks(self.execution_id, effect.effect_id)

    def _own_family(self) -> Family:
        if self.family is None:
            self.family = Family()
        return self.family

    def _own_listening(self) -> Listening:
        if self.listening is None:
            self.listening = Listening()
        return self.listening

    @property
    def last_sequence(self) -> int:
        """Sequence number of its latest event."""
        return 0 if self.walk is None else self.walk.last_sequence + self._sequence_shift

    @property
    def depth(self) -> int:
        """How many generations of executions are above it."""
        return self.family.parent.depth if self.family is not None and self.family.parent is not None else 0

    def performs(self, effect_id: int, task: "Task[None]") -> None:
        """An effect is under way."""
        if self.tasks is _NO_EFFECTS:
            self.tasks = {}
        self.tasks[effect_id] = task

    # --- turns ---

    @property
    def runnable(self) -> bool:
        """Whether a turn would find something to do now."""
        if self.broken:
            return False
        return bool(self.inbox) or self.start is not None or self.may_go_on

    @property
    def may_go_on(self) -> bool:
        """Whether the walk may take further steps without an outcome."""
        return self.more and self.events_size_bytes < limits.EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX

    @property
    def is_long(self) -> bool:
        """Whether its further steps are drawn from the worker's allowance for long executions."""
        return self.events_told_size_bytes > limits.LONG_EVENTS_SIZE_BYTES

    def turn(self, now_ms: int) -> bool:
        """Takes one turn: the first slice, one delivery or one further slice. Whether anything is to be committed."""
        if self.start is not None:
            facts, self.start = self.start, None
            self.walk, turn = Walk.start(
                facts.plan.plan,
                self.execution_id,
                facts.input,
                now_ms,
                seed=facts.seed,
                env=facts.env,
                timeout_ms_max=facts.timeout_ms_max,
                secrets=facts.secrets,
            )
            self.more = turn.more
            self._absorb(turn, now_ms)
            return True
        if self.inbox:
            outcome, future = self.inbox[0]
            self.inbox = self.inbox[1:]
            if isinstance(outcome, HandedDown):
                family = self._own_family()
                if family.obeys(outcome.command):
                    self._command(outcome.command, None, now_ms)
                family.took(outcome)
                return True
            if isinstance(outcome, Cancel | Pause | Resume):
                self._command(outcome, future, now_ms)
                return True
            if isinstance(outcome, Offered):
                changed = self._take_event(outcome, now_ms)
            else:
                changed = self._resume(outcome, now_ms)
            crash.reach(CrashPoint.BEFORE_OUTCOME_COMMIT)
            return changed
        return self._resume(MoreSteps(), now_ms) if self.more else False

    def _take_event(self, offered: Offered, now_ms: int) -> bool:
        """Hands an event to the walk, if that still wants it; else it stays in the inbox."""
        walk, listening = self.walk, self._own_listening()
        assert walk is not None
        listening.is_offering = False
        # What was due before comes first, and may end what the event is for: then that has not taken it.
        changed = self._resume(TimerDue(), now_ms - 1)
        subscription = listening.subscriptions.get(offered.subscription_id)
        if self.finished_ms or subscription is None or walk.status == "paused":
            return changed
        if not walk.wants_event(offered.subscription_id):
            return changed
        if offered.event is None or not subscription.matches(offered.event):
            listening.drop(offered)
            return True
        listening.take(offered, self.last_sequence)
        self._resume(EventArrived(offered.subscription_id, offered.event), now_ms)
        crash.reach(CrashPoint.BEFORE_TAKING_COMMIT)
        return True

    def refuse_waiters(self, error: BaseException) -> None:
        """Tells the callers whose commands wait for their commit that it will not come."""
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            waiter.fail(error)

    def refuse(self, error: BaseException) -> None:
        """Takes nothing more: tells all callers, and forgets what was to come."""
        self.refuse_waiters(error)
        for _, future in self.inbox:
            if future is not None:
                Waiter(future).fail(error)
        self.inbox = ()

    def _command(self, command: Command, future: "Future[None] | None", now_ms: int) -> None:
        """Applies a command by the state the walk is in now; the caller hears when that state is durable."""
        assert self.walk is not None
        refusal: RunnerError | None = None
        try:
            if applies(command, self.execution_id, self.walk.status):
                self._resume(command, now_ms)
                if self.family is not None and self.family.children:
                    self.family.hands_down(command)
                if not isinstance(command, Resume):
                    # A deadline that was due may have ended the execution before the command could.
                    applies(command, self.execution_id, self.walk.status)
        except RunnerError as error:
            refusal = error
        if future is not None:
            self.waiters += (Waiter(future, refusal=refusal),)

    def _resume(self, outcome: "Outcome", now_ms: int) -> bool:
        assert self.walk is not None
        if self.finished_ms:
            return False
        if isinstance(outcome, TimerDue) and not 0 < self.walk.wake_at_ms <= now_ms:
            return False
        turn = self.walk.resume(outcome, now_ms)
        if isinstance(outcome, EffectResult | EffectFailure):
            if self.family is not None:
                self.family.answered(outcome.effect_id)
            if self.trace is not None:
                self.trace.answered(outcome.effect_id, error_of(outcome), now_ms)
        # Only the first turn after a restore may find nothing to do; it leaves nothing to commit, unless the file does
        # not know yet that the execution only waits.
        idle = isinstance(outcome, MoreSteps) and not (turn.events or turn.actions or turn.more)
        self.more = turn.more
        changed = not idle or self._settled or self.waits_only
        self._settled = True
        self._absorb(turn, now_ms)
        return changed

    def _absorb(self, turn: Turn, now_ms: int) -> None:
        assert self.walk is not None
        if turn.events:
            self._events += (turn.events,)
            self._events_first = self._events_first or turn.first_sequence
            self._events_last = turn.last_sequence
            self.events_size_bytes += len(turn.events)
            self.events_told_size_bytes += len(turn.events)
        if turn.tally:
            self._tallies += (turn.tally,)
        if turn.actions:
            self._take_actions(turn.actions, now_ms)
        if self.walk.status in FINAL_STATUSES:
            self.finished_ms = now_ms
            self.more = False
            if self.family is not None:
                self.family.ends()

    def _take_actions(self, actions: "Sequence[Action]", now_ms: int) -> None:
        started, interrupted = [], []
        for action in actions:
            if isinstance(action, PerformEffect):
                self._ask(action)
                started.append(action.effect_id)
            elif isinstance(action, InterruptEffect):
                self.effects_unstarted.pop(action.effect_id, None)
                if self.family is not None:
                    self.family.gives_up(action.effect_id)
                if self.trace is not None:
                    self.trace.given_up(action.effect_id, now_ms)
                interrupted.append(action.effect_id)
            elif isinstance(action, Subscribe):
                self._own_listening().subscribes(action, self.last_sequence)
            elif isinstance(action, Unsubscribe):
                self._own_listening().unsubscribes(action.subscription_id)
        self._effects_new += tuple(started)
        self.interrupted += tuple(interrupted)

    def restored(self, walk: Walk, row: "Unfinished", now_ms: int) -> list[PerformEffect]:
        """Takes a walk restored from its snapshot; gives the effects to perform again."""
        self.walk = walk
        self.stored = True
        self.client = row.client
        self._divided = row.divided
        self._input_size_bytes = len(row.input_json)
        self.state_size_bytes = self._input_size_bytes + len(row.snapshot)
        # A snapshot does not say whether its walk was in the middle of a slice; a walk that was not does nothing.
        self.more = not row.parked
        self._settled = row.parked
        effects: list[PerformEffect] = []
        for asked in walk.pending():
            if isinstance(asked, Subscribe):
                self._own_listening().restores(asked)
                continue
            self._ask(asked, is_again=True)
            effects.append(asked)
        if row.last_sequence > walk.last_sequence:
            self._make_up(walk, row.last_sequence, now_ms)
        return effects

    def _make_up(self, walk: Walk, last_sequence: int, now_ms: int) -> None:
        """Has the walk do what was told in its place (`verdicts.py`): pauses and resumes by turns. The time until the
        last one counts for no timeout; what else the walk tells comes after that."""
        told_count = last_sequence - walk.last_sequence
        turns = [walk.resume(Resume("") if number % 2 else Pause(""), 0) for number in range(told_count - 1)]
        turns.append(walk.resume(Resume(""), now_ms))
        if walk.last_sequence < last_sequence and walk.status not in FINAL_STATUSES:
            # It does not pause while it is being cancelled: that was promised, and has taken long enough.
            turns.append(walk.resume(Cancel("", True, 0), now_ms))
        messages = told_later(b"".join([turn.events for turn in turns]), last_sequence + 1)
        for turn in turns:
            self._take_actions(turn.actions, now_ms)
            if turn.tally:
                self._tallies += (turn.tally,)
        # The file does not have all of this yet.
        self.more = self._settled = True
        if messages:
            self._events = (b"".join(messages),)
            self._events_first, self._events_last = last_sequence + 1, last_sequence + len(messages)
            self.events_size_bytes = self.events_told_size_bytes = len(self._events[0])
        self._sequence_shift = last_sequence + len(messages) - walk.last_sequence
        if walk.status in FINAL_STATUSES:
            self.finished_ms = now_ms
            self.more = False

    # --- the commit ---

    def gather(self, now_ms: int) -> Change:
        """Everything since the last commit, as one row set; from here on it is the batch's."""
        assert self.walk is not None
        crash.reach(CrashPoint.BEFORE_SNAPSHOT)
        if self.events_told_size_bytes > limits.EVENTS_PER_EXECUTION_SIZE_BYTES_MAX:
            reason = f"the execution's events exceed {limits.EVENTS_PER_EXECUTION_SIZE_BYTES_MAX} bytes"
            self._resume(Cancel(reason, True, 0), now_ms)
        snapshot = None if self.finished_ms else self.walk.snapshot()
        crash.reach(CrashPoint.AFTER_SNAPSHOT)
        if snapshot is not None and len(snapshot) > limits.SNAPSHOT_SIZE_BYTES_MAX:
            reason = f"the execution's state of {len(snapshot)} bytes exceeds {limits.SNAPSHOT_SIZE_BYTES_MAX}"
            self._resume(Cancel(reason, True, 0), now_ms)
            snapshot = None if self.finished_ms else self.walk.snapshot()
        if self.accepted is not None:
            self._input_size_bytes = len(self.accepted.input_json)
        self.state_size_bytes = self._input_size_bytes + len(snapshot or b"")
        claims = None
        if snapshot is not None:
            snapshot, self._divided, claims = divide(snapshot, self._divided)
        change = self._change(snapshot, claims)
        self.flying = True
        self.accepted = None
        self._events = ()
        self._events_first = self._events_last = self.events_size_bytes = 0
        self._effects_new = ()
        self._tallies = ()
        self.waiters = ()
        return change

    def _change(self, snapshot: bytes | None, claims: Claims | None) -> Change:
        walk = self.walk
        assert walk is not None
        output = error = events = None
        if walk.status == "completed":
            output = orjson.dumps(walk.output).decode()
        elif walk.status == "failed":
            error = orjson.dumps(walk.error).decode()
        if self._events:
            messages = self._events[0] if len(self._events) == 1 else b"".join(self._events)
            trace = "" if self.trace is None else self.trace.text
            events = UnacknowledgedEvents(self.execution_id, self._events_first, self._events_last, messages, trace)
        return Change(
            execution_key=self.execution_key,
            execution_id=self.execution_id,
            accepted=self.accepted,
            status=walk.status,
            finished_ms=self.finished_ms,
            wake_at_ms=walk.wake_at_ms,
            parked=self.waits_only,
            last_sequence=self.last_sequence,
            snapshot=snapshot,
            output_json=output,
            error_json=error,
            events=events,
            effects=self._effects_new,
            waiters=self.waiters,
            claims=claims,
            tallies=self._tallies,
            family=None if self.family is None else self.family.gather(),
            listening=None if self.listening is None else self.listening.gather(),
            spans=() if self.trace is None else self._spans(self.trace, walk),
        )

    def _spans(self, trace: ExecutionTrace, walk: Walk) -> Sequence[Span]:
        if self.finished_ms and self.accepted is not None and walk.status == "completed":
            trace.ended_by_row(self.finished_ms)
        elif self.finished_ms:
            trace.ended(walk.status, walk.error if walk.status == "failed" else None, self.finished_ms)
        return trace.gather()

    @property
    def waits_only(self) -> bool:
        """Whether it needs neither the processor nor an effect until a timer or a command comes."""
        walk = self.walk
        return walk is not None and not self.finished_ms and not self.more and walk.effects_in_flight == 0

    @property
    def idle(self) -> bool:
        """Whether nothing in this process is under way for it, so that its last commit is all of it."""
        return self.stored and not (
            self.broken
            or self.finished_ms
            or self.more
            or self.dirty
            or self.flying
            or self.queued
            or self.inbox
            or self.waiters
            or self.tasks
            or self.interrupted
        )
