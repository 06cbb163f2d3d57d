"""Spans of executions that were accepted and completed in one commit: told by their rows, once, whatever happens."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.commit.spans import ShardSpans
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect
from fastrunner.tracing.context import TraceContext
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import TAKEN, Answer, Sampler, Tracer
from tests.integration.engines import SET, WAIT, document, engine_on, submission, until, until_status

_CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
_UNSAMPLED = TraceContext("5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", False)
_FAILING = document("  - no:\n      raise: {error: {type: 'https://example.com/no', status: 400, title: 'No'}}\n")


class Collector:
    """Takes spans, unless it is away."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.spans: list[Span] = []
        self.is_away = is_away

    def export(self, spans: Sequence[Span]) -> Answer:
        if self.is_away:
            return Answer(False, 0, "away")
        self.spans += spans
        return TAKEN

    def close(self) -> None:
        pass

    def roots(self) -> dict[str, Span]:
        """The spans of executions by their ids; each is there once."""
        found = [span for span in self.spans if span.name.startswith("execute")]
        by_id = {str(span.attributes["fastrunner.execution.id"]): span for span in found}
        assert len(by_id) == len(found)
        return by_id


@asynccontextmanager
async def _traced(folder: Path, collector: Collector, **settings: Any) -> AsyncIterator[EmbeddedEngine]:
    """An engine whose spans go to a collector; it stops as a worker does, and is drained then."""
    tracer = Tracer(Sampler(ratio=0, is_parent_based=True), lambda: collector, Metrics())
    async with engine_on(folder, tracer=tracer, **settings) as engine:
        yield engine
        await tracer.close(5)


async def _run(engine: EmbeddedEngine, *ids: str, text: str = SET, caller: TraceContext | None = _CALLER) -> None:
    await asyncio.gather(*(engine.submit(submission(each, text, trace=caller)) for each in ids))


def _rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(connect(folder / "shard-0000.db", READ_ONLY)) as db:
        return list(db.execute(statement))


async def test_one_that_the_collector_has_is_told_once(tmp_path: Path) -> None:
    collector = Collector()
    async with _traced(tmp_path, collector) as engine:
        await _run(engine, "one", "two", "three")
    assert set(collector.roots()) == {"one", "two", "three"}
    assert _rows(tmp_path, "select count(*) from spans") == [(0,)]
    again = Collector()
    async with _traced(tmp_path, again) as engine:
        await _run(engine, "four")
    assert set(again.roots()) == {"four"}


async def test_one_that_it_does_not_have_is_told_by_the_next_start(tmp_path: Path) -> None:
    away = Collector(is_away=True)
    async with _traced(tmp_path, away) as engine:
        await _run(engine, "one")
        await _run(engine, "aside", caller=None)
        await _run(engine, "unsampled", caller=_UNSAMPLED)
        await _run(engine, "failing", text=_FAILING)
        view = await engine.get("one")
    for _ in range(2):
        async with _traced(tmp_path, away):
            pass
    collector = Collector()
    async with _traced(tmp_path, collector):
        pass
    roots = collector.roots()
    assert set(roots) == {"one", "failing"}
    one = roots["one"]
    assert (one.trace_id, one.parent_id, one.name) == (_CALLER.trace_id, _CALLER.span_id, "execute tests/test")
    assert one.attributes["fastrunner.execution.status"] == "completed"
    assert one.attributes["fastrunner.workflow.version"] == "1.0.0"
    assert one.ended_ms == view.finished_ms
    assert roots["failing"].error == "custom"
    none = Collector()
    async with _traced(tmp_path, none):
        pass
    assert none.spans == []


async def test_it_is_the_same_span_as_it_would_have_been(tmp_path: Path) -> None:
    """A copy of the files, as a kill would leave them, tells what the runner has told since."""
    collector, after_crash = Collector(), Collector()
    copy = tmp_path / "copy"
    (tmp_path / "data").mkdir()
    async with _traced(tmp_path / "data", collector) as engine:
        await _run(engine, "one", "two")
        shutil.copytree(tmp_path / "data", copy)
    async with _traced(copy, after_crash):
        pass
    assert len(collector.roots()) == 2
    assert after_crash.roots() == collector.roots()


async def test_what_takes_more_than_one_commit_has_a_row(tmp_path: Path) -> None:
    away = Collector(is_away=True)
    async with _traced(tmp_path, away) as engine:
        await _run(engine, "waiting", text=WAIT)
        await engine.cancel("waiting", "", force=False)
        await until_status(engine, "waiting", "cancelled")
    names = [Span.decoded(row[0]).name for row in _rows(tmp_path, "select span from spans")]
    assert sorted(names) == ["accept", "execute tests/test"]
    collector = Collector()
    async with _traced(tmp_path, collector):
        pass
    assert set(collector.roots()) == {"waiting"}


async def test_what_is_not_sampled_hides_nothing_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _traced(tmp_path, Collector(is_away=True)) as engine:
        for at in range(8):
            await _run(engine, f"unsampled-{at}", caller=_UNSAMPLED)
        await _run(engine, "one")
    monkeypatch.setattr(limits, "TRACE_QUEUE_SPANS_MAX", 4)
    collector = Collector()
    async with _traced(tmp_path, collector):
        pass
    assert set(collector.roots()) == {"one"}


async def test_only_the_last_rows_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _traced(tmp_path, Collector(is_away=True)) as engine:
        for each in ("one", "two", "three"):
            await _run(engine, each)
    monkeypatch.setattr(limits, "TRACE_ROWS_LOOKED_AT_MAX", 2)
    collector = Collector()
    async with _traced(tmp_path, collector):
        pass
    assert set(collector.roots()) == {"two", "three"}


async def test_damaged_rows_tell_nothing(tmp_path: Path) -> None:
    async with _traced(tmp_path, Collector(is_away=True)) as engine:
        await _run(engine, "one", "two", "three")
    with closing(apsw.Connection(str(tmp_path / "shard-0000.db"))) as db:
        db.execute("update executions set trace = 'nonsense' where execution_id = 'one'")
        db.execute("update executions set finished_ms = -9223372036854775808 where execution_id = 'two'")
    collector = Collector()
    async with _traced(tmp_path, collector):
        pass
    assert "three" in collector.roots()
    assert "one" not in collector.roots()


async def test_what_is_told_is_noted_after_a_while_and_no_later_commit_before_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TRACE_UNKEPT_S_MAX", 0.05)
    due: list[bool] = []
    spans = ShardSpans(lambda: due.append(True))
    first, second, third = spans.told(5, 2), spans.told(9, 1), spans.told(12, 1)
    spans.settled_told(second)
    spans.settled_told(first)
    assert spans.take() is None
    spans.settled_told(first)
    await until(lambda: bool(due), "it is due")
    change = spans.take()
    assert change is not None
    assert (change.told_key, change.kept, change.settled) == (9, [], [])
    assert spans.take() is None
    spans.settled_told(third)
    assert spans.end()
    assert (change := spans.take()) is not None
    assert change.told_key == 12
    spans.close()
