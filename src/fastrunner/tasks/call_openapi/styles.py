"""Stage 5, tasks: parameters as text: RFC 6570's forms as OpenAPI names them, and those of Swagger 2.0.

Rules: pure. What is sent can be read back as what was given: values are percent-encoded before they are joined, and
where a delimiter cannot be told from a value, the value is refused. null is left out, of arrays and objects too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["Style", "Unwritable", "cookie_pairs", "header_text", "path_text", "query_pairs"]

Encode = Callable[[str], str]

_QUERY_RESERVED: Final = ":/?@!$'()*,;="
"""What `allowReserved` keeps: all that does not end a value, or a URI, for those who read it."""
_COOKIE_SAFE: Final = "!#$&'()*+/:=?@[]^`{|}<>"
"""What RFC 6265 lets a cookie's value hold, without the percent sign."""
_DELIMITERS: Final = {"spaceDelimited": " ", "pipeDelimited": "|", "tabDelimited": "\t"}


class Unwritable(ValueError):
    """A value that its parameter cannot carry; the message says why and holds no value."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a value is written."""

    name: str
    """`simple`, `label`, `matrix`, `form`, `deepObject`, `spaceDelimited`, `pipeDelimited` or `tabDelimited`."""
    explode: bool
    """Items and members apart."""
    is_reserved_allowed: bool = False
    """Reserved characters as they are, in a query."""


def path_text(name: str, value: Any, style: Style) -> str:
    """A value in a path. Raises Unwritable."""
    if style.name in _DELIMITERS:
        return _delimited(value, style, _encoded)
    is_label = style.name == "label"
    pairs, items = _parts(value, _without_dots if is_label and style.explode else _encoded)
    if style.name == "matrix":
        return _matrix_text(_encoded(name), pairs, items, style)
    parts = ([f"{each}={text}" for each, text in pairs] if style.explode else _flat(pairs)) + items
    text = ("." if is_label and style.explode else ",").join(parts)
    return f".{text}" if is_label and parts else text


def header_text(value: Any, style: Style) -> str:
    """A value in a header. Raises Unwritable."""
    if style.name in _DELIMITERS:
        return _delimited(value, style, str)
    pairs, items = _parts(value, str)
    parts = [f"{each}={text}" for each, text in pairs] if style.explode else _flat(pairs)
    if isinstance(value, (list, dict)):
        _refuse(_flat(pairs) + items, ",", "a header")
        _refuse((each for each, _ in pairs if style.explode), "=", "a header")
    return ",".join(parts + items)


def query_pairs(name: str, value: Any, style: Style) -> Iterator[str]:
    """`name=value` of a query or a form, percent-encoded. Raises Unwritable."""
    key = _encoded(name)
    safe = _QUERY_RESERVED
    if isinstance(value, (list, dict)):
        safe = safe.replace("=" if style.explode else ",", "")

    def encode(text: str) -> str:
        return quote(text, safe=safe) if style.is_reserved_allowed else _encoded(text)

    if style.name == "deepObject":
        yield from _deep(key, value, encode)
        return
    if not style.explode and style.name in _DELIMITERS:
        text = _delimited(value, style, encode)
        if text or not isinstance(value, (list, dict)):
            yield f"{key}={text}"
        return
    pairs, items = _parts(value, encode)
    if style.explode:
        yield from (f"{each}={text}" for each, text in pairs)
        yield from (f"{key}={text}" for text in items)
    elif pairs or items:
        yield f"{key}={','.join(_flat(pairs) + items)}"


def cookie_pairs(name: str, value: Any, style: Style) -> Iterator[str]:
    """`name=value` of a Cookie header. Raises Unwritable."""
    pairs, items = _parts(value, _cookie)
    if style.explode:
        yield from (f"{each}={text}" for each, text in pairs)
        yield from (f"{_cookie(name)}={text}" for text in items)
    elif pairs or items:
        yield f"{_cookie(name)}={','.join(_flat(pairs) + items)}"


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _without_dots(text: str) -> str:
    """Where dots are delimiters."""
    return _encoded(text).replace(".", "%2E")


def _cookie(text: str) -> str:
    return quote(text, safe=_COOKIE_SAFE)


def _matrix_text(key: str, pairs: list[tuple[str, str]], items: list[str], style: Style) -> str:
    if style.explode:
        return "".join(_matrix(each, text) for each, text in [*pairs, *((key, text) for text in items)])
    return _matrix(key, ",".join(_flat(pairs) + items)) if pairs or items else ""


def _matrix(key: str, text: str) -> str:
    return f";{key}={text}" if text else f";{key}"


def _parts(value: Any, encode: Encode) -> tuple[list[tuple[str, str]], list[str]]:
    """The members of an object, or the items of an array, a scalar being one; all encoded. Raises Unwritable."""
    if isinstance(value, dict):
        return [(encode(each), encode(_scalar(item))) for each, item in value.items() if item is not None], []
    items = value if isinstance(value, list) else [value]
    return [], [encode(_scalar(item)) for item in items if item is not None]


def _scalar(value: Any) -> str:
    text = scalar_text(value)
    if text is None:
        raise Unwritable(f"it holds {json_kind(value)} where only a string, a number or a boolean can be sent")
    return text


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [text for pair in pairs for text in pair]


def _delimited(value: Any, style: Style, encode: Encode) -> str:
    """Items, or members and values, with a delimiter that is encoded itself, between them."""
    delimiter = _DELIMITERS[style.name]
    pairs, items = _parts(value, str)
    texts = _flat(pairs) + items
    if isinstance(value, (list, dict)):
        _refuse(texts, delimiter, f"style {style.name}")
    return encode(delimiter).join(map(encode, texts))


def _refuse(texts: Iterable[str], delimiter: str, where: str) -> None:
    if any(delimiter in text for text in texts):
        raise Unwritable(f"an item of it holds {delimiter!r}, which {where} has between items")


def _deep(key: str, value: Any, encode: Encode) -> Iterator[str]:
    """Members in brackets, as deep as they go; arrays repeat the name they have."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _deep(f"{key}%5B{_encoded(name)}%5D", member, encode)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                raise Unwritable("an array in it holds an object or an array, which deepObject cannot write")
            yield from _deep(key, item, encode)
    elif value is not None:
        yield f"{key}={encode(_scalar(value))}"
