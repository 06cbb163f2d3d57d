"""Support: examples that listen, and that emit."""

from collections.abc import Sequence
from typing import Any

from tests.conformance.cases import Case, Completed, Failed, Listening, error_type, event

__all__ = ["CASES"]

_VITALS = "com.fake-hospital.vitals.measurements."
_HOT = event(1, f"{_VITALS}temperature", {"temperature": 39})
_COOL = event(2, f"{_VITALS}temperature", {"temperature": 37})
_SLOW = event(3, f"{_VITALS}bpm", {"bpm": 55})
_EVEN = event(4, f"{_VITALS}bpm", {"bpm": 80})
_FAST = event(5, f"{_VITALS}bpm", {"bpm": 120})
_OUT = event(6, "com.fake-hospital.patient.checked-out", {"when": "now"})
_PLACED = {
    "specversion": "1.0",
    "source": "https://petstore.com",
    "type": "com.petstore.order.placed.v1",
    "data": {
        "client": {"firstName": "Cruella", "lastName": "de Vil"},
        "items": [{"breed": "dalmatian", "quantity": 101}],
    },
}
_INDEXES = "its `output.as` takes what was heard, a list, for an object"


def _reading(number: int, kind: str, room: str, value: int) -> dict[str, Any]:
    attributes = {"source": "https://my.home.com/sensor", "roomid": room}
    return event(number, f"my.home.sensors.{kind}", {"reading": value}, **attributes)


CASES: Sequence[Case] = (
    Case(
        "accumulate-room-readings",
        Failed({"type": error_type("expression"), "status": 400, "instance": "/do/0/consumeReading"}),
        shows="the first two readings of one room",
        fault=_INDEXES,
        events=[
            _reading(1, "temperature", "1", 20),
            _reading(2, "humidity", "2", 50),
            _reading(3, "humidity", "1", 60),
        ],
    ),
    Case("emit", Completed(_PLACED, frozenset({"id", "time"})), emitted=[_PLACED]),
    Case(
        "for",
        Failed({"type": error_type("expression"), "status": 400, "instance": "/do/0/checkup/do/0/waitForCheckup"}),
        fault=_INDEXES,
        input={"vet": "v", "pets": [{"id": 1}]},
        events=[event(1, "com.fake.petclinic.pets.checkup.completed.v2", {})],
    ),
    Case("listen-to-all", Completed([_SLOW["data"], _HOT["data"]]), events=[_COOL, _SLOW, _EVEN, _FAST, _HOT]),
    Case("listen-to-all read-envelope", Completed([_HOT, _SLOW]), events=[_EVEN, _HOT, _SLOW]),
    Case("listen-to-any-filter", Completed([_SLOW["data"]]), events=[_COOL, _EVEN, _SLOW]),
    Case(
        "listen-to-any-forever-foreach",
        Listening(),
        input={"roomId": "r"},
        events=[event(number, "gossip", {"roomId": number}) for number in (1, 2)],
        asked=[f'POST https://fake-chat-api.com/room/{number} {{"event":{{"roomId":{number}}}}}' for number in (1, 2)],
    ),
    Case(
        "listen-to-any-until-condition",
        Completed([_COOL["data"], _EVEN["data"], _OUT["data"], _HOT["data"]]),
        fault="its comment says three events, and its condition is true of four",
        events=[_COOL, _EVEN, _OUT, _HOT],
    ),
    Case(
        "listen-to-any-until-consumed",
        Completed([_HOT["data"], _SLOW["data"]]),
        events=[_HOT, _COOL, _SLOW, _OUT],
    ),
    Case("listen-to-any", Completed([_OUT["data"]]), events=[_OUT]),
    Case(
        "listen-to-one",
        Failed({"type": error_type("expression"), "status": 400, "instance": "/do/1/startup"}),
        fault="the second task's input is what was heard, a list, which has no `carId` for its URI",
        events=[event(1, "com.virtual-wf-powered-race.events.race.started.v1", {"carId": 5})],
    ),
)
