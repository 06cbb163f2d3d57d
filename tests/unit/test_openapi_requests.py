"""Support: operations as documents describe them, as the requests that are sent: what openapi-core reads of a request
is what the task gave; and documents that are not what they should be."""

import copy
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

from fastrunner.tasks.call_http.arguments import HttpRequest, RequestProblem, prepare
from fastrunner.tasks.call_openapi.arguments import request_of
from fastrunner.tasks.call_openapi.document import Document
from fastrunner.tasks.call_openapi.operation import Operation
from fastrunner.tasks.call_openapi.security import place_of_token, with_scopes
from fastrunner.tasks.call_openapi.version2 import operation_of_version_2
from fastrunner.tasks.call_openapi.version3 import operation_of_version_3
from fastrunner.tasks.documents import NoData, parsed
from tests.properties import examples

URL = "https://api.example.com/docs/openapi.yaml"
INFO = {"title": "t", "version": "1"}


def operation_of(document: Any, name: str = "op", url: str = URL) -> Operation:
    """An operation of a document, given as data or as text."""
    root = run(parsed(document if isinstance(document, str) else json.dumps(document)))
    read = Document(root)
    run(read.read_operations())
    make = operation_of_version_2 if read.is_version_2 else operation_of_version_3
    found = run(read.find(name))
    read.begin()
    return make(read, url, name, found)


def run(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def version_3(operation: Mapping[str, Any], path: str = "/op", method: str = "post", **root: Any) -> dict[str, Any]:
    members = {"operationId": "op", "responses": {"200": {"description": ""}}, **operation}
    return {"openapi": "3.0.3", "info": INFO, "paths": {path: {method: members}}, **root}


def version_2(operation: Mapping[str, Any], path: str = "/op", **root: Any) -> dict[str, Any]:
    members = {"operationId": "op", "responses": {"200": {"description": ""}}, **operation}
    return {"swagger": "2.0", "info": INFO, "paths": {path: {"post": members}}, **root}


def sent(document: Any, given: Mapping[str, Any]) -> HttpRequest:
    return prepare(request_of(operation_of(document), given), "key")


def refused(document: Any, given: Mapping[str, Any], url: str = URL) -> str:
    with pytest.raises(RequestProblem) as problem:
        prepare(request_of(operation_of(document, url=url), given), "key")
    return f"{problem.value.type}: {problem.value.detail}"


# --- read back by openapi-core ---


class Received:
    """A request as openapi-core takes one."""

    def __init__(self, request: HttpRequest) -> None:
        cookies = [each.partition("=")[::2] for each in request.headers.get("Cookie", "").split("; ") if each]
        self.parameters = RequestParameters(
            query=ImmutableMultiDict(parse_qsl(request.url.raw_query_string, keep_blank_values=True)),
            header=Headers(list(request.headers.items())),
            cookie=ImmutableMultiDict((name, unquote(text)) for name, text in cookies),
        )
        self.host_url = str(request.url.origin())
        self.path = unquote(request.url.raw_path)
        self.method = request.method.lower()
        self.body = request.body
        self.content_type = request.headers.get("Content-Type", "")


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=",|/"), min_size=1, max_size=8)
HEADERS = st.text("abcxyz0189.-_", min_size=1, max_size=8)
WHOLE = st.integers(-(2**53), 2**53)
STRINGS = {"type": "string"}
LISTS = {"type": "array", "items": STRINGS}
COUNTS = {"type": "array", "items": {"type": "integer"}}
OBJECT = {"type": "object", "properties": {"a": STRINGS, "b": {"type": "integer"}}}
PARAMETERS: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": ({"in": "query", "schema": STRINGS}, TEXTS),
    "flag": ({"in": "query", "schema": {"type": "boolean"}}, st.booleans()),
    "repeated": ({"in": "query", "schema": LISTS}, st.lists(TEXTS, min_size=1, max_size=4)),
    "joined": (
        {"in": "query", "explode": False, "schema": COUNTS},
        st.lists(WHOLE, min_size=1, max_size=4),
    ),
    "piped": (
        {"in": "query", "style": "pipeDelimited", "explode": False, "schema": LISTS},
        st.lists(TEXTS, min_size=1, max_size=4),
    ),
    "deep": (
        {"in": "query", "style": "deepObject", "explode": True, "schema": OBJECT},
        st.fixed_dictionaries({"a": TEXTS, "b": WHOLE}),
    ),
    "open": ({"in": "query", "allowReserved": True, "schema": STRINGS}, TEXTS),
    "whole": (
        {"in": "query", "content": {"application/json": {"schema": OBJECT}}},
        st.fixed_dictionaries({"a": TEXTS, "b": WHOLE}),
    ),
    "X-One": ({"in": "header", "schema": {"type": "integer"}}, WHOLE),
    "X-Some": ({"in": "header", "schema": LISTS}, st.lists(HEADERS, min_size=1, max_size=4)),
    "X-Pair": (
        {"in": "header", "explode": True, "schema": OBJECT},
        st.fixed_dictionaries({"a": HEADERS, "b": WHOLE}),
    ),
    "session": ({"in": "cookie", "schema": STRINGS}, TEXTS),
    "id": ({"in": "path", "required": True, "schema": STRINGS}, TEXTS.filter(lambda text: text.strip(".") != "")),
    "parts": ({"in": "path", "required": True, "schema": COUNTS}, st.lists(WHOLE, min_size=1, max_size=4)),
}
PLACES = {"query", "header", "cookie", "path"}


