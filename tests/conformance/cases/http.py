"""Support: examples of calls over HTTP, with whatever proves who calls, and of functions."""

from collections.abc import Sequence
from typing import Any

from tests.conformance.cases import Case, Completed

__all__ = ["CASES", "SECRETS"]

_PETSTORE = "https://petstore.swagger.io/v2/pet"
_KEYCLOAK = "http://keycloak/realms/fake-authority"
_PEOPLE = "https://swapi.dev/api/people"
_CLIENT = {"id": "workflow-runtime-id", "secret": "workflow-runtime-secret"}
_FORM = "grant_type=client_credentials&client_id=workflow-runtime-id&client_secret=workflow-runtime-secret"

SECRETS = {"mySecret": {"authority": _KEYCLOAK, "grant": "client_credentials", "client": _CLIENT}}
"""What the examples name."""


def _pet(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"Pet {number}", "status": "available"}


def _token(path: str) -> str:
    return f"POST {_KEYCLOAK}{path} {_FORM}"


def _pet_with(token: str) -> str:
    return f"GET {_PETSTORE}/1 [Bearer {token}]"


_LUKE = {"name": "Luke Skywalker", "homeworld": "https://swapi.dev/api/planets/1/"}
_FOUND = {"count": 1, "results": [_LUKE]}
_DISCOVERY = f"GET {_KEYCLOAK}/.well-known/openid-configuration"

CASES: Sequence[Case] = (
    *(
        Case(name, Completed(_pet(1)), input={"petId": 1, "token": "abc"}, asked=[_pet_with("abc")])
        for name in ("authentication-bearer", "authentication-bearer-uri-format", "authentication-reusable")
    ),
    Case(
        "authentication-oauth2-secret",
        Completed(_pet(1)),
        input={"petId": 1},
        asked=[_token("/oauth2/token"), _pet_with("/oauth2/token")],
    ),
    Case(
        "authentication-oauth2",
        Completed(_pet(1)),
        input={"petId": 1},
        asked=[_token("/auth/token"), _pet_with("/auth/token")],
    ),
    *(
        Case(name, Completed(_pet(1)), input={"petId": 1}, asked=[_DISCOVERY, _token("/token"), _pet_with("/token")])
        for name in ("authentication-oidc-secret", "authentication-oidc")
    ),
    Case(
        "call-custom-function-cataloged",
        Completed({"logged": "{TIMESTAMP} [information] ({CONTEXT}): Hello, world!"}),
        asked=[
            "GET https://raw.githubusercontent.com/serverlessworkflow/catalog/main/functions/log/1.0.0/function.yaml"
        ],
    ),
    Case("call-custom-function-inline", Completed(_pet(69)), asked=[f"GET {_PETSTORE}/69"]),
    *(
        Case(name, Completed(_pet(2)), input={"petId": 2}, asked=[f"GET {_PETSTORE}/2"])
        for name in ("call-http-endpoint-interpolation", "call-http-endpoint-interpolation-shorthand")
    ),
    *(
        Case(name, Completed(_FOUND), input={"searchQuery": "Luke"}, asked=[f"GET {_PEOPLE}/?search=Luke"])
        for name in ("call-http-query-headers-expressions", "call-http-query-parameters")
    ),
    Case(
        "call-http-redirect",
        Completed(_FOUND),
        shows="the host has moved",
        input={"searchQuery": "Luke"},
        moved={"/api/people/?search=Luke": "/api/people/?search=Luke&page=1"},
        asked=[f"GET {_PEOPLE}/?search=Luke", f"GET {_PEOPLE}/?search=Luke&page=1"],
    ),
    Case(
        "star-wars-homeworld",
        Completed({"name": "Tatooine"}),
        input={"id": 1},
        asked=[f"GET {_PEOPLE}/1", "GET https://swapi.dev/api/planets/1/"],
    ),
)
