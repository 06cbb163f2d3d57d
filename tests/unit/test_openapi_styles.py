"""Support: parameters as text: what openapi-core reads of them is what was given, and what cannot be told apart is
refused."""

from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_core.deserializing.styles import style_deserializers
from werkzeug.datastructures import MultiDict

from fastrunner.tasks.call_openapi.styles import (
    Style,
    Unwritable,
    cookie_pairs,
    header_text,
    path_text,
    query_pairs,
)
from tests.properties import examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.text("abcxyz-_0", min_size=1, max_size=6)
VALUES = {
    "string": TEXTS,
    "array": st.lists(TEXTS, min_size=1, max_size=5),
    "object": st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=4),
}
KINDS = sorted(VALUES)


def read(style: str, explode: bool, kind: str, location: Any, name: str) -> Any:
    """What openapi-core makes of it; it looks at what is encoded and at delimiters, and decodes nothing."""
    value = style_deserializers[style](explode, name, kind, location)
    if isinstance(value, list):
        return [unquote(each) for each in value]
    return {unquote(k): unquote(v) for k, v in value.items()} if isinstance(value, dict) else unquote(value)


@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", ["simple", "label", "matrix"])
@examples(60)
@given(data=st.data(), name=NAMES)
def test_paths(style: str, kind: str, explode: bool, data: st.DataObject, name: str) -> None:
    value = data.draw(VALUES[kind])
    text = path_text(name, value, Style(style, explode))
    assert "/" not in text
    assert "?" not in text
    sign = {"simple": "", "label": ".", "matrix": ";"}[style]
    key = name if style == "simple" else f"{sign}{name}{'*' if explode else ''}"
    assert read(style, explode, kind, {key: text}, name) == value


@pytest.mark.parametrize("is_reserved_allowed", [False, True])
@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data(), name=NAMES)
def test_forms(kind: str, explode: bool, is_reserved_allowed: bool, data: st.DataObject, name: str) -> None:
    value = data.draw(VALUES[kind])
    query = "&".join(query_pairs(name, value, Style("form", explode, is_reserved_allowed)))
    raw = [pair.partition("=")[::2] for pair in query.split("&")]
    location = {name: query} if kind == "object" and explode else MultiDict((unquote(k), v) for k, v in raw)
    assert read("form", explode, kind, location, name) == value
    if kind == "object" and explode:
        assert dict(parse_qsl(query, keep_blank_values=True)) == value


@pytest.mark.parametrize("kind", ["array", "object"])
@pytest.mark.parametrize(("style", "delimiter"), [("spaceDelimited", "%20"), ("pipeDelimited", "%7C")])
@examples(60)
@given(data=st.data(), name=NAMES)
def test_other_delimiters(style: str, delimiter: str, kind: str, data: st.DataObject, name: str) -> None:
    value: Any = data.draw(VALUES[kind])
    texts = [*value, *value.values()] if isinstance(value, dict) else value
    if any(unquote(delimiter) in text for text in texts):
        with pytest.raises(Unwritable):
            list(query_pairs(name, value, Style(style, False)))
        return
    [pair] = query_pairs(name, value, Style(style, False))
    key, _, text = pair.partition("=")
    # openapi-core takes the pipe as it is, where the specification has it encoded by now.
    location = {unquote(key): text.replace("%7C", "|")}
    assert read(style, False, kind, location, name) == value


@examples(60)
@given(name=NAMES, value=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=4))
def test_deep_objects(name: str, value: dict[str, str]) -> None:
    query = "&".join(query_pairs(name, value, Style("deepObject", True)))
    location = dict(parse_qsl(query, keep_blank_values=True))
    # It looks for names of letters alone.
    location.setdefault(f"{name}[x]", "")
    found = style_deserializers["deepObject"](True, name, "object", location)
    assert {key: found[key] for key in value} == value


def is_telling(value: Any) -> bool:
    """Whether a header can tell where its items end."""
    if isinstance(value, dict):
        return not any("," in text for text in [*value, *value.values()])
    return not isinstance(value, list) or not any("," in text for text in value)


