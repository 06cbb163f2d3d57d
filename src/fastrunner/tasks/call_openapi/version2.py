"""Stage 5, tasks: an operation of Swagger 2.0.

Rules: pure. Its forms of arrays become the styles that later versions have for the same, its form fields the parts of a
body.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastrunner.base import limits
from fastrunner.tasks.call_openapi.document import Document, Found, malformed, shown
from fastrunner.tasks.call_openapi.operation import Body, Content, Operation, Parameter, Part
from fastrunner.tasks.call_openapi.reading import accepting, finished
from fastrunner.tasks.call_openapi.security import requirements
from fastrunner.tasks.call_openapi.servers import server_of_version_2
from fastrunner.tasks.call_openapi.styles import Style

__all__ = ["operation_of_version_2"]

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_LISTED: Final = {"ssv": "spaceDelimited", "tsv": "tabDelimited", "pipes": "pipeDelimited"}
_LOCATIONS: Final = ("path", "query", "header")


def operation_of_version_2(document: Document, url: str, name: str, found: Found) -> Operation:
    """Raises RequestProblem."""
    path, method = found
    root = document.root
    item = document.path_item(document.mapping(root.get("paths"), "paths")[path])
    members = item[method]
    given = list(document.parameters(item.get("parameters"), members.get("parameters")))
    takes = _texts(document, members, "consumes")
    return finished(
        Operation(
            name,
            method,
            server_of_version_2(document, url, members),
            path,
            tuple(_parameter(document, each) for each in given if each["in"] not in ("body", "formData")),
            _body(document, given, takes),
            accepting(_texts(document, members, "produces")),
            requirements(document, members, root.get("securityDefinitions")),
        )
    )


def _texts(document: Document, members: Mapping[str, Any], key: str) -> list[str]:
    """Media types of an operation, else those of the document."""
    given = document.sequence(members[key] if key in members else document.root.get(key), key)
    document.check_count(given, "an operation", key, limits.OPENAPI_CONTENTS_MAX)
    return [each for each in given if isinstance(each, str)]


def _parameter(document: Document, given: Mapping[str, Any]) -> Parameter:
    name, location = given["name"], given["in"]
    if location not in _LOCATIONS:
        raise malformed(f"parameter {shown(name)} is in {shown(location)}, which is no place for one")
    is_required = given.get("required") is True or location == "path"
    return Parameter(name, location, _style(document, given, location), is_required, given.get("default"))


def _style(document: Document, given: Mapping[str, Any], location: str) -> Style:
    form = document.text(given.get("collectionFormat"), "collectionFormat") or "csv"
    plain = "form" if location in ("query", "formData") else "simple"
    if form == "multi" and plain == "form":
        return Style("form", explode=True)
    if form not in ("csv", *_LISTED):
        raise malformed(f"parameter {shown(given['name'])} has collectionFormat {shown(form)}, which cannot be there")
    return Style(_LISTED.get(form, plain), explode=False)


def _body(document: Document, given: list[Mapping[str, Any]], takes: list[str]) -> Body | None:
    whole = next((each for each in given if each["in"] == "body"), None)
    if whole is not None:
        contents = tuple(Content(each, {}) for each in takes or ["application/json"])
        return Body(contents, whole.get("required") is True, whole["name"])
    fields = {each["name"]: each for each in given if each["in"] == "formData"}
    if not fields:
        return None
    parts = {name: _part(document, field) for name, field in fields.items()}
    has_files = any(part.is_binary for part in parts.values())
    forms = [each for each in takes if each.partition(";")[0].strip().lower() in (_FORM, _MULTIPART)]
    media_types = [_MULTIPART] if has_files else forms or [_FORM]
    is_required = any(part.is_required and part.default is None for part in parts.values())
    return Body(tuple(Content(each, parts) for each in media_types), is_required, "", is_closed=True)


def _part(document: Document, field: Mapping[str, Any]) -> Part:
    return Part(
        _style(document, field, "formData") if field.get("type") == "array" else None,
        is_binary=field.get("type") == "file",
        is_required=field.get("required") is True,
        default=field.get("default"),
    )
