"""CloudEvents on Temporal: who listens hears what it hears on one machine, and nothing that was acknowledged is lost.

Everything here is against a real server.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import ExecutionView, WorkerEngine
from fastrunner.errors import IdTaken, InvalidRequest, TooLarge, Unavailable
from fastrunner.tasks.emit.perform import Emit
from tests.integration.engines import all_events, bus_of, document, engine_on, submission, until, until_status
from tests.integration.temporal_engines import cluster_on, opened, reported, serving_temporal, shown
from tests.integration.temporal_replays import replayed
from tests.integration.test_event_sinks import receiving
from tests.outside import require

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

require(find_spec("temporalio"), "temporalio", module=True)

ENDED = ("completed", "failed", "cancelled")
TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


def event(n: int, name: str = "t", **more: Any) -> dict[str, Any]:
    """An event as a test sends it."""
    return {"specversion": "1.0", "source": "/tests", "id": f"{name}-{n}", "type": name, "data": {"n": n}} | more


def listen(to: str, more: str = "") -> str:
    return document(f"  - hear:\n      listen: {{to: {to}}}\n{more}  - last: {{set: {{heard: '${{ . }}'}}}}\n")


EACH = (
    "      foreach:\n        item: e\n        at: i\n        do:\n"
    "          - note: {set: {n: '${ $e.n }', at: '${ $i }'}}\n"
    "        output: {as: .n}\n"
)
SCENARIOS: Mapping[str, tuple[str, list[dict[str, Any]]]] = {
    "one": (listen("{one: {with: {type: T}}}"), [event(1), event(2)]),
    "one by its data": (listen("{one: {with: {type: T, data: '${ .n > 1 }'}}}"), [event(1), event(2)]),
    "one by a pattern": (
        listen("{one: {with: {type: T, subject: 'a.*'}}}"),
        [event(1, subject="b"), event(2, subject="ab")],
    ),
    "envelopes": (
        document("  - hear:\n      listen: {to: {one: {with: {type: T}}}, read: envelope}\n"),
        [event(1, time="2026-01-01T00:00:00Z")],
    ),
    "raw": (document("  - hear:\n      listen: {to: {one: {with: {type: T}}}, read: raw}\n"), [event(1)]),
    "all": (
        listen("{all: [{with: {type: T, data: '${ .n == 1 }'}}, {with: {type: T, data: '${ .n == 3 }'}}]}"),
        [event(3), event(2), event(1)],
    ),
    "all, correlated": (
        listen(
            "{all: [{with: {type: T, kind: a}, correlate: {key: {from: .key}}},"
            " {with: {type: T, kind: b}, correlate: {key: {from: .key}}}]}"
        ),
        [event(1, kind="a", key="x"), event(2, kind="b", key="y"), event(3, kind="b", key="x")],
    ),
    "any until a condition": (
        listen("{any: [{with: {type: T}}], until: '${ length >= 2 }'}"),
        [event(n) for n in (1, 2, 3)],
    ),
    "any until an event": (
        listen("{any: [{with: {type: T}}], until: {one: {with: {type: T-stop}}}}"),
        [event(1), event(2), event(3, "stop"), event(4)],
    ),
    "foreach": (
        listen("{any: [{with: {type: T}}], until: {one: {with: {type: T-stop}}}}", EACH),
        [event(1), event(2), event(3), event(4, "stop")],
    ),
    "expected by the input": (
        listen("{one: {with: {type: T}, correlate: {n: {from: .data.n, expect: '${ .n }'}}}}"),
        [event(1), event(2)],
    ),
    "in a fork": (
        document(
            "  - both:\n      fork:\n        branches:\n"
            "          - a: {listen: {to: {one: {with: {type: T, data: '${ .n == 2 }'}}}}}\n"
            "          - b: {listen: {to: {one: {with: {type: T, data: '${ .n == 1 }'}}}}}\n"
        ),
        [event(1), event(2)],
    ),
    "in a race": (
        document(
            "  - first:\n      fork:\n        compete: true\n        branches:\n"
            "          - a: {listen: {to: {one: {with: {type: T}}}}}\n"
            "          - b: {listen: {to: {one: {with: {type: T-never}}}}}\n"
        ),
        [event(1)],
    ),
    "one after the other": (
        document(
            "  - each:\n      for: {each: n, in: '${ [range(4)] }'}\n      do:\n"
            "        - hear:\n            listen: {to: {one: {with: {type: T}}}}\n"
            "            export: {as: '${ ($context // []) + . }'}\n"
            "  - told:\n      set: {heard: '${ $context }'}\n"
        ),
        [event(n) for n in range(4)],
    ),
    "until a timeout": (
        document(
            "  - guard:\n      try:\n"
            "        - hear: {listen: {to: {one: {with: {type: T-never}}}}, timeout: {after: {milliseconds: 300}}}\n"
            "      catch: {errors: {with: {status: 408}}, do: [{tell: {set: {late: true}}}]}\n"
        ),
        [],
    ),
    "emit": (
        document(
            "  - say:\n      emit: {event: {with: {id: '1', type: T-said, source: 'http://s',"
            " time: '2026-01-01T00:00:00Z', data: {n: '${ .n }'}}}}\n"
        ),
        [],
    ),
    "emit and listen": (
        document(
            "  - say:\n      emit: {event: {with: {type: T, source: 'http://s', data: {n: '${ .n }'}}}}\n"
            "      output: {as: '${ .data }'}\n"
            "  - hear:\n      listen: {to: {one: {with: {type: T}}}}\n"
        ),
        [],
    ),
    "emit what is no event": (
        document("  - say:\n      emit: {event: {with: {type: T, source: 'http://s', time: '${ \"yesterday\" }'}}}\n"),
        [],
    ),
}


class LateSink:
    """The bus of an engine that is made after its performers."""

    def __init__(self) -> None:
        self.emit: Callable[..., Any]


def typed(value: Any, number: int) -> Any:
    """A document or an event with a type of its scenario's own."""
    if isinstance(value, str):
        return value.replace("type: T", f"type: s{number}")
    name = f"s{number}" if value["type"] == "t" else f"s{number}-{value['type']}"
    return value | {"type": name, "id": f"{name}-{value['id']}"}


