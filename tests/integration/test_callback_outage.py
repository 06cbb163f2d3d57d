"""The callback pipeline while the receiver is away, comes back, is killed: bounded memory, nothing lost, new events
not held up by old ones."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from fastrunner.counts.definitions import Metrics
from fastrunner.engine import UnacknowledgedEvents
from tests.integration.callbacks import (
    TOKEN,
    SqliteOutbox,
    pipeline_to,
    receiving,
    row,
    rows_of,
    until,
    value,
)
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[SqliteOutbox]:
    box = SqliteOutbox(tmp_path / "outbox.db")
    yield box
    box.close()


def commits(executions: int, rows: int, events_per_row: int) -> Iterator[list[UnacknowledgedEvents]]:
    """Commits of many executions that go on side by side: 200 rows each."""
    for begin in range(0, executions, 200):
        group = [rows_of(f"e-{number:06}", rows, events_per_row) for number in range(begin, begin + 200)]
        for commit in zip(*group, strict=True):
            yield list(commit)


async def test_memory_stays_bounded_during_an_outage_and_everything_arrives_after_it(outbox: SqliteOutbox) -> None:
    port, queue_events_max = free_port(), 5_000
    async with pipeline_to(port, outbox, queue_events_max=queue_events_max) as pipeline:
        announced = 0
        for commit in commits(10_000, 4, 5):
            outbox.commit(commit)
            announced += sum(row.last_sequence - row.first_sequence + 1 for row in commit)
            assert pipeline.events_in_memory <= queue_events_max
        assert announced == 200_000
        await until(lambda: pipeline.suspended, "suspended")
        assert pipeline.events_in_memory > 0
        async with receiving(port=port, keep_events=False) as (receiver, _):
            held = 0

            def done() -> bool:
                nonlocal held
                held = max(held, pipeline.events_in_memory)
                return receiver.ledger.summary().finished == 10_000

            await until(done, "everything has arrived", 60)
            assert held <= queue_events_max
            await until(lambda: outbox.unacknowledged_count == 0, "and is acknowledged")
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().events == 200_000


async def test_catching_up_does_not_hold_up_new_events(outbox: SqliteOutbox) -> None:
    outbox.announcing = False
    for commit in commits(4_000, 2, 10):
        outbox.commit(commit)
    outbox.announcing = True
    async with receiving(delay_ms=50, keep_events=False) as (receiver, port), pipeline_to(port, outbox):
        await until(lambda: receiver.ledger.summary().events > 2_000, "catching up")
        outbox.commit([row("new", 1, 1)])
        await until(lambda: receiver.ledger.highest("new") == 1, "the first new event")
        outbox.commit([row("new", 2, 3, ends=True)])
        await until(lambda: receiver.ledger.highest("new") == 3, "the new events")
        assert receiver.ledger.summary().events < 60_000
        await until(lambda: outbox.unacknowledged_count == 0, "the old events", 40)
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().events == 80_003


async def test_executions_that_go_on_during_an_outage_stay_in_order(outbox: SqliteOutbox) -> None:
    port = free_port()
    rows = [rows_of(f"e-{number}", 6, 5) for number in range(400)]
    async with pipeline_to(port, outbox, queue_events_max=2_000) as pipeline:
        for step in range(3):
            outbox.commit([parts[step] for parts in rows])
        await until(lambda: pipeline.suspended, "suspended")
        async with receiving(port=port, delay_ms=5) as (receiver, _):
            for step in range(3, 6):
                before = receiver.ledger.summary().events
                await until(lambda: receiver.ledger.summary().events > before, "it catches up")  # noqa: B023
                outbox.commit([parts[step] for parts in rows])
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged", 40)
    assert receiver.ledger.violations == []
    assert receiver.ledger.summary().finished == 400


async def test_the_breaker_is_visible_and_attempts_become_rare(outbox: SqliteOutbox) -> None:
    metrics, port = Metrics(CollectorRegistry()), free_port()
    async with pipeline_to(port, outbox, metrics) as pipeline:
        outbox.commit([part for number in range(100) for part in rows_of(f"e-{number}", 1, 2)])
        await until(lambda: pipeline.suspended, "suspended")
        await until(lambda: value(metrics, "callback_breaker_open") == 1, "the gauge says so")
        await until(lambda: value(metrics, "callback_oldest_age") > 0, "and how old the oldest event is")
        assert value(metrics, "callback_queue_events") == 200
        assert value(metrics, "callback_attempts", method="ReportProgressBatch", code="UNAVAILABLE") <= 5
    assert outbox.unacknowledged_count == 200


@contextlib.contextmanager
def receiver_process(port: int, store: Path, *flags: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`fastrunner receiver` in a process of its own, once it listens."""
    command = [sys.executable, "-m", "fastrunner", "receiver", "--port", str(port), "--json"]
    process = subprocess.Popen(
        [*command, "--store", str(store), "--quiet", *flags],
        cwd=ROOT,
        env={**os.environ, "FASTRUNNER_RECEIVER_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert orjson.loads(process.stdout.readline()) == {"listening": f"127.0.0.1:{port}"}
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_receiver_that_is_killed_and_started_again_misses_nothing(outbox: SqliteOutbox, tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "received.jsonl"
    groups = list(commits(600, 4, 5))
    async with pipeline_to(port, outbox):
        with receiver_process(port, store, "--delay-ms", "20") as process:
            for commit in groups[:6]:
                outbox.commit(commit)
            await until(lambda: store.stat().st_size > 100_000, "it has taken some")
            os.kill(process.pid, signal.SIGKILL)
        for commit in groups[6:]:
            outbox.commit(commit)
        with receiver_process(port, store) as process:
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged", 40)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    summary = orjson.loads(out)["summary"]
    assert (summary["events"], summary["finished"], summary["violations"]) == (12_000, 600, 0)


async def test_delivery_goes_on_soon_after_a_short_outage(outbox: SqliteOutbox) -> None:
    port = free_port()
    async with pipeline_to(port, outbox) as pipeline:
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: pipeline.suspended, "suspended")
        async with receiving(port=port) as (receiver, _):
            begin = time.monotonic()
            await until(lambda: receiver.ledger.highest("e") == 3, "delivered")
            assert time.monotonic() - begin < 4
            await until(lambda: not pipeline.suspended, "goes on")
