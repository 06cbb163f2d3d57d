"""Cases of the kind `probe`; `test_made_up_kind.py` runs them where it is compiled in.

Each case is driven twice, once with a kill and a restore after every turn: equal actions, events and output.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastrunner._core import (
    Action,
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    InterruptEffect,
    Pause,
    PerformEffect,
    Plan,
    Resume,
    Subscribe,
    TimerDue,
    Turn,
    Unsubscribe,
    Walk,
)
from tests.core.walking import START_MS, Run, error_type, plan_of, raising

Script = Callable[["Probing"], None]


@dataclass
class Probing(Run):
    """A run that keeps all actions as words, by turn."""

    said: list[str] = field(default_factory=list)
    """The actions of the latest turn."""
    book: list[Any] = field(default_factory=list)

    def keep(self, turn: Turn) -> None:
        self.turns += 1
        self.encoded += turn.events
        self.said = [word(action) for action in turn.actions]
        self.book.append((self.said, self.open_now(), self.walk.effects_in_flight, self.walk.wake_at_ms))
        if self.restoring:
            self.restore()
            assert (
                self.walk.snapshot()
                == Walk.restore(self.plan, "execution", self.input, self.walk.snapshot()).snapshot()
            )

    def open_now(self) -> list[str]:
        return [word(action) for action in self.walk.pending()]

    def answer(self, effect_id: int, value: Any = None, after_ms: int = 0) -> list[str]:
        self.resume(EffectResult(effect_id, value), after_ms)
        return self.said

    def hear(self, subscription_id: int, event: Any, after_ms: int = 0) -> list[str]:
        self.resume(EventArrived(subscription_id, event), after_ms)
        return self.said

    def tick_said(self) -> list[str]:
        self.tick()
        return self.said


def word(action: Action) -> str:
    if isinstance(action, PerformEffect):
        return f"perform {action.effect_id}"
    if isinstance(action, InterruptEffect):
        return f"interrupt {action.effect_id}"
    if isinstance(action, Subscribe):
        return f"subscribe {action.subscription_id}"
    assert isinstance(action, Unsubscribe)
    return f"unsubscribe {action.subscription_id}"


def probe(**members: Any) -> dict[str, Any]:
    return {"probe": members}


ALL = probe(effects=2, detached=1, subscribe={"type": "x"}, events=3, wait="PT1S", patience="PT9S")
ASKED = ["perform 1", "perform 2", "perform 3", "subscribe 4"]
GIVEN_UP = ["interrupt 1", "interrupt 2", "unsubscribe 4"]


def both(tasks: Any, script: Script) -> Probing:
    """Drives twice, and gives the plain run."""
    plain, restored = (Probing(plan_of(tasks), {"n": 7}, restoring=restoring) for restoring in (False, True))
    for run in (plain, restored):
        script(run)
    assert restored.encoded == plain.encoded
    assert restored.book == plain.book
    assert (restored.walk.status, restored.walk.output, restored.walk.error) == (
        plain.walk.status,
        plain.walk.output,
        plain.walk.error,
    )
    return plain


def effects_of(plan: Plan, walk: Walk) -> list[PerformEffect]:
    return [action for action in walk.pending() if isinstance(action, PerformEffect)]


# --- asking and answering ---


def test_everything_is_asked_for_at_once_and_the_body_comes_last() -> None:
    body = [{"s": {"set": {"n": "${ .n + 1 }"}}}]

    def script(run: Probing) -> None:
        assert run.said == ASKED == run.open_now()
        assert run.walk.effects_in_flight == 3
        assert run.answer(2, "b") == []
        assert run.hear(4, {"e": 1}) == []
        assert run.answer(1, "a") == []
        assert run.open_now() == ["perform 3", "subscribe 4"]
        assert run.hear(4, {"e": 2}) == []
        assert run.tick_said() == []
        assert run.hear(4, {"e": 3}) == ["unsubscribe 4"]

    run = both([{"p": probe(**ALL["probe"], do=body)}], script)
    assert run.output == {
        "results": ["b", "a"],
        "heard": [{"e": 1}, {"e": 2}, {"e": 3}],
        "until": START_MS + 9000,
        "body": {"n": 8},
    }
    assert run.log == ["p started", "s started", "s completed", "p completed", "workflow_completed"]


def test_effects_of_one_task_have_keys_of_their_own_and_render() -> None:
    with_ = {"x": "${ .n }", "at": "${ $task.reference }"}

    def script(run: Probing) -> None:
        effects = effects_of(run.plan, run.walk)
        assert [effect.idempotency_key for effect in effects] == [f"execution/do/0/p/{n}/1" for n in (1, 2, 3)]
        for effect in effects:
            assert effect.kind == "probe"
            assert run.arguments(effect) == {"with": {"x": 7, "at": "/do/0/p"}}

    both([{"p": probe(effects=2, detached=1, **{"with": with_})}], script)


def test_a_retry_asks_again_under_other_numbers() -> None:
    retry = {"try": [{"p": probe(effects=1, subscribe={}, events=1)}], "catch": {"retry": {"delay": "PT1S"}}}

    def script(run: Probing) -> None:
        assert run.said == ["perform 1", "subscribe 2"]
        run.resume(EffectFailure(1, "communication", 503, "", ""))
        assert run.said == ["unsubscribe 2"]
        assert run.tick_said() == ["perform 3", "subscribe 4"] == run.open_now()
        assert run.hear(2, "late") == []
        assert run.answer(1, "late") == []
        run.hear(4, "e")
        run.answer(3, "r")

    assert both([{"t": retry}], script).output["heard"] == ["e"]


def test_a_childs_error_arrives_whole_and_what_is_left_is_given_up() -> None:
    error = {"type": "urn:child", "status": 418, "title": "T", "detail": "D", "instance": "/child/do/0"}
    handler = {"q": {**probe(effects=1), "output": {"as": "$error"}}}
    catching = {"try": [{"p": ALL}], "catch": {"do": [handler]}}

    def script(run: Probing) -> None:
        run.resume(EffectFailure.whole(2, error), 500)
        assert run.said == ["interrupt 1", "unsubscribe 4", "perform 5"]
        # The time the task waited for is none of the handler's.
        assert run.walk.wake_at_ms == 0
        run.answer(5)

    assert both([{"t": catching}], script).output == error


# --- giving up ---


def test_a_timeout_cuts() -> None:
    def script(run: Probing) -> None:
        run.answer(1)
        assert run.tick_said() == []
        assert run.tick_said() == ["interrupt 2", "unsubscribe 4"]
        assert run.answer(2) == run.hear(4, 1) == run.answer(3) == []

    assert both([{"p": {**ALL, "timeout": {"after": "PT2S"}}}], script).error["type"] == error_type("timeout")


def test_a_lost_race_drops() -> None:
    fork = {"fork": {"compete": True, "branches": [{"p": ALL}, {"w": {"wait": "PT0.5S"}}]}}

    def script(run: Probing) -> None:
        assert run.tick_said() == GIVEN_UP
        assert run.walk.status == "completed"

    both([{"f": fork}], script)


def test_a_failed_sibling_drops() -> None:
    failing = {"do": [{"w": {"wait": "PT0.5S"}}, {"r": raising()}]}
    fork = {"fork": {"branches": [{"p": ALL}, {"d": failing}]}}

    def script(run: Probing) -> None:
        assert run.tick_said() == GIVEN_UP
        assert run.open_now() == ["perform 3"]
        run.tick()

    both([{"t": {"try": [{"f": fork}], "catch": {"do": [{"w": {"wait": "PT1S"}}]}}}], script)


def test_what_is_given_up_in_its_turn_is_not_asked_for() -> None:
    fork = {"fork": {"compete": True, "branches": [{"p": ALL}, {"s": {"set": "1"}}]}}

    def script(run: Probing) -> None:
        assert run.said == ["perform 3"]

    run = both([{"f": fork}], script)
    assert (run.turns, run.output) == (1, 1)


def test_an_end_elsewhere_drops_and_leaves_the_detached_alone() -> None:
    ending = {"do": [{"w": {"wait": "PT0.5S"}}, {"e": {"set": "1", "then": "end"}}]}

    def script(run: Probing) -> None:
        assert run.tick_said() == GIVEN_UP
        assert run.answer(3) == []

    assert both([{"f": {"fork": {"branches": [{"p": ALL}, {"d": ending}]}}}], script).output == 1


def test_a_failed_workflow_leaves_the_detached_alone() -> None:
    def script(run: Probing) -> None:
        run.resume(EffectFailure(1, "communication", 500, "", ""))
        assert run.said == ["interrupt 2", "unsubscribe 4"]
        run.resume(Cancel("late", True, 0))
        assert run.said == []

    assert both([{"p": ALL}], script).error["type"] == error_type("communication")


def test_the_detached_outlive_their_task_and_nobody_waits_for_them() -> None:
    def script(run: Probing) -> None:
        assert run.said == run.open_now() == ["perform 1", "perform 2"]
        assert run.walk.wake_at_ms == START_MS + 1000
        run.resume(EffectFailure(1, "communication", 500, "", ""))
        assert run.open_now() == ["perform 2"]
        assert run.tick_said() == []

    assert both([{"p": probe(detached=2)}, {"w": {"wait": "PT1S"}}], script).walk.status == "completed"


def test_a_forced_cancel_gives_up_all() -> None:
    def script(run: Probing) -> None:
        run.resume(Cancel("c", True, 0))
        assert run.said == ["interrupt 1", "interrupt 2", "interrupt 3", "unsubscribe 4"]

    assert both([{"p": ALL}], script).walk.status == "cancelled"


def test_a_graceful_cancel_waits_for_the_tasks_own_effects() -> None:
    def script(run: Probing) -> None:
        run.resume(Cancel("c", False, 5000))
        assert run.said == []
        assert run.open_now() == ASKED
        assert run.hear(4, "unheard") == run.answer(2) == []
        assert run.walk.status == "running"
        assert run.answer(1) == ["interrupt 3", "unsubscribe 4"]

    assert both([{"p": ALL}], script).walk.status == "cancelled"


def test_a_graceful_cancel_does_not_wait_for_events_or_the_detached() -> None:
    def script(run: Probing) -> None:
        run.resume(Cancel("c", False, 5000))
        assert run.said == ["interrupt 1", "unsubscribe 2"]

    assert both([{"p": probe(detached=1, subscribe={}, events=1)}], script).walk.status == "cancelled"


def test_grace_ends() -> None:
    def script(run: Probing) -> None:
        run.resume(Cancel("c", False, 5000))
        assert run.walk.wake_at_ms == START_MS + 5000
        assert run.tick_said() == ["interrupt 1", "interrupt 2", "interrupt 3", "unsubscribe 4"]

    assert both([{"p": ALL}], script).walk.status == "cancelled"


# --- paused ---


def test_outcomes_are_held_in_their_order_while_paused() -> None:
    def script(run: Probing) -> None:
        run.resume(Pause(""))
        for outcome in (
            EventArrived(4, 1),
            EffectResult(2, "b"),
            EventArrived(4, 2),
            EffectResult(3, None),
            EventArrived(4, 3),
        ):
            run.resume(outcome, 100)
            assert run.said == []
        assert run.open_now() == ["perform 1", "subscribe 4"]
        assert run.walk.effects_in_flight == 1
        run.resume(EffectResult(1, "a"))
        run.resume(EventArrived(4, "one too many"))
        run.resume(Resume(""), 10_000)
        assert run.said == ["unsubscribe 4"]

    run = both([{"p": ALL}], script)
    # Its own time stood still, its wait did not.
    assert run.output["until"] == START_MS + 9000 + 10_500
    assert (run.output["results"], run.output["heard"]) == (["b", "a"], [1, 2, 3])
    assert run.walk.status == "completed"


def test_a_held_failure_gives_up_what_is_left() -> None:
    def script(run: Probing) -> None:
        run.resume(Pause(""))
        run.resume(EventArrived(4, 1))
        run.resume(EffectFailure(2, "communication", 500, "", ""))
        run.resume(EventArrived(4, 2))
        run.resume(EffectResult(3, None))
        assert run.open_now() == ["perform 1", "subscribe 4"]
        run.resume(Resume(""))
        assert run.said == ["interrupt 1", "unsubscribe 4"]

    assert both([{"p": ALL}], script).walk.status == "failed"


def test_a_cancel_while_paused_gives_up_all_but_what_has_ended() -> None:
    def script(run: Probing) -> None:
        run.resume(Pause(""))
        run.resume(EffectResult(2, None))
        run.resume(Cancel("c", True, 0))
        assert run.said == ["interrupt 1", "interrupt 3", "unsubscribe 4"]

    assert both([{"p": ALL}], script).walk.status == "cancelled"


def test_timeouts_stand_still_while_paused() -> None:
    def script(run: Probing) -> None:
        run.tick()
        run.resume(Pause(""))
        run.resume(TimerDue(), 60_000)
        run.resume(Resume(""))
        assert run.walk.wake_at_ms == START_MS + 62_000
        assert run.tick_said() == GIVEN_UP

    both([{"p": {**ALL, "timeout": {"after": "PT2S"}}}], script)


# --- a body that is left ---


def test_an_event_ends_the_task_wherever_its_body_is() -> None:
    inner = {"fork": {"branches": [{"q": probe(effects=1, do=[])}, {"w": {"wait": "PT1H"}}]}}
    tasks = [{"p": probe(subscribe={"t": "${ .n }"}, do=[{"f": inner}])}, {"w": {"wait": "PT1S"}}]

    def script(run: Probing) -> None:
        (subscription, _) = run.walk.pending()
        assert isinstance(subscription, Subscribe)
        assert subscription.filter == {"t": 7}
        assert run.hear(1, "stop", 500) == ["interrupt 2", "unsubscribe 1"]
        assert run.open_now() == []
        assert run.walk.wake_at_ms == START_MS + 1500
        assert run.hear(1, "again") == run.answer(2) == []
        run.tick()

    run = both(tasks, script)
    assert run.output["heard"] == ["stop"]
    assert run.started == ["p", "f", "q", "w", "w"]


def test_a_body_that_fails_ends_the_subscription() -> None:
    def script(run: Probing) -> None:
        assert run.said == ["subscribe 1"]
        assert run.tick_said() == ["unsubscribe 1"]

    both([{"p": probe(subscribe={}, do=[{"w": {"wait": "PT1S"}}, {"r": raising()}])}], script)


def test_a_body_that_ends_ends_the_subscription() -> None:
    def script(run: Probing) -> None:
        assert run.tick_said() == ["unsubscribe 1"]

    assert both([{"p": probe(subscribe={}, do=[{"w": {"wait": "PT1S"}}])}], script).output["heard"] == []


# --- the row ---


def test_the_shape_is_checked() -> None:
    """The row brought it: unknown keys and wrong types are problems, as for every kind."""
    from fastrunner._core import validate
    from tests.core.walking import document

    codes = [problem.code for problem in validate(document([{"p": {"probe": {"effects": "two", "odd": 1}}}]))]
    assert sorted(codes) == ["unknown-key", "wrong-type"]
    assert not validate(document([{"p": json.loads(json.dumps(ALL))}]))
