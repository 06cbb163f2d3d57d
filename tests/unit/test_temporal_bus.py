"""The bus of Temporal's events, and what an execution hears of it, as pure state: without a server."""

import asyncio
import random
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import orjson

from fastrunner._core import Subscribe, Walk
from fastrunner._core import compile as compiled
from fastrunner.base import limits
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

from temporalio.testing import ActivityEnvironment  # noqa: E402 - with the extra

from fastrunner.engine.temporal.bus import Bus  # noqa: E402
from fastrunner.engine.temporal.event_messages import (  # noqa: E402
    BusStart,
    Change,
    Delivery,
    Heard,
    HeardEvent,
    Published,
    Receipt,
    Registration,
    SinkStart,
    Target,
)
from fastrunner.engine.temporal.events import EventActivities  # noqa: E402
from fastrunner.engine.temporal.listening import Listening  # noqa: E402
from fastrunner.engine.temporal.sinks import SinkWorkflow  # noqa: E402

RETENTION_MS = 600_000
NOW_MS = 1_000


def filter_of(tasks: str) -> Any:
    """What the first task of a document listens for."""
    head = "document: {dsl: 1.0.3, namespace: tests, name: test, version: 1.0.0}\ndo:\n"
    _, turn = Walk.start(compiled(head + tasks), "x", {}, NOW_MS)
    (asked,) = [action for action in turn.actions if isinstance(action, Subscribe)]
    return asked.filter


def of_type(name: str) -> Any:
    return filter_of(f"- hear: {{listen: {{to: {{one: {{with: {{type: {name}}}}}}}}}}}\n")


def event(number: int, name: str = "t", *, size_bytes: int = 0, **more: Any) -> str:
    given = {"specversion": "1.0", "id": str(number), "source": "/s", "type": name, "data": "x" * size_bytes}
    return orjson.dumps(given | more).decode()


def publish(bus: Bus, *events: str, now_ms: int = NOW_MS, **more: Any) -> Receipt:
    return bus.publish(Published(list(events), **more), RETENTION_MS, now_ms)


def listen(bus: Bus, listener_id: str, *changes: Change, namespace: str = "tests") -> Receipt:
    return bus.listen(Registration(listener_id, namespace, list(changes)))


def delivered(bus: Bus, gone: Sequence[str] = ()) -> list[Delivery]:
    """Everything there is to deliver."""
    found = []
    while bus.has_more:
        delivery = bus.delivery()
        if delivery is not None:
            found.append(delivery)
            bus.settle(gone)
    return found


def heard_by(deliveries: Sequence[Delivery], listener_id: str) -> list[int]:
    return [
        key
        for delivery in deliveries
        for target in delivery.targets
        if target.listener_id == listener_id
        for key, _ in target.events
    ]


def test_whoever_listens_hears_what_matches_in_order_whenever_it_began() -> None:
    """Whatever comes between what: each listener is told of each event that is for it once, in their order."""
    chance = random.Random(7)
    filters = {name: of_type(name) for name in ("a", "b", "c")}
    bus, published = Bus(BusStart(), NOW_MS), list[tuple[int, str]]()
    wanted, heard = dict[str, str](), dict[str, list[int]]()
    pending: Delivery | None = None
    for number in range(600):
        step = chance.randrange(6)
        if step == 0 and len(wanted) < 40:
            wanted[f"l{number}"] = name = chance.choice("abc")
            listen(bus, f"l{number}", Change(1, filters[name]))
        elif step < 3:
            names = [chance.choice("abcd") for _ in range(chance.randrange(1, 4))]
            receipt = publish(bus, *(event(10 * number + at, name) for at, name in enumerate(names)))
            published += zip(receipt.keys, names, strict=True)
        elif step == 3 and pending is None:
            bus = Bus(bus.continued(), NOW_MS)
        elif pending is not None:
            bus.settle(())
            pending = None
        else:
            pending = bus.delivery()
            for target in pending.targets if pending is not None else ():
                heard.setdefault(target.listener_id, []).extend(key for key, _ in target.events)
    if pending is not None:
        bus.settle(())
    rest = delivered(bus)
    for listener_id, name in wanted.items():
        found = [*heard.get(listener_id, []), *heard_by(rest, listener_id)]
        assert found == [key for key, of in published if of == name], listener_id


