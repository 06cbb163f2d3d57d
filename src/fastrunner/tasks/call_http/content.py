"""Stage 5, tasks: bodies of HTTP messages as JSON values, by media type.

Rules: pure, no I/O. JSON is exact or an error; text is never lost, at worst replaced characters; everything else is
base64. Strings that leave here can always be encoded again. What a large body takes is done in pieces.
"""

import base64
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import orjson

from fastrunner.tasks.call_http import charsets, json_text

__all__ = ["MalformedContent", "MediaType", "decode", "decode_header", "to_base64"]

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_BASE64_PIECE_SIZE_BYTES = 3 * 65_536


class MalformedContent(ValueError):
    """A body that is not what its media type says; the message never holds any of it."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type header's parts that decide how a body is read and written."""

    essence: str
    """Type and subtype in lower case, without parameters; empty if there is no header."""
    charset: str
    """The charset parameter as it was given; `utf-8` if there is none."""

    @classmethod
    def parse(cls, header: str | None) -> "MediaType":
        """A Content-Type header's value; never fails, because servers send anything."""
        if not header:
            return cls("", charsets.UTF_8)
        charset = _CHARSET.search(header)
        return cls(header.partition(";")[0].strip().lower(), charset[1] if charset else charsets.UTF_8)

    @property
    def is_json(self) -> bool:
        """application/json, or a type with the +json suffix."""
        return self.essence == "application/json" or self.essence.endswith("+json")

    @property
    def is_text(self) -> bool:
        """Any text type."""
        return self.essence.startswith("text/")


def decode(body: bytes, content_type: str | None) -> Generator[None, None, Any]:
    """The JSON value a body stands for: null if empty, JSON parsed, text as a string, else base64.

    Yields between pieces. Raises MalformedContent.
    """
    if not body:
        return None
    media_type = MediaType.parse(content_type)
    if media_type.is_json:
        return (yield from _decode_json(body, charsets.charset_of(media_type.charset)))
    if media_type.is_text:
        return (yield from charsets.decode(body, charsets.charset_of(media_type.charset)))
    return (yield from to_base64(body))


def _decode_json(body: bytes, charset: str) -> Generator[None, None, Any]:
    charset, mark_size_bytes = charsets.sniffed(body, charset)
    text = body[mark_size_bytes:]
    if charset != charsets.UTF_8:
        text = (yield from charsets.decode(body, charset)).encode()
    if not text.strip(b" \t\r\n"):
        return None
    try:
        return (yield from json_text.parse(text))
    except orjson.JSONDecodeError:
        raise MalformedContent("the body is not the JSON that its content type says") from None
    except json_text.TooComplex as problem:
        raise MalformedContent(f"the JSON body {problem}") from None


def to_base64(body: bytes) -> Generator[None, None, str]:
    """Standard base64 with padding; yields between pieces."""
    texts: list[str] = []
    for at in range(0, len(body), _BASE64_PIECE_SIZE_BYTES):
        texts.append(base64.b64encode(body[at : at + _BASE64_PIECE_SIZE_BYTES]).decode("ascii"))
        yield
    return "".join(texts)


def decode_header(value: str) -> str:
    """A header's value as the client library gives it, without the surrogates it uses for bytes that are no UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
