"""Support: random documents, driven at random: what a drive says is the same with restores and with other slices.

    python -m tests.core.drives [DRIVES] [SEED]

A document and a drive are made from one `Random`, which hypothesis may play. A drive answers effects, skips time,
pauses and cancels by the choices of a seed of its own, so that each variant of it is handed the same outcomes.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
import pytest

from fastrunner._core import (
    Action,
    Cancel,
    EffectFailure,
    EffectResult,
    EventArrived,
    InterruptEffect,
    InvalidWorkflow,
    Outcome,
    Pause,
    PerformEffect,
    Plan,
    RenderFault,
    Resume,
    Subscribe,
    TimerDue,
    Turn,
    Unsubscribe,
)
from fastrunner.base import limits
from tests.core.snapshots import resolved
from tests.core.walking import Run, call, plan_of, raising

__all__ = ["Case", "check", "documents", "drive", "make_case"]

EVENTS_MAX = 300
"""Of an execution: endless loops end here."""

DATA_SIZE_BYTES_MAX = 400
"""Of a value: data that doubles in a loop ends here."""

NOW_MS_MAX = 200_000_000_000_000
"""The year 8307: waits of a thousand years, one after the other, soon lead beyond the calendar, where no clock is."""

OUTCOMES_MAX = 60
"""Of a drive."""

DEPTH = 3
VALUES = ("1", "null", "false", "[.]", "$context", "{a: .}", ".a?", '"text"', "$task.name", "$workflow.id")
CONDITIONS = ("true", "true", "false", ". == null", "$context == null", ". == 1")
ZEROS: tuple[Any, ...] = ({"seconds": 0}, "PT0S", '${ "PT0S" }', {"milliseconds": -1})
TIMES: tuple[Any, ...] = ({"milliseconds": 1}, "PT1S", "PT0.005S", '${ "PT1S" }', {"seconds": 2}, "PT0.3S", "PT10S")
SCOPED_TIMES = ('${ "PT\\(%s | tostring | length - 1)S" }', '${ "PT\\(%s)S" }')


@dataclass
class Maker:
    """Makes tasks; `scope` are the variables that are bound where it stands."""

    choices: Random
    scope: tuple[str, ...] = ()

    def seldom(self) -> bool:
        return self.odds(25)

    def odds(self, one_of: int) -> bool:
        return self.choices.randrange(one_of) == 0

    def inside(self, *names: str) -> "Maker":
        return Maker(self.choices, (*self.scope, *names))

    def value(self) -> str:
        if self.seldom():
            return "error"
        if self.scope and self.odds(3):
            return f"${self.choices.choice(self.scope)}"
        return self.choices.choice(VALUES)

    def condition(self) -> str:
        if self.seldom():
            return "error"
        if self.scope and self.odds(3):
            return f"${self.choices.choice(self.scope)} == 1"
        return self.choices.choice(CONDITIONS)

    def time(self) -> Any:
        if self.seldom():
            return self.choices.choice(["${ error }", "${ 5 }"])
        if self.odds(3):
            return self.choices.choice(ZEROS)
        if self.scope and self.odds(3):
            return self.choices.choice(SCOPED_TIMES) % f"${self.choices.choice(self.scope)}"
        return self.choices.choice(TIMES)

    # --- tasks ---

    def root(self) -> list[dict[str, Any]]:
        """Most documents go on after an error, several times, or beside others: so drives are long."""
        if self.odds(3):
            return self.tasks(DEPTH)
        lists = [self.inside("item", "index").tasks(DEPTH - 1) for _ in range(3)]
        trying = [{"try": tasks or [{"w": self.make_wait(0, [])}], "catch": {}} for tasks in lists]
        if self.odds(2):
            return [{"l": {"for": {"in": "[1, 2, 3]"}, "do": [{f"y{at}": made} for at, made in enumerate(trying)]}}]
        inner = {"fork": {"branches": [{f"y{at}": made} for at, made in enumerate(trying)]}}
        return [{"l": {"for": {"in": "[0, 1]"}, "do": [{"f": inner}]}}]

    def tasks(self, depth: int) -> list[dict[str, Any]]:
        names = [f"t{number}" for number in range(self.choices.choice([0, 1, 2, 2, 3, 3, 4]))]
        return [{name: self.task(depth, names)} for name in names]

    def task(self, depth: int, names: list[str]) -> dict[str, Any]:
        kinds = ["set", "raise", "switch", "wait", "wait", "call", "call", "call", "listen", "emit"]
        if depth:
            kinds += ["do", "for", "for", "fork", "fork", "trying", "trying", "trying", "listen"]
        made: dict[str, Any] = getattr(self, f"make_{self.choices.choice(kinds)}")(depth, names)
        return {**made, **self.common(names)}

    def common(self, names: list[str]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        if self.odds(6):
            members["if"] = self.condition()
        if self.odds(6):
            members["input"] = {"from": self.value()}
        if self.odds(6):
            members["output"] = {"as": self.value()}
        if self.odds(5):
            members["export"] = {"as": self.value()}
        if self.odds(5):
            members["timeout"] = {"after": self.time()}
        if self.odds(7):
            members["then"] = self.target(names)
        return members

    def target(self, names: list[str]) -> str:
        return self.choices.choice(["continue", "exit", "exit", *names, *names, *(["end"] if self.odds(3) else [])])

    def make_set(self, depth: int, names: list[str]) -> dict[str, Any]:
        return {"set": self.value() if self.odds(2) else {"k": f"${{ {self.value()} }}", "c": "plain"}}

    def make_raise(self, depth: int, names: list[str]) -> dict[str, Any]:
        return raising(self.choices.choice([400, 404]), "urn:odd", title=f"${{ {self.value()} | tostring }}")

    def make_switch(self, depth: int, names: list[str]) -> dict[str, Any]:
        cases = [{"first": {"when": self.condition(), "then": self.target(names)}}]
        if self.odds(2):
            cases.append({"default": {"then": self.target(names)}})
        return {"switch": cases}

    def make_wait(self, depth: int, names: list[str]) -> dict[str, Any]:
        return {"wait": self.time()}

    def make_call(self, depth: int, names: list[str]) -> dict[str, Any]:
        endpoint = self.choices.choice(["http://host.test/{a}", *["http://host.test/"] * 4, '${ "http://h/\\(.)" }'])
        members: dict[str, Any] = {"body": {"v": f"${{ {self.value()} }}"}} if self.odds(2) else {}
        if self.odds(3):
            members["headers"] = {"h": f"${{ {self.value()} | tostring }}"}
        return call(endpoint, **members)

    def make_emit(self, depth: int, names: list[str]) -> dict[str, Any]:
        return {"emit": {"event": {"with": {"type": "a", "data": f"${{ {self.value()} }}"}}}}

    def make_listen(self, depth: int, names: list[str]) -> dict[str, Any]:
        to = self.strategy()
        if "any" in to and self.odds(2):
            ends = ["length >= 2", "false", ".[-1] == 1", self.condition()]
            to["until"] = self.choices.choice(ends) if self.odds(2) else self.strategy()
        made: dict[str, Any] = {"listen": {"to": to, "read": self.choices.choice(["data", "envelope", "raw"])}}
        if self.odds(2):
            made["foreach"] = self.iterator(depth)
        return made

    def strategy(self) -> dict[str, Any]:
        kind = self.choices.choice(["one", "any", "all"])
        filters = [self.event_filter() for _ in range(1 if kind == "one" else self.choices.randrange(3))]
        return {kind: filters[0] if kind == "one" else filters}

    def event_filter(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {"type": self.choices.choice(["a", "b", "a|b", "${ .type }"])}
        if self.odds(4):
            wanted["data"] = self.choices.choice([1, f"${{ . == {self.value()} }}", {"a": f"${{ {self.value()} }}"}])
        if self.odds(2):
            return {"with": wanted}
        key: dict[str, Any] = {"from": ".k"}
        if self.odds(4):
            key["expect"] = self.choices.choice(["1", "2", f"${{ {self.value()} }}"])
        return {"with": wanted, "correlate": {"k": key}}

    def iterator(self, depth: int) -> dict[str, Any]:
        inner = self.inside("item", "index")
        made: dict[str, Any] = {}
        if depth and not self.odds(3):
            made["do"] = inner.tasks(depth - 1)
        for part in ("output", "export"):
            if self.odds(3):
                made[part] = {"as": inner.value()}
        return made

    def make_do(self, depth: int, names: list[str]) -> dict[str, Any]:
        return {"do": self.tasks(depth - 1)}

    def make_for(self, depth: int, names: list[str]) -> dict[str, Any]:
        each, at = self.choices.choice([("item", "index"), ("x", "index"), ("item", "i")])
        loop: dict[str, Any] = {"in": self.choices.choice(["[]", "[1, 2]", "null", "5", "[.]", "[range(5)]"])}
        if self.odds(4):
            loop["in"] = [{"n": f"${{ {self.value()} }}"}, {"n": 1}]
        loop |= {} if each == "item" else {"each": each}
        loop |= {} if at == "index" else {"at": at}
        inner = self.inside(each, at)
        made: dict[str, Any] = {"for": loop, "do": inner.tasks(depth - 1)}
        if self.odds(4):
            made["while"] = inner.condition()
        return made

    def make_fork(self, depth: int, names: list[str]) -> dict[str, Any]:
        branches = [{f"b{number}": self.task(depth - 1, [])} for number in range(self.choices.randrange(4))]
        return {"fork": {"branches": branches, "compete": self.odds(2)}}

    def make_trying(self, depth: int, names: list[str]) -> dict[str, Any]:
        handler = self.inside("error")
        catch: dict[str, Any] = {}
        if self.odds(2):
            catch["do"] = handler.tasks(depth - 1)
        if self.odds(4):
            catch["errors"] = {"with": {"status": self.choices.choice([400, 408])}}
        if self.odds(4):
            catch["when"] = self.choices.choice([".status == 400", "$error.status == 408", "error"])
        if not self.odds(3):
            catch["retry"] = self.retry(handler)
        if self.odds(5):
            catch["then"] = self.target(names)
        return {"try": self.tasks(depth - 1), "catch": catch}

    def retry(self, handler: "Maker") -> dict[str, Any]:
        """Both limits see what surrounds the `try`, the delay and the jitter see the error as well."""
        attempt: dict[str, Any] = {} if self.odds(3) else {"count": self.choices.randrange(4)}
        limit: dict[str, Any] = {}
        if self.odds(2):
            attempt["duration"] = self.time()
        if attempt:
            limit["attempt"] = attempt
        if self.odds(3):
            limit["duration"] = self.time()
        made: dict[str, Any] = {"limit": limit} if limit else {}
        if self.odds(2):
            made["delay"] = handler.time()
        if self.odds(4):
            made["jitter"] = {"from": handler.time(), "to": handler.time()}
        if self.odds(4):
            made["backoff"] = {self.choices.choice(["constant", "linear", "exponential"]): {}}
        if self.odds(5):
            made["when"] = handler.condition()
        return made

    def extensions(self) -> list[dict[str, Any]]:
        """What surrounds tasks; it sees nothing that surrounds those but `$task`."""
        words = ["all", "set", "call", "composite", "for", "try", "wait", "switch", "listen", "emit", "raise"]
        inner = Maker(self.choices, ("task",))
        made: list[dict[str, Any]] = []
        for number in range(1 + self.odds(3)):
            extension: dict[str, Any] = {"extend": self.choices.choice(words)}
            if self.odds(2):
                extension["when"] = self.choices.choice([inner.condition(), "$task.then == null", "$task.set != null"])
            for part in ("before", "after"):
                if not self.odds(3):
                    extension[part] = inner.tasks(1)
            made.append({f"e{number}": extension})
        return made


# --- cases ---


@dataclass
class Case:
    """A document, its input, and how it is driven."""

    tasks: list[dict[str, Any]]
    plan: Plan
    input: Any
    seed: int
    slice_steps: int


def make_case(choices: Random) -> Case | None:
    """None for a document the validator refuses (a name that a position does not see)."""
    tasks = Maker(choices).root()
    sections = {"timeout": {"after": Maker(choices).time()}} if choices.randrange(8) == 0 else {}
    if choices.randrange(4) == 0:
        sections["use"] = {"extensions": Maker(choices).extensions()}
    try:
        plan = plan_of(tasks, **sections)
    except InvalidWorkflow:
        return None
    input_ = choices.choice([None, 1, {"a": "x" * 60, "b": [{"c": 1}]}, [{"a": 1}, 2], "text"])
    return Case(tasks, plan, input_, choices.randrange(1 << 30), choices.randrange(1, 10))


def documents(count: int, seed: int) -> Iterator[Case]:
    """Cases without end but for their number."""
    choices = Random(seed)
    while count:
        case = make_case(choices)
        if case is not None:
            count -= 1
            yield case


# --- drives ---


@dataclass
class Told(Run):
    """A run that keeps what it was asked for, and each snapshot without the bounds, which the variants change."""

    kept: list[Any] = field(default_factory=list)
    moment: list[Any] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)
    """What had been asked for before the moment."""
    sequence: int = 0

    @property
    def last_sequence(self) -> int:
        """By the turns: drives are too many to read all events after each."""
        return self.sequence

    def took(self, turn: Turn) -> Turn:
        """One moment, whatever its slices are: what was asked for and given up within it was never asked for."""
        self.moment = []
        last = super().took(turn)
        self.kept.append(([self.shown(action) for action in self.net()], self.state(), self.walk.wake_at_ms))
        return last

    def net(self) -> list[Action]:
        """What the moment asks for in the end, of each effect and each subscription."""
        before = set(self.asked)
        by_number: dict[int, Action] = {}
        for action in self.moment:
            by_number.pop(number_of(action), None)
            by_number[number_of(action)] = action
        self.asked = {*self.open, *self.subscriptions}
        given_up = (InterruptEffect, Unsubscribe)
        return [action for n, action in by_number.items() if n in before or not isinstance(action, given_up)]

    def keep(self, turn: Turn) -> None:
        self.moment += turn.actions
        super().keep(turn)
        self.sequence = turn.last_sequence or self.sequence

    def shown(self, action: Any) -> tuple[Any, ...]:
        if isinstance(action, InterruptEffect | Unsubscribe):
            return (number_of(action),)
        if isinstance(action, Subscribe):
            return self.told(action)
        try:
            return (*self.told(action), repr(self.plan.render(action.capsule)))
        except RenderFault as fault:
            return (*self.told(action), repr(fault.error))

    def told(self, action: Any) -> tuple[Any, ...]:
        """Capsules hold the bounds as well."""
        told = list(super().told(action))
        if isinstance(action, Subscribe):
            return tuple(told)
        told[2] = without_bounds(told[2][1:])
        return tuple(told)

    def state(self) -> bytes:
        return orjson.dumps(resolved(self.walk.snapshot(), self.input))


def number_of(action: Action) -> int:
    return action.effect_id if isinstance(action, PerformEffect | InterruptEffect) else action.subscription_id


def without_bounds(capsule: bytes) -> bytes:
    fields = orjson.loads(capsule)
    fields[5] = None
    return orjson.dumps(fields)


def next_outcome(run: Run, choices: Random) -> tuple[Outcome, int] | None:
    """What is handed in next, and how much later; None if nothing can come."""
    kind = choices.randrange(12)
    if kind == 0:
        return Pause("p"), choices.randrange(3)
    if kind == 1 or run.status == "paused":
        return Resume("r"), choices.randrange(2000)
    if kind == 2 and choices.randrange(4) == 0:
        return Cancel("c", choices.randrange(2) == 0, choices.randrange(1000)), choices.randrange(3)
    if run.subscriptions and kind < 6:
        number = choices.choice(run.listens)
        event = {"type": choices.choice("ab"), "k": str(choices.randrange(1, 3)), "data": choices.choice([1, {"a": 1}])}
        return EventArrived(number, event), choices.randrange(1500)
    if run.open and kind < 8:
        effect_id = choices.choice(list(run.open))
        if choices.randrange(3):
            return EffectResult(effect_id, {"a": choices.randrange(3)}), choices.randrange(1500)
        if choices.randrange(2):
            busy = EffectFailure(effect_id, "communication", 503, "Busy", "", retry_after_ms=effect_id % 3 * 700)
            return busy, choices.randrange(3)
        return EffectFailure.whole(effect_id, {"type": "urn:c", "status": 400, "instance": "/x"}), 0
    if run.walk.wake_at_ms:
        late = choices.choice([0, 0, 0, 1, 5000])
        return TimerDue(), max(0, run.walk.wake_at_ms - run.now_ms) + late
    if run.open:
        return EffectResult(next(iter(run.open)), None), 1
    if run.subscriptions:
        return EventArrived(run.listens[0], {"type": "a", "k": "1"}), 1
    return None


@contextmanager
def bounds(**values: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(limits, name, value)
        yield


def drive(
    case: Case, *, restoring: bool = False, slice_steps: int = 250, watch: Callable[[Told], None] | None = None
) -> Told:
    """`watch` sees the run before each outcome."""
    choices = Random(case.seed)
    small = {"EVENTS_PER_EXECUTION_MAX": EVENTS_MAX, "DATA_SIZE_BYTES_MAX": DATA_SIZE_BYTES_MAX}
    with bounds(**small, WALK_STEPS_PER_SLICE_MAX=slice_steps):
        run = Told(case.plan, case.input, restoring=restoring, seed=case.seed)
    for _ in range(OUTCOMES_MAX):
        if run.status not in ("running", "paused"):
            break
        outcome = next_outcome(run, choices)
        if outcome is None or run.now_ms + outcome[1] > NOW_MS_MAX or run.walk.wake_at_ms > NOW_MS_MAX:
            break
        if watch is not None:
            watch(run)
        run.resume(*outcome)
    return run


def check(case: Case) -> Told:
    """Raises AssertionError if restores or slices change anything."""
    whole = drive(case)
    for restoring, slice_steps in ((True, 250), (case.seed % 2 == 0, case.slice_steps)):
        other = drive(case, restoring=restoring, slice_steps=slice_steps)
        assert other.encoded == whole.encoded, (restoring, slice_steps)
        for one, two in zip(whole.kept, other.kept, strict=True):
            assert one == two, (restoring, slice_steps)
        assert (other.status, other.now_ms) == (whole.status, whole.now_ms)
    return whole


def main(count: int, seed: int) -> int:
    """Drives with a bar, and the first document that differs."""
    ends: dict[str, int] = {}
    events = outcomes = 0
    for number, case in enumerate(documents(count, seed), 1):
        try:
            run = check(case)
        except BaseException:
            print(f"\ndrive {number}: seed {case.seed}, slices of {case.slice_steps}, input {case.input!r}")
            print(orjson.dumps(case.tasks).decode())
            raise
        ends[run.status] = ends.get(run.status, 0) + 1
        events, outcomes = events + run.walk.last_sequence, outcomes + len(run.kept)
        if number % max(1, count // 40) == 0 or number == count:
            done = 40 * number // count
            print(f"\r[{'#' * done}{'.' * (40 - done)}] {number}/{count} drives", end="", flush=True)
    print(f"\n{events} events, {outcomes} outcomes; ended: {ends}")
    return 0


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    sys.exit(main(*(arguments + [20_000, 20_261_128][len(arguments) :])))