@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data())
def test_headers(kind: str, explode: bool, data: st.DataObject) -> None:
    value: Any = data.draw(VALUES[kind])
    style = Style("simple", explode)
    if not is_telling(value) or (explode and isinstance(value, dict) and any("=" in name for name in value)):
        with pytest.raises(Unwritable):
            header_text(value, style)
        return
    text = header_text(value, style)
    if explode and isinstance(value, dict):
        # openapi-core takes no "=" in a value.
        assert dict(pair.split("=", 1) for pair in text.split(",")) == value
    else:
        assert style_deserializers["simple"](explode, "X", kind, {"X": text}) == value


@pytest.mark.parametrize("kind", ["string", "array"])
@examples(60)
@given(data=st.data(), name=NAMES)
def test_cookies(kind: str, data: st.DataObject, name: str) -> None:
    value = data.draw(VALUES[kind])
    pairs = [pair.partition("=")[::2] for pair in cookie_pairs(name, value, Style("form", False))]
    assert all(not set(text) & set(' ;"\\\r\n') for _, text in pairs)
    assert read("form", False, kind, MultiDict(pairs), name) == value


@pytest.mark.parametrize(
    ("style", "value", "query"),
    [
        (Style("form", True), ["a", 1, True, None, 2.0], "n=a&n=1&n=true&n=2"),
        (Style("form", True), {"x": 1, "y": None}, "x=1"),
        (Style("form", False), ["a,b", "c"], "n=a%2Cb,c"),
        (Style("form", True), "", "n="),
        (Style("form", True), [], ""),
        (Style("form", False), {}, ""),
        (Style("form", True, True), "a/b:c?d&e=f#g%h+[i]", "n=a/b:c?d%26e=f%23g%25h%2B%5Bi%5D"),
        (Style("form", False, True), ["a,b", "/c"], "n=a%2Cb,/c"),
        (Style("spaceDelimited", False), ["a", "b"], "n=a%20b"),
        (Style("spaceDelimited", True), ["a", "b"], "n=a&n=b"),
        (Style("pipeDelimited", False), {"x": 1, "y": 2}, "n=x%7C1%7Cy%7C2"),
        (Style("tabDelimited", False), ["a", "b"], "n=a%09b"),
        (Style("spaceDelimited", False), "a b", "n=a%20b"),
        (Style("deepObject", True), {"a": {"b": [1, 2]}, "c": "d"}, "n%5Ba%5D%5Bb%5D=1&n%5Ba%5D%5Bb%5D=2&n%5Bc%5D=d"),
        (Style("deepObject", True), [1, 2], "n=1&n=2"),
        (Style("deepObject", True), 3, "n=3"),
    ],
)
def test_queries_as_they_are_sent(style: Style, value: Any, query: str) -> None:
    assert "&".join(query_pairs("n", value, style)) == query


@pytest.mark.parametrize(
    ("style", "value", "text"),
    [
        (Style("simple", False), {"R": 100, "G": 200}, "R,100,G,200"),
        (Style("simple", True), {"R": 100, "G": 200}, "R=100,G=200"),
        (Style("label", False), ["blue", "black"], ".blue,black"),
        (Style("label", True), ["blue", 1.5], ".blue.1%2E5"),
        (Style("matrix", False), ["blue", "black"], ";n=blue,black"),
        (Style("matrix", True), {"R": 100}, ";R=100"),
        (Style("matrix", False), "", ";n"),
        (Style("pipeDelimited", False), ["a", "b"], "a%7Cb"),
        (Style("simple", False), "a/b c", "a%2Fb%20c"),
        (Style("simple", False), [], ""),
    ],
)
def test_paths_as_they_are_sent(style: Style, value: Any, text: str) -> None:
    assert path_text("n", value, style) == text


@pytest.mark.parametrize("value", [[["a"]], {"a": {"b": 1}}, [{"a": 1}], {"a": [1]}, float("nan")])
def test_what_nests_too_deeply_is_refused(value: Any) -> None:
    for style in (Style("form", True), Style("form", False), Style("pipeDelimited", False)):
        with pytest.raises(Unwritable):
            list(query_pairs("n", value, style))
    for name in ("simple", "label", "matrix"):
        with pytest.raises(Unwritable):
            path_text("n", value, Style(name, False))
    with pytest.raises(Unwritable):
        header_text(value, Style("simple", False))
    with pytest.raises(Unwritable):
        list(cookie_pairs("n", value, Style("form", True)))
