"""Stage 5, tasks: what a task gives, where its operation wants it: the arguments of a `call: http`.

Rules: pure. What is required and missing, and what the operation has no place for, is refused before a socket opens; no
problem's text holds a value.
"""

import re
from collections.abc import Container, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import orjson

from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.call_http.content import MediaType
from fastrunner.tasks.call_openapi.bodies import encoded
from fastrunner.tasks.call_openapi.document import shown
from fastrunner.tasks.call_openapi.operation import Body, Operation, Parameter
from fastrunner.tasks.call_openapi.reading import ACCEPT, CONTENT_TYPE, VARIABLE
from fastrunner.tasks.call_openapi.styles import Unwritable, cookie_pairs, header_text, path_text, query_pairs
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["request_of"]

Values = list[tuple[Parameter, Any]]

_NAMED_MAX: Final = 12
_COMPARED_MAX: Final = 50
"""Names that one is compared with that the operation does not have."""
_CHOOSING: Final = {name.lower(): name for name in (ACCEPT, CONTENT_TYPE)}
_DOTS = re.compile(r"(?:\.|%2E){1,2}", re.IGNORECASE)


def request_of(
    operation: Operation, given: Mapping[str, Any], token: tuple[Parameter, str] | None = None
) -> dict[str, Any]:
    """`method`, `uri`, `headers`, `private_headers` and `body` for `call: http`. `token` goes where a key is wanted.
    Raises RequestProblem, and UnicodeEncodeError for a lone surrogate."""
    values = _placed(operation.parameters, given, token)
    headers = _headers(values, operation.accept)
    path, query = _path(operation, values), _query(values)
    if query:
        path += ("&" if "?" in path else "?") + query
    arguments: dict[str, Any] = {"method": operation.method, "uri": operation.base + path}
    content = _content(operation, _rest(operation, given))
    if content is not None and operation.body is not None:
        body, content_type = encoded(operation.body, content, headers.pop(CONTENT_TYPE, ""))
        arguments["body"] = body
        headers[CONTENT_TYPE] = content_type
    private = [each.name for each, _ in values if each.location == "header" and each.is_key]
    return {**arguments, "headers": headers, "private_headers": private}


# --- what is given, and where it belongs ---


def _placed(parameters: Sequence[Parameter], given: Mapping[str, Any], token: tuple[Parameter, str] | None) -> Values:
    """The values of parameters; null is not given. Raises RequestProblem."""
    values: Values = [] if token is None else [token]
    missing = []
    for parameter in parameters:
        if token is not None and _place(parameter) == _place(token[0]):
            continue
        value = given.get(next((name for name in parameter.given_as if name in given), ""))
        if value is None and parameter.is_required:
            value = parameter.default
        if value is not None:
            values.append((parameter, value))
        elif parameter.is_required:
            missing.append(f"{shown(parameter.name)} ({parameter.location})")
    if missing:
        names = ", ".join(missing[:_NAMED_MAX])
        raise RequestProblem("validation", f"parameters that are required are not given: {names}")
    return values


def _place(parameter: Parameter) -> tuple[str, str]:
    return parameter.location, parameter.name.lower() if parameter.location == "header" else parameter.name


