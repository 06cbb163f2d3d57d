"""Support: whatever arguments expressions come up with, a call becomes a request that can be sent or a refusal."""

import contextlib
import re
from collections.abc import Generator
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.tasks.call_http.arguments import RequestProblem, prepare
from fastrunner.tasks.call_http.content import MalformedContent, MediaType, decode
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