async def listening(engine: WorkerEngine, *execution_ids: str) -> None:
    """Until executions wait for events, or have ended."""
    deadline_s = monotonic_s() + TIMEOUT_S
    for execution_id in execution_ids:
        while True:
            view = await engine.get(execution_id)
            if "event" in view.waiting or view.status in ENDED:
                break
            assert monotonic_s() < deadline_s, view
            await asyncio.sleep(0.02)


async def ended(engine: WorkerEngine, execution_id: str) -> ExecutionView:
    return await until_status(engine, execution_id, *ENDED, timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


def outcome(view: ExecutionView) -> tuple[Any, ...]:
    return view.status, view.output_json, view.error, view.last_sequence


@pytest.mark.parametrize(
    ("history_events_max", "bus_events_max"), [(limits.TEMPORAL_HISTORY_EVENTS_MAX, 60), (1, 2_000)]
)
async def test_equal_to_one_machine(address: str, tmp_path: Path, history_events_max: int, bus_events_max: int) -> None:
    """Outcome, output and events of each way to listen are those of the embedded engine, however often histories are
    continued; each history can be replayed."""
    late = LateSink()
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(cluster_on(address))
        engine = await stack.enter_async_context(
            cluster.engine(history_events_max=history_events_max, bus_events_max=bus_events_max)
        )
        local = await stack.enter_async_context(
            engine_on(tmp_path, opened(), performers={"emit": Emit(late, Metrics())})
        )
        late.emit = bus_of(local).emit
        ids = {name: f"{cluster.queue}-{number}" for number, name in enumerate(SCENARIOS)}
        for each in (engine, local):
            for number, (name, (text, _)) in enumerate(SCENARIOS.items()):
                await each.submit(submission(ids[name], typed(text, number), input_json=b'{"n": 2}'))
            await listening(each, *ids.values())
        for number, (_, sent) in enumerate(SCENARIOS.values()):
            if sent:
                events = [typed(each, number) for each in sent]
                await engine.events_door.publish(events, None)
                await bus_of(local).publish(events, None)
        for name, execution_id in ids.items():
            assert outcome(await ended(engine, execution_id)) == outcome(await ended(local, execution_id)), name
            assert await reported(cluster, execution_id) == shown(await all_events(local, execution_id)), name
        await replays(engine, *ids.values())


async def replays(engine: "TemporalEngine", *ids: str) -> None:
    """Replays the latest histories of executions, and that of the bus."""
    from fastrunner.engine.temporal.event_messages import bus_id_of

    await replayed(engine._client, *ids, bus_id_of(engine._task_queue))


FOREVER = document(
    "  - hear:\n      listen: {to: {any: [{with: {type: t}}], until: {one: {with: {type: stop}}}}}\n"
    "      foreach:\n        item: e\n        do:\n          - note: {set: {n: '${ $e.n }'}}\n"
    "        output: {as: .n}\n"
)


async def test_an_event_from_before_is_heard_once(address: str) -> None:
    """Whoever begins to listen is offered what is kept, but for what its execution has had."""
    twice = document(
        "  - first:\n      listen: {to: {one: {with: {type: t}}}}\n"
        "  - second:\n      listen: {to: {one: {with: {type: t}}}}\n"
    )
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        await engine.events_door.publish([event(1)], None)
        ids = [f"{cluster.queue}-{number}" for number in range(2)]
        for execution_id in ids:
            await engine.submit(submission(execution_id, twice))
        deadline_s = monotonic_s() + TIMEOUT_S
        while not all(["second" in (await engine.get(each)).waiting for each in ids]):
            assert monotonic_s() < deadline_s
            await asyncio.sleep(0.02)
        await engine.events_door.publish([event(1), event(2)], None)
        for execution_id in ids:
            assert orjson.loads((await ended(engine, execution_id)).output_json) == [{"n": 2}]


async def test_a_paused_execution_takes_nothing(address: str) -> None:
    """And more than has room in it meanwhile is heard when it goes on, in order."""
    size_bytes = limits.TEMPORAL_INBOX_SIZE_BYTES_MAX // 2
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, FOREVER))
        await listening(engine, execution_id)
        await engine.pause(execution_id, "lunch")
        for n in range(6):
            await engine.events_door.publish([event(n, data={"n": n, "more": "x" * size_bytes})], None)
        before = await engine.get(execution_id)
        await engine.resume(execution_id, "back")
        assert before.status == "paused"
        await engine.events_door.publish([event(6), event(7, "stop")], None)
        view = await ended(engine, execution_id)
        assert orjson.loads(view.output_json) == [0, 1, 2, 3, 4, 5, 6]