def parameters_document(version: str) -> dict[str, Any]:
    parameters = [{"name": name, **definition} for name, (definition, _) in PARAMETERS.items()]
    document = version_3({"parameters": parameters}, "/op/{id}/of/{parts}", "get")
    return document | {"openapi": version, "servers": [{"url": "https://api.example.com/v1"}]}


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_parameters_are_read_back(version: str) -> None:
    document = parameters_document(version)
    oracle, operation = OpenAPI.from_dict(document), operation_of(document)

    @examples(60)
    @given(st.fixed_dictionaries({name: values for name, (_, values) in PARAMETERS.items()}))
    def are_equal(values: dict[str, Any]) -> None:
        received = Received(prepare(request_of(operation, values), "key"))
        found = oracle.unmarshal_request(received)
        assert not found.errors
        read = {name: value for place in PLACES for name, value in getattr(found.parameters, place).items()}
        assert read == values

    are_equal()


JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@examples(60)
@given(st.dictionaries(TEXTS, JSON, min_size=1, max_size=4).filter(lambda value: "body" not in value))
def test_json_bodies_are_read_back(value: dict[str, Any]) -> None:
    document = version_3({"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}})
    document["servers"] = [{"url": "https://api.example.com"}]
    oracle = OpenAPI.from_dict(document)
    for parameters in (value, {"body": value}):
        found = oracle.unmarshal_request(Received(sent(document, parameters)))
        assert not found.errors
        assert found.body == value


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "multipart/form-data"])
@examples(60)
@given(st.fixed_dictionaries({"text": TEXTS, "more": TEXTS, "tags": st.lists(TEXTS, min_size=2, max_size=4)}))
def test_forms_are_read_back(media_type: str, value: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"text": STRINGS, "more": STRINGS, "tags": LISTS}}
    document = version_3({"requestBody": {"content": {media_type: {"schema": schema}}}})
    document["servers"] = [{"url": "https://api.example.com"}]
    found = OpenAPI.from_dict(document).unmarshal_request(Received(sent(document, value)))
    assert not found.errors
    assert found.body == value


# --- Swagger 2.0, which openapi-core does not read ---


@pytest.mark.parametrize(
    ("definition", "value", "query"),
    [
        ({"collectionFormat": "multi"}, ["a", "b"], "n=a&n=b"),
        ({"collectionFormat": "multi"}, "available", "n=available"),
        ({"collectionFormat": "csv"}, ["a", "b,c"], "n=a,b%2Cc"),
        ({"collectionFormat": "ssv"}, ["a", "b"], "n=a%20b"),
        ({"collectionFormat": "tsv"}, ["a", "b"], "n=a%09b"),
        ({"collectionFormat": "pipes"}, ["a", "b"], "n=a%7Cb"),
        ({}, ["a", "b"], "n=a,b"),
        ({}, 2.0, "n=2"),
    ],
)
def test_arrays_of_version_2(definition: dict[str, Any], value: Any, query: str) -> None:
    parameter = {"name": "n", "in": "query", "type": "array", "items": {"type": "string"}, **definition}
    assert sent(version_2({"parameters": [parameter]}), {"n": value}).url.raw_query_string == query


def test_bodies_of_version_2() -> None:
    pet = {"name": "pet", "in": "body", "required": True, "schema": {"type": "object"}}
    key = {"name": "X-Key", "in": "header", "type": "string"}
    document = version_2({"parameters": [pet, key], "consumes": ["application/xml", "application/json"]})
    whole = sent(document, {"pet": {"id": 1}, "X-Key": 7})
    assert (whole.body, whole.headers["Content-Type"], whole.headers["X-Key"]) == (b'{"id":1}', "application/json", "7")
    assert sent(document, {"id": 1}).body == b'{"id":1}'
    assert sent(document, {"pet": [1, "a"]}).body == b'[1,"a"]'
    assert refused(document, {"X-Key": "k"}).startswith("validation: the request body is required")
    assert "no parameter 'pte'" in refused(document, {"pet": {}, "pte": 1})


