"""Stage 3, journal: values as Temporal's histories have them: JSON whose objects keep the order of their keys.

Rule: what comes back is what was given, to the byte of its JSON: a result that has been in a history looks in outputs,
events and `to_entries` as it does on one machine. The library's own converter sorts keys.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    AdvancedJSONEncoder,
    CompositePayloadConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
    SerializationContext,
)

__all__ = ["Values"]


class _OrderedJson(JSONPlainPayloadConverter):
    def to_payload(self, value: Any) -> Payload:
        """See PayloadConverter."""
        try:
            data = orjson.dumps(value)
        except TypeError:
            # Such as a lone surrogate, or something of the library's own.
            data = json.dumps(value, cls=AdvancedJSONEncoder, separators=(",", ":")).encode()
        return Payload(metadata={"encoding": self.encoding.encode()}, data=data)


_CONVERTERS: Final[Mapping[bytes, EncodingPayloadConverter]] = {
    **{
        each.encoding.encode(): each
        for each in DefaultPayloadConverter.default_encoding_payload_converters
        if each.encoding != "json/plain"
    },
    b"json/plain": _OrderedJson(),
}


class Values(CompositePayloadConverter):
    """What makes payloads of values, and values of payloads."""

    def __init__(self) -> None:
        """Like the library's own but for JSON. The library makes two of them for each step of a workflow."""
        self.converters = _CONVERTERS

    def with_context(self, context: SerializationContext) -> "Values":  # noqa: ARG002 - see CompositePayloadConverter
        """Itself: JSON is the same everywhere. The library asks several times for each payload."""
        return self
