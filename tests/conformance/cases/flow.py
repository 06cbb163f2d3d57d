"""Support: examples of control flow and data, which need nobody else or a plain host."""

from collections.abc import Sequence

from tests.conformance.cases import Case, Completed, Failed, error_type, event

__all__ = ["CASES"]

_PETSTORE = "https://petstore.swagger.io/v2/pet"
_NO_PET_ID = "the second task's input is the pet, which has no `petId`: the name in its URI becomes nothing"
_PET = {"id": 1, "name": "Pet 1", "status": "available"}
_SOLD = {**_PET, "status": "sold"}
_SOLD_TEXT = '{"id":1,"name":"Pet 1","status":"sold"}'
_NOT_FOUND = {
    "type": error_type("communication"),
    "status": 404,
    "title": "Not Found",
    "detail": "GET petstore.swagger.io: the response has status 404",
    "instance": "/do/0/tryGetPet/try/0/getPet",
}
_NOT_IMPLEMENTED = {
    "type": "https://serverlessworkflow.io/errors/not-implemented",
    "status": 500,
    "title": "Not Implemented",
    "detail": "The workflow 'raise-not-implemented:0.1.0' is a work in progress and cannot be run yet",
    "instance": "/do/0/notImplemented",
}
_FORBIDDEN = {
    "type": "https://superbet-casinos.com/customer/access-forbidden",
    "status": 400,
    "title": "Access Forbidden",
    "instance": "/do/0/raiseErrorIfUnderage",
}
_NO_TEXT = {
    "type": error_type("expression"),
    "status": 400,
    "title": "Expression Error",
    "instance": "/do/0/callHttp",
}
_TRIGGER = "io.serverlessworkflow.samples.events.trigger.v1"
_COLORS = [{"name": "red", "hex": "#FF0000"}, {"name": "green", "hex": "#00FF00"}, {"name": "blue", "hex": "#0000FF"}]
_HEARTBEAT = {"patient": {"id": "p", "name": "Ann", "room": {"number": 7}, "vitals": {"bpm": 31}}, "timestamp": "t"}
_ALERT = (
    '{"patientId":null,"patientName":null,"roomNumber":null,"vitals":{"heartRate":null,"timestamp":null},'
    '"message":"Alert: Patient\'s heartbeat is critically low. Immediate attention required."}'
)