def test_forms_of_version_2() -> None:
    fields = [
        {"name": "name", "in": "formData", "type": "string", "required": True},
        {"name": "kind", "in": "formData", "type": "string", "required": True, "default": "dog"},
        {"name": "tags", "in": "formData", "type": "array", "collectionFormat": "pipes", "items": {"type": "string"}},
    ]
    document = version_2({"parameters": fields, "consumes": ["application/x-www-form-urlencoded"]})
    request = sent(document, {"name": "a b", "tags": ["x", "y"]})
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.body == b"name=a%20b&kind=dog&tags=x%7Cy"
    assert refused(document, {"tags": []}).endswith("not given: 'name' (formData)")
    assert refused(document, {"name": "a", "nam": 1}).startswith("configuration: the operation has no parameter 'nam'")
    upload = version_2({"parameters": [*fields, {"name": "file", "in": "formData", "type": "file"}]})
    file = {"base64": "AAH/", "filename": 'a".bin', "contentType": "x/y"}
    request = sent(upload, {"name": "a", "file": file})
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    part = b'name="file"; filename="a%22.bin"\r\nContent-Type: x/y\r\n\r\n\x00\x01\xff\r\n'
    assert request.body is not None
    assert part in request.body
    assert b'name="kind"\r\n\r\ndog\r\n' in request.body
    assert (
        request.body
        == sent(upload, {"name": "a", "file": {"base64": "AAH/", "filename": 'a".bin', "contentType": "x/y"}}).body
    )
    assert b'filename="file"\r\nContent-Type: application/octet-stream\r\n\r\nhello' in (
        sent(upload, {"name": "a", "file": "hello"}).body or b""
    )
    assert refused(upload, {"name": "a", "file": {"base64": "?"}}).startswith("validation: the base64")


# --- bodies of 3.x ---


def with_content(**content: Any) -> dict[str, Any]:
    return version_3({"requestBody": {"content": {name.replace("__", "/"): value for name, value in content.items()}}})


@pytest.mark.parametrize(
    ("content", "value", "content_type", "body"),
    [
        ({"text/plain": {}}, "a", "text/plain", b"a"),
        ({"text/plain": {}}, 7, "text/plain", b"7"),
        ({"application/xml": {}, "text/plain": {}}, "a", "text/plain", b"a"),
        ({"application/xml": {}}, "<a/>", "application/xml", b"<a/>"),
        ({"application/octet-stream": {}}, {"base64": "AAH/"}, "application/octet-stream", b"\x00\x01\xff"),
        ({"image/*": {}}, {"base64": "AA==", "contentType": "image/png"}, "image/png", b"\x00"),
        ({"*/*": {}}, [1], "application/json", b"[1]"),
        ({"application/merge-patch+json": {}}, {"a": None}, "application/merge-patch+json", b'{"a":null}'),
        ({"application/xml": {}, "application/json": {}}, "a", "application/json", b'"a"'),
        (
            {"application/x-www-form-urlencoded": {}},
            {"a": [1, "b c"], "o": {"x": [True]}, "n": None, "l": [[1]]},
            "application/x-www-form-urlencoded",
            b"a=1&a=b%20c&o=%7B%22x%22%3A%5Btrue%5D%7D&l=%5B%5B1%5D%5D",
        ),
        (
            {"application/x-www-form-urlencoded": {"encoding": {"o": {"style": "deepObject", "explode": True}}}},
            {"o": {"x": 1}},
            "application/x-www-form-urlencoded",
            b"o%5Bx%5D=1",
        ),
    ],
)
def test_bodies_are_sent_as(content: Any, value: Any, content_type: str, body: bytes) -> None:
    request = sent(version_3({"requestBody": {"content": content}}), {"body": value})
    assert (request.headers["Content-Type"], request.body) == (content_type, body)


def test_a_task_chooses_the_content_type() -> None:
    header = {"name": "Content-Type", "in": "header", "required": True, "schema": STRINGS}
    types = ("application/json", "application/xml", "application/x-www-form-urlencoded")
    content: dict[str, Any] = {name: {} for name in types}
    document = version_3({"parameters": [header], "requestBody": {"content": content}})
    request = sent(document, {"body": "<a/>", "Content-Type": "application/xml; charset=utf-8"})
    assert (request.headers.getall("Content-Type"), request.body) == (["application/xml; charset=utf-8"], b"<a/>")
    assert sent(document, {"a": 1}).headers.getall("Content-Type") == ["application/json"]


