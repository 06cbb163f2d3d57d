"""Stage 3, journal: what commits count (executions, tasks, expressions beyond their budget), and once, whoever dies."""

import asyncio

import pytest

from fastrunner._core import EffectFailure
from fastrunner.counts.cells import Segment
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.commit.counting import CommitCounts
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.store.changes import Batch, Change
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

NESTED = document(
    "  - each:\n      for: {each: item, in: '${ [1, 2, 3] }'}\n      do:\n        - one:\n            set: {a: 1}\n"
    "  - careful:\n      try:\n        - bad:\n            raise: {error: {type: 'https://e/x', status: 400}}\n"
    "      catch: {}\n"
)
LAVISH = document("  - one:\n      set: {a: '${ [range(100000000)] | length }'}\n")


def tasks(engine: EmbeddedEngine) -> dict[tuple[str, str], float]:
    """Counts of tasks that are not 0, by kind and outcome; their durations must be as many."""
    metrics = engine._metrics
    definition = metrics.definitions["workflow_runner_tasks_total"]
    counts = {}
    for kind in definition.labels["kind"]:
        by_outcome = {outcome: metrics.tasks.labels(kind, outcome).value for outcome in definition.labels["outcome"]}
        assert metrics.task_duration.labels(kind).count == sum(by_outcome.values())
        counts.update({(kind, outcome): count for outcome, count in by_outcome.items() if count})
    return counts


async def ended(engine: EmbeddedEngine, count: int) -> None:
    """Waits until so many have been counted as finished: that follows the commit which others see."""
    finished = engine._metrics.executions_finished
    statuses = ("completed", "failed", "cancelled")
    await until(lambda: sum(finished.labels(each).value for each in statuses) >= count, "the count of ends")


async def test_tasks_are_counted_by_kind_and_outcome() -> None:
    """As often as their events say, whatever nests in what."""
    performer = Performer()
    performer.gate.set()
    async with engine_on(folder(), performer) as engine:
        for number, text in enumerate((SET, NESTED, CALL, WAIT)):
            await engine.submit(submission(f"execution-{number}", text))
            await until_status(engine, f"execution-{number}", "completed")
        await ended(engine, 4)
        assert tasks(engine) == {
            ("set", "completed"): 2 + 3 + 1 + 1,
            ("for", "completed"): 1,
            ("try", "completed"): 1,
            ("raise", "failed"): 1,
            ("call_http", "completed"): 1,
            ("wait", "completed"): 1,
        }
        finished = engine._metrics.executions_finished
        assert [finished.labels(each).value for each in ("completed", "failed", "cancelled")] == [4, 0, 0]
        assert engine._metrics.execution_duration.labels("completed").count == 4
        waited = next(metric for metric in engine._metrics.collect() if metric.name.endswith("task_duration_seconds"))
        [total] = [s.value for s in waited.samples if s.name.endswith("_sum") and s.labels["kind"] == "wait"]
        assert 0.2 <= total < 2


async def test_failures_and_cancels_are_counted() -> None:
    """A failed effect is a failed task; a cancelled execution's task has no outcome."""
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        await engine.submit(submission("cancelled", CALL))
        await engine.cancel("cancelled", "", True)
        performer.failure = EffectFailure(0, "communication", 500, "No", "it failed")
        performer.gate.set()
        await engine.submit(submission("failed", CALL))
        await ended(engine, 2)
        assert tasks(engine) == {("call_http", "failed"): 1}
        finished = engine._metrics.executions_finished
        assert [finished.labels(each).value for each in ("completed", "failed", "cancelled")] == [0, 1, 1]


async def test_expressions_beyond_their_budget_are_counted() -> None:
    """One whose array would be too long ends as a failed task, and is seen as what it is."""
    async with engine_on(folder()) as engine:
        await engine.submit(submission("lavish", LAVISH))
        await ended(engine, 1)
        assert engine._metrics.expressions_over_budget.value == 1
        assert tasks(engine) == {("set", "failed"): 1}


async def test_finish_is_counted_once_when_it_is_committed_twice() -> None:
    """A command that comes while the last commit is under way makes another one."""
    async with engine_on(folder()) as engine:
        results = [
            asyncio.ensure_future(_submit_and_cancel(engine, f"execution-{number}", number % 5)) for number in range(50)
        ]
        await asyncio.gather(*results)
        await ended(engine, 50)
        assert engine._metrics.executions_finished.labels("completed").value == 50
        assert engine._metrics.executions_accepted.value == 50


async def _submit_and_cancel(engine: EmbeddedEngine, execution_id: str, turns: int) -> None:
    accepted = engine.submit(submission(execution_id, SET))
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = asyncio.gather(engine.cancel(execution_id, "", False), return_exceptions=True)
    await asyncio.gather(accepted, cancelled)
    await until_status(engine, execution_id, "completed")


@pytest.mark.parametrize(("found", "expected"), [(None, 0), ((1, 4, False), 0), ((1, 5, True), 1), ((1, 9, True), 1)])
def test_successor_counts_what_was_committed(found: tuple[int, int, bool] | None, expected: int) -> None:
    """A process is killed between a commit and its landing: whether the file has it decides."""
    segment = Segment(notes=1)
    killed = CommitCounts(Metrics(segment=segment), 3)
    killed.begin(Batch(changes=[finished_change()]), {"execution": execution()})
    metrics = Metrics(segment=segment)
    for _ in range(2):  # Whoever comes after that counts nothing again.
        CommitCounts(metrics, 3).recover(lambda execution_id: found if execution_id == "execution" else None)
    assert metrics.executions_finished.labels("completed").value == expected
    assert metrics.execution_duration.labels("completed").count == expected


def test_commit_that_failed_is_not_counted() -> None:
    """Neither now nor by a successor; the attempt that lands is."""
    metrics = Metrics(segment=Segment(notes=1))
    counts = CommitCounts(metrics, 0)
    counts.begin(Batch(changes=[finished_change()]), {"execution": execution()})
    counts.dropped()
    CommitCounts(metrics, 0).recover(lambda _: (1, 5, True))
    assert metrics.executions_finished.labels("completed").value == 0
    counts.begin(Batch(changes=[finished_change()]), {"execution": execution()})
    counts.landed()
    counts.landed()
    assert metrics.executions_finished.labels("completed").value == 1


def execution() -> Execution:
    """One that was accepted at a thousand."""
    return Execution(0, 1, "execution", 1_000, b"", False)


def finished_change() -> Change:
    """The end of an execution that took five milliseconds."""
    return Change(
        execution_key=1,
        execution_id="execution",
        accepted=None,
        status="completed",
        finished_ms=1_005,
        wake_at_ms=0,
        parked=False,
        last_sequence=5,
        snapshot=None,
        output_json="1",
        error_json=None,
        events=UnacknowledgedEvents("execution", 5, 5, b""),
        effects=(),
        waiters=(),
    )
