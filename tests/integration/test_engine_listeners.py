"""Executions that wait for events: what they hear, once each and in order, whatever happens in between."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from fastrunner.access.sealing import DataKeys, add_key
from fastrunner.base import clock, limits
from fastrunner.data.inspection import shard_files
from fastrunner.data.resealing import reseal
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.proofs import inbox_checksum
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from tests.integration.engines import (
    assert_whole,
    bus_of,
    document,
    engine_on,
    folder,
    send,
    submission,
    until,
    until_status,
)

ONE = document("  - hear:\n      listen: {to: {one: {with: {type: t}}}}\n")
TWICE = document(
    "  - first:\n      listen: {to: {one: {with: {type: t}}}}\n"
    "  - second:\n      listen: {to: {one: {with: {type: t}}}}\n"
)
LATE = document(
    "  - early:\n      try:\n"
    "        - hear: {listen: {to: {one: {with: {type: t}}}}, timeout: {after: {minutes: 1}}}\n"
    "      catch: {errors: {with: {status: 408}}}\n"
    "  - hear:\n      listen: {to: {one: {with: {type: t}}}}\n"
)
LOOP = document(
    "  - each:\n      for: {each: n, in: '${ [range(5)] }'}\n      do:\n"
    "        - hear:\n            listen: {to: {one: {with: {type: t}}}}\n"
    "            export: {as: '${ ($context // []) + . }'}\n"
    "  - told:\n      set: {heard: '${ $context }'}\n"
)
ANY = document("  - hear:\n      listen: {to: {any: [], until: '${ length >= 2 }'}}\n")
APPROVAL = document(
    "  - hear:\n      listen:\n        to:\n          one:\n            with: {type: approved}\n"
    "            correlate: {order: {from: .order, expect: '${ .id }'}}\n"
)
FORK = document(
    "  - both:\n      fork:\n        branches:\n"
    "          - a: {listen: {to: {one: {with: {type: t}}}}}\n"
    "          - b: {listen: {to: {one: {with: {type: t}}}}}\n"
)
EACH = document(
    "  - hear:\n      listen: {to: {any: [{with: {type: t}}], until: '${ false }'}}\n"
    "      foreach:\n        item: e\n        do:\n          - note: {set: {n: '${ $e.n }'}}\n"
    "        export: {as: '${ {count: (($context.count // 0) + 1), sum: (($context.sum // 0) + $e.n)} }'}\n"
)
"""Never ends by itself."""
STOPPABLE = document(
    "  - hear:\n      listen: {to: {any: [{with: {type: t}}], until: {one: {with: {type: stop}}}}}\n"
    "      foreach:\n        item: e\n        do:\n          - note: {set: {n: '${ $e.n }'}}\n"
    "        output: {as: .n}\n"
)


def events(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"e{n}", "data": {"n": n}} | more for n in numbers]


async def output_of(engine: EmbeddedEngine, execution_id: str) -> Any:
    view = await until_status(engine, execution_id, "completed", "failed")
    assert view.status == "completed", view.error
    return orjson.loads(view.output_json)


async def waits(engine: EmbeddedEngine, *execution_ids: str) -> None:
    """Until executions are parked."""
    shard = engine._shards.by_number[0]

    def parked() -> bool:
        return all(
            (row := shard.store.acceptance(each)) is not None
            and (found := shard.store.unfinished(row[0])) is not None
            and found.parked
            for each in execution_ids
        )

    await until(parked, "the executions to wait")


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
        return db.execute(query).fetchall()


def assert_nothing_left(path: Path) -> None:
    """No row of a listener remains once all executions have ended."""
    for table in ("listeners", "event_inbox", "inbox_events", "events_taken"):
        assert rows(path, f"select * from {table}") == [], table


async def test_event_reaches_who_waits_and_leaves_nothing() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        await send(engine, {"id": "no", "type": "other"}, *events(1))
        assert await output_of(engine, "x") == [{"n": 1}]
        await assert_whole(engine, "x", "workflow_completed")
    assert_nothing_left(path)


async def test_event_that_came_before_is_heard_once() -> None:
    async with engine_on(folder()) as engine:
        await send(engine, *events(1))
        await engine.submit(submission("x", ONE))
        assert await output_of(engine, "x") == [{"n": 1}]
        # Another execution may have it, too; the same one not again.
        await engine.submit(submission("y", TWICE))
        await waits(engine, "y")
        await send(engine, *events(2))
        assert await output_of(engine, "y") == [{"n": 2}]


async def test_loop_of_listens_takes_each_event_once_in_order() -> None:
    async with engine_on(folder()) as engine:
        await send(engine, *events(1, 2))
        await engine.submit(submission("x", LOOP))
        await waits(engine, "x")
        await send(engine, *events(3, 4, 5))
        assert await output_of(engine, "x") == {"heard": [{"n": n} for n in (1, 2, 3, 4, 5)]}


async def test_long_loop_over_many_kept_events() -> None:
    count = 4 * limits.EVENTS_OFFERED_AT_START_MAX
    async with engine_on(folder()) as engine:
        await send(engine, *events(*range(count)))
        await engine.submit(submission("x", LOOP.replace("range(5)", f"range({count})")))
        assert await output_of(engine, "x") == {"heard": [{"n": n} for n in range(count)]}


async def test_two_listeners_that_wait_both_have_the_event() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("x", FORK))
        await engine.submit(submission("y", ONE))
        await waits(engine, "x", "y")
        await send(engine, *events(1))
        assert await output_of(engine, "x") == [[{"n": 1}], [{"n": 1}]]
        assert await output_of(engine, "y") == [{"n": 1}]


async def test_filter_without_attributes_matches_everything() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("x", ANY))
        await waits(engine, "x")
        await send(engine, {"id": "a", "type": "one", "data": 1}, {"id": "b", "type": "two", "data": 2})
        assert await output_of(engine, "x") == [1, 2]


async def test_correlation_finds_its_execution_alone() -> None:
    path = folder()
    async with engine_on(path) as engine:
        ids = [f"order-{n}" for n in range(20)]
        for each in ids:
            await engine.submit(submission(each, APPROVAL, input_json=orjson.dumps({"id": each})))
        await waits(engine, *ids)
        await send(engine, {"id": "1", "type": "approved", "order": "order-7", "data": "yes"})
        assert await output_of(engine, "order-7") == ["yes"]
        assert engine._metrics.events_matched.value == 1
        assert (await engine.get("order-8")).status == "running"


async def test_paused_execution_takes_its_events_when_resumed() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        await engine.pause("x", "")
        await send(engine, *events(1))
        await until(lambda: rows(path, "select * from event_inbox"), "the row")
        assert (await engine.get("x")).status == "paused"
        await engine.resume("x", "")
        assert await output_of(engine, "x") == [{"n": 1}]


async def test_cancelled_and_deleted_execution_leaves_nothing() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        await engine.pause("x", "")
        await send(engine, *events(1))
        await until(lambda: rows(path, "select * from event_inbox"), "the row")
        await engine.cancel("x", "", False)
        await until_status(engine, "x", "cancelled")
        await engine.delete("x")
    assert_nothing_left(path)


async def test_restart_with_rows_that_nobody_has_taken() -> None:
    path = folder()
    async with engine_on(path) as engine:
        for each in ("x", "y"):
            await engine.submit(submission(each, LOOP))
        await waits(engine, "x", "y")
        await engine.pause("y", "")
        await send(engine, *events(1, 2))
        await until(lambda: len(rows(path, "select * from event_inbox where execution_key = 2")) == 2, "the rows")
        await until(lambda: not rows(path, "select * from event_inbox where execution_key = 1"), "x to take its events")
    async with engine_on(path) as engine:
        await send(engine, *events(3, 4, 5))
        await engine.resume("y", "")
        for each in ("x", "y"):
            assert await output_of(engine, each) == {"heard": [{"n": n} for n in (1, 2, 3, 4, 5)]}
            await assert_whole(engine, each, "workflow_completed")
    assert_nothing_left(path)


async def test_events_that_come_while_the_runner_is_down_are_heard() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
    await publish(path, 1)
    async with engine_on(path) as engine:
        assert await output_of(engine, "x") == [1]


async def test_event_that_comes_after_a_timeout_is_for_who_listens_next() -> None:
    """What was due before the event is met first, so the listen that has had its time takes nothing."""
    late_ms = 0
    path = folder()
    async with engine_on(path, wall_ms=lambda: clock.wall_ms() + late_ms) as engine:
        await engine.submit(submission("x", LATE))
        await waits(engine, "x")
        # Nobody has looked at the clock since.
        late_ms = 100_000
        await send(engine, *events(1))
        assert await output_of(engine, "x") == [{"n": 1}]
        await assert_whole(engine, "x", "workflow_completed")
    assert_nothing_left(path)


async def test_parked_listener_is_evicted_and_brought_back_alone() -> None:
    async with engine_on(folder(), parked_resident_max=0) as engine:
        ids = [f"order-{n}" for n in range(10)]
        for each in ids:
            await engine.submit(submission(each, APPROVAL, input_json=orjson.dumps({"id": each})))
        shard = engine._shards.by_number[0]
        await until(lambda: not shard.live, "all to leave memory")
        back: list[str] = []
        restore = shard._restore
        shard.loader._restore = lambda row: back.append(row.execution_id) or restore(row)  # type: ignore[func-returns-value]
        await send(engine, {"id": "1", "type": "approved", "order": "order-3", "data": "yes"})
        assert await output_of(engine, "order-3") == ["yes"]
        assert back == ["order-3"]
        await until(lambda: not shard.live, "it to leave memory")


async def test_namespaces_of_a_sender_bound_whom_it_reaches() -> None:
    async with engine_on(folder()) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        await send(engine, *events(1), namespaces=frozenset({"elsewhere"}))
        await send(engine, *events(2), namespaces=frozenset({"elsewhere", "tests"}))
        assert await output_of(engine, "x") == [{"n": 2}]
        # From before, too.
        await engine.submit(submission("y", ONE))
        assert await output_of(engine, "y") == [{"n": 2}]


async def test_endless_foreach_hears_all_and_stays_small() -> None:
    path, count = folder(), 3_000
    async with engine_on(path) as engine:
        await engine.submit(submission("x", EACH))
        await waits(engine, "x")
        for first in range(0, count, 500):
            await send(engine, *events(*range(first, first + 500)))
        await until(lambda: engine._metrics.events_delivered.value == count, "all events to be taken", 60)
        await until(lambda: not rows(path, "select * from event_inbox"), "the inbox to be empty")
        ((size,),) = rows(path, "select length(snapshot) from snapshots")
        assert size < 5_000
        execution = engine._shards.by_number[0].live["x"]
        assert not execution.inbox


async def test_listener_that_is_slower_than_its_events_misses_none(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "INBOX_ROWS_PER_LISTENER_MAX", 10)
    path, count = folder(), 200
    async with engine_on(path) as engine:
        await engine.submit(submission("x", STOPPABLE))
        await waits(engine, "x")
        await engine.pause("x", "")
        await send(engine, *events(*range(count)))
        await until(lambda: engine._metrics.listeners_behind.value == 1, "it to fall behind")
        assert len(rows(path, "select * from event_inbox")) <= 10
        await engine.resume("x", "")
        await until(lambda: engine._metrics.events_delivered.value == count, "all events to be taken")
        await send(engine, {"id": "stop", "type": "stop"})
        assert await output_of(engine, "x") == list(range(count))
    assert_nothing_left(path)


SMALL = {
    "EVENTS_FOLLOWED_PER_READ_MAX": 2,
    "EVENTS_FOLLOW_PASS_S_MAX": 0.0,
    "EVENTS_OFFERED_AT_START_MAX": 1,
    "EVENT_TYPES_ABSENT_MAX": 2,
    "INBOX_PAGE_EVENTS_MAX": 2,
    "INBOX_PAGE_SIZE_BYTES_MAX": 1,
    "INBOX_UNCOMMITTED_ROWS_MAX": 1,
    "LISTENERS_LOADED_PER_PASS_MAX": 2,
    "LISTENERS_OFFERED_TOGETHER_MAX": 3,
    "MATCHERS_KEPT_MAX": 2,
    "PASSED_FILTERS_KNOWN_MAX": 1,
}


async def test_bounds_change_nothing_of_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(limits, name, value)
    path = folder()
    ids = [f"order-{n}" for n in range(12)]
    approvals = [{"id": each, "type": "approved", "order": each, "data": each} for each in ids]
    async with engine_on(path) as engine:
        await send(engine, *events(1, 2, 3), *approvals[:6])
        for each in ids:
            await engine.submit(submission(each, APPROVAL, input_json=orjson.dumps({"id": each})))
            await engine.submit(submission(f"loop-{each}", LOOP))
            await engine.submit(submission(f"idle-{each}", ONE.replace("type: t", f"type: {each}")))
        for each in ids[:6]:
            assert await output_of(engine, each) == [each]
        registry, catch_up = engine._listeners._registry, engine._listeners._catch_up
        assert len(registry._matchers) <= SMALL["MATCHERS_KEPT_MAX"]
        assert len(catch_up._absent) <= SMALL["EVENT_TYPES_ABSENT_MAX"]
        await waits(engine, *(f"loop-{each}" for each in ids))
    async with engine_on(path) as engine:
        await send(engine, *events(4, 5), *approvals[6:])
        for each in ids:
            assert await output_of(engine, each) == [each]
            assert await output_of(engine, f"loop-{each}") == {"heard": [{"n": n} for n in (1, 2, 3, 4, 5)]}
            await engine.cancel(f"idle-{each}", "", False)
        assert engine._metrics.listeners.value == 0
        assert engine._metrics.inbox_rows.value == 0
    assert_nothing_left(path)


async def test_shard_writes_down_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_POSITION_LAG_MAX", 10)
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        keys = await send(engine, *({"id": f"{n}", "type": "other"} for n in range(20)))
        await until(lambda: rows(path, "select event_key from events_position") >= [(keys[10],)], "the position")


async def test_event_that_nobody_was_told_of_is_found() -> None:
    """Whoever wrote it has died before it could wake anybody."""
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        await publish(path, 7)
        assert await output_of(engine, "x") == [7]


async def test_what_is_stored_of_listeners_is_sealed_and_sealed_anew(tmp_path: Path) -> None:
    add_key(tmp_path / "key", "first")
    keys, path = DataKeys.read(tmp_path / "key"), folder()
    async with engine_on(path, data_keys=keys) as engine:
        await engine.submit(submission("x", APPROVAL, input_json=b'{"id": "secret-order"}'))
        await waits(engine, "x")
        await engine.pause("x", "")
        await send(engine, {"id": "1", "type": "approved", "order": "secret-order", "data": "secret-word"})
        await until(lambda: rows(path, "select * from event_inbox"), "the row")
        assert b"secret" not in b"".join(each.read_bytes() for each in path.iterdir())
    assert findings(path, keys) == []
    assert findings(path, None) == []
    add_key(tmp_path / "key", "second")
    both = DataKeys.read(tmp_path / "key")
    [shard] = shard_files(path, 1, both)
    assert list(reseal(shard, lambda count: None)) == []
    assert b"second" in b"".join(row[0] for row in rows(path, "select filter from listeners"))
    assert b"second" in b"".join(row[0] for row in rows(path, "select event from inbox_events"))
    assert findings(path, both) == []
    async with engine_on(path, data_keys=both) as engine:
        await engine.resume("x", "")
        assert await output_of(engine, "x") == ["secret-word"]


async def test_damage_to_what_is_stored_of_listeners_is_found_and_made_good() -> None:
    path = folder()
    async with engine_on(path) as engine:
        for each in ("filter", "event"):
            await engine.submit(submission(each, LOOP))
            await waits(engine, each)
            await engine.pause(each, "")
        await send(engine, *events(1))
        await until(lambda: len(rows(path, "select * from event_inbox")) == 2, "the rows")
    rows(path, "update listeners set filter = x'7b7d' where execution_key = 1")
    rows(path, "update inbox_events set event = x'7b7d'")
    rows(path, "insert into events_taken values (99, 1, 1)")
    rows(path, "insert into event_inbox values (98, 1, 97)")
    rows(path, "insert into inbox_events values (96, x'', 0)")
    assert {table for table, _ in findings(path, None)} == {"listeners", "event_inbox", "inbox_events", "events_taken"}
    assert len(findings(path, None)) == 6
    async with engine_on(path) as engine:
        for each in ("filter", "event"):
            await engine.resume(each, "")
        await send(engine, *events(2, 3, 4, 5, 6))
        # The first event is lost to the inboxes, and stays where it was published.
        for each in ("filter", "event"):
            assert len((await output_of(engine, each))["heard"]) == 5


async def test_event_that_a_crash_has_given_to_some_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an event is for many, some of them have it before the file says that it was looked at."""
    monkeypatch.setattr(limits, "INBOX_ROWS_PER_LISTENER_MAX", 1)
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", ANY.replace(">= 2", ">= 4")))
        await waits(engine, "x")
        await engine.pause("x", "")
    await publish(path, 1)
    with closing(apsw.Connection(str(path / "events.db"))) as db:
        key, event = db.execute("select event_key, event from events").get
    rows(path, f"insert into event_inbox select execution_key, subscription_id, {key} from listeners")
    rows(path, f"insert into inbox_events values ({key}, x'{event.hex()}', {inbox_checksum(key, event)})")
    async with engine_on(path) as engine:
        await until(lambda: engine._shards.by_number[0].inbox.position >= key, "the event to be looked at")
        await engine.resume("x", "")
        await until(lambda: rows(path, "select * from event_inbox") == [], "the event to be taken")
        # From the second one on it has as many as it may.
        await send(engine, *events(2, 3, 4))
        assert await output_of(engine, "x") == [1, {"n": 2}, {"n": 3}, {"n": 4}]
    assert_nothing_left(path)