CASES: Sequence[Case] = (
    Case(
        "conditional-task",
        Completed({"taken": "/api/bet/on/football"}),
        shows="a customer of age",
        fault="`.customer` and `.bet` in its body are text: in `strict` mode a value is an expression in `${ }` alone",
        input={"customer": {"age": 18}, "bet": 5},
        asked=['POST https://superbet-casinos.com/api/bet/on/football {"customer":".customer","bet":".bet"}'],
    ),
    Case("conditional-task", Failed(_FORBIDDEN), shows="a minor", input={"customer": {"age": 17}, "bet": 5}),
    Case(
        "do-multiple",
        Completed(_SOLD),
        fault=_NO_PET_ID,
        input={"petId": 1},
        asked=[f"GET {_PETSTORE}/1", f"PUT {_PETSTORE}/ {_SOLD_TEXT}"],
    ),
    Case("do-single", Completed(_PET), input={"petId": 1}, asked=[f"GET {_PETSTORE}/1"]),
    Case("for-inline-array", Completed({"processed": _COLORS})),
    Case(
        "fork",
        Completed({"alerted": "doctor"}),
        shows="nobody answers for the nurses",
        input={"patient": {"fullName": "Ann"}, "room": {"number": 7}},
        asked=[
            f'PUT https://fake-hospital.com/api/v3/alert/{who} {{"patientId":"Ann","room":7}}'
            for who in ("nurses", "doctor")
        ],
        is_asked_at_once=True,
    ),
    Case(
        "mock-service-extension",
        Failed(_NO_TEXT),
        fault="its `when` asks an endpoint that is an object how it starts, which only text does: to go on with other "
        'endpoints, it would say `($task.with.endpoint | type) == "string"`',
    ),
    Case("raise-inline", Failed(_NOT_IMPLEMENTED)),
    Case("raise-reusable", Failed(_NOT_IMPLEMENTED)),
    Case(
        "schedule-cron",
        Completed({"taken": "/api/v1/backup/start"}),
        shows="one midnight",
        asked=["POST https://example.com/api/v1/backup/start"],
    ),
    Case(
        "schedule-event-driven",
        Completed({"taken": "/api/v1/notify"}),
        fault="it looks for `data` in what a schedule hands over, which is the event's data unless `schedule.read` is "
        "`envelope`: everything that it tells the nurse of the patient is null",
        events=[event(1, "com.example.hospital.events.patients.heartbeat.low", _HEARTBEAT)],
        asked=[f"POST https://hospital.example.com/api/v1/notify {_ALERT}"],
    ),
    Case("set-expression", Completed({"a": [1]}), events=[event(1, _TRIGGER, {"a": [1]})]),
    Case("set", Completed({"startEvent": {"a": [1]}}), events=[event(1, _TRIGGER, {"a": [1]})]),
    Case(
        "switch-then-string",
        Completed({"validate": True, "status": "fulfilled"}),
        shows="an electronic order",
        input={"orderType": "electronic"},
    ),
    Case(
        "switch-then-string",
        Completed({"inventory": "clear", "items": 1, "address": "Elmer St"}),
        shows="a physical one",
        input={"orderType": "physical"},
    ),
    Case(
        "switch-then-string",
        Completed({"log": "warn", "message": "something's wrong"}),
        shows="another one",
        input={"orderType": "odd"},
    ),
    *(
        Case(
            name,
            Completed(_PET),
            shows="the host is busy twice",
            input={"petId": 1},
            busy_count={"/v2/pet/1": 2},
            asked=[f"GET {_PETSTORE}/1"] * 3,
        )
        for name in ("try-catch-retry-inline", "try-catch-retry-reusable")
    ),
    Case(
        "try-catch-retry-inline",
        Failed({"type": error_type("communication"), "status": 503, "instance": "/do/0/tryGetPet/try/0/getPet"}),
        shows="the host stays busy: five retries",
        input={"petId": 1},
        busy_count={"/v2/pet/1": 6},
        asked=[f"GET {_PETSTORE}/1"] * 6,
    ),
    Case(
        "try-catch-then-directive",
        Completed({"status": "failed"}),
        shows="the service is unavailable",
        busy_count={"/api": 1},
        asked=["GET https://external-service.example.com/api"],
    ),
    Case(
        "try-catch-then-directive",
        Completed({"status": "ok"}),
        shows="the service answers",
        asked=["GET https://external-service.example.com/api"],
    ),
    Case(
        "try-catch-then",
        Completed({"error": "$error"}),
        shows="no such pet",
        fault="`$error` in `set` is text: in `strict` mode a value is an expression in `${ }` alone",
        input={"petId": 9},
        asked=[f"GET {_PETSTORE}/9"],
        emitted=[
            {
                "specversion": "1.0",
                "source": "https://petstore.swagger.io",
                "type": "io.swagger.petstore.events.pets.not-found.v1",
                "data": _NOT_FOUND,
            }
        ],
    ),
    Case(
        "try-catch-then",
        Completed(_SOLD),
        shows="a pet",
        fault=_NO_PET_ID,
        input={"petId": 1},
        asked=[f"GET {_PETSTORE}/1", f"PUT {_PETSTORE}/ {_SOLD_TEXT}"],
    ),
    Case("try-catch", Completed({"petId": 9}), shows="no such pet", input={"petId": 9}, asked=[f"GET {_PETSTORE}/9"]),
    Case("try-catch", Completed(_PET), shows="a pet", input={"petId": 1}, asked=[f"GET {_PETSTORE}/1"]),
    Case("wait-duration-inline", Completed({"a": 1}), input={"a": 1}),
    Case("wait-duration-iso8601", Completed({"a": 1}), input={"a": 1}),
)