def test_what_no_document_says_of_headers_can_be_given() -> None:
    document = version_3({"requestBody": {"content": {"application/json": {}, "text/csv": {}}}})
    request = sent(document, {"body": "a,b", "Content-Type": "text/csv", "Accept": "text/csv"})
    assert (request.headers["Content-Type"], request.headers["Accept"], request.body) == (
        "text/csv",
        "text/csv",
        b"a,b",
    )
    assert "no parameter 'Content-Type'" in refused(version_3({}), {"Content-Type": "a/b"})


def test_what_a_request_has_without_being_told_is_not_missed() -> None:
    names = ("Idempotency-Key", "Authorization", "user-agent", "Content-Type")
    parameters = [{"name": name, "in": "header", "required": True, "type": "string"} for name in names]
    assert sent(version_2({"parameters": parameters}), {}).headers["Idempotency-Key"] == "key"
    assert sent(version_2({"parameters": parameters}), {names[0]: "mine"}).headers["Idempotency-Key"] == "mine"


def test_members_and_the_whole_of_a_body() -> None:
    plain = with_content(application__json={"schema": {"type": "object"}})
    assert sent(plain, {"a": 1, "b": None}).body == b'{"a":1,"b":null}'
    assert sent(plain, {"body": []}).body == b"[]"
    assert sent(plain, {}).body is None
    assert "no parameter 'a'" in refused(plain, {"body": 1, "a": 2})
    schema = {"allOf": [{"$ref": "#/components/schemas/Letter"}]}
    letter = {"type": "object", "properties": {"body": {"type": "string"}}}
    own = {**with_content(application__json={"schema": schema}), "components": {"schemas": {"Letter": letter}}}
    assert sent(own, {"body": "dear", "to": "x"}).body == b'{"body":"dear","to":"x"}'
    assert refused(with_content(application__xml={}), {"a": 1}).startswith("configuration: the request body is an obj")


def test_files_are_sent_in_parts_where_they_can_be() -> None:
    types = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    document = version_3({"requestBody": {"content": {name: {} for name in types}}})
    for value in ({"base64": "AA=="}, [{"base64": "AA=="}]):
        request = sent(document, {"a": 1, "file": value})
        assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert sent(document, {"a": 1, "file": {"name": "AA=="}}).headers["Content-Type"] == "application/json"
    plain = version_3({"requestBody": {"content": {"application/json": {}}}})
    assert sent(plain, {"file": {"base64": "?"}}).body == b'{"file":{"base64":"?"}}'


def test_parts_of_a_multipart_body() -> None:
    properties = {
        "file": {"type": "string", "format": "binary"},
        "files": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
        "csv": {"type": "string"},
    }
    encoding = {"csv": {"contentType": "text/csv, text/plain"}}
    content = {"schema": {"type": "object", "properties": properties}, "encoding": encoding}
    document = version_3({"requestBody": {"content": {"multipart/form-data": content}}})
    body = sent(document, {"file": "f", "files": ["1", "2"], "csv": "a;b", "meta": {"a": [1]}}).body or b""
    parts = [part.strip(b"\r\n").partition(b"\r\n\r\n") for part in body.split(b"\r\n--")]
    heads = [head.partition(b"form-data; ")[2] for head, _, _ in parts if _]
    binary = b"\r\nContent-Type: application/octet-stream"
    assert heads == [
        b'name="file"; filename="file"' + binary,
        b'name="files"; filename="files"' + binary,
        b'name="files"; filename="files"' + binary,
        b'name="csv"\r\nContent-Type: text/csv',
        b'name="meta"\r\nContent-Type: application/json',
    ]
    assert [text for _, _, text in parts if _] == [b"f", b"1", b"2", b"a;b", b'{"a":[1]}']


# --- what is given and what is missing ---


