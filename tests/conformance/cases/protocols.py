"""Support: examples of calls that something describes, and of MCP servers."""

from collections.abc import Sequence
from typing import Any

from tests.conformance.cases import CLOSE, HOUR, Case, Completed, Failed, Listening, error_type

__all__ = ["CASES"]

_SWAGGER = "GET https://petstore.swagger.io/v2/swagger.json"
_AVAILABLE = "https://petstore.swagger.io/v2/pet/findByStatus?status=available"
_PETS = [{"id": number, "name": f"Pet {number}", "status": "available"} for number in (1, 2, 69)]

_DOCUMENT = "GET https://fake.com/docs/asyncapi.json"
_NOTIFICATIONS = "GET http://fake.com/notifications"
_NO_CONTEXT = "nothing sets `$context`, so only messages match that have no correlation and come from nobody"
_OF_ANN = {"from": {"firstName": "Ann"}}


def _message(**payload: int) -> dict[str, Any]:
    return {"payload": payload, "headers": {}, "correlationId": None}


def _numbers(*numbers: int) -> list[dict[str, Any]]:
    return [{"number": number} for number in numbers]


CASES: Sequence[Case] = (
    Case(
        "call-asyncapi-publish",
        Completed(_message(petId=1)),
        input={"pet": {"id": 1}, "token": "abc"},
        asked=[_DOCUMENT, 'POST http://fake.com/pets [Bearer abc] {"petId":1}'],
    ),
    Case(
        "call-asyncapi-subscribe-consume-amount",
        Completed([_message(number=number) for number in range(1, 6)]),
        fault=_NO_CONTEXT,
        notifications=[_OF_ANN, *_numbers(1, 2, 3, 4, 5, 6)],
        asked=[_DOCUMENT, _NOTIFICATIONS],
    ),
    Case(
        "call-asyncapi-subscribe-consume-forever-foreach",
        Listening(),
        fault=_NO_CONTEXT,
        notifications=[_OF_ANN, *_numbers(1, 2)],
        asked=[_DOCUMENT, _NOTIFICATIONS],
        emitted=[
            {
                "specversion": "1.0",
                "source": "https://open-workflow-specification.org/samples",
                "type": "io.serverlessworkflow.samples.asyncapi.message.consumed.v1",
                "data": {"message": _message(number=number)},
            }
            for number in (1, 2)
        ],
    ),
    Case(
        "call-asyncapi-subscribe-consume-until",
        Completed([_message(number=1)]),
        shows="the first message comes when half an hour has passed",
        fault=f"{_NO_CONTEXT}, and `until` never holds",
        moved={"/docs/asyncapi.json": "/docs/asyncapi-2.json"},
        notifications=[HOUR, *_numbers(1)],
        asked=[_DOCUMENT, "GET https://fake.com/docs/asyncapi-2.json", _NOTIFICATIONS],
    ),
    Case(
        "call-asyncapi-subscribe-consume-while",
        Failed({"type": error_type("communication"), "status": 500, "instance": "/do/0/getNotifications"}),
        shows="the service closes after seven messages",
        fault=f"{_NO_CONTEXT}, and `while` always holds",
        notifications=[*_numbers(*range(1, 8)), CLOSE],
        asked=[_DOCUMENT, _NOTIFICATIONS],
    ),
    Case("call-openapi", Completed(_PETS), asked=[_SWAGGER, f"GET {_AVAILABLE}"]),
    Case(
        "call-openapi-redirect",
        Completed(_PETS),
        shows="the host has moved",
        moved={"/v2/pet/findByStatus?status=available": "/v2/pet/findByStatus?status=available&page=1"},
        asked=[_SWAGGER, f"GET {_AVAILABLE}", f"GET {_AVAILABLE}&page=1"],
    ),
    Case(
        "call-grpc",
        Completed({"message": "Hello Ann"}),
        input={"user": {"preferredDisplayName": "Ann"}},
        asked=["SayHello Ann"],
        needs="greeter",
    ),
    Case(
        "call-mcp",
        Completed(
            {"content": [{"type": "text", "text": "conversations_add_message: Hello, world! :wave: in C1234567890"}]}
        ),
        needs="npx",
    ),
)
