"""Support: one execution of a scenario: the core's own walk, stubs for whatever is outside, and a clock that jumps.

Rules: the clock moves only when nothing else can happen, to the next thing that will; what happens at one moment comes
in the order in which it was asked for, answers before timers. Events are kept for whoever begins to listen later, as
the runner keeps them, and an execution takes each once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from fastrunner._core import (
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    EventMatcher,
    InterruptEffect,
    MoreSteps,
    Pause,
    PerformEffect,
    Plan,
    RenderFault,
    Resume,
    Subscribe,
    TimerDue,
    Turn,
    Unsubscribe,
    Walk,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.base.moments import rfc3339
from fastrunner.config import Config
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.scenarios.files import MADE, Happening, Scenario, Stub
from fastrunner.scenarios.stubs import NoStub, Stubs
from fastrunner.tasks.emit.arguments import event_of

__all__ = ["Outcome", "execute"]

_EXECUTION_ID: Final = "scenario"
_EVENT_RETENTION_MS: Final = int(1000 * Config.model_fields["event_retention_s"].default)
_CANCEL_GRACE_MS: Final = int(1000 * Config.model_fields["cancel_grace_s"].default)
_TURNS_MAX: Final = 2_000_000
"""Some minutes of an endless loop."""
_STUBBED: Final = "stubbed"
_CLOCK_MS_MAX: Final = 253_402_300_799_000
"""The end of the year 9999: no moment after it has a text."""

Answer = EffectResult | EffectFailure


@dataclass(slots=True)
class Outcome:
    """How an execution ended, and what it did."""

    status: str
    """What it ended as; `running` or `paused` if it never would."""
    output: Any = None
    """Of one that is completed."""
    error: Mapping[str, Any] | None = None
    """The DSL error of one that has failed."""
    tasks: list[str] = field(default_factory=list)
    """JSON pointers of those that have started, in order."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Progress events, with names as in the proto; none where the scenario expects none, as those of an endless loop
    would take gigabytes."""
    emitted: list[dict[str, Any]] = field(default_factory=list)
    """CloudEvents, in order."""
    lasted_ms: int = 0
    """By the scenario's clock."""
    faults: list[str] = field(default_factory=list)
    """What was wrong with the scenario."""


@dataclass(slots=True)
class _Listener:
    matcher: EventMatcher
    waiting: list[dict[str, Any]] = field(default_factory=list)


def execute(plan: Plan, scenario: Scenario) -> Outcome:
    """Executes a document as its scenario has it."""
    return _Drive(plan, scenario).run()