def query(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": STRINGS, **more}


def test_what_is_required_and_its_defaults() -> None:
    defaulted = {"schema": {"type": "integer", "default": 20}}
    parameters = [query("q", required=True), query("limit", required=True, **defaulted), query("page", **defaulted)]
    document = version_3({"parameters": [*parameters, query("lang", required=True)]}, method="get")
    assert refused(document, {"q": None}) == (
        "validation: parameters that are required are not given: 'q' (query), 'lang' (query)"
    )
    # What is not required is the service's own to decide.
    assert sent(document, {"q": "a", "lang": "de"}).url.raw_query_string == "q=a&limit=20&lang=de"


def test_what_the_operation_does_not_have() -> None:
    document = version_3({"parameters": [query("limit"), query("page")]}, method="get")
    assert refused(document, {"limt": 1}) == "configuration: the operation has no parameter 'limt': it has 'limit'"
    assert refused(document, {"zzzzz": 1}).endswith("it has 'limit', 'page'")
    assert refused(version_3({}), {"a": 1}).endswith("no parameter 'a', nor any other")


def test_values_that_cannot_be_sent_name_the_parameter_and_no_value() -> None:
    document = version_3({"parameters": [query("q")]}, method="get")
    assert refused(document, {"q": {"a": {"secret": 1}}}).startswith("validation: the query parameter 'q' cannot be")
    assert "secret" not in refused(document, {"q": [["secret"]]})
    with pytest.raises(UnicodeEncodeError):
        sent(document, {"q": "\ud800"})


@pytest.mark.parametrize("value", ["", ".", "..", [], {}])
def test_a_path_parameter_leads_to_no_other_path(value: Any) -> None:
    document = version_3({}, "/users/{id}", "delete")
    assert refused(document, {"id": value}).startswith("validation: ")


def test_parameters_of_the_path_and_one_name_in_two_places() -> None:
    shared = [{"name": "id", "in": "path", "required": True, "schema": STRINGS}, query("q", style="pipeDelimited")]
    own = [query("id"), {"$ref": "#/components/parameters/Q"}]
    document = version_3({"parameters": own}, "/users/{id}", "get")
    document["paths"]["/users/{id}"]["parameters"] = shared
    document["components"] = {"parameters": {"Q": query("q", explode=False)}}
    assert sent(document, {"id": 1, "q": ["a", "b"]}).url.raw_path_qs == "/users/1?q=a,b&id=1"
    assert sent(document, {"path.id": 1, "query.id": 2}).url.raw_path_qs == "/users/1?id=2"


def test_a_path_has_what_the_document_forgets_and_a_query_of_its_own() -> None:
    document = version_3({"parameters": [query("q")]}, "/users/{id}/x?fixed=1#part", "get")
    assert sent(document, {"id": "a/b", "q": "c"}).url.raw_path_qs == "/users/a%2Fb/x?fixed=1&q=c"


def test_headers_and_cookies() -> None:
    parameters = [
        {"name": "X-List", "in": "header", "schema": LISTS},
        {"name": "Accept", "in": "header", "required": True, "schema": STRINGS},
        {"name": "Authorization", "in": "header", "required": True, "schema": STRINGS},
        {"name": "a", "in": "cookie", "schema": STRINGS},
        {"name": "b", "in": "cookie", "schema": LISTS},
    ]
    answers = {"200": {"description": "", "content": {"text/csv": {}, "application/problem+json": {}, "bad\n": {}}}}
    document = version_3({"parameters": parameters, "responses": answers}, method="get")
    headers = sent(document, {"X-List": [1, True], "a": "x; y", "b": ["1", "2"]}).headers
    assert (headers["X-List"], headers["Cookie"]) == ("1,true", "a=x%3B%20y; b=1; b=2")
    assert headers["Accept"] == "application/problem+json, text/csv;q=0.5"
    assert sent(document, {"Accept": "text/csv"}).headers.getall("Accept") == ["text/csv"]
    assert refused(document, {"X-List": ["a,b"]}).startswith("validation: the header parameter 'X-List' cannot be sent")


# --- servers ---


@pytest.mark.parametrize(
    ("servers", "base"),
    [
        (None, "https://api.example.com"),
        ([], "https://api.example.com"),
        ([{"url": "/v1/"}], "https://api.example.com/v1"),
        ([{"url": "v1"}], "https://api.example.com/docs/v1"),
        ([{"url": "//other.example.com/x"}], "https://other.example.com/x"),
        ([{"url": "http://h:8080/v1"}, {"url": "https://other"}], "http://h:8080/v1"),
        ([{"url": "ws://h/v1"}, {"url": "https://other"}], "https://other"),
        (
            [{"url": "https://{region}.h/{v}", "variables": {"region": {"default": "eu"}, "v": {"default": 2}}}],
            "https://eu.h/2",
        ),
    ],
)
def test_servers(servers: Any, base: str) -> None:
    root = {} if servers is None else {"servers": servers}
    assert operation_of(version_3({}, **root)).base == base
    assert operation_of(version_3({"servers": servers or []}, servers=[{"url": base}])).base == base
    document = version_3({}, servers=[{"url": "https://root"}])
    document["paths"]["/op"]["servers"] = servers or [{"url": base}]
    assert operation_of(document).base == base


@pytest.mark.parametrize(
    ("members", "base"),
    [
        ({}, "https://api.example.com"),
        ({"host": "h", "basePath": "/v2", "schemes": ["https", "http"]}, "https://h/v2"),
        ({"host": "h:81", "schemes": ["ws", "http"]}, "http://h:81"),
        ({"basePath": "v2/"}, "https://api.example.com/v2"),
    ],
)
def test_servers_of_version_2(members: dict[str, Any], base: str) -> None:
    assert operation_of(version_2({}, **members)).base == base
    assert operation_of(version_2({"schemes": ["http"]}, host="h")).base == "http://h"


@pytest.mark.parametrize(
    ("url", "servers", "why"),
    [
        ("file:///x/api.yaml", [], "is relative to the document, which came from no server"),
        (URL, [{"url": "ftp://h/"}], "is no http or https URL"),
        (URL, [{"url": "https://h/?a=1"}], "is no http or https URL"),
        (URL, [{"url": "https://{x}.h/"}], "variable 'x' has no default"),
        (URL, [{"url": 3}], "a server's url is a number"),
        (URL, {"url": "/"}, "servers is an object"),
        (URL, [{"url": "/"}] * 1001, "more than 1000 servers"),
    ],
)
def test_servers_that_nobody_can_ask(url: str, servers: Any, why: str) -> None:
    assert why in refused(version_3({}, servers=servers), {}, url)


# --- documents ---

YAML = """
openapi: 3.1
info: {title: t, version: '1'}
servers: [{url: 'https://h'}]
paths:
  /op:
    get:
      operationId: op
      parameters: [{$ref: '#/components/parameters/Day'}]
      responses: {200: {description: fine}, default: {description: bad}}
components:
  parameters:
    Day: {name: day, in: query, schema: {type: string, format: date}}
"""


def test_yaml_documents() -> None:
    assert str(sent(YAML, {"day": "2026-01-01"}).url) == "https://h/op?day=2026-01-01"
    assert sent("swagger: 2.0\nhost: h\npaths: {/op: {get: {operationId: op}}}", {}).method == "GET"
    with pytest.raises(NoData, match="line 1"):
        run(parsed("{a: [}"))
    with pytest.raises(NoData, match=r"stands twice"):
        run(parsed("a: 1\na: 2"))


def test_operations_are_found_by_name() -> None:
    paths: dict[str, Any] = {f"/p{n}": {"get": {"operationId": f"getItem{n}"}} for n in range(500)}
    document = {"openapi": "3.0.0", "paths": paths}
    assert operation_of(document, "getItem499").path == "/p499"
    with pytest.raises(RequestProblem) as problem:
        operation_of(document, "getItme7")
    assert problem.value.type == "configuration"
    assert "no operationId 'getItme7': did you mean 'getItem7' or " in problem.value.detail
    with pytest.raises(RequestProblem, match=r"it has 'getItem0', .* and 492 more"):
        operation_of(document, "zzz")
    with pytest.raises(RequestProblem, match="none of its operations has one"):
        operation_of({"openapi": "3.0.0"}, "zzz")
    paths |= {"/again": {"put": {"operationId": "getItem1"}}}
    with pytest.raises(RequestProblem, match="names several operations, GET /p1 and PUT /again"):
        operation_of(document, "getItem1")


def test_path_items_elsewhere_in_the_document() -> None:
    item = {"get": {"operationId": "op", "parameters": [query("q")]}}
    document = {
        "openapi": "3.1.0",
        "paths": {"/a": {"$ref": "#/components/pathItems/A~1%7B"}, "/b": {"$ref": "b.yaml#/x"}},
    }
    document["components"] = {"pathItems": {"A/{": item}}
    assert sent(document, {"q": 1}).url.raw_path_qs == "/a?q=1"
    with pytest.raises(RequestProblem, match="some of its paths are in other documents"):
        operation_of(document, "other")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "it is an array"),
        ("just text", "it is a string"),
        ({}, "neither swagger: '2.0' nor openapi: 3.x"),
        ({"swagger": "1.2"}, "neither swagger"),
        ({"openapi": 4}, "neither swagger"),
        ({"openapi": "3.0.0", "paths": []}, "paths is an array"),
        (version_3({"parameters": {}}), "parameters is an object"),
        (version_3({"parameters": [{"$ref": "#/components/parameters/A"}]}), "leads nowhere"),
        (version_3({"parameters": [{"$ref": "#/paths/~1op/post/parameters/0"}]}), "or to itself"),
        (version_3({"parameters": [{"$ref": "common.yaml#/A"}]}), "is in another document"),
        (version_3({"parameters": [{"name": "a"}]}), "no name or no `in`"),
        (version_3({"parameters": [{"name": "a", "in": "body"}]}), "is in 'body'"),
        (version_3({"parameters": [query("a", style="matrix")]}), "has style 'matrix'"),
        (version_3({"parameters": [query(f"a{n}") for n in range(1001)]}), "more than 1000 parameters"),
        (version_3({"requestBody": {"content": [1]}}), "content is an array"),
        (version_3({"security": [{f"s{n}": [] for n in range(1001)}]}), "more than 1000 security schemes"),
        (version_3({"requestBody": {"content": {f"a/b{n}": {} for n in range(21)}}}), "more than 20 content types"),
        (version_2({"consumes": ["a/b"] * 21}), "more than 20 consumes"),
        (version_3({"parameters": [{"$ref": "#/" + "x" * 2_048}]}), "a $ref has more than 2048 characters"),
        (version_3({"requestBody": {"$ref": "#/paths/~1op/post/requestBody"}}), "or to itself"),
        (version_3({}, path="/" + "x" * 9000), "a path has more than"),
        (version_2({"parameters": [{"name": "a", "in": "query", "collectionFormat": "x"}]}), "collectionFormat 'x'"),
        (version_2({"parameters": [{"name": "a", "in": "path", "collectionFormat": "multi"}]}, path="/{a}"), "'multi'"),
    ],
)
def test_documents_that_are_none(document: Any, why: str) -> None:
    text = refused(document, {})
    assert text.startswith("configuration: the document is no OpenAPI document that can be used: ")
    assert why in text


