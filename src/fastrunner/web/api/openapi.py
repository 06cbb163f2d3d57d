"""Support: `/openapi.json`: the HTTP API's description (OpenAPI 3.1), made of what serves it: operations and shapes."""

import re
from functools import cache
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fastrunner._version import __version__
from fastrunner.access.roles import Open
from fastrunner.web.api import shapes
from fastrunner.web.api.guard import WRITE_HEADER
from fastrunner.web.api.operations import Operation, Parameter, Stream, operations_of

__all__ = ["openapi_document"]

_REF: Final = "#/components/schemas/{model}"
_PLACES: Final = re.compile(r"\{(\w+)\}")
_REFUSALS: Final = {
    400: "What was sent is not what the operation takes.",
    401: "No or wrong credentials.",
    403: "The caller may not do this, or the request is not known to be meant.",
    404: "There is no such thing.",
    409: "What is there does not allow it.",
    413: "Too much was sent.",
    415: "What was sent is no JSON.",
    421: "The Host header names no host of this server.",
    429: "More than can be taken now: again after Retry-After seconds.",
    500: "The server failed.",
    503: "For the moment it cannot be answered: again after Retry-After seconds.",
}


@cache
def openapi_document(lacks: frozenset[str]) -> bytes:
    """The description, as JSON text, of what a backend serves that lacks some operations."""
    _, schemas = models_json_schema(
        [(getattr(shapes, name), "validation") for name in shapes.__all__ if _is_shape(name)], ref_template=_REF
    )
    paths: dict[str, Any] = {}
    for operation in operations_of(lacks):
        paths.setdefault(f"/api/v1{operation.path}", {})[operation.method.lower()] = _described(operation)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Workflows and executions",
            "version": __version__,
            "description": "What is kept of workflows and executions, live, and how to start and control them.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "fastrunner_*"},
            },
        },
        "security": [{"bearer": []}, {"session": []}, {}],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _is_shape(name: str) -> bool:
    return isinstance(getattr(shapes, name), type) and issubclass(getattr(shapes, name), BaseModel)


def _wanted(operation: Operation) -> str:
    if operation.role is Open.TO_ALL:
        return "Wants no credentials."
    if operation.role is Open.TO_CALLERS:
        return "Wants any credentials where callers are told apart."
    return f"Wants the role `{operation.role}` where callers are told apart."


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _wanted(operation),
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.has_optional_body,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PLACES.findall(operation.path)
    ]
    found += [_query(parameter) for parameter in operation.query]
    if operation.method != "GET":
        text = "Any text; browsers do not send it for pages of other origins."
        found.append(
            {"name": WRITE_HEADER, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
        )
    if operation.perform in (Stream.EVENTS, Stream.FEED):
        text = "The id of the last event received; wins over `after`."
        schema: dict[str, Any] = (
            {"type": "string"} if operation.perform is Stream.FEED else {"type": "integer", "minimum": 0}
        )
        found.append({"name": "Last-Event-ID", "in": "header", "description": text, "schema": schema})
    return found


def _query(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if isinstance(parameter.default, int):
        schema = {
            "type": "integer",
            "minimum": parameter.minimum,
            "maximum": parameter.maximum,
            "default": parameter.default,
        }
    elif parameter.choices:
        schema["enum"] = [*parameter.choices, ""]
    return {"name": parameter.name, "in": "query", "description": parameter.text, "schema": schema}


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, shape in operation.answers.items():
        responses[str(status)] = {"description": "As asked."}
        if status == 101:
            responses[str(status)] = {"description": "A WebSocket follows."}
        if shape is not None:
            responses[str(status)]["content"] = {"application/json": {"schema": _ref(shape)}}
        elif isinstance(operation.perform, Stream) and status == 200:
            responses["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    for status, text in _REFUSALS.items():
        content = {"application/problem+json": {"schema": _ref(shapes.Problem)}}
        responses[str(status)] = {"description": text, "content": content}
    return responses


def _ref(shape: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=shape.__name__)}