class _Drive:
    def __init__(self, plan: Plan, scenario: Scenario) -> None:
        self._plan = plan
        self._scenario = scenario
        self._secrets = scenario.secrets or None
        self._now_ms = scenario.start_ms
        self._stubs = Stubs(scenario.stubs)
        self._agenda: list[tuple[int, int, Answer | Happening]] = []
        self._count = 0
        self._interrupted: set[int] = set()
        self._listeners: dict[int, _Listener] = {}
        self._kept: list[tuple[int, dict[str, Any]]] = []
        self._taken: set[tuple[str, str]] = set()
        self._outcome = Outcome("running")
        for happening in scenario.during:
            self._plan_for(self._now_ms + happening.after.ms, happening)

    def run(self) -> Outcome:
        outcome = self._outcome
        walk, turn = Walk.start(
            self._plan,
            _EXECUTION_ID,
            self._scenario.input,
            self._now_ms,
            env=self._scenario.env,
            secrets=self._secrets,
        )
        try:
            for _ in range(_TURNS_MAX):
                self._take(turn)
                if walk.status in FINAL_STATUSES:
                    break
                given = MoreSteps() if turn.more else self._next(walk)
                turn = walk.resume(given, self._now_ms)
            else:
                outcome.faults.append("the execution does not end")
        except (NoStub, _Stuck) as error:
            outcome.faults.append(str(error))
        outcome.status, outcome.error = walk.status, walk.error
        outcome.output = walk.output if walk.status == "completed" else None
        outcome.lasted_ms = self._now_ms - self._scenario.start_ms
        if not outcome.faults:
            outcome.faults += self._stubs.unused()
        return outcome

    # --- what the walk asks for ---

    def _take(self, turn: Turn) -> None:
        for event in ReportProgressBatchRequest.FromString(turn.events).events:
            if event.event_type == "task_started":
                self._outcome.tasks.append(event.task_reference)
            if self._scenario.expect.events is not None:
                self._outcome.events.append(MessageToDict(event, preserving_proto_field_name=True))
        for action in turn.actions:
            if isinstance(action, PerformEffect):
                self._perform(action)
            elif isinstance(action, InterruptEffect):
                self._interrupted.add(action.effect_id)
            elif isinstance(action, Subscribe):
                self._subscribe(action)
            else:
                assert isinstance(action, Unsubscribe)
                self._listeners.pop(action.subscription_id, None)

    def _perform(self, effect: PerformEffect) -> None:
        try:
            policy = self._plan.render_policy(effect.capsule, self._secrets)
            proof = None if policy is None else {"scheme": next(iter(policy["authentication"])), "parameter": _STUBBED}
            arguments = self._plan.render(effect.capsule, self._secrets, proof)
        except RenderFault as fault:
            self._plan_for(self._now_ms, EffectFailure.whole(effect.effect_id, fault.error))
            return
        if effect.kind == "emit":
            event = event_of(arguments, effect.idempotency_key, self._now_ms)
            self._outcome.emitted.append(event)
            self._publish(event)
            self._plan_for(self._now_ms, EffectResult(effect.effect_id, event))
            return
        stub = self._stubs.answer(effect.reference, arguments)
        self._plan_for(self._now_ms + stub.takes.ms, _answer(effect, stub))

    def _plan_for(self, at_ms: int, what: Answer | Happening) -> None:
        self._count += 1
        heappush(self._agenda, (at_ms, self._count, what))

    # --- events ---

    def _subscribe(self, action: Subscribe) -> None:
        matcher = EventMatcher(action.filter)
        known = self._listeners.get(action.subscription_id)
        if known is not None:
            known.matcher = matcher
            return
        listener = self._listeners[action.subscription_id] = _Listener(matcher)
        for at_ms, event in self._kept:
            is_kept = self._now_ms - at_ms <= _EVENT_RETENTION_MS and _identity(event) not in self._taken
            if is_kept and matcher.matches(event):
                listener.waiting.append(event)

    def _publish(self, event: dict[str, Any]) -> None:
        if any(_identity(event) == _identity(other) for _, other in self._kept):
            return
        self._kept.append((self._now_ms, event))
        for listener in self._listeners.values():
            if listener.matcher.matches(event):
                listener.waiting.append(event)

    def _arrived(self, walk: Walk) -> EventArrived | None:
        for subscription_id, listener in self._listeners.items():
            if listener.waiting and walk.wants_event(subscription_id):
                event = listener.waiting.pop(0)
                self._taken.add(_identity(event))
                return EventArrived(subscription_id, event)
        return None

    # --- what happens next ---

    def _next(self, walk: Walk) -> EventArrived | Answer | TimerDue | Cancel | Pause | Resume:
        while True:
            arrived = self._arrived(walk)
            if arrived is not None:
                return arrived
            at_ms = self._agenda[0][0] if self._agenda else 0
            if walk.wake_at_ms and not (at_ms and at_ms <= walk.wake_at_ms):
                self._move_to(walk.wake_at_ms)
                return TimerDue()
            if not at_ms:
                raise _Stuck(_waits(walk))
            self._move_to(at_ms)
            what = heappop(self._agenda)[2]
            given = self._happened(what) if isinstance(what, Happening) else self._wanted(what)
            if given is not None:
                return given

    def _move_to(self, at_ms: int) -> None:
        if at_ms > _CLOCK_MS_MAX:
            raise _Stuck("the execution goes on beyond the year 9999")
        self._now_ms = max(self._now_ms, at_ms)

    def _wanted(self, answer: Answer) -> Answer | None:
        return None if answer.effect_id in self._interrupted else answer

    def _happened(self, happening: Happening) -> Cancel | Pause | Resume | None:
        if happening.cancel is not None:
            return Cancel(happening.cancel.reason, happening.cancel.force, _CANCEL_GRACE_MS)
        if happening.pause is not None:
            return Pause(happening.pause.reason)
        if happening.resume is not None:
            return Resume(happening.resume.reason)
        self._count += 1
        made = {**MADE, "id": f"event-{self._count}", "time": rfc3339(self._now_ms)}
        self._publish({**made, **(happening.event or {})})
        return None


class _Stuck(Exception):
    """Nothing will ever happen any more, or nothing that can be told."""


def _waits(walk: Walk) -> str:
    waits = [f"{wait.kind} of task {wait.task!r}" for wait in walk.waits()]
    return f"the execution is {walk.status} and waits for ever: {'; '.join(waits) or 'for nothing'}"


def _answer(effect: PerformEffect, stub: Stub) -> Answer:
    fails = stub.fails
    if fails is None:
        return EffectResult(effect.effect_id, stub.returns)
    return EffectFailure(effect.effect_id, fails.type, fails.status, fails.title, fails.detail)


def _identity(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["source"]), str(event["id"])
