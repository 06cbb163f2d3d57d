"""Stage 5, tasks: how an operation wants to know who calls, and where what proves it goes.

Rules: pure. A task's own `authentication` proves it; the document says no more than where, and which scopes a token
needs. Keys may be given like parameters.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastrunner.tasks.call_openapi.document import Document
from fastrunner.tasks.call_openapi.operation import Operation, Parameter, Requirement
from fastrunner.tasks.call_openapi.styles import Style

__all__ = ["place_of_token", "requirements", "with_scopes"]

_LOCATIONS: Final = ("query", "header", "cookie")
_TOKENS: Final = frozenset({"bearer", "oauth2", "oidc"})
"""Policies that yield a token."""
_SCOPED: Final = frozenset({"oauth2", "openIdConnect"})
_IN_AUTHORIZATION: Final = frozenset({"http", "basic", *_SCOPED})
"""Kinds of schemes that the Authorization header satisfies; `basic` is Swagger 2.0's."""


def requirements(document: Document, operation: Mapping[str, Any], schemes: Any) -> tuple[tuple[Requirement, ...], ...]:
    """The alternatives of an operation. Raises RequestProblem."""
    given = operation["security"] if "security" in operation else document.root.get("security")
    known = document.mapping(schemes, "security schemes")
    alternatives = []
    document.check_count(document.sequence(given, "security"), "an operation", "alternatives of security")
    for alternative in document.sequence(given, "security"):
        names = document.mapping(alternative, "security").items()
        document.check_count(names, "an operation", "security schemes")
        alternatives.append(tuple(_requirement(document, known.get(name), scopes) for name, scopes in names))
    return tuple(alternatives)


def _requirement(document: Document, scheme: Any, scopes: Any) -> Requirement:
    """A scheme that the document does not have is one that the runner knows nothing of."""
    members = document.mapping(document.resolved(scheme), "a security scheme")
    kind = document.text(members.get("type"), "type")
    key = None
    if kind == "apiKey":
        name, location = document.text(members.get("name"), "name"), members.get("in")
        if name and location in _LOCATIONS:
            style = Style("simple" if location == "header" else "form", explode=location != "header")
            key = Parameter(name, str(location), style, given_as=(name,), is_key=True)
    texts = (each for each in document.sequence(scopes, "scopes") if isinstance(each, str))
    return Requirement(kind, key, tuple(texts) if kind in _SCOPED else ())


def place_of_token(operation: Operation, policy: Mapping[str, Any], given: Mapping[str, Any]) -> Parameter | None:
    """Where the token of a task's policy goes if not into the Authorization header: where the operation wants keys and
    nothing else, and the task's parameters have none for that place."""
    if not operation.security or not _TOKENS & policy.keys():
        return None
    if any(not each or any(_is_in_authorization(one) for one in each) for each in operation.security):
        return None
    keys = [one.key for each in operation.security for one in each if one.key is not None]
    return next((key for key in keys if not any(given.get(name) is not None for name in key.given_as)), None)


def _is_in_authorization(requirement: Requirement) -> bool:
    """Whether the Authorization header of a policy satisfies it; Swagger 2.0 has no other word for a bearer token than
    a key there."""
    key = requirement.key
    if key is not None and key.location == "header" and key.name.lower() == "authorization":
        return True
    return requirement.kind in _IN_AUTHORIZATION


def with_scopes(operation: Operation, policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """A policy with the scopes that the operation needs, where it obtains a token and names none itself."""
    [(scheme, fields)] = policy.items()
    if scheme not in ("oauth2", "oidc") or not isinstance(fields, dict) or fields.get("scopes") is not None:
        return policy
    scopes = next((one.scopes for each in operation.security for one in each if one.scopes), ())
    return {scheme: {**fields, "scopes": list(scopes)}} if scopes else policy
