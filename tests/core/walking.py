"""Support: drives walks in tests: answers effects, skips time, restores between turns if asked to."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrunner._core import (
    BOUND_NAMES,
    Action,
    EffectFailure,
    EffectResult,
    EventArrived,
    EventMatcher,
    InterruptEffect,
    MoreSteps,
    Outcome,
    PerformEffect,
    Plan,
    RenderFault,
    Subscribe,
    TimerDue,
    Turn,
    Unsubscribe,
    Walk,
)
from fastrunner._core import compile as compile_document
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.base import limits

__all__ = ["START_MS", "Answer", "Run", "call", "document", "error_type", "finish", "plan_of", "raising"]

START_MS = 1_700_000_000_000
_ENDED = frozenset({"completed", "failed", "cancelled"})
ERRORS = "https://open-workflow-specification.org/spec/1.0.0/errors/"

Answer = Callable[[PerformEffect], EffectResult | EffectFailure | None]


def error_type(name: str) -> str:
    """The normative type of a standard error."""
    return ERRORS + name


def document(tasks: Any, **sections: Any) -> str:
    """A document with these tasks, as JSON text."""
    facts = {"dsl": "1.0.3", "namespace": "test", "name": "walked", "version": "1.0.0"}
    return json.dumps({"document": facts, "do": tasks, **sections})


def plan_of(tasks: Any, **sections: Any) -> Plan:
    return compile_document(document(tasks, **sections))


def raising(status: int = 400, kind: str = "https://example.com/errors/odd", **members: Any) -> dict[str, Any]:
    """A task that raises."""
    return {"raise": {"error": {"type": kind, "status": status, **members}}}


def call(uri: str = "http://host.test/", **members: Any) -> dict[str, Any]:
    """A task that calls."""
    return {"call": "http", "with": {"method": "get", "endpoint": uri, **members}}


@dataclass
class Run:
    """One walk, its events, and the effects nobody has answered."""

    plan: Plan
    input: Any = None
    env: Mapping[str, str] | None = None
    restoring: bool = False
    seed: int = 0
    now_ms: int = START_MS
    timeout_ms_max: int = 0
    execution_id: str = "execution"
    events_max: int = 0
    """Gives up a workflow that says more; 0: never."""
    walk: Walk = field(init=False)
    encoded: bytes = b""
    open: dict[int, PerformEffect] = field(default_factory=dict)
    interrupted: list[int] = field(default_factory=list)
    subscriptions: dict[int, Subscribe] = field(default_factory=dict)
    turns: int = 0

    def __post_init__(self) -> None:
        self.walk, turn = Walk.start(
            self.plan,
            self.execution_id,
            self.input,
            self.now_ms,
            seed=self.seed,
            env=self.env,
            timeout_ms_max=self.timeout_ms_max,
            bounds={name: getattr(limits, name) for name in BOUND_NAMES},
        )
        self.took(turn)

    def took(self, turn: Turn) -> Turn:
        """Keeps books of a turn, and takes its further slices."""
        while True:
            self.keep(turn)
            if not turn.more or 0 < self.events_max < self.walk.last_sequence:
                return turn
            turn = self.walk.resume(MoreSteps(), self.now_ms)

    def keep(self, turn: Turn) -> None:
        self.turns += 1
        assert bool(turn.events) == bool(turn.first_sequence) == bool(turn.last_sequence)
        if turn.events:
            assert turn.first_sequence == self.last_sequence + 1
            assert turn.last_sequence == self.walk.last_sequence
        self.encoded += turn.events
        for action in turn.actions:
            if isinstance(action, InterruptEffect):
                del self.open[action.effect_id]
                self.interrupted.append(action.effect_id)
            elif isinstance(action, Subscribe):
                self.subscriptions[action.subscription_id] = action
            elif isinstance(action, Unsubscribe):
                del self.subscriptions[action.subscription_id]
            else:
                self.open[action.effect_id] = action
        assert len(self.open) == self.walk.effects_in_flight
        if self.walk.status in ("running", "paused"):
            asked = [action for action in self.walk.pending() if isinstance(action, Subscribe)]
            assert [self.told(action) for action in asked] == [self.told(self.subscriptions[n]) for n in self.listens]
        if self.restoring:
            self.restore()

    @property
    def last_sequence(self) -> int:
        events = self.events
        return events[-1].sequence_number if events else 0

    def restore(self) -> None:
        """Goes on with a walk made from the snapshot."""
        before = self.walk
        self.walk = Walk.restore(self.plan, self.execution_id, self.input, before.snapshot(), env=self.env)
        for name in ("status", "wake_at_ms", "last_sequence", "output", "error", "effects_in_flight"):
            assert getattr(self.walk, name) == getattr(before, name), name
        assert [self.told(action) for action in self.walk.pending()] == [
            self.told(action) for action in before.pending()
        ]

    def told(self, action: Action) -> tuple[Any, ...]:
        """What an action asks for, for comparing."""
        if isinstance(action, PerformEffect):
            return (
                action.effect_id,
                action.kind,
                self.plan.dump_capsule(action.capsule),
                action.idempotency_key,
                action.reference,
            )
        assert isinstance(action, Subscribe)
        return (action.subscription_id, action.filter, action.reference)

    @property
    def listens(self) -> list[int]:
        """Numbers of the subscriptions, in their order."""
        return sorted(self.subscriptions)

    def publish(self, event: dict[str, Any], after_ms: int = 0) -> list[int]:
        """Hands an event to whoever it is for, as a driver does; the subscriptions that it was handed to."""
        self.now_ms += after_ms
        heard = []
        for number in self.listens:
            if number not in self.subscriptions or not self.walk.wants_event(number):
                continue
            if EventMatcher(self.subscriptions[number].filter).matches(event):
                heard.append(number)
                self.resume(EventArrived(number, event))
        return heard

    def arguments(self, effect: PerformEffect) -> dict[str, Any]:
        """An effect's arguments, the same here and from the capsule's bytes."""
        arguments = self.plan.render(effect.capsule)
        assert self.plan.render(self.plan.load_capsule(self.plan.dump_capsule(effect.capsule))) == arguments
        return arguments

    def resume(self, outcome: Outcome, after_ms: int = 0) -> Turn:
        """Hands an outcome in, some time later."""
        self.now_ms += after_ms
        if isinstance(outcome, EffectResult | EffectFailure):
            self.open.pop(outcome.effect_id, None)
        return self.took(self.walk.resume(outcome, self.now_ms))

    def tick(self) -> Turn:
        """Skips to the next deadline."""
        assert self.walk.wake_at_ms, "the walk waits for no time"
        self.now_ms = max(self.now_ms, self.walk.wake_at_ms)
        return self.resume(TimerDue())

    def finish(self, answer: Answer | None = None) -> "Run":
        """Answers effects and skips time until the walk ends."""
        while self.walk.status not in _ENDED:
            effect = next(iter(self.open.values()), None)
            outcome = None if effect is None else self.answered(effect, answer)
            if outcome is not None:
                self.resume(outcome)
            else:
                self.tick()
        return self

    def answered(self, effect: PerformEffect, answer: Answer | None) -> EffectResult | EffectFailure | None:
        """As a driver does: arguments that cannot be made are the effect's failure."""
        try:
            self.plan.render(effect.capsule)
        except RenderFault as fault:
            return EffectFailure.whole(effect.effect_id, fault.error)
        return None if answer is None else answer(effect)

    # --- what happened ---

    @property
    def events(self) -> list[WorkflowProgressEvent]:
        return list(ReportProgressBatchRequest.FromString(self.encoded).events)

    @property
    def log(self) -> list[str]:
        """Task events as `name type`, workflow events as their type."""
        return [
            f"{event.task_name} {event.event_type.removeprefix('task_')}" if event.task_name else event.event_type
            for event in self.events
        ][3:]

    @property
    def started(self) -> list[str]:
        return [event.task_name for event in self.events if event.event_type == "task_started"]

    @property
    def status(self) -> str:
        return self.walk.status

    @property
    def output(self) -> Any:
        assert self.walk.status == "completed", (self.walk.status, self.walk.error)
        return self.walk.output

    @property
    def error(self) -> dict[str, Any]:
        assert self.walk.status == "failed", (self.walk.status, self.walk.output)
        assert self.walk.error is not None
        return dict(self.walk.error)


def finish(tasks: Any, input_: Any = None, /, answer: Answer | None = None, **sections: Any) -> Run:
    """Runs tasks to the end, restoring after every turn."""
    return Run(plan_of(tasks, **sections), input_, restoring=True).finish(answer)