async def test_a_cancel_ends_listening(address: str) -> None:
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        ids = [f"{cluster.queue}-{number}" for number in range(2)]
        for execution_id, force in zip(ids, (False, True), strict=True):
            await engine.submit(submission(execution_id, FOREVER))
            await listening(engine, execution_id)
            await engine.cancel(execution_id, "enough", force)
            assert (await ended(engine, execution_id)).status == "cancelled"
            await reported(cluster, execution_id)
        await replays(engine, *ids)


async def test_events_are_refused_as_on_one_machine(address: str) -> None:
    """What is none, or too large, is refused with a sentence, and then nothing of the call was taken."""
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        with pytest.raises(InvalidRequest, match=r"events\[1\]\.time"):
            await engine.events_door.publish([event(1), event(2, time="yesterday")], None)
        large = [event(n, data="x" * 200_000) for n in range(3)]
        with pytest.raises(TooLarge, match="send several requests"):
            await engine.events_door.publish(large, None)
        first = await engine.events_door.emit(event(1, data="first"))
        assert (await engine.events_door.emit(event(1, data="again"))) == first


async def test_a_bus_that_somebody_has_ended_begins_anew(address: str) -> None:
    from fastrunner.engine.temporal.event_messages import bus_id_of

    async with cluster_on(address) as cluster, cluster.engine() as engine:
        (before,) = await engine.events_door.publish([event(1)], None)
        assert engine._client is not None
        await engine._client.get_workflow_handle(bus_id_of(cluster.queue)).terminate("for a test")
        (after,) = await engine.events_door.publish([event(2)], None)
        assert after > before
        with pytest.raises(IdTaken):
            await engine.submit(submission(bus_id_of(cluster.queue), FOREVER))


