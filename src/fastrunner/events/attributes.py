"""Stage 3, journal: what a CloudEvent may be, whichever way it comes: a dict in CloudEvents' JSON format.

    specversion, id, source, type      texts, always there
    time, subject, dataschema, datacontenttype, and extensions: texts, integers of 32 bits, booleans
    data (any JSON), or data_base64    or neither

Rules: CloudEvents 1.0 decides, and where it leaves a choice, what is refused could not be passed on: an attribute is a
header in HTTP. An attribute that is null is one that is not there. Nothing else is changed.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

import orjson

from fastrunner.base import limits
from fastrunner.base.checks import is_deeper
from fastrunner.errors import InvalidRequest, TooLarge

__all__ = ["CONTENT", "checked", "is_json", "put_bytes", "put_message", "put_text"]

CONTENT: Final = ("data", "data_base64")
"""Members of an event that are no attributes."""

_REQUIRED: Final = ("id", "source", "type")
_NAME: Final = re.compile(r"[a-z0-9]+")
# What CloudEvents takes from texts: controls, halves of characters, and what will never be a character.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_URI_REFERENCE: Final = re.compile(r"[^\s<>\"{}|\\^`]+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE: Final = re.compile(rf"{_WORD}/{_WORD}(\s*;.*)?")
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_SHOWN_CHARS_MAX: Final = 60


def is_json(media_type: object) -> bool:
    """Whether data of a media type (None: not told) is JSON, as CloudEvents decides it."""
    if not isinstance(media_type, str):
        return media_type is None
    kind = media_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def put_text(event: dict[str, Any], text: str, where: str) -> None:
    """Gives an event data that came as text: what is said to be JSON has to be, and where nothing is said what is none
    is a text. Raises InvalidRequest."""
    media_type = event.get("datacontenttype")
    if not is_json(media_type):
        event["data"] = text
        return
    try:
        event["data"] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if media_type is not None:
            raise _not_json(where, media_type, error) from None
        event["data"] = text


def put_bytes(event: dict[str, Any], data: bytes, where: str) -> None:
    """The same of data that came as bytes: what is neither JSON nor said to be text stays bytes."""
    media_type = event.get("datacontenttype")
    if is_json(media_type):
        try:
            event["data"] = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            if media_type is not None:
                raise _not_json(where, media_type, error) from None
            event["data_base64"] = base64.b64encode(data).decode()
        return
    if isinstance(media_type, str) and media_type.lower().startswith("text/"):
        try:
            event["data"] = data.decode()
        except UnicodeDecodeError:
            # In another charset: its bytes are what was sent.
            event["data_base64"] = base64.b64encode(data).decode()
        return
    event["data_base64"] = base64.b64encode(data).decode()


def put_message(event: dict[str, Any], message: bytes, type_url: str) -> None:
    """The same of a protobuf message: its bytes, and what tells its type where the event does not."""
    event["data_base64"] = base64.b64encode(message).decode()
    event.setdefault("datacontenttype", "application/protobuf")
    if type_url:
        # Without a scheme it is https, says protobuf.
        event.setdefault("dataschema", type_url if "://" in type_url else f"https://{type_url}")


def _not_json(where: str, media_type: str, error: orjson.JSONDecodeError) -> InvalidRequest:
    return InvalidRequest(
        f"{where}.data",
        f"{where}.data is not JSON, though its datacontenttype is {media_type}: {error.msg} at line {error.lineno}, "
        f"column {error.colno}",
    )


def checked(event: Mapping[str, Any], where: str) -> bytes:
    """The JSON text of an event that is one. `where` is its place in the request, for words of refusal.

    Raises InvalidRequest, TooLarge.
    """
    if not isinstance(event, Mapping):
        raise InvalidRequest(where, f"{where} is no CloudEvent: expected a JSON object")
    if event.get("specversion") != "1.0":
        raise _refused(where, "specversion", event.get("specversion"), 'must be "1.0", the version this runner speaks')
    for name in _REQUIRED:
        if not event.get(name):
            raise InvalidRequest(f"{where}.{name}", f"{where}.{name} is missing: every CloudEvent has one, not empty")
    if len(event) > limits.EVENT_ATTRIBUTES_COUNT_MAX:
        raise TooLarge(f"{where} has {len(event)} attributes: at most {limits.EVENT_ATTRIBUTES_COUNT_MAX} are taken")
    has_null = False
    for name, value in event.items():
        if name == "data":
            continue
        if value is None:
            has_null = True
            continue
        if name == "data_base64":
            _check_base64(where, event)
            continue
        _check_attribute(where, name, value)
    if has_null:
        event = {name: value for name, value in event.items() if value is not None or name == "data"}
    return _text(where, event)


def _text(where: str, event: Mapping[str, Any]) -> bytes:
    try:
        text = orjson.dumps(event)
    except orjson.JSONEncodeError as error:
        # Halves of characters, or what nests too deep.
        raise InvalidRequest(f"{where}.data", f"{where}.data cannot be JSON text: {error}") from None
    if len(text) > limits.EVENT_SIZE_BYTES_MAX:
        raise TooLarge(
            f"{where} takes {len(text)} bytes as JSON: at most {limits.EVENT_SIZE_BYTES_MAX} are taken; put what is "
            "large elsewhere, and its address into the event"
        )
    brackets = text.count(b"[") + text.count(b"{")
    if brackets > limits.INPUT_DEPTH_MAX and is_deeper(event, limits.INPUT_DEPTH_MAX):
        raise InvalidRequest(f"{where}.data", f"{where}.data nests deeper than {limits.INPUT_DEPTH_MAX} levels")
    return text


def _check_attribute(where: str, name: str, value: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > limits.EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX:
        shown = str(name)[:_SHOWN_CHARS_MAX]
        raise InvalidRequest(
            where,
            f"{where} has an attribute {shown!r}: names are up to {limits.EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX} letters "
            "from a to z and digits; what is more belongs into data",
        )
    if isinstance(value, str):
        if len(value) * 4 > limits.EVENT_ATTRIBUTE_SIZE_BYTES_MAX:
            size_bytes = len(value.encode("utf-8", "surrogatepass"))
            if size_bytes > limits.EVENT_ATTRIBUTE_SIZE_BYTES_MAX:
                size_bytes_max = limits.EVENT_ATTRIBUTE_SIZE_BYTES_MAX
                raise TooLarge(f"{where}.{name} takes {size_bytes} bytes: at most {size_bytes_max} are taken")
        if not value.isprintable() and _FORBIDDEN.search(value):
            raise _refused(where, name, value, "must not hold control characters or halves of characters")
    elif isinstance(value, bool):
        pass
    elif not isinstance(value, int) or not _INT_MIN <= value <= _INT_MAX:
        raise _refused(where, name, value, "must be a text, an integer of 32 bits or a boolean: put others into data")
    of_name = _OF_NAME.get(name)
    if of_name is not None:
        sentence = "must be a text, and not empty" if not isinstance(value, str) or not value else of_name(value)
        if sentence:
            raise _refused(where, name, value, sentence)


def _check_base64(where: str, event: Mapping[str, Any]) -> None:
    if "data" in event:
        raise InvalidRequest(f"{where}.data_base64", f"{where} has data and data_base64: give one of them")
    value = event["data_base64"]
    try:
        base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}.data_base64", f"{where}.data_base64 is no text in base64") from None


def _time_trouble(value: str) -> str:
    found = _TIME.fullmatch(value)
    try:
        date(*map(int, found.groups())) if found else date(0, 0, 0)
    except ValueError:
        return "must be a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z"
    return ""


def _matching(pattern: re.Pattern[str], sentence: str) -> Callable[[str], str]:
    return lambda value: "" if pattern.fullmatch(value) else sentence


def _fine(_value: str) -> str:
    return ""


_OF_NAME: Final[Mapping[str, Callable[[str], str]]] = {
    "id": _fine,
    "type": _fine,
    "subject": _fine,
    "source": _matching(_URI_REFERENCE, "must be a URI reference, such as /orders or https://shop.example/orders"),
    "dataschema": _matching(_URI, "must be a URI with its scheme"),
    "datacontenttype": _matching(_MEDIA_TYPE, "must be a media type, such as application/json"),
    "time": _time_trouble,
}
"""By attribute, what is wrong with a text; empty if nothing is."""


def _refused(where: str, name: str, value: Any, sentence: str) -> InvalidRequest:
    shown = repr(value)
    if len(shown) > _SHOWN_CHARS_MAX:
        shown = f"{shown[:_SHOWN_CHARS_MAX]}..."
    return InvalidRequest(f"{where}.{name}", f"{where}.{name} is {shown}: it {sentence}")
