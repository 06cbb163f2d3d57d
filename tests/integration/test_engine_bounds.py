"""The embedded engine at its bounds and beside its own defects: one bad execution costs nobody else anything."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import apsw
import pytest
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, InvalidWorkflow, PerformEffect
from fastrunner._core import compile as compile_document
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.admit.plans import CachedPlan, PlanCache
from fastrunner.errors import Damaged, DocumentRefused, UnknownExecution
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)


async def test_effects_beyond_the_bound_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX", 3)
    performer = Performer()
    async with engine_on(folder(), performer) as engine:
        for number in range(10):
            await engine.submit(submission(f"execution-{number}", CALL))
        await until(lambda: len(performer.performed) == 3, "three effects to start")
        await engine.cancel("execution-9", "", True)
        assert len(performer.performed) == 3
        performer.gate.set()
        for number in range(9):
            await until_status(engine, f"execution-{number}", "completed")
        await until_status(engine, "execution-9", "cancelled")
        assert len(performer.performed) == 9


async def test_performer_that_raises_fails_its_task_only() -> None:
    class Defective(Performer):
        async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
            raise KeyError("defect")

    async with engine_on(folder(), Defective()) as engine:
        await engine.submit(submission("one", CALL))
        view = await until_status(engine, "one", "failed")
        assert view.error is not None
        assert view.error["status"] == 500
        assert "defect" not in str(view.error)
        await engine.submit(submission("two", SET))


async def test_snapshot_of_an_unknown_format_sets_aside_one_execution() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("foreign", WAIT))
        await engine.submit(submission("whole", WAIT))
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        db.execute("update snapshots set snapshot = cast(x'63' || substr(snapshot, 2) as blob) where execution_key = 1")
    async with engine_on(path) as engine:
        await until_status(engine, "whole", "completed")
        assert (await engine.get("foreign")).status == "running"
        assert await engine.submit(submission("foreign", WAIT)) == "running"
        with pytest.raises(Damaged, match="out of service"):
            await engine.cancel("foreign", "", True)


async def test_execution_the_core_fails_on_is_refused_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    class Defective:
        @staticmethod
        def start(*arguments: object, **options: object) -> None:
            raise KeyError("defect")

    async with engine_on(folder()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("fastrunner.engine.embedded.run.execution.Walk", Defective)
            with pytest.raises(RuntimeError):
                await engine.submit(submission("one"))
        with pytest.raises(UnknownExecution):
            await engine.get("one")
        assert engine._shards.by_number[0].unfinished_count == 0
        assert await engine.submit(submission("one")) == "running"


async def test_state_beyond_its_bound_ends_the_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.SNAPSHOT_SIZE_BYTES_MAX", 4_096)
    large = document("  - fill:\n      set: {data: '" + "x" * 8_192 + "'}\n  - rest:\n      wait: {hours: 1}\n")
    async with engine_on(folder()) as engine:
        await engine.submit(submission("large", large))
        await engine.submit(submission("small", WAIT))
        assert (await engine.get("large")).status == "cancelled"
        await assert_whole(engine, "large", "workflow_cancelled")
        await until_status(engine, "small", "completed")


async def test_large_batches_are_committed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.COMMIT_EXECUTIONS_MAX", 7)
    async with engine_on(folder()) as engine:
        answers = await asyncio.gather(*(engine.submit(submission(f"execution-{number}")) for number in range(100)))
        assert list(answers) == ["running"] * 100
        for number in range(100):
            assert (await engine.get(f"execution-{number}")).status == "completed"


async def test_timer_entries_of_ended_executions_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.TIMERS_DEAD_MAX", 10)
    async with engine_on(folder()) as engine:
        for number in range(50):
            await engine.submit(submission(f"execution-{number}", SET, timeout_s_max=3_600))
        await engine.submit(submission("rest", WAIT))
        waits = document("  - rest:\n      wait: {hours: 1}\n")
        for number in range(50):
            await engine.submit(submission(f"wait-{number}", waits))
            await engine.cancel(f"wait-{number}", "", False)
        await until_status(engine, "rest", "completed")
        assert len(engine._scheduler._timers) <= 22


def _plan_of(cache: PlanCache, text: str) -> CachedPlan:
    return cache.find(text) or cache.keep(compile_document(text), text)


def test_plan_cache_keeps_the_latest_and_stays_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.PLANS_CACHED_MAX", 3)
    cache = PlanCache(Metrics(CollectorRegistry()))
    texts = [document("  - one:\n      set: {a: 1}\n", name=f"plan-{number}") for number in range(5)]
    first = _plan_of(cache, texts[0])
    assert _plan_of(cache, texts[0]) is first
    for text in texts[1:3]:
        _plan_of(cache, text)
    assert _plan_of(cache, texts[0]) is first
    for text in texts[3:]:
        _plan_of(cache, text)
    assert _plan_of(cache, texts[0]) is first
    assert list(cache._plans) == [*texts[3:], texts[0]]
    monkeypatch.setattr("fastrunner.base.limits.PLANS_CACHED_SIZE_CHARS_MAX", len(texts[0]))
    _plan_of(cache, texts[1])
    assert list(cache._plans) == [texts[1]]
    with pytest.raises(InvalidWorkflow) as invalid:
        compile_document("do: 1")
    assert cache.find("do: 1") is None
    cache.refuse("do: 1", invalid.value.problems)
    with pytest.raises(DocumentRefused):
        cache.find("do: 1")


def test_texts_that_are_no_workflow_are_remembered_within_bounds() -> None:
    cache = PlanCache(Metrics(CollectorRegistry()))
    with pytest.raises(InvalidWorkflow) as invalid:
        compile_document("do: 1")
    for number in range(limits.DOCUMENTS_REFUSED_KNOWN_MAX + 1):
        cache.refuse(f"do: {number}", invalid.value.problems)
    large = "x" * (limits.DOCUMENT_REFUSED_SIZE_CHARS_MAX + 1)
    assert cache.refuse(large, invalid.value.problems).problems == invalid.value.problems
    assert cache.find(large) is None
    assert cache.find("do: 0") is None
    for text in ("do: 1", f"do: {limits.DOCUMENTS_REFUSED_KNOWN_MAX}"):
        with pytest.raises(DocumentRefused):
            cache.find(text)