def _rest(operation: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to no parameter."""
    names = {name for parameter in operation.parameters for name in parameter.given_as}
    return {name: value for name, value in given.items() if name not in names}


def _content(operation: Operation, rest: dict[str, Any]) -> Any:
    """The body's value; None without one. Raises RequestProblem."""
    body = operation.body
    names = [each.name for each in operation.parameters if each.name not in (ACCEPT, CONTENT_TYPE)]
    if body is None:
        _refuse_unknown(rest, (), names)
        return None
    if body.is_closed:
        return _form(body, rest, names)
    if body.name and body.name in rest:
        _refuse_unknown(rest, (body.name,), [*names, body.name])
        return _required(body, rest[body.name])
    return _required(body, rest or None)


def _required(body: Body, value: Any) -> Any:
    if value is None and body.is_required:
        how = f": give it as {shown(body.name)}, or its members by their names" if body.name else ""
        raise RequestProblem("validation", f"the request body is required and not given{how}")
    return value


def _form(body: Body, rest: Mapping[str, Any], names: list[str]) -> Any:
    """The fields of a form of Swagger 2.0, with the defaults of those required. Raises RequestProblem."""
    parts = body.contents[0].parts
    _refuse_unknown(rest, parts, [*names, *parts])
    fields = {
        name: part.default if rest.get(name) is None and part.is_required else rest.get(name)
        for name, part in parts.items()
    }
    missing = [f"{shown(name)} (formData)" for name, part in parts.items() if part.is_required and fields[name] is None]
    if missing:
        raise RequestProblem(
            "validation", f"parameters that are required are not given: {', '.join(missing[:_NAMED_MAX])}"
        )
    return {name: value for name, value in fields.items() if value is not None} or None


def _refuse_unknown(rest: Mapping[str, Any], known: Container[str], names: Sequence[str]) -> None:
    """`names` is what the operation has. Raises RequestProblem."""
    unknown = next((name for name in rest if name not in known), None)
    if unknown is None:
        return
    near = get_close_matches(unknown[:100], names[:_COMPARED_MAX], 3, 0.6) or names[:_NAMED_MAX]
    has = f": it has {', '.join(map(shown, near))}" if near else ", nor any other"
    raise RequestProblem("configuration", f"the operation has no parameter {shown(unknown)}{has}")


# --- what is not the body ---


def _path(operation: Operation, values: Values) -> str:
    texts = {}
    for parameter, value in values:
        if parameter.location == "path":
            try:
                text = path_text(parameter.name, _whole(parameter, value), parameter.style)
            except Unwritable as problem:
                raise _unwritable(parameter, problem) from None
            if not text:
                raise RequestProblem("validation", f"the path parameter {shown(parameter.name)} is empty")
            texts[parameter.name] = text
    path = VARIABLE.sub(lambda match: texts[match[1]], operation.path.partition("#")[0])
    if texts and any(map(_DOTS.fullmatch, path.split("/"))):
        raise RequestProblem("validation", "a path parameter is '.' or '..', which would lead to another path")
    return path if path.startswith("/") else f"/{path}"


def _query(values: Values) -> str:
    pairs: list[str] = []
    for parameter, value in values:
        if parameter.location == "query":
            try:
                pairs += query_pairs(parameter.name, _whole(parameter, value), parameter.style)
            except Unwritable as problem:
                raise _unwritable(parameter, problem) from None
    return "&".join(pairs)


def _headers(values: Values, accept: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for parameter, value in values:
        name = _CHOOSING.get(parameter.name.lower(), parameter.name)
        try:
            if parameter.location == "header":
                headers[name] = header_text(_whole(parameter, value), parameter.style)
            elif parameter.location == "cookie":
                cookies += cookie_pairs(parameter.name, _whole(parameter, value), parameter.style)
        except Unwritable as problem:
            raise _unwritable(parameter, problem) from None
    if cookies:
        own = next((name for name in headers if name.lower() == "cookie"), "Cookie")
        headers[own] = "; ".join([headers[own], *cookies] if own in headers else cookies)
    if accept:
        headers.setdefault(ACCEPT, accept)
    return headers


def _whole(parameter: Parameter, value: Any) -> Any:
    """The value as its style writes it; the text of one that is written whole. Raises Unwritable."""
    if not parameter.media_type:
        return value
    if MediaType.parse(parameter.media_type).is_json:
        try:
            return orjson.dumps(value).decode()
        except TypeError:
            raise Unwritable("it holds a number beyond 64 bits, or what is no JSON") from None
    text = scalar_text(value)
    if text is None:
        raise Unwritable(f"it is {json_kind(value)}, which cannot be written as {parameter.media_type[:100]}")
    return text


def _unwritable(parameter: Parameter, problem: Unwritable) -> RequestProblem:
    return RequestProblem(
        "validation", f"the {parameter.location} parameter {shown(parameter.name)} cannot be sent: {problem}"
    )
