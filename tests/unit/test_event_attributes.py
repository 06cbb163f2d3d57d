"""What may be a CloudEvent, and in which words the rest is refused."""

from typing import Any

import orjson
import pytest

from fastrunner.base import limits
from fastrunner.errors import InvalidRequest, TooLarge
from fastrunner.events.attributes import checked, is_json

LEAST = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "order.placed"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"data": None},
        {"data": {"total": 12.5}, "datacontenttype": "application/json; charset=utf-8"},
        {"data": "<a/>", "datacontenttype": "application/xml"},
        {"data_base64": "/v8=", "datacontenttype": "application/octet-stream"},
        {"time": "2026-02-28T23:59:60.123456789+14:00", "subject": "ä b", "dataschema": "urn:x:y"},
        {"source": "https://shop.example/orders?x=1#y", "flag": False, "count": -(2**31), "traceparent": "00-ab-cd-01"},
        {"a" * limits.EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX: "ä" * (limits.EVENT_ATTRIBUTE_SIZE_BYTES_MAX // 2)},
    ],
)
def test_events_are_kept_as_they_are(more: dict[str, Any]) -> None:
    event = LEAST | more
    assert orjson.loads(checked(event, "event")) == event


def test_attributes_that_are_null_are_not_there() -> None:
    """Data that is null is data."""
    event = LEAST | {"subject": None, "data_base64": None, "data": None}
    assert orjson.loads(checked(event, "event")) == LEAST | {"data": None}


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"specversion": "0.3"}, "event.specversion", "event.specversion is '0.3': it must be \"1.0\""),
        ({"id": ""}, "event.id", "event.id is missing"),
        ({"type": None}, "event.type", "event.type is missing"),
        ({"type": 5}, "event.type", "event.type is 5: it must be a text"),
        ({"source": "a b"}, "event.source", "must be a URI reference, such as /orders"),
        ({"time": "2026-02-30T00:00:00Z"}, "event.time", "must be a time as RFC 3339 has it"),
        ({"time": "2026-02-20 00:00:00"}, "event.time", "must be a time as RFC 3339 has it"),
        ({"time": True}, "event.time", "must be a text, and not empty"),
        ({"dataschema": "/relative"}, "event.dataschema", "must be a URI with its scheme"),
        ({"datacontenttype": "json"}, "event.datacontenttype", "must be a media type"),
        ({"subject": ""}, "event.subject", "must be a text, and not empty"),
        ({"subject": "a\nb"}, "event.subject", "must not hold control characters"),
        ({"subject": "\ud800"}, "event.subject", "must not hold control characters"),
        ({"count": 2**31}, "event.count", "an integer of 32 bits"),
        ({"ratio": 1.5}, "event.ratio", "a boolean: put others into data"),
        ({"nested": {}}, "event.nested", "a boolean: put others into data"),
        ({"comExample": "x"}, "event", "has an attribute 'comExample': names are up to"),
        ({"a" * (limits.EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX + 1): "x"}, "event", "names are up to"),
        ({"data": 1, "data_base64": ""}, "event.data_base64", "has data and data_base64: give one of them"),
        ({"data_base64": "?"}, "event.data_base64", "is no text in base64"),
        ({"data_base64": 5}, "event.data_base64", "is no text in base64"),
        ({"data": "\ud800"}, "event.data", "cannot be JSON text"),
    ],
)
def test_what_is_no_event(more: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked(LEAST | more, "event")
    assert refused.value.field == field
    assert words in refused.value.message


def test_what_is_no_object() -> None:
    with pytest.raises(InvalidRequest, match="is no CloudEvent: expected a JSON object"):
        checked([], "events[3]")  # type: ignore[arg-type]


def test_data_that_nests_too_deep() -> None:
    data: Any = 1
    for _ in range(limits.INPUT_DEPTH_MAX - 1):
        data = [data]
    checked(LEAST | {"data": data}, "event")
    with pytest.raises(InvalidRequest, match=f"nests deeper than {limits.INPUT_DEPTH_MAX} levels"):
        checked(LEAST | {"data": [data]}, "event")


def test_sizes_of_an_event() -> None:
    size_bytes = len(checked(LEAST | {"data": ""}, "event"))
    most = "x" * (limits.EVENT_SIZE_BYTES_MAX - size_bytes)
    checked(LEAST | {"data": most}, "event")
    with pytest.raises(TooLarge, match=f"at most {limits.EVENT_SIZE_BYTES_MAX} are taken; put what is large elsewhere"):
        checked(LEAST | {"data": most + "x"}, "event")
    with pytest.raises(TooLarge, match=r"event.subject takes \d+ bytes"):
        checked(LEAST | {"subject": "ä" * (limits.EVENT_ATTRIBUTE_SIZE_BYTES_MAX // 2) + "a"}, "event")
    many = {f"a{number}": number for number in range(limits.EVENT_ATTRIBUTES_COUNT_MAX - len(LEAST))}
    checked(LEAST | many, "event")
    with pytest.raises(TooLarge, match=f"at most {limits.EVENT_ATTRIBUTES_COUNT_MAX} are taken"):
        checked(LEAST | many | {"more": 1}, "event")


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (None, True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.order+json", True),
        ("text/json", True),
        ("text/plain", False),
        ("application/jsonx", False),
    ],
)
def test_media_types_of_json(media_type: str | None, expected: bool) -> None:
    assert is_json(media_type) is expected
