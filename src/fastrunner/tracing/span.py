"""Support: a span that has ended, as plain data.

Rule: attributes are texts, numbers and booleans, under names of OpenTelemetry's conventions where there are some and
`fastrunner.` otherwise; what is known to be secret is hidden in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from fastrunner.base import limits
from fastrunner.base.redaction import redact

__all__ = ["Attribute", "Attributes", "Kind", "Span", "shown"]

Attribute = str | int | bool
Attributes = Mapping[str, Attribute]
Kind = Literal["internal", "server", "client"]

_FIELDS: Final = 11


@dataclass(slots=True)
class Span:
    """One span. It never changes, but one that may takes a third of the time to make."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    parent_id: str
    """The same; NO_SPAN: it has none."""
    state: str
    """The trace's `tracestate`."""
    name: str
    """What it is about; few names in all."""
    kind: Kind
    """Whether it is about a call, and on which side."""
    began_ms: int
    """When it began, in milliseconds since the epoch."""
    ended_ms: int
    """When it ended."""
    error: str = ""
    """What went wrong, as a type; empty if nothing has."""
    attributes: Attributes = field(default_factory=dict)
    """More about it."""
    link: tuple[str, str] | None = None
    """(trace id, span id) of a span that was one with it on the wire."""

    def encoded(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def decoded(cls, data: bytes) -> "Span":
        """What `encoded` gave. Raises ValueError for what is damaged."""
        fields = orjson.loads(data)
        if not isinstance(fields, dict) or len(fields) != _FIELDS:
            raise ValueError("a stored span does not have the fields of one")
        try:
            link = fields.pop("link")
            return cls(**fields, link=None if link is None else (link[0], link[1]))
        except (TypeError, KeyError, IndexError) as error:
            raise ValueError("a stored span does not have the fields of one") from error


def shown(name: str, given: Attributes) -> tuple[str, Attributes]:
    """A span's name and its attributes as they may be shown, each within its bound; empty ones are left out."""
    found = {key: value for key, value in given.items() if value != ""}
    texts = [name, *(value for value in found.values() if isinstance(value, str))]
    together = "\n".join(texts)
    # Nearly always there is nothing to hide or to cut, and one look at all of them tells.
    if max(map(len, texts)) <= limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX and redact(together) == together:
        return name, found
    return _shown(name), {key: _shown(value) if isinstance(value, str) else value for key, value in found.items()}


def _shown(text: str) -> str:
    # In this order: of a secret that is cut, half would be shown.
    return redact(text)[: limits.TRACE_ATTRIBUTE_SIZE_CHARS_MAX]