async def test_how_far_it_has_come_is_told_under_load_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would expire while there is always one more event, and there would be no room in the end."""
    monkeypatch.setattr(limits, "EVENTS_FOLLOWED_PER_READ_MAX", 1)
    monkeypatch.setattr(limits, "EVENTS_LOOK_INTERVAL_S", 0.001)
    async with engine_on(folder()) as engine:
        await engine.submit(submission("x", ONE))
        await waits(engine, "x")
        bus, told = bus_of(engine), list[int]()
        monkeypatch.setattr(bus, "reached", lambda _, key: told.append(key))
        keys = await send(engine, *events(*range(200), type="other"))
        await until(lambda: keys[-1] in told, "all events to be looked at")
        assert len(set(keys) & set(told)) > 1


async def test_event_that_comes_while_its_execution_is_out_of_service_is_heard_after_a_start() -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("x", TWICE))
        await engine.submit(submission("y", TWICE))
        await waits(engine, "x", "y")
        shard = engine._shards.by_number[0]
        try:
            raise RuntimeError("the core fails")
        except RuntimeError:
            shard.quarantine(shard.live["x"])
        await send(engine, *events(1, 2))
        assert await output_of(engine, "y") == [{"n": 2}]
        assert (await engine.get("x")).status == "running"
    async with engine_on(path) as engine:
        assert await output_of(engine, "x") == [{"n": 2}]
    assert_nothing_left(path)


def findings(path: Path, keys: DataKeys | None) -> list[tuple[str, str]]:
    """What `fastrunner data check` finds: table and detail."""
    [shard] = shard_files(path, 1, keys)
    return [(damage.table, damage.detail) for damage in shard.check(lambda count: None)]


async def publish(path: Path, *data: Any) -> None:
    """Publishes events as another process does that tells nobody."""
    bus = EventBus(path, lambda: None, Seals(), 600.0)
    events = [{"specversion": "1.0", "id": str(each), "source": "/s", "type": "t", "data": each} for each in data]
    await bus.publish(events, None)
    await bus.close()