async def test_numbers_are_the_same_in_every_replay(address: str) -> None:
    """Those of events that come when the bus has begun and done nothing yet, too: whoever has heard a number that a
    replay makes larger hears nothing that follows."""
    async with cluster_on(address) as cluster, cluster.engine(workflows_cached_max=0) as engine:
        execution_id = f"{cluster.queue}-1"
        # The bus has taken its first task a while before.
        await asyncio.sleep(0.5)
        before = [await engine.events_door.publish([event(n)], None) for n in range(3)]
        assert [await engine.events_door.publish([event(n)], None) for n in range(3)] == before
        await engine.submit(submission(execution_id, FOREVER))
        await listening(engine, execution_id)
        await engine.events_door.publish([event(3), event(4, "stop")], None)
        view = await ended(engine, execution_id)
        assert orjson.loads(view.output_json) == [0, 1, 2, 3]


async def test_many_who_publish_cost_few_updates(address: str) -> None:
    """What comes while an update is under way is the next one, up to so many calls."""
    from fastrunner.engine.temporal.event_messages import Publishing, bus_id_of

    count = 2 * limits.TEMPORAL_BUS_CALLS_MAX + 10
    async with cluster_on(address) as cluster, cluster.engine() as engine:
        keys = await asyncio.gather(*(engine.events_door.publish([event(n)], None) for n in range(count)))
        assert len({key for (key,) in keys}) == count
        assert engine._client is not None
        history = await engine._client.get_workflow_handle(bus_id_of(cluster.queue)).fetch_history()
        calls = []
        for each in history.events:
            if each.HasField("workflow_execution_update_accepted_event_attributes"):
                request = each.workflow_execution_update_accepted_event_attributes.accepted_request
                converter = engine._client.data_converter
                (given,) = await converter.decode(request.input.args.payloads, [Publishing])
                calls.append(len(given.calls))
        assert sum(calls) == count
        assert max(calls) == limits.TEMPORAL_BUS_CALLS_MAX
        assert len(calls) <= 5


async def test_without_a_worker_nobody_waits_for_the_bus_for_long(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TEMPORAL_PUBLISH_S_MAX", 2.0)
    async with cluster_on(address) as cluster, cluster.engine(works=False) as engine:
        began_s = monotonic_s()
        with pytest.raises(Unavailable, match="no worker"):
            await engine.events_door.publish([event(1)], None)
        assert monotonic_s() - began_s >= limits.TEMPORAL_PUBLISH_S_MAX - 1


@pytest.mark.parametrize("mode", ["structured", "batch"])
async def test_what_is_emitted_reaches_its_sinks(address: str, mode: str) -> None:
    """In order, through trouble, past an event that is at fault; what others send does not."""
    async with receiving() as receiver:
        receiver.answer = lambda ids: 500 if len(receiver.attempts) < 2 else 400 if "3" in ids else 202
        urls = f"{mode}:http://me:a-password@127.0.0.1:{receiver.port}/in"
        async with cluster_on(address) as cluster, cluster.engine(sinks=urls) as engine:
            await engine.events_door.publish([event(9)], None)
            for n in range(5):
                await engine.events_door.emit(event(n, id=str(n)))
            await until(lambda: len(receiver.taken) >= 4, "events at the sink", TIMEOUT_S)
            assert list(dict.fromkeys(receiver.taken)) == ["0", "1", "2", "4"]
            assert engine._client is not None
            names = list(engine.events_door.sinks)
            assert len(names) == 1
            history = await engine._client.get_workflow_handle(f"{cluster.queue}-sink-{names[0]}").fetch_history()
            assert "a-password" not in history.to_json()
