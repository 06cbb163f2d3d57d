"""Stage 5, tasks: bodies of HTTP messages as JSON values, by media type.

Rules: pure, no I/O. JSON is exact or an error; text is never lost, at worst replaced characters; everything else is
base64. Strings that leave here can always be encoded again.
"""

import base64
import re
from dataclasses import dataclass
from typing import Any

import orjson

from fastrunner.base import limits

__all__ = ["MalformedContent", "MediaType", "decode", "decode_header", "to_base64"]

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class MalformedContent(ValueError):
    """A body that is not what its media type says; the message never holds any of it."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type header's parts that decide how a body is read and written."""

    essence: str
    """Type and subtype in lower case, without parameters; empty if there is no header."""
    charset: str
    """The charset parameter; `utf-8` if there is none."""

    @classmethod
    def parse(cls, header: str | None) -> "MediaType":
        """A Content-Type header's value; never fails, because servers send anything."""
        if not header:
            return cls("", "utf-8")
        charset = _CHARSET.search(header)
        return cls(header.partition(";")[0].strip().lower(), charset[1] if charset else "utf-8")

    @property
    def is_json(self) -> bool:
        """application/json, or a type with the +json suffix."""
        return self.essence == "application/json" or self.essence.endswith("+json")

    @property
    def is_text(self) -> bool:
        """Any text type."""
        return self.essence.startswith("text/")

    def encode_text(self, text: str) -> bytes:
        """Text in this charset; UTF-8 where the charset is unknown. Raises UnicodeEncodeError."""
        try:
            return text.encode(self.charset)
        except LookupError:
            return text.encode()

    def decode_text(self, body: bytes) -> str:
        """Text of this charset; UTF-8 where it is unknown; bytes that do not belong become U+FFFD."""
        try:
            text = body.decode(self.charset, "replace")
        except (LookupError, UnicodeError):
            return body.decode("utf-8", "replace")
        # Some codecs yield lone surrogates, which no JSON text can carry.
        return text.encode("utf-8", "replace").decode()


def decode(body: bytes, content_type: str | None) -> Any:
    """The JSON value a body stands for: null if empty, JSON parsed, text as a string, else base64.

    Raises MalformedContent.
    """
    if not body:
        return None
    media_type = MediaType.parse(content_type)
    if media_type.is_json:
        return _decode_json(body, media_type)
    if media_type.is_text:
        return media_type.decode_text(body)
    return to_base64(body)


def _decode_json(body: bytes, media_type: MediaType) -> Any:
    if media_type.charset.lower() not in ("utf-8", "utf8"):
        body = media_type.decode_text(body).encode()
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if not body.strip():
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MalformedContent("the body is not the JSON that its content type says") from None
    # Text with fewer brackets than levels needs no second look, and most has.
    may_be_deep = body.count(b"[") + body.count(b"{") > limits.HTTP_RESPONSE_DEPTH_MAX
    if may_be_deep and _depth_exceeds(value, limits.HTTP_RESPONSE_DEPTH_MAX):
        raise MalformedContent(f"the JSON body is nested deeper than {limits.HTTP_RESPONSE_DEPTH_MAX} levels")
    return value


def _depth_exceeds(value: Any, depth_max: int) -> bool:
    """Whether a JSON value nests deeper: goes down level by level, so that it needs no stack of its own."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth_max):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def to_base64(body: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(body).decode("ascii")


def decode_header(value: str) -> str:
    """A header's value as the client library gives it, without the surrogates it uses for bytes that are no UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
