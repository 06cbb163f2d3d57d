"""Stage 5, tasks: the body of a request, in the first of its forms that can carry what a task gives.

Rules: pure. JSON comes first, then forms, then text, then what text or bytes can be sent as they are; what holds files
is sent in parts where it can be. The same value gives the same bytes: a repetition after a crash is the same request.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.call_http.content import MediaType
from fastrunner.tasks.call_openapi.document import shown
from fastrunner.tasks.call_openapi.operation import Body, Content, Part
from fastrunner.tasks.call_openapi.styles import Style, Unwritable, query_pairs
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["encoded"]

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_MEANT: Final = {"*/*": "application/json", "application/*": "application/json", "text/*": "text/plain",
                 "multipart/*": _MULTIPART}  # fmt: skip
"""What is sent where a document names a range."""
_FILE_KEYS: Final = frozenset({"base64", "contentType", "filename"})
_REPEATED: Final = Style("form", explode=True)
_TOKEN_OR_TYPE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class _File:
    """Bytes that a task gives."""

    data: bytes
    """Its content."""
    filename: str
    """Empty if the task gives none."""
    content_type: str
    """The same."""


def encoded(body: Body, value: Any, wanted: str) -> tuple[Any, str]:
    """A body for `call: http`, and its Content-Type. `wanted` is the one that the task asks for, or empty. Raises
    RequestProblem."""
    forms = [Content(_MEANT.get(each.media_type, each.media_type), each.parts) for each in body.contents]
    if wanted:
        essence = MediaType.parse(wanted).essence
        parts = next((each.parts for each in forms if MediaType.parse(each.media_type).essence == essence), {})
        forms = [Content(wanted, parts)]
    has_files = isinstance(value, dict) and any(map(_holds_file, value.values()))
    for form in sorted(forms, key=lambda form: _rank(form, has_files)):
        written = _written(form, value)
        if written is not None:
            return written
    types = ", ".join(form.media_type[:100] for form in forms[:8])
    raise RequestProblem(
        "configuration",
        f"the request body is {json_kind(value)}, which cannot be sent as {types}: objects are written as JSON or as "
        "forms, text and {base64: ...} as anything",
    )


def _holds_file(value: Any) -> bool:
    return any(map(_is_file, value if isinstance(value, list) else [value]))


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and "base64" in value and value.keys() <= _FILE_KEYS


def _rank(form: Content, has_files: bool) -> int:
    media_type = MediaType.parse(form.media_type)
    if has_files and media_type.essence == _MULTIPART:
        return -1
    if media_type.is_json:
        return 0
    order = (_FORM, _MULTIPART)
    return order.index(media_type.essence) + 1 if media_type.essence in order else 3 if media_type.is_text else 4


def _written(form: Content, value: Any) -> tuple[Any, str] | None:
    """None if the form cannot carry it. Raises RequestProblem."""
    media_type = MediaType.parse(form.media_type)
    if media_type.is_json:
        return value, form.media_type
    if media_type.essence == _FORM:
        return ("&".join(_form_pairs(form, value)), form.media_type) if isinstance(value, dict) else None
    if media_type.essence == _MULTIPART:
        return _multipart(form, value) if isinstance(value, dict) else None
    file = _file(value)
    if file is not None:
        return file.data, file.content_type or form.media_type
    text = scalar_text(value) if media_type.is_text or isinstance(value, str) else None
    return None if text is None else (text, form.media_type)


def _form_pairs(form: Content, value: Mapping[str, Any]) -> Iterator[str]:
    for name, member in value.items():
        style = form.parts.get(name, Part()).style
        try:
            if style is not None:
                yield from query_pairs(name, member, style)
                continue
            for item in member if isinstance(member, list) and not any(map(_is_nested, member)) else [member]:
                yield from query_pairs(name, _json(item) if _is_nested(item) else item, _REPEATED)
        except Unwritable as problem:
            raise _unwritable(name, problem) from None


def _multipart(form: Content, value: Mapping[str, Any]) -> tuple[bytes, str]:
    parts = []
    for name, member in value.items():
        for item in member if isinstance(member, list) else [member]:
            if item is not None:
                parts.append(_multipart_part(name, item, form.parts.get(name, Part())))
    boundary = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    mark = boundary.encode()
    body = b"".join(b"--%b\r\n%b\r\n" % (mark, part) for part in parts) + b"--%b--\r\n" % mark
    return body, f"{_MULTIPART}; boundary={boundary}"


def _multipart_part(name: str, value: Any, part: Part) -> bytes:
    content_type, filename = part.content_type, ""
    file = _file(value)
    if file is not None:
        data, filename, content_type = file.data, file.filename or name, file.content_type or content_type
    elif _is_nested(value) or MediaType.parse(content_type).is_json:
        data, content_type = _json(value).encode(), content_type or "application/json"
    else:
        data = (scalar_text(value) or "").encode()
        filename = name if part.is_binary else ""
    if filename and not content_type:
        content_type = "application/octet-stream"
    if content_type and not _TOKEN_OR_TYPE.fullmatch(content_type):
        raise RequestProblem("configuration", f"the content type of {shown(name)} is none")
    head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
    head += f'; filename="{_quoted(filename)}"' if filename else ""
    head += f"\r\nContent-Type: {content_type}" if content_type else ""
    return head.encode() + b"\r\n\r\n" + data


def _quoted(name: str) -> str:
    """A name within quotes, as the WHATWG's forms have it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _file(value: Any) -> _File | None:
    """Bytes, if a value is `{base64, filename?, contentType?}`. Raises RequestProblem."""
    if not _is_file(value):
        return None
    if not all(isinstance(each, str) for each in value.values()):
        raise RequestProblem("validation", "a file has base64, filename and contentType as strings, and nothing else")
    try:
        data = base64.b64decode(value["base64"], validate=True)
    except (binascii.Error, ValueError):
        raise RequestProblem("validation", "the base64 of a file is no base64") from None
    return _File(data, value.get("filename", ""), value.get("contentType", ""))


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise RequestProblem("validation", "a part of the form holds a number beyond 64 bits, or no JSON") from None


def _unwritable(name: str, problem: Unwritable) -> RequestProblem:
    return RequestProblem("validation", f"the member {shown(name)} of the request body cannot be sent: {problem}")
