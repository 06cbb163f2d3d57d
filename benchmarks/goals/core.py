"""Support: what the core takes, in process and without I/O: the best of several repeats."""

import json
import timeit
from collections.abc import Callable
from functools import partial

from benchmarks.goals.measuring import Bound, Goal, Run
from benchmarks.workflows import THREE_TASKS_YAML, set_tasks
from fastrunner import _core
from fastrunner._jq import compile_expression
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.admit.plans import PlanCache

__all__ = ["core"]


def core(run: Run) -> list[Goal]:
    """Walks, expressions, compiles."""
    goals = _walks(run)
    prices = [{"price": number % 25, "name": f"item {number}"} for number in range(100)]
    for text, value, us_max in (
        (".counter + 1", {"counter": 41}, 0.5),
        ("map(select(.price > 10)) | length", prices, 40.0),
    ):
        run.advance(f"expression {text}")
        program = compile_expression(text)
        goals.append(_most(f"expression `{text}`", us_max, _best_us(run, partial(program.first, value), 10_000)))
    three = json.dumps(_core.load(THREE_TASKS_YAML))
    for form, text, us_max in (("JSON", three, 40.0), ("YAML", THREE_TASKS_YAML, 200.0)):
        run.advance(f"cold compile, {form}")
        compile_us = _best_us(run, partial(_core.compile, text), 500)
        goals.append(_most(f"cold compile of 3 tasks, {form}", us_max, compile_us))
    run.advance("hit in the plan cache")
    cache = PlanCache(Metrics())
    cache.keep(_core.compile(THREE_TASKS_YAML), THREE_TASKS_YAML)
    return [*goals, _most("hit in the plan cache", 2.0, _best_us(run, lambda: cache.find(THREE_TASKS_YAML), 10_000))]


def _walks(run: Run) -> list[Goal]:
    walk_us = {}
    for tasks in (10, 20, 100, 200):
        run.advance(f"walk of {tasks} tasks")
        plan = _core.compile(set_tasks(tasks))
        walk_us[tasks] = _best_us(run, partial(_core.Walk.start, plan, "bench-1", {"counter": 0}, 1), 40_000 // tasks)
    further_us = {tasks: (walk_us[2 * tasks] - walk_us[tasks]) / tasks for tasks in (10, 100)}
    apart = max(further_us.values()) / min(further_us.values()) - 1
    return [
        *(
            _most(f"walk: one `set` task with its two events, in {tasks} tasks", 4.0, walk_us[tasks] / tasks)
            for tasks in (10, 100)
        ),
        Goal(
            "walk: a further task in 10 and in 100 tasks, apart",
            100 * apart,
            "%",
            Bound(10, at_most=True),
            note=f"{further_us[10]:.2f} and {further_us[100]:.2f} us",
        ),
    ]


def _best_us(run: Run, function: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(function, number=number, repeat=max(5, run.rounds * 2))) / number * 1e6


def _most(name: str, us_max: float, us: float) -> Goal:
    return Goal(name, us, "us", Bound(us_max, at_most=True))
