"""The specification's examples of events: each executes as the checklist reads it."""

from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import EffectResult, Plan, RenderFault, load
from fastrunner._core import compile as compile_document
from tests.core.documents import CONFORMANCE, needs_conformance
from tests.core.walking import Run, document, error_type

pytestmark = needs_conformance

VITALS = "com.fake-hospital.vitals.measurements."
HOT = {"type": f"{VITALS}temperature", "source": "/s", "id": "1", "specversion": "1.0", "data": {"temperature": 39}}
COOL = {**HOT, "data": {"temperature": 37}}
SLOW = {**HOT, "type": f"{VITALS}bpm", "data": {"bpm": 55}}
EVEN = {**SLOW, "data": {"bpm": 80}}
OUT = {**HOT, "type": "com.fake-hospital.patient.checked-out", "data": {"when": "now"}}


def text_of(name: str) -> bytes:
    return (CONFORMANCE / "examples" / f"{name}.yaml").read_bytes()


def started(name: str, input_: Any = None) -> Run:
    return Run(compile_document(text_of(name)), input_, restoring=True)


@pytest.mark.parametrize(
    ("name", "events", "expected"),
    [
        ("listen-to-all", [COOL, SLOW, EVEN, SLOW, HOT], [SLOW["data"], HOT["data"]]),
        ("listen-to-all read-envelope", [EVEN, HOT, SLOW], [HOT, SLOW]),
        ("listen-to-any-filter", [COOL, EVEN, SLOW], [SLOW["data"]]),
        ("listen-to-any", [OUT], [OUT["data"]]),
        # Its comment says three, its condition is true of four.
        (
            "listen-to-any-until-condition",
            [COOL, EVEN, OUT, HOT],
            [COOL["data"], EVEN["data"], OUT["data"], HOT["data"]],
        ),
        ("listen-to-any-until-consumed", [HOT, COOL, SLOW, OUT], [HOT["data"], SLOW["data"]]),
    ],
)
def test_listen(name: str, events: list[dict[str, Any]], expected: list[Any]) -> None:
    run = started(name)
    for event in events:
        assert run.status == "running"
        run.publish(event)
    assert run.output == expected


def test_what_follows_a_listen_has_its_array() -> None:
    run = started("listen-to-one")
    run.publish({**OUT, "type": "com.virtual-wf-powered-race.events.race.started.v1", "data": {"carId": 5}})
    (effect,) = run.open.values()
    # A list has no members for the variable of the example's URI.
    with pytest.raises(RenderFault):
        run.arguments(effect)
    assert run.started == ["waitForStartup", "startup"]


def test_endless_listen_runs_its_tasks_for_each_event() -> None:
    run = started("listen-to-any-forever-foreach", {"roomId": "r"})
    for number in range(3):
        run.publish({**OUT, "data": {"n": number}})
        (effect,) = run.open.values()
        run.resume(EffectResult(effect.effect_id, None))
    assert run.status == "running"
    assert [list(event.iteration) for event in run.events if event.event_type == "task_started"] == [[], [0], [1], [2]]


def test_readings_of_one_room() -> None:
    """The example goes on with a call that is not executed; its listen alone."""
    task = load(text_of("accumulate-room-readings"))["do"][0]["consumeReading"]
    run = Run(plan_with({key: value for key, value in task.items() if key != "output"}), restoring=True)
    base = {"source": "https://my.home.com/sensor", "id": "1", "specversion": "1.0"}
    for kind, room, value in (("temperature", "1", 20), ("humidity", "2", 50), ("humidity", "1", 60)):
        assert run.status == "running"
        run.publish({**base, "type": f"my.home.sensors.{kind}", "roomid": room, "data": {"reading": value}})
    assert run.output == [{"reading": 20}, {"reading": 60}]


def test_listen_in_a_loop() -> None:
    """The example's `output.as` takes the array for an object, which is its fault."""
    run = started("for", {"vet": "v", "pets": [{"id": 1}]})
    run.publish({**OUT, "type": "com.fake.petclinic.pets.checkup.completed.v2"})
    assert run.error["type"] == error_type("expression")
    assert run.started == ["checkup", "waitForCheckup"]


def plan_with(task: dict[str, Any]) -> Plan:
    return compile_document(document([{"l": task}]))


def test_emit() -> None:
    run = started("emit")
    (effect,) = run.open.values()
    assert run.arguments(effect)["event"] == {
        "specversion": "1.0",
        "source": "https://petstore.com",
        "type": "com.petstore.order.placed.v1",
        "data": {
            "client": {"firstName": "Cruella", "lastName": "de Vil"},
            "items": [{"breed": "dalmatian", "quantity": 101}],
        },
    }


def test_every_example_with_events_is_here() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (CONFORMANCE / "examples").glob("*.yaml")}
    listening = {name for name, text in texts.items() if "listen:" in text}
    assert listening == {
        *("listen-to-all", "listen-to-all read-envelope", "listen-to-any", "listen-to-any-filter", "listen-to-one"),
        *("listen-to-any-forever-foreach", "listen-to-any-until-condition", "listen-to-any-until-consumed"),
        *("accumulate-room-readings", "for"),
    }
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{name}"' in here for name in listening)
