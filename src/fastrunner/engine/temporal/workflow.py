"""Stage 3, journal: the workflow of an execution: hosts the walk, and does what that asks for by Temporal's means.

    input -> Walk.start or restore -> turns -> activities, children, one timer -> outcomes -> turns ...
                                       \\-> events -> one report under way at a time

Rules:
- Every replay takes the same way: nothing here reads a clock, a file or what another execution has done. Time is that
  of the workflow task, less what the walk has rested.
- A history is continued as a new one between turns when nothing is under way: what is pending in the snapshot is then
  asked for again, and nothing has had two outcomes.
- Nothing comes in by an update. It leaves no event before the task that brings it, and where the task before wrote none
  the SDK puts both into one for a worker that replays, and tells of the update first; later replays do not, and fail.
- What the core raises fails the workflow *task*, which Temporal tries again for ever: an execution is suspended by a
  fault of ours, and goes on with the version that mends it.
- A cancelled task of asyncio is Temporal's cancel once; again it is the worker that lets go of the workflow. Whatever
  comes in one task with a cancel is heard after it, so that nothing ends an execution whose cancel was durable before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
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
from fastrunner.base import limits
from fastrunner.engine.embedded.run.commands import Command, applies
from fastrunner.engine.embedded.run.family import CANCEL, PAUSE, RESUME, RUN_WORKFLOW, command_of
from fastrunner.engine.temporal.beside import Beside
from fastrunner.engine.temporal.children import Children
from fastrunner.engine.temporal.counting import count
from fastrunner.engine.temporal.ends import output_json_of, result_of, waits_for
from fastrunner.engine.temporal.event_messages import HEAR_SIGNAL, Heard
from fastrunner.engine.temporal.handover import reported, reported_at_once, start_report
from fastrunner.engine.temporal.hearing import Hearing
from fastrunner.engine.temporal.keeping import Keeping
from fastrunner.engine.temporal.messages import (
    ANSWER_QUERY,
    CONTROL_SIGNAL,
    EVENTS_QUERY,
    FAMILY_SIGNAL,
    SEMANTICS,
    VIEW_QUERY,
    WALK,
    Control,
    EffectOrder,
    WalkStart,
    no_room,
    order_of,
    outcome_of,
    packed,
    unpacked,
)
from fastrunner.engine.temporal.plans import plan_of
from fastrunner.engine.temporal.reporting import Report
from fastrunner.engine.temporal.room import Room, is_long
from fastrunner.engine.temporal.telling import Telling
from fastrunner.engine.temporal.tracing import WalkTrace
from fastrunner.errors import WrongState
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.progress.wire import describe

if TYPE_CHECKING:
    from fastrunner._core import Action, Outcome

__all__ = ["PHASE", "WalkWorkflow"]

_log = logging.getLogger(__name__)

PHASE: Final = SearchAttributeKey.for_keyword("FastrunnerPhase")
"""The status of an execution, for listings."""


@workflow.defn(name=WALK, sandboxed=False)
class WalkWorkflow:
    """One execution; its id is the workflow's."""

    @workflow.init
    def __init__(self, given: WalkStart) -> None:
        """Reads what there is; the walk takes its first turn in `run`."""
        self._given = given
        self._execution_id = workflow.info().workflow_id
        self._walk: Walk | None = None
        self._report = Report(given.reports, unpacked(given.events), given.events_last, given.acknowledged)
        self._reporting: asyncio.Task[None] | None = None
        self._is_reporting = False
        """Whether a report is under way, rather than about to be made."""
        self._is_at_once = False
        """Whether the execution has ended with its first turn, and nothing has been told yet."""
        began_ms = int(workflow.info().workflow_start_time.timestamp() * 1000)
        self._began_ms = began_ms if given.semantics > 1 else 0
        """The earliest time there is; 0: that of the first workflow task."""
        self._trace = WalkTrace(given.trace, self._execution_id, self._began_ms)
        self._accepted_ms = given.accepted_ms or began_ms
        self._rested_ms = given.rested_ms
        self._rests_since_ms = 0
        self._inbox: list[tuple[Outcome, str]] = []
        """What the walk is to be told; with commands that somebody waits for, their id."""
        self._answers = dict(given.answers)
        """What commands came to, by id: why they were refused, or nothing."""
        self._effects: dict[int, asyncio.Task[None]] = {}
        """Effects that are under way."""
        self._carrying: tuple[int, int] | None = None
        """The effect that has taken events along, and the number of the last of them."""
        self._held: list[PerformEffect] = []
        """Effects that wait until the history is continued; the walk asks for them again."""
        self._beside = Beside(f"the workflow of execution {self._execution_id!r}")
        self._room = Room(given.has_blobs)
        self._children = Children(given, self._execution_id, self._room, self._beside)
        self._keeping = Keeping(given)
        self._telling: Telling | None = None
        self._hearing = Hearing(self._execution_id, given.listening, self._beside)
        self._timer: asyncio.Task[None] | None = None
        self._timer_ms = 0
        self._more = False
        self._turns = 0
        """Those with an effect, since the history began: each one gets on by one at least."""
        self._turns_in_a_row = 0
        self._finished_ms = 0
        self._is_cancelled = False
        self._has_handed_over = False
        """Whether another workflow has what there is to report."""
        self._is_interrupted = False
        """Whether asyncio has told of Temporal's cancel."""
        self._phase = "running"
        """What Temporal's visibility has for its status."""

    @workflow.run
    async def run(self, given: WalkStart) -> Any:
        """Walks to the end and until all events are reported, or another workflow does that; gives the output. Raises
        ApplicationError with the DSL error, or CancelledError."""
        self._begin(given)
        while not self._is_over:
            self._beside.check()
            if not self._take_turn():
                await self._rest()
            elif self._turns_in_a_row >= limits.TEMPORAL_TURNS_PER_ACTIVATION_MAX:
                self._turns_in_a_row = 0
                self._report_events()
                await self._obeying(workflow.sleep(0.001, summary="more steps"))
            self._continue_if_due()
        self._trace.tell()
        if self._report.unreported_count:
            self._has_handed_over = True
            await self._hand_over(start_report(self._execution_id, self._report, self._given.trace))
        if self._telling is not None and self._telling.is_behind:
            await self._hand_over(self._telling.hand_over(self._execution_id))
        assert self._walk is not None
        return result_of(self._walk, self._execution_id, self._given.has_blobs, self._is_cancelled)

    def _begin(self, given: WalkStart) -> None:
        if given.semantics > SEMANTICS:
            # An older version must not take it further: it rests until a version is there that knows how.
            raise RuntimeError(f"execution {self._execution_id!r} is that of a newer version of the runner")
        plan = plan_of(given.document, given.pinned)
        self._trace.named(plan)
        if given.lifecycle:
            document = [plan.namespace, plan.name, plan.version]
            self._telling = Telling(self._report, document, given.lifecycle, self._beside)
        value = orjson.loads(given.input_json)
        if given.snapshot:
            self._walk = Walk.restore(plan, self._execution_id, value, unpacked(given.snapshot), env=given.env)
            self._more, self._phase = True, self._walk.status
            for action in self._walk.pending():
                if isinstance(action, PerformEffect):
                    self._ask(action)
            self._hearing.restore(self._walk)
            return
        self._walk, turn = Walk.start(
            plan,
            self._execution_id,
            value,
            # What the first turn tells follows from the input alone, whenever and by whomever it is taken.
            self._began_ms or self._now_ms,
            seed=given.seed,
            env=given.env,
            timeout_ms_max=given.timeout_ms_max,
        )
        self._absorb(turn)
        self._is_at_once = bool(self._finished_ms and self._began_ms and self._report.rest()[0])

    # --- the loop ---

    @property
    def _now_ms(self) -> int:
        """The walk's time."""
        now_ms = max(int(workflow.now().timestamp() * 1000), self._began_ms)
        return (self._rests_since_ms or now_ms) - self._rested_ms

    @property
    def _is_over(self) -> bool:
        """Whether nothing is left to be done."""
        is_told = self._leaves_rest or not (self._reporting or self._report.unreported_count)
        done = is_told and not (self._inbox or self._children.telling or self._hearing.telling)
        return bool(self._finished_ms) and done

    @property
    def _leaves_rest(self) -> bool:
        """Whether what is unreported now is another workflow's."""
        return bool(self._given.detached and self._finished_ms and not self._is_at_once)

    def _due(self) -> bool:
        walk = self._walk
        return walk is not None and not self._finished_ms and 0 < walk.wake_at_ms <= self._now_ms

    def _has_work(self) -> bool:
        """Whether a turn would find something to do, or the loop has to look again."""
        if self._beside.fault is not None or self._is_over or self._may_continue:
            return True
        if self._rests_since_ms:
            return any(isinstance(outcome, Command) for outcome, _ in self._inbox)
        fired = self._timer is not None and self._timer.done()
        return bool(self._inbox) or fired or self._due() or self._has_event() or (self._more and not self._holds)

    def _take_turn(self) -> bool:
        """Takes one turn of the walk, if there is something for it; of one that rests only commands."""
        self._hear_cancel()
        for index, (outcome, command_id) in enumerate(self._inbox):
            is_command = isinstance(outcome, Command)
            if is_command or not self._rests_since_ms:
                del self._inbox[index]
                self._turns_in_a_row += 1
                if isinstance(outcome, Command):
                    self._command(outcome, command_id)
                else:
                    self._resume(outcome)
                return True
        if self._rests_since_ms:
            return False
        if self._due():
            self._turns_in_a_row += 1
            self._resume(TimerDue())
            return True
        if self._has_event() and self._take_event():
            self._turns_in_a_row += 1
            return True
        if self._more and not self._holds:
            self._turns_in_a_row += 1
            self._resume(MoreSteps())
            return True
        return False

    def _has_event(self) -> bool:
        walk = self._walk
        return (
            walk is not None and not self._finished_ms and not self._holds and self._hearing.listening.has_event(walk)
        )

    def _take_event(self) -> bool:
        """Hands the walk an event, if one of those that are here is for it."""
        assert self._walk is not None
        arrived = self._hearing.take(self._walk)
        if arrived is not None:
            self._resume(arrived)
        return arrived is not None

    async def _rest(self) -> None:
        """Lets others work until there is something to do."""
        self._turns_in_a_row = 0
        self._report_events()
        self._set_timer()
        await self._obeying(workflow.wait_condition(self._has_work))

    async def _obeying(self, waiting: Awaitable[None]) -> None:
        """Waits, and takes Temporal's cancel for a command."""
        try:
            await waiting
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None or self._is_interrupted:
                raise
            self._is_interrupted = True

    def _hear_cancel(self) -> None:
        reason = workflow.cancellation_reason()
        if reason is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._inbox.insert(0, (Cancel(reason, False, self._given.grace_ms), ""))

    def _set_timer(self) -> None:
        """Sees to it that one timer runs, for when the walk wants to be woken."""
        assert self._walk is not None
        due_ms = 0 if self._rests_since_ms or self._finished_ms else self._walk.wake_at_ms
        if due_ms == self._timer_ms and (self._timer is None or not self._timer.done()):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = due_ms
        if due_ms:
            delay_s = max(due_ms - self._now_ms, 1) / 1000
            self._timer = self._beside.begin(workflow.sleep(delay_s, summary=waits_for(self._walk)))

    # --- what the walk is told, and what it says ---

    def _command(self, command: Command, command_id: str) -> None:
        """Applies a command by the state the walk is in now."""
        assert self._walk is not None
        answer = ""
        try:
            if applies(command, self._execution_id, self._walk.status):
                self._resume(command)
                order = CANCEL if isinstance(command, Cancel) else PAUSE if isinstance(command, Pause) else RESUME
                self._children.hand_down(order)
                if not isinstance(command, Resume):
                    # A deadline that was due may have ended the execution before the command could.
                    applies(command, self._execution_id, self._walk.status)
        except WrongState as error:
            answer = error.message
        if command_id:
            self._answers[command_id] = answer
            while len(self._answers) > limits.TEMPORAL_ANSWERS_KEPT_MAX:
                del self._answers[next(iter(self._answers))]

    def _resume(self, outcome: "Outcome") -> None:
        if not self._finished_ms:
            assert self._walk is not None
            self._trace.answered(outcome)
            self._absorb(self._walk.resume(outcome, self._now_ms))

    def _absorb(self, turn: Turn) -> None:
        assert self._walk is not None
        self._more = turn.more
        self._turns += bool(turn.events or turn.actions)
        if turn.events and self._given.debug and not workflow.unsafe.is_replaying():
            for line in describe(turn.events):
                _log.info(line, extra={"execution_id": self._execution_id})
        if turn.events:
            self._report.add(turn.events, turn.last_sequence)
            if self._report.is_full and not self._rests_since_ms:
                self._rests_since_ms = int(workflow.now().timestamp() * 1000)
        self._act(turn.actions)
        ended = ""
        if self._walk.status in FINAL_STATUSES:
            self._finished_ms = self._now_ms
            ended = self._walk.status
            self._more = False
            for effect_id in list(self._effects):
                self._interrupt(effect_id)
            self._hearing.close(self._walk)
            self._trace.ended(self._walk)
        if turn.tally or ended:
            tally, duration_ms = turn.tally, int(workflow.now().timestamp() * 1000) - self._accepted_ms
            count(lambda counts: counts.turn(tally, ended, duration_ms))
        self._show_phase(self._walk.status)

    def _show_phase(self, status: str) -> None:
        """Tells visibility what the workflow's own end will not: how it ends is there by itself, in one write less."""
        if status not in (self._phase, "pending") and not self._is_shown_by_end(status):
            self._phase = status
            workflow.upsert_search_attributes([PHASE.value_set(status)])

    def _is_shown_by_end(self, status: str) -> bool:
        if status == "cancelled":
            return self._is_cancelled
        return status == "failed" or (status == "completed" and bool(self._output_json()))

    def _act(self, actions: "Sequence[Action]") -> None:
        assert self._walk is not None
        for action in actions:
            if isinstance(action, Subscribe | Unsubscribe):
                self._hearing.change(action, self._walk)
            elif isinstance(action, InterruptEffect):
                self._held = [effect for effect in self._held if effect.effect_id != action.effect_id]
                self._interrupt(action.effect_id)
            elif isinstance(action, PerformEffect) and self._holds:
                self._trace.asked(action, self._rested_ms)
                self._held.append(action)
            else:
                self._ask(action)

    # --- events from others ---

    @workflow.signal(name=HEAR_SIGNAL)
    def hear(self, heard: Heard) -> None:
        """The bus has events for it."""
        self._hearing.listening.hear(heard)

    # --- effects ---

    def _ask(self, action: PerformEffect) -> None:
        self._trace.asked(action, self._rested_ms)
        self._effects[action.effect_id] = self._beside.begin(self._perform(action))

    def _interrupt(self, effect_id: int) -> None:
        """Nobody wants an effect's outcome any more; unknown ones are over."""
        self._set_down(effect_id)
        self._trace.given_up(effect_id)
        task = self._effects.pop(effect_id, None)
        if task is not None and not self._children.give_up(effect_id):
            task.cancel()

    async def _perform(self, effect: PerformEffect) -> None:
        walk = self._walk
        assert walk is not None
        order = order_of(walk.plan, effect)
        acknowledged = 0
        outcome: EffectResult | EffectFailure
        try:
            if not self._given.has_blobs and len(order.capsule) > limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX:
                outcome = no_room(effect.effect_id, len(order.capsule))
            elif effect.kind == RUN_WORKFLOW:
                outcome = await self._children.perform(effect, order, lambda: walk.status == "paused")
            else:
                await self._room.take(len(order.capsule))
                told = await self._keeping.performed(self._carried(order), f"{effect.kind} {effect.reference}")
                outcome = outcome_of(effect.effect_id, told)
                acknowledged = told.acknowledged
                self._trace.performed(effect.effect_id, is_again=told.is_again)
        except ActivityError:
            detail = f"{effect.kind} failed in the runner"
            outcome = EffectFailure(effect.effect_id, "runtime", 500, "Internal error", detail)
        if self._effects.pop(effect.effect_id, None) is not None:
            self._set_down(effect.effect_id)
            self._acknowledge(acknowledged)
            self._inbox.append((outcome, ""))

    # --- reports ---

    def _carried(self, order: EffectOrder) -> EffectOrder:
        """An order that takes along what there is to report, which saves an activity and a workflow task."""
        if self._is_reporting or self._carrying is not None:
            return order
        messages, last = self._report.rest()
        if not messages:
            return order
        self._carrying = (order.effect_id, last)
        return replace(order, events=packed(messages), events_last=last)

    def _set_down(self, effect_id: int) -> None:
        if self._carrying is not None and self._carrying[0] == effect_id:
            self._carrying = None

    def _report_events(self) -> None:
        """Begins to report, after the effects of this turn have had the opportunity to take events along."""
        self._trace.tell()
        if self._telling is not None and not self._finished_ms:
            self._telling.tell()
        if self._reporting is None and self._report.unreported_count and not self._leaves_rest:
            self._reporting = self._beside.begin(self._send())

    async def _send(self) -> None:
        """Reports events, and what has come meanwhile: whatever is tried again is tried by Temporal."""
        if self._is_at_once:
            self._acknowledge(await reported_at_once(self._execution_id, *self._report.batch(), self._given.trace))
            self._is_at_once = False
        while self._is_to_report() and not self._leaves_rest:
            self._is_reporting = True
            messages, last = self._report.batch()
            try:
                acknowledged = await reported(self._execution_id, messages, last, self._given.trace)
            except ActivityError:
                if self._has_handed_over:
                    # Cancelled: another workflow sends it.
                    return
                raise
            self._acknowledge(acknowledged)
        self._is_reporting, self._reporting = False, None

    def _is_to_report(self) -> bool:
        """Whether there is something that no effect has taken along. What one has is reported again with more."""
        carried = 0 if self._carrying is None else self._carrying[1]
        return self._report.unreported_count > 0 and self._report.last > carried

    def _acknowledge(self, sequence: int) -> None:
        self._report.acknowledge(sequence)
        if self._rests_since_ms and not self._report.is_full:
            self._rested_ms += int(workflow.now().timestamp() * 1000) - self._rests_since_ms
            self._rests_since_ms = 0

    async def _hand_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Has another workflow tell what is left; meanwhile those who ask are answered."""
        if self._reporting is not None:
            # What it sends is sent again.
            self._reporting.cancel()
        starting = self._beside.begin(work)
        while self._inbox or not starting.done():
            if not self._take_turn():
                await self._obeying(workflow.wait_condition(lambda: starting.done() or bool(self._inbox)))
        self._beside.check()

    # --- a history that is long enough ---

    def _is_long(self, ratio: int) -> bool:
        return is_long(self._given.history_events_max, ratio, heeds_builds=self._given.is_pinned)

    @property
    def _holds(self) -> bool:
        """Whether nothing new is begun before the history is continued."""
        return self._turns > 0 and self._is_long(limits.TEMPORAL_HOLD_RATIO)

    @property
    def _may_continue(self) -> bool:
        reports = self._reporting or self._report.unreported_count
        busy = self._inbox or self._effects or reports or self._children.telling or self._hearing.telling
        return not (self._finished_ms or self._turns == 0 or busy) and self._is_long(1)

    def _continue_if_due(self) -> None:
        if self._finished_ms or not self._may_continue:
            return
        assert self._walk is not None
        snapshot = self._walk.snapshot()
        start = replace(
            self._given,
            snapshot=packed(snapshot),
            events=packed(self._report.held()),
            events_last=self._report.last,
            acknowledged=self._report.acknowledged,
            rested_ms=self._rested_ms,
            answers=self._answers,
            listening=self._hearing.listening.state(),
            kept_by=self._keeping.queues,
            lifecycle=self._given.lifecycle if self._telling is None else self._telling.told,
            accepted_ms=self._accepted_ms,
        )
        if start.has_blobs:
            size_bytes, bound = len(snapshot), limits.SNAPSHOT_SIZE_BYTES_MAX
        else:
            size_bytes, bound = start.size_bytes, limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
        if size_bytes > bound:
            self._resume(Cancel(f"the execution's state of {size_bytes} bytes exceeds {bound}", True, 0))
            return
        self._trace.tell()
        upgrades = workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE if self._given.is_pinned else None
        workflow.continue_as_new(start, initial_versioning_behavior=upgrades)

    # --- the end ---

    def _output_json(self) -> str:
        assert self._walk is not None
        return output_json_of(self._walk, self._given.has_blobs)

    # --- from outside ---

    @workflow.signal(name=CONTROL_SIGNAL)
    def control(self, given: Control) -> None:
        """Pauses, resumes, or cancels by force; `answer` tells what that came to."""
        command: Command
        if given.verb == "pause":
            command = Pause(given.reason)
        elif given.verb == "resume":
            command = Resume(given.reason)
        else:
            command = Cancel(given.reason, True, 0)
        self._inbox.append((command, given.command_id))

    @workflow.query(name=ANSWER_QUERY)
    def answer(self, command_id: str) -> str | None:
        """Why a command was refused, nothing if it was done; None: it has not been taken yet."""
        return self._answers.get(command_id)

    @workflow.signal(name=FAMILY_SIGNAL)
    def family(self, order: str) -> None:
        """The parent has something for this child to do."""
        self._inbox.append((command_of(order, self._given.parent_id, self._given.grace_ms), ""))

    @workflow.query(name=VIEW_QUERY)
    def view(self) -> dict[str, Any]:
        """What a query shows beside the memo."""
        walk = self._walk
        if walk is None:
            return {"status": "pending", "last_sequence": 0, "acknowledged": 0, "finished_ms": 0}
        known = self._hearing.is_known
        is_known = walk.status != "completed" or bool(self._output_json())
        return {
            "status": walk.status,
            "reports": self._given.reports,
            "last_sequence": self._report.last,
            "first_sequence": self._report.first,
            "acknowledged": self._report.acknowledged,
            "is_handed_over": self._has_handed_over,
            "finished_ms": self._finished_ms,
            "output_json": self._output_json(),
            "output_is_known": is_known,
            "error": dict(walk.error) if walk.status == "failed" and walk.error is not None else None,
            "waiting": "; ".join(f"{each.kind} of task {each.task!r}" for each in walk.waits() if known(each)),
        }

    @workflow.query(name=EVENTS_QUERY)
    def events(self, from_sequence: int, count_max: int) -> bytes:
        """Events that the workflow still holds, as a report has them."""
        return self._report.page(from_sequence, count_max)
