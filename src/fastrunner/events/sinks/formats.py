"""Stage 3, journal: CloudEvents as HTTP requests, in each mode of CloudEvents' HTTP binding.

Rule: whatever an event holds, its headers are ones that HTTP can carry: values are percent-encoded as the binding says.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from fastrunner.base.sinks import Mode
from fastrunner.events.attributes import CONTENT, is_json

__all__ = ["request_of"]

# All that prints in ASCII but the space, the quotation mark and the percent sign.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def request_of(mode: Mode, events: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], bytes]:
    """Headers and body of the request that carries events: one, or in batch mode any number."""
    if mode is Mode.BATCH:
        return {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}, orjson.dumps(list(events))
    [event] = events
    if mode is Mode.STRUCTURED:
        return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, orjson.dumps(event)
    headers = {
        f"ce-{name}": quote(_text_of(value), safe=_PLAIN)
        for name, value in event.items()
        if name not in CONTENT and name != "datacontenttype"
    }
    media_type = event.get("datacontenttype")
    if media_type is None and "data" in event:
        media_type = "application/json"
    if media_type is not None:
        headers["Content-Type"] = quote(media_type, safe=f'{_PLAIN} "%')
    return headers, _body_of(event)


def _text_of(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _body_of(event: Mapping[str, Any]) -> bytes:
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    if "data" not in event:
        return b""
    data = event["data"]
    if isinstance(data, str) and not is_json(event.get("datacontenttype")):
        return data.encode()
    return orjson.dumps(data)
