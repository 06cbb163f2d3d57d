"""Support: where CloudEvents go that leave a runner: addresses of HTTP sinks, as the settings have them.

    https://broker.example/events batch:https://archive.example/in binary:http://user:password@10.0.0.5:8080/

Rule: an address may hold a password, so it is in no message: a sink is called by its host and port.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Mode", "SinkAddress"]


class Mode(StrEnum):
    """How an event becomes a request."""

    BINARY = "binary"
    """Attributes are headers, the body is the data."""
    STRUCTURED = "structured"
    """The body is the event."""
    BATCH = "batch"
    """The body is an array of events."""


@dataclass(frozen=True, slots=True)
class SinkAddress:
    """One sink."""

    mode: Mode
    """How it takes events."""
    url: str = field(repr=False)
    """Where, with user and password if it wants them."""
    name: str
    """What its position is noted under: the same while the URL is, whatever user, password and mode."""
    shown: str
    """What it is called in messages: host and port."""

    @classmethod
    def checked(cls, text: str) -> str:
        """The text, if `parse_all` takes it. Raises ValueError as that does."""
        cls.parse_all(text)
        return text

    @classmethod
    def parse_all(cls, text: str) -> list[Self]:
        """Sinks with white space between them. Raises ValueError without any text of it."""
        sinks = [cls._parse(word) for word in text.split()]
        if len({sink.name for sink in sinks}) < len(sinks):
            raise ValueError("expected each URL once, whatever its mode")
        return sinks

    @classmethod
    def _parse(cls, word: str) -> Self:
        before, colon, rest = word.partition(":")
        has_mode = bool(colon) and before in [str(mode) for mode in Mode]
        mode, url = (Mode(before), rest) if has_mode else (Mode.STRUCTURED, word)
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):
            parts, port = urlsplit(""), 0
        if not parts.hostname or not (url.isascii() and url.isprintable()) or parts.fragment:
            raise ValueError(
                f"expected http:// or https:// URLs with white space between them, each with {', '.join(Mode)} and a "
                "colon before it, or nothing for structured: batch:https://events.example/in; percent-encode what is "
                "not ASCII"
            )
        target = f"{parts.scheme}://{parts.hostname}:{port}{parts.path or '/'}?{parts.query}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(mode, url, sha256(target.encode()).hexdigest()[:16], f"{host}:{port}")