def test_circles_of_schemas_hold_nobody() -> None:
    node = {"allOf": [{"$ref": "#/components/schemas/Node"}] * 3, "properties": {"a": STRINGS, "n": {"$ref": "#/x"}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}
    document = version_3({"requestBody": {"content": content}}, components={"schemas": {"Node": node}})
    # A member whose schema leads nowhere says nothing of the member.
    assert sent(document, {"a": 1}).body == b'{"a":1}'


@pytest.mark.parametrize(("count", "is_too_much"), [(1, False), (3, True)])
def test_references_are_followed_within_a_bound(count: int, is_too_much: bool) -> None:
    """Each parameter leads through a hundred members, once or several times."""
    far: dict[str, Any] = {f"r{n}": {"$ref": "#" + "/a" * 100 + f"/r{n + 1}"} for n in range(count - 1)}
    deep: dict[str, Any] = {**far, f"r{count - 1}": {"name": "q", "in": "query"}}
    for _ in range(100):
        deep = {"a": deep}
    document = {**version_3({"parameters": [{"$ref": "#" + "/a" * 100 + "/r0"}] * 1000}), **deep}
    if is_too_much:
        assert "lead through more than 200000 members" in refused(document, {"q": 1})
    else:
        assert sent(document, {"q": 1}).url.raw_query_string == "q=1"


KEYS = st.sampled_from(["$ref", "name", "in", "type", "get", "url", "schema", "a/b"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats()
VALUES = st.recursive(
    SCALARS | st.sampled_from(["", "x", "{a}", "#/paths", "http://[::1", "form"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, member in members for place in places(member, (*at, key)))]


RICH: tuple[dict[str, Any], ...] = (
    {
        **version_3(
            {
                "parameters": [query("q"), {"$ref": "#/components/parameters/P"}],
                "servers": [{"url": "https://{h}/x", "variables": {"h": {"default": "h"}}}],
                "security": [{"key": []}, {"oauth": ["a"]}],
                "requestBody": {
                    "content": {
                        "multipart/form-data": {
                            "schema": {"$ref": "#/components/schemas/S"},
                            "encoding": {"a": {"contentType": "a/b"}},
                        }
                    }
                },
                "responses": {"200": {"$ref": "#/components/responses/R"}},
            },
            "/op/{id}",
        ),
        "components": {
            "parameters": {"P": {"name": "id", "in": "path", "required": True, "schema": {"default": 1}}},
            "schemas": {"S": {"allOf": [{"properties": {"a": {"items": {"format": "binary"}}}}]}},
            "responses": {"R": {"content": {"application/json": {}}}},
            "securitySchemes": {"key": {"type": "apiKey", "name": "k", "in": "query"}, "oauth": {"type": "oauth2"}},
        },
    },
    {
        **version_2(
            {
                "parameters": [{"name": "f", "in": "formData", "type": "array", "collectionFormat": "multi"}],
                "consumes": ["multipart/form-data"],
                "produces": ["application/json"],
                "security": [{"key": []}],
                "schemes": ["https"],
            }
        ),
        "host": "h",
        "basePath": "/v1",
        "securityDefinitions": {"key": {"type": "apiKey", "name": "k", "in": "header"}},
    },
)


@examples(60)
@given(st.data())
def test_damaged_documents_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(RICH)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(document)[1:]))
        holder: Any = document
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = data.draw(VALUES)
    try:
        read = Document(document)
        run(read.read_operations())
        make = operation_of_version_2 if read.is_version_2 else operation_of_version_3
        operation = make(read, URL, "op", run(read.find("op")))
        prepare(request_of(operation, {"id": 1, "q": ["a"], "f": ["b"], "k": "c"}), "key")
    except RequestProblem:
        pass


@pytest.mark.parametrize("text", ["[" * 5000, "a:" + " [" * 5000, '{"a":' * 200 + "1" + "}" * 200])
def test_a_document_that_is_too_deep(text: str) -> None:
    with pytest.raises(NoData):
        run(parsed(text))


# --- who calls ---

SCHEMES = {
    "key": {"type": "apiKey", "name": "X-Key", "in": "header"},
    "query": {"type": "apiKey", "name": "k", "in": "query"},
    "cookie": {"type": "apiKey", "name": "c", "in": "cookie"},
    "own": {"type": "apiKey", "name": "authorization", "in": "header"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "oauth": {"type": "oauth2", "flows": {}},
}
BEARER = {"bearer": {"token": "t"}}


def secured(*security: dict[str, list[str]], **operation: Any) -> dict[str, Any]:
    return version_3(operation, security=list(security), components={"securitySchemes": SCHEMES})


@pytest.mark.parametrize(
    ("security", "given", "place"),
    [
        ([{"key": []}], {}, ("header", "X-Key")),
        ([{"query": []}], {}, ("query", "k")),
        ([{"key": [], "query": []}], {"X-Key": 1}, ("query", "k")),
        ([{"key": []}], {"X-Key": "mine"}, None),
        ([{"key": []}, {"bearer": []}], {}, None),
        ([{"key": []}, {"oauth": ["a"]}], {}, None),
        ([{"key": []}, {}], {}, None),
        ([{"own": []}], {}, None),
        ([{"unknown": []}], {}, None),
        ([], {}, None),
    ],
)
def test_where_a_token_goes(security: Any, given: Any, place: Any) -> None:
    operation = operation_of(secured(*security))
    found = place_of_token(operation, BEARER, given)
    assert (None if found is None else (found.location, found.name)) == place
    assert place_of_token(operation, {"basic": {}}, given) is None


def test_keys_are_given_like_parameters_and_stay_with_their_origin() -> None:
    document = secured({"key": [], "cookie": []}, {"query": []})
    request = sent(document, {"X-Key": "a", "c": "b", "k": "d"})
    assert (request.headers["X-Key"], request.headers["Cookie"]) == ("a", "c=b")
    assert (request.url.raw_query_string, request.private_headers) == ("k=d", ("X-Key",))
    own = secured({"key": []}, parameters=[{"name": "X-Key", "in": "header", "required": True, "schema": STRINGS}])
    operation = operation_of(own)
    key = place_of_token(operation, BEARER, {})
    assert key is not None
    request = prepare(request_of(operation, {}, (key, "t")), "key")
    assert (request.headers.getall("X-Key"), request.private_headers) == (["t"], ("X-Key",))
    public = secured({"key": []}, security=[])
    assert "no parameter 'X-Key'" in refused(public, {"X-Key": "a"})


def test_scopes_of_an_operation() -> None:
    operation = operation_of(secured({"key": []}, {"oauth": ["read", "write"]}))
    policy = {"oauth2": {"authority": "https://a"}}
    assert with_scopes(operation, policy) == {"oauth2": {"authority": "https://a", "scopes": ["read", "write"]}}
    assert policy == {"oauth2": {"authority": "https://a"}}
    own = {"oidc": {"authority": "https://a", "scopes": ["mine"]}}
    assert with_scopes(operation, own) == own
    assert with_scopes(operation, BEARER) == BEARER
    assert with_scopes(operation_of(secured()), policy) == policy


def test_schemes_of_version_2() -> None:
    document = version_2({}, security=[{"api": []}], securityDefinitions={"api": SCHEMES["key"]})
    assert sent(document, {"X-Key": "a"}).headers["X-Key"] == "a"
    basic = version_2(
        {}, security=[{"api": []}, {"b": []}], securityDefinitions={"api": SCHEMES["key"], "b": {"type": "basic"}}
    )
    assert place_of_token(operation_of(basic), BEARER, {}) is None