def test_duplicates_are_known() -> None:
    bus = Bus(BusStart(), NOW_MS)
    first = publish(bus, event(1, time="2026-01-01T00:00:00Z"))
    again = publish(bus, event(1), event(2), wants_first=True)
    assert (again.keys[0], again.are_new) == (first.keys[0], [False, True])
    again = publish(Bus(bus.continued(), NOW_MS), event(1), wants_first=True)
    assert orjson.loads(again.first)["time"] == "2026-01-01T00:00:00Z"
    later = publish(bus, event(3), now_ms=NOW_MS + RETENTION_MS)
    assert publish(bus, event(1), now_ms=NOW_MS + RETENTION_MS).are_new == later.are_new == [True]


def test_as_many_duplicates_are_known_as_may() -> None:
    bus, count = Bus(BusStart(), NOW_MS), limits.TEMPORAL_BUS_KNOWN_COUNT_MAX
    for begin in range(0, count + 1, 1000):
        publish(bus, *(event(number) for number in range(begin, min(begin + 1000, count + 1))))
        delivered(bus)
    assert publish(bus, event(1), event(count)).are_new == [False, False]
    assert publish(bus, event(0)).are_new == [True]


def test_events_of_namespaces_reach_those() -> None:
    bus, wanted = Bus(BusStart(), NOW_MS), Change(1, of_type("t"))
    listen(bus, "in", wanted, namespace="shop")
    listen(bus, "out", wanted, namespace="other")
    publish(bus, event(1), namespaces=["shop"])
    found = delivered(bus)
    assert (len(heard_by(found, "in")), heard_by(found, "out")) == (1, [])


def test_who_is_gone_is_forgotten() -> None:
    bus = Bus(BusStart(), NOW_MS)
    listen(bus, "x", Change(1, of_type("t")))
    publish(bus, event(1))
    assert delivered(bus, gone=["x"]) != []
    publish(bus, event(2))
    assert delivered(bus) == []


