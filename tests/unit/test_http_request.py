"""Support: whatever arguments expressions come up with, a call becomes a request that can be sent or a refusal."""

import contextlib
import re
from collections.abc import Generator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from fastrunner.tasks.call_http.arguments import RequestProblem, prepare
from fastrunner.tasks.call_http.content import MalformedContent, MediaType, decode
from fastrunner.tasks.call_http.patience import retry_after_ms
from tests.properties import examples


def done(steps: Generator[None, None, Any]) -> Any:
    """What work in pieces comes to."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


TEXT = st.text(max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
URIS = st.builds(
    lambda scheme, host, rest: f"{scheme}://{host}{rest}",
    st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
    st.sampled_from(["example.org", "[::1]:80", "a:b@example.org:81", "exämple.org", "x y", "a:b:c", ""]) | TEXT,
    st.text(max_size=20).map(lambda text: f"/{text}"),
)
NAMES = st.sampled_from(["Content-Type", "X-A", "content-type", "Host", "X B"]) | TEXT
MEDIA_TYPES = st.sampled_from(
    ["application/json", "text/plain; charset=utf-16", "text/x; charset=idna", "application/x-www-form-urlencoded"]
)


@examples(400)
@given(
    uri=URIS | JSON,
    headers=JSON | st.dictionaries(NAMES, SCALARS | MEDIA_TYPES, max_size=3),
    query=JSON | st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
    body=JSON,
    key=TEXT,
)
def test_arguments_become_a_request_or_a_refusal(uri: Any, headers: Any, query: Any, body: Any, key: str) -> None:
    arguments = {"method": "post", "uri": uri, "headers": headers, "query": query, "body": body}
    with contextlib.suppress(RequestProblem):
        request = prepare(arguments, key)
        assert re.fullmatch(r"https?://[!-~]+", str(request.url))
        assert request.url.user is None
        assert (request.body is None) == (body is None)
        for name, value in request.headers.items():
            assert re.fullmatch(r"[!-~]+", name)
            assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value)
        assert len(request.headers.getall("Idempotency-Key")) == 1


@examples(400)
@given(query=st.dictionaries(TEXT, TEXT, max_size=4))
def test_query_values_arrive_as_they_were(query: dict[str, str]) -> None:
    with contextlib.suppress(RequestProblem):
        request = prepare({"method": "get", "uri": "http://h/p?a=%2B", "query": query}, "key")
        sent = list(request.url.query.items())
        assert sent == [("a", "+"), *query.items()]


@examples(400)
@given(
    body=st.binary(max_size=40) | JSON.map(lambda value: repr(value).encode("utf-8", "replace")),
    content_type=st.sampled_from(
        ["application/json", "application/json; charset=utf-7", "text/x; charset=raw_unicode_escape", "text/x", "x"]
    )
    | st.none()
    | TEXT,
)
def test_any_body_becomes_a_value_that_can_be_written_or_is_refused(body: bytes, content_type: str | None) -> None:
    with contextlib.suppress(MalformedContent):
        orjson.dumps(done(decode(body, content_type)))
    assert isinstance(MediaType.parse(content_type).charset, str)


@pytest.mark.parametrize(
    ("headers", "asked_ms"),
    [
        ([], 0),
        ([("Retry-After", "0")], 0),
        ([("Retry-After", " 120 ")], 120_000),
        ([("Retry-After", "1.5")], 1_500),
        ([("Retry-After", "-1")], 0),
        ([("Retry-After", "soon")], 0),
        ([("Retry-After", "")], 0),
        ([("Retry-After", "٣")], 0),
        ([("Retry-After", "1"), ("Retry-After", "3"), ("Retry-After", "x")], 3_000),
        ([("Retry-After", "9" * 400)], 86_400_000),
        ([("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")], 30_000),
        ([("Retry-After", "Sunday, 06-Nov-94 08:49:37 GMT")], 30_000),
        ([("Retry-After", "Sun Nov  6 08:49:37 1994")], 30_000),
        ([("Retry-After", "Sun, 06 Nov 1994 08:49:00 GMT")], 0),
        ([("Retry-After", "Sun, 06 Nov 2994 08:49:37 GMT")], 86_400_000),
        ([("Retry-After", "Sun, 06 Nov 99994 08:49:37 GMT")], 0),
        ([("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "Sun, 06 Nov 1994 08:49:32 GMT")], 5_000),
        ([("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "yesterday")], 30_000),
    ],
)
def test_how_long_a_response_asks_to_be_left_alone(headers: list[tuple[str, str]], asked_ms: int) -> None:
    """At 08:49:07 of the clock here, which counts only where the response does not tell its own."""
    now_ms = 784_111_747_000
    assert retry_after_ms(CIMultiDictProxy(CIMultiDict(headers)), now_ms) == asked_ms
