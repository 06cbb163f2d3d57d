"""Large values in the embedded engine: stored once, kept as long as somebody needs them, back after a restart."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.engine import Submission
from fastrunner.errors import Damaged
from tests.integration.engines import (
    CALL,
    Performer,
    assert_whole,
    document,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

ITEMS = [{"number": number, "text": f"item {number} of a list that is large"} for number in range(4_000)]
LARGE_SIZE_BYTES = len(json.dumps(ITEMS))
ASK = "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
ASK_AGAIN = ASK.replace("ask:", "again:") + "  - keep:\n      set: {n: '${ .items | length }'}\n"
STEPS = 50


class Large(Performer):
    """Answers with a large value; the second effect waits for the gate."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        if effect.idempotency_key.endswith("/ask/1/1"):
            return EffectResult(effect.effect_id, {"items": ITEMS})
        answer = await super().perform(effect, arguments)
        return EffectResult(effect.effect_id, {"items": ITEMS}) if isinstance(answer, EffectResult) else answer


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        return db.execute(query).fetchall()


def _large(execution_id: str, text: str, **changes: Any) -> Submission:
    return submission(execution_id, text, input_json=json.dumps({"items": ITEMS}).encode(), **changes)


def _wal_size_bytes(path: Path) -> int:
    return (path / "shard-0000.db-wal").stat().st_size


@pytest.mark.parametrize(
    ("step", "times_state"),
    [
        ("  - rest{n}:\n      wait: {{milliseconds: 3}}\n", 4),
        ("  - s{n}:\n      set: {{items: '${{ .items }}', n: {n}}}\n  - w{n}:\n      wait: {{milliseconds: 3}}\n", 4),
    ],
)
async def test_state_that_lives_through_many_commits_is_written_about_once(step: str, times_state: float) -> None:
    """The bound is on what the state adds; each commit also touches a few pages of the tables and their indexes."""
    tasks = "".join(step.format(n=number) for number in range(STEPS))
    written = {}
    for name, items in (("large", ITEMS), ("small", ITEMS[:1])):
        path = folder()

        class Answer(Performer):
            async def perform(
                self, effect: PerformEffect, arguments: Mapping[str, Any], items: Any = items
            ) -> EffectResult:
                return EffectResult(effect.effect_id, {"items": items})

        async with engine_on(path, Answer()) as engine:
            engine._shards.by_number[0].store._db.execute("pragma wal_autocheckpoint = 0")
            before = _wal_size_bytes(path)
            await engine.submit(submission("a", document(ASK + tasks)))
            await until_status(engine, "a", "completed", timeout_s=30)
            written[name] = _wal_size_bytes(path) - before
    assert written["large"] - written["small"] < times_state * LARGE_SIZE_BYTES


async def test_equal_values_are_stored_once_and_go_with_the_last_who_needs_them() -> None:
    path = folder()
    performer = Performer()
    async with engine_on(path, performer, retention_count=0) as engine:
        for name in ("a", "b", "c"):
            await engine.submit(_large(name, CALL.replace("{kept: true}", "'${ $input }'")))
        await until(lambda: len(performer.performed) == 3, "the effects to start")
        assert _rows(path, "select count(*) from large_values") == [(1,)]
        assert _rows(path, "select count(*) from claims") == [(3,)]
        await engine.cancel("a", "", True)
        await until_status(engine, "a", "cancelled")
        assert _rows(path, "select count(*) from claims") == [(2,)]
        assert _rows(path, "select count(*) from large_values") == [(1,)]
        performer.gate.set()
        await until(lambda: not _rows(path, "select 1 from executions"), "retention to end")
    assert _rows(path, "select count(*) from claims union all select count(*) from large_values") == [(0,), (0,)]


async def test_everything_is_there_again_after_a_restart_and_output_is_handed_out() -> None:
    path = folder()
    performer = Large()
    async with engine_on(path, performer) as engine:
        await engine.submit(_large("a", document(ASK + ASK_AGAIN.replace("{n: '${ .items | length }'}", "'${ . }'"))))
        await until(lambda: performer.performed, "the second effect to start")
    ((stored,),) = _rows(path, "select snapshot from snapshots")
    assert (stored[0], len(stored) < 10_000) == (128, True)
    performer = Large()
    performer.gate.set()
    async with engine_on(path, performer) as engine:
        view = await until_status(engine, "a", "completed")
        assert json.loads(view.output_json) == {"items": ITEMS}
        await assert_whole(engine, "a", "workflow_completed")
    # The output alone is left.
    assert _rows(path, "select count(*) from claims union all select count(*) from large_values") == [(1,), (1,)]
    async with engine_on(path) as engine:
        assert json.loads((await engine.get("a")).output_json) == {"items": ITEMS}


async def test_evicted_state_comes_back_and_is_not_written_again() -> None:
    path = folder()
    performer = Large()
    text = document(
        ASK + "  - rest:\n      wait: {seconds: 2}\n  - rest2:\n      wait: {milliseconds: 5}\n" + ASK_AGAIN
    )
    async with engine_on(path, performer, parked_resident_max=0) as engine:
        await engine.submit(submission("a", text))
        await until(
            lambda: "a" not in engine._shards.by_number[0].live and _rows(path, "select 1 from snapshots"), "eviction"
        )
        before = _rows(path, "select hash from claims")
        assert len(before) > 3
        await until(lambda: performer.performed, "the second effect to start")
        kept = set(before) & set(_rows(path, "select hash from claims"))
        assert len(kept) >= len(before) - 2
        performer.gate.set()
        assert (await until_status(engine, "a", "completed")).output_json == f'{{"n":{len(ITEMS)}}}'


def _damage_value(condition: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
            where = f"where hash in (select hash from large_values where {condition} limit 1)"
            db.execute(f"update large_values set value = zeroblob(length(value)) {where}")
            assert db.changes() == 1

    return damage


@pytest.mark.parametrize(
    ("condition", "table"),
    [("hash in (select input_json from requests)", "large_values"), ("length(value) = 32768", "snapshots")],
)
async def test_damaged_value_fails_its_execution_with_an_event_that_says_so(
    condition: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    performer = Large()
    async with engine_on(path, performer) as engine:
        await engine.submit(_large("a", document(ASK + ASK_AGAIN)))
        await until(lambda: performer.performed, "the second effect to start")
    _damage_value(condition)(path)
    async with engine_on(path) as engine:
        view = await until_status(engine, "a", "failed")
        assert view.error is not None
        assert "damaged" in view.error["detail"]
        await assert_whole(engine, "a", "workflow_failed")
        assert caplog.text.count(f"table {table}:") == 1
        # What is left of its state stays until its retention ends.
        assert len(_rows(path, "select 1 from claims")) > 1


async def test_damaged_output_is_not_handed_out_and_is_repaired_when_the_same_value_comes_again() -> None:
    path = folder()
    performer = Large()
    performer.gate.set()
    async with engine_on(path, performer) as engine:
        await engine.submit(submission("a", document(ASK)))
        await until_status(engine, "a", "completed")
    _damage_value("1")(path)
    async with engine_on(path, performer) as engine:
        with pytest.raises(Damaged, match="the output of execution 'a' is damaged"):
            await engine.get("a")
        await engine.submit(submission("b", document(ASK)))
        assert json.loads((await until_status(engine, "b", "completed")).output_json) == {"items": ITEMS}
        assert (await engine.get("a")).output_json == (await engine.get("b")).output_json
