"""Stage 5, tasks: an operation of OpenAPI 3.0 or 3.1.

Rules: pure. What the two versions do not share makes no difference to a request: schemas are read for defaults and for
what a body's members are, and for nothing else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from fastrunner.base import limits
from fastrunner.tasks.call_openapi.document import Document, Found, malformed, shown
from fastrunner.tasks.call_openapi.operation import Body, Content, Operation, Parameter, Part
from fastrunner.tasks.call_openapi.reading import accepting, finished
from fastrunner.tasks.call_openapi.security import requirements
from fastrunner.tasks.call_openapi.servers import server_of_version_3
from fastrunner.tasks.call_openapi.styles import Style

__all__ = ["operation_of_version_3"]

_STYLES: Final = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""By location; the first is the default."""


def operation_of_version_3(document: Document, url: str, name: str, found: Found) -> Operation:
    """Raises RequestProblem."""
    path, method = found
    item = document.path_item(document.mapping(document.root.get("paths"), "paths")[path])
    members = item[method]
    components = document.mapping(document.root.get("components"), "components")
    parameters = document.parameters(item.get("parameters"), members.get("parameters"))
    servers = [each.get("servers") for each in (members, item, document.root)]
    return finished(
        Operation(
            name,
            method,
            server_of_version_3(document, url, servers),
            path,
            tuple(_parameter(document, each) for each in parameters),
            _body(document, members.get("requestBody")),
            accepting(islice(_answered(document, members), limits.OPENAPI_PARAMETERS_MAX)),
            requirements(document, members, components.get("securitySchemes")),
        )
    )


def _parameter(document: Document, given: Mapping[str, Any]) -> Parameter:
    name, location = given["name"], given["in"]
    if location not in _STYLES:
        raise malformed(f"parameter {shown(name)} is in {shown(location)}, which is no place for one")
    is_required = given.get("required") is True or location == "path"
    contents = document.mapping(given.get("content"), "content")
    default = document.hint(given.get("schema")).get("default")
    style = _style(document, given, f"parameter {shown(name)}", _STYLES[location])
    media_type = str(next(iter(contents), ""))
    return Parameter(name, location, style, is_required, default, media_type)


def _style(document: Document, given: Mapping[str, Any], where: str, styles: tuple[str, ...]) -> Style:
    style = document.text(given.get("style"), "style") or styles[0]
    if style not in styles:
        raise malformed(f"{where} has style {shown(style)}, where only {', '.join(styles)} can be")
    explode = given.get("explode")
    return Style(
        style,
        explode if isinstance(explode, bool) else style == "form",
        given.get("allowReserved") is True and styles is _STYLES["query"],
    )


def _body(document: Document, given: Any) -> Body | None:
    members = document.mapping(document.resolved(given), "requestBody")
    contents = document.mapping(members.get("content"), "content")
    if not contents:
        return None
    document.check_count(contents, "a request body", "content types", limits.OPENAPI_CONTENTS_MAX)
    found, has_own_body = [], False
    for media_type, content in contents.items():
        content = document.mapping(content, "content")
        properties = document.properties(content.get("schema"))
        has_own_body = has_own_body or "body" in properties
        encoding = document.mapping(content.get("encoding"), "encoding")
        document.check_count(encoding, "a request body", "members with an encoding")
        names = {**properties, **encoding}
        parts = {name: _part(document, name, properties.get(name, {}), encoding.get(name)) for name in names}
        found.append(Content(media_type, {name: part for name, part in parts.items() if part != Part()}))
    return Body(tuple(found), members.get("required") is True, "" if has_own_body else "body")


def _part(document: Document, name: str, schema: Mapping[str, Any], encoding: Any) -> Part:
    items = document.hint(schema.get("items"))
    said = document.mapping(encoding, "encoding")
    content_type = document.text(said.get("contentType"), "contentType").partition(",")[0].strip()
    part = Part(
        content_type="" if "*" in content_type else content_type, is_binary=_is_binary(schema) or _is_binary(items)
    )
    if said.keys() & {"style", "explode", "allowReserved"}:
        return replace(part, style=_style(document, said, f"the encoding of {shown(name)}", _STYLES["query"]))
    return part


def _is_binary(schema: Mapping[str, Any]) -> bool:
    """Whether a member is the content of a file: 3.0 says so by a format, 3.1 by a media type."""
    return schema.get("format") == "binary" or schema.get("contentMediaType") == "application/octet-stream"


def _answered(document: Document, members: Mapping[str, Any]) -> Iterator[str]:
    for status, answer in document.hint(members.get("responses")).items():
        if status.startswith("2") or status == "default":
            yield from document.hint(document.hint(answer).get("content"))