def test_what_is_not_heard_yet_keeps_new_events_out() -> None:
    """And what has been heard makes room, the oldest first."""
    bus, size_bytes = Bus(BusStart(), NOW_MS), limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX // 4
    listen(bus, "x", Change(1, of_type("t")))
    for number in range(3):
        assert publish(bus, event(number, size_bytes=size_bytes)).refusal == ""
    assert "try again" in publish(bus, event(3, size_bytes=size_bytes)).refusal
    assert len(heard_by(delivered(bus), "x")) == 3
    assert publish(bus, event(3, size_bytes=size_bytes)).refusal == ""
    listen(bus, "late", Change(1, of_type("t")))
    found = delivered(bus)
    assert len(heard_by(found, "late")) == 3
    # Small ones take some room, too.
    small = [event(number) for number in range(10, 10 + size_bytes * 4 // limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES)]
    assert publish(bus, *small).refusal != ""


def test_what_is_for_nobody_keeps_nothing_out() -> None:
    bus, size_bytes = Bus(BusStart(), NOW_MS), limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX // 4
    listen(bus, "x", Change(1, of_type("other")))
    assert [publish(bus, event(number, size_bytes=size_bytes)).refusal for number in range(9)] == [""] * 9
    publish(bus, event(9, "other"))
    assert len(heard_by(delivered(bus), "x")) == 1


def test_what_has_outlived_the_retention_is_not_offered() -> None:
    bus = Bus(BusStart(), NOW_MS)
    publish(bus, event(1))
    delivered(bus)
    publish(bus, event(2), now_ms=NOW_MS + RETENTION_MS)
    listen(bus, "x", Change(1, of_type("t")))
    assert len(heard_by(delivered(bus), "x")) == 1


def test_there_is_room_for_so_many_listeners() -> None:
    bus, wanted = Bus(BusStart(), NOW_MS), of_type("t" * 1000)
    size_bytes = len(orjson.dumps(wanted)) + limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES
    count = limits.TEMPORAL_BUS_LISTENERS_SIZE_BYTES_MAX // size_bytes
    for number in range(count):
        assert listen(bus, f"l{number}", Change(1, wanted)).refusal == ""
    assert "as much as may be" in listen(bus, "more", Change(1, wanted)).refusal
    listen(bus, "l0", Change(1))
    assert listen(bus, "more", Change(1, wanted)).refusal == ""
    assert len(bus.continued().state) < limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX


def test_a_delivery_is_bounded() -> None:
    """In whom it tells, in bytes, and in looks."""
    bus, wanted = Bus(BusStart(), NOW_MS), of_type("t")
    publish(bus, event(1))
    delivered(bus)
    for number in range(limits.TEMPORAL_DELIVERY_TARGETS_MAX + 1):
        listen(bus, f"l{number}", Change(1, wanted))
    assert [len(each.targets) for each in delivered(bus)] == [limits.TEMPORAL_DELIVERY_TARGETS_MAX, 1]

    bus = Bus(BusStart(), NOW_MS)
    listen(bus, "x", Change(1, wanted))
    for number in range(3):
        publish(bus, event(number, size_bytes=limits.TEMPORAL_DELIVERY_SIZE_BYTES_MAX // 2))
    assert [len(each.events) for each in delivered(bus)] == [2, 1]

    bus = Bus(BusStart(), NOW_MS)
    count = 300
    publish(bus, *(event(number) for number in range(count)))
    delivered(bus)
    listeners = limits.TEMPORAL_DELIVERY_LOOKS_MAX // count + 2
    elsewhere = of_type("elsewhere")
    for number in range(listeners):
        listen(bus, f"l{number}", Change(1, elsewhere))
    looks = 0
    while bus.has_more:
        assert bus.delivery() is None
        looks += 1
    assert looks == 2


class Counting:
    """A client that notes how many signals are on their way at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @property
    def client(self) -> "Counting":
        return self

    def get_workflow_handle(self, _: str) -> "Counting":
        return self

    async def signal(self, *_: Any, **__: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1


async def test_so_many_are_told_at_once() -> None:
    counting = Counting()
    activities = EventActivities(counting, None)  # type: ignore[arg-type]
    targets = [Target(f"l{number}", [[1, [[1, 0]]]]) for number in range(3 * limits.TEMPORAL_SIGNALS_AT_ONCE_MAX)]
    given = Delivery({"1": event(1)}, targets, 1)
    assert await ActivityEnvironment().run(activities.deliver, given) == []
    assert counting.most == limits.TEMPORAL_SIGNALS_AT_ONCE_MAX


def test_there_is_room_for_so_much_for_a_sink() -> None:
    sink, size_bytes = SinkWorkflow(SinkStart("x")), limits.TEMPORAL_SINK_SIZE_BYTES_MAX // 4
    sink.hear(Heard([HeardEvent(key, [[]], event(key, size_bytes=size_bytes)) for key in range(1, 6)]))
    sink.hear(Heard([HeardEvent(5, [[]], event(5, size_bytes=size_bytes))]))
    sending = sink._next()
    assert (orjson.loads(sending.events[0])["id"], sending.dropped_count) == ("3", 2)


# --- what an execution hears ---

FOREVER = "- hear: {listen: {to: {any: [{with: {type: t}}], until: '${ false }'}}}\n"


def walk_and_listening(tasks: str) -> tuple[Walk, Listening]:
    head = "document: {dsl: 1.0.3, namespace: tests, name: test, version: 1.0.0}\ndo:\n"
    walk, turn = Walk.start(compiled(head + tasks), "x", {}, NOW_MS)
    listening = Listening("")
    for action in turn.actions:
        assert isinstance(action, Subscribe)
        listening.subscribes(action, walk.last_sequence)
    return walk, listening


def hear(listening: Listening, change: Change, *keys: int, size_bytes: int = 0) -> None:
    subscription = [change.subscription_id, change.generation]
    items = [HeardEvent(key, [subscription], event(key, size_bytes=size_bytes)) for key in keys]
    listening.hear(Heard(items, 0))


def taken(walk: Walk, listening: Listening) -> list[str]:
    found = []
    while listening.has_event(walk) and (arrived := listening.take(walk)) is not None:
        found.append(arrived.event["id"])
        walk.resume(arrived, NOW_MS)
    return found


def test_what_is_delivered_again_is_heard_once() -> None:
    walk, listening = walk_and_listening(FOREVER)
    (change,) = listening.changes
    hear(listening, change, 1, 2)
    listening = Listening(listening.state())
    hear(listening, change, 1, 2, 3)
    assert taken(walk, listening) == ["1", "2", "3"]


def test_more_than_may_lie_here_is_offered_later() -> None:
    """What is passed over meanwhile, and what comes before the bus knows, is heard once and in order."""
    walk, listening = walk_and_listening(FOREVER)
    (first,) = listening.changes
    listening.changes = []
    size_bytes = limits.TEMPORAL_INBOX_SIZE_BYTES_MAX // 2
    hear(listening, first, 1, 2, 3, 4, size_bytes=size_bytes)
    assert taken(walk, listening) == ["1", "2"]
    (again,) = listening.changes
    assert (again.after_key, again.generation) == (2, first.generation + 1)
    hear(listening, first, 5)
    hear(listening, again, 3, 4, 5)
    assert taken(walk, listening) == ["3", "4", "5"]
