"""Requests become submissions with every bound and value checked."""

import math
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    WorkflowExecuteInput,
    WorkflowExecutionConfig,
    WorkflowMetadata,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ItemsView
from fastrunner.base import limits
from fastrunner.engine import Submission
from fastrunner.errors import InvalidRequest, RunnerError, TooLarge
from fastrunner.progress.wire import field_1
from fastrunner.routing.facts import peek_execution_id
from fastrunner.service.decode import decode_execution

DOCUMENT = "document: {dsl: 1.0.0, namespace: n, name: w, version: 1.0.0}\ndo: []\n"


def decoded(**fields: Any) -> Submission:
    given_fields = {"workflow_execution_id": "e-1", "workflow_yaml": DOCUMENT} | fields
    return decode_execution(WorkflowExecuteInput(**given_fields).SerializeToString())


def refused(error: type[RunnerError], **fields: Any) -> Any:
    with pytest.raises(error) as caught:
        decoded(**fields)
    return caught.value


def struct(**values: Any) -> Struct:
    return ParseDict(values, Struct())


def test_a_plain_request_has_defaults_everywhere() -> None:
    assert decoded() == Submission(
        execution_id="e-1",
        document=DOCUMENT,
        input_json=b"null",
        input_value=None,
        env_vars={},
        metadata=b"",
        timeout_s_max=0,
        debug=False,
    )


def test_every_field_arrives() -> None:
    metadata = WorkflowMetadata(name="w", version="2", namespace="n", description="d")
    submission = decoded(
        env_vars={"REGION": "eu"},
        metadata=metadata,
        config=WorkflowExecutionConfig(max_timeout_seconds=30, debug_enabled=True),
    )
    assert submission.env_vars == {"REGION": "eu"}
    assert WorkflowMetadata.FromString(submission.metadata) == metadata
    assert (submission.timeout_s_max, submission.debug) == (30, True)


@pytest.mark.parametrize("execution_id", ["a", "x" * 255, "é" * 127, "order/7 of 9", "日本"])
def test_ids_of_1_to_255_bytes_are_taken(execution_id: str) -> None:
    assert decoded(workflow_execution_id=execution_id).execution_id == execution_id


@pytest.mark.parametrize("execution_id", ["", "x" * 256, "é" * 128, "a\nb", "a\x00", "\x7f"])
def test_other_ids_are_refused(execution_id: str) -> None:
    assert refused(InvalidRequest, workflow_execution_id=execution_id).field == "workflow_execution_id"


@pytest.mark.parametrize("document", ["", " \n\t"])
def test_an_empty_document_is_refused(document: str) -> None:
    assert refused(InvalidRequest, workflow_yaml=document).field == "workflow_yaml"


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_document_over_its_bound_is_too_large(letter: str) -> None:
    fitting = letter * (limits.DOCUMENT_SIZE_BYTES_MAX // len(letter.encode()))
    assert decoded(workflow_yaml=fitting).document == fitting
    assert str(limits.DOCUMENT_SIZE_BYTES_MAX) in refused(TooLarge, workflow_yaml=fitting + letter).message


def test_input_json_wins_over_input_over_workflow_input() -> None:
    all_three = {"input_json": "[1]", "input": Value(string_value="v"), "workflow_input": struct(a=1)}
    assert decoded(**all_three).input_json == b"[1]"
    del all_three["input_json"]
    assert decoded(**all_three).input_json == b'"v"'
    del all_three["input"]
    assert decoded(**all_three).input_json == b'{"a":1}'


def test_integral_doubles_become_integers() -> None:
    values = struct(one=1, negative=-3.0, half=0.5, zero=-0.0, large=2.0**53, beyond=1e300)
    assert decoded(workflow_input=values).input_json == (
        b'{"beyond":1e+300,"half":0.5,"large":9007199254740992,"negative":-3,"one":1,"zero":0}'
    )


def test_keys_are_sorted_so_that_a_repeated_request_is_the_same() -> None:
    assert decoded(workflow_input=struct(b=1, a={"d": 1, "c": 2})).input_json == b'{"a":{"c":2,"d":1},"b":1}'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused_with_their_place(number: float) -> None:
    inner = struct()
    inner.get_or_create_list("a/b").extend([0, number])
    refusal = refused(InvalidRequest, workflow_input=inner)
    assert refusal.field == "workflow_input"
    assert "/a~1b/1" in refusal.message


def test_a_value_without_a_kind_is_refused() -> None:
    assert "no kind" in refused(InvalidRequest, input=Value()).message


@pytest.mark.parametrize("text", ["12345678901234567890123", '{ "a" : 1.0 }', "0.1000", '"\\u00e9"', "null"])
def test_input_json_is_passed_on_as_it_is(text: str) -> None:
    assert decoded(input_json=text).input_json == text.encode()


@pytest.mark.parametrize(("text", "offset"), [("{", 1), ("[1, NaN]", 4), ("1 2", 2), ("'a'", 0), ("1e999", 0)])
def test_input_json_that_is_none_is_refused_with_the_offset(text: str, offset: int) -> None:
    refusal = refused(InvalidRequest, input_json=text)
    assert refusal.field == "input_json"
    assert f"offset {offset}" in refusal.message


def test_input_that_nests_too_deep_is_refused() -> None:
    depth = limits.INPUT_DEPTH_MAX
    assert decoded(input_json="[" * depth + "]" * depth)
    assert "deeper" in refused(InvalidRequest, input_json="[" * (depth + 1) + "]" * (depth + 1)).message
    assert refused(InvalidRequest, input_json="[" * 5000 + "]" * 5000).field == "input_json"
    assert decoded(input_json=str([[]] * depth * 2))


def test_input_over_its_bound_is_too_large() -> None:
    text = "x" * limits.INPUT_SIZE_BYTES_MAX
    assert "input_json" in refused(TooLarge, input_json=f'"{text}"').message
    assert "workflow_input" in refused(TooLarge, workflow_input=struct(a=text)).message


def test_other_fields_have_bounds_too() -> None:
    assert refused(InvalidRequest, env_vars={"": "x"}).field == "env_vars"
    assert "env_vars" in refused(TooLarge, env_vars={"A": "x" * limits.ENV_VARS_SIZE_BYTES_MAX}).message
    large = WorkflowMetadata(description="x" * limits.METADATA_SIZE_BYTES_MAX)
    assert "metadata" in refused(TooLarge, metadata=large).message
    negative = WorkflowExecutionConfig(max_timeout_seconds=-1)
    assert refused(InvalidRequest, config=negative).field == "config.max_timeout_seconds"


def test_labels_within_their_bounds_are_taken_as_they_are() -> None:
    labels = {
        "n" * limits.LABEL_NAME_SIZE_BYTES_MAX: "v" * limits.LABEL_VALUE_SIZE_BYTES_MAX,
        "größe": "ä" * 127,
        "x": "",
    }
    labels |= {f"label-{at}": "=" for at in range(limits.LABELS_COUNT_MAX - len(labels))}
    assert decoded(labels=labels).labels == labels


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({f"n-{at}": "" for at in range(17)}, "labels has 17 names: at most 16 are allowed"),
        ({"": "x"}, "labels has an empty name, for 'x': every label needs one"),
        ({"a=b": "x"}, "labels: the name 'a=b' has a `=`, which ends names in commands"),
        ({"n" * 64: ""}, f"labels: the name '{'n' * 39}…' has 64 bytes: at most 63 are allowed"),
        ({"n": "ä" * 128}, f"labels: the value '{'ä' * 39}…' of 'n' has 256 bytes: at most 255 are allowed"),
        ({"n": "a\nb"}, "labels: the value 'a\\nb' of 'n' has a control character: labels are shown in lines"),
        ({"a\x80": ""}, "labels: the name 'a\\x80' has a control character: labels are shown in lines"),
    ],
)
def test_other_labels_are_refused_by_name_value_and_bound(labels: dict[str, str], sentence: str) -> None:
    refusal = refused(InvalidRequest, labels=labels)
    assert (refusal.field, refusal.message) == ("labels", sentence)


def test_bytes_that_are_no_message_are_refused() -> None:
    for payload in (b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"):
        with pytest.raises(InvalidRequest):
            decode_execution(payload)


@pytest.mark.parametrize(
    ("field", "payload"),
    [
        ("workflow_execution_id", field_1(b"\xed\xa0\x80")),
        ("workflow_yaml", b"\x12\x02\xff\xfe"),
        ("env_vars", b"\x1a\x08\x0a\x01K\x12\x03\xed\xa0\x80"),
        ("env_vars", b"\x1a\x08\x0a\x03\xed\xa0\x80\x12\x01v"),
        ("metadata.description", b"\x22\x03\x22\x01\xff"),
        ("input_json", b"\x42\x01\xff"),
    ],
)
def test_a_text_that_is_no_utf_8_is_refused_by_name(field: str, payload: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_execution(payload if field == "workflow_execution_id" else field_1(b"e-1") + payload)
    assert refused.value.field == field
    assert "is not UTF-8" in refused.value.message


def test_search_for_what_is_no_text_ends_soon() -> None:
    """Deep, long and broken messages; a name is no promise."""
    nested = b"\xff"
    for _ in range(3_000):
        # A list within a list of a Value.
        size = len(nested)
        nested = b"\x32" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + nested
    deep = b"\x3a" + bytes([len(nested) & 0x7F | 0x80, len(nested) >> 7 & 0x7F | 0x80, len(nested) >> 14]) + nested
    long = b"\x30\x00" * 3_000_000 + b"\x0a\x01\xff"
    for payload in (bytes(3_000_000), long, deep, b"\x0a\xff\xff\xff\xff\x7fx", b"\x0f\x0a"):
        with pytest.raises(InvalidRequest):
            decode_execution(payload)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '["\\ud800x"]'])
def test_lone_surrogates_of_an_input_are_refused(text: str) -> None:
    assert refused(InvalidRequest, input_json=text).field == "input_json"


def test_input_is_decoded_as_it_will_be_after_a_restart() -> None:
    """Its keys in the same order, its numbers the same."""
    for fields in (
        {"input_json": '{"b": 1.0, "a": 123456789012345678901234567890}'},
        {"workflow_input": struct(b=[1, 2.5], a={"d": -0.0, "c": None})},
        {"input": Value(string_value="x")},
    ):
        submission = decoded(**fields)
        stored = orjson.loads(submission.input_json)
        assert repr(submission.input_value) == repr(stored)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_json_survives_the_value_field(value: Any) -> None:
    text = decoded(input=ParseDict(value, Value())).input_json
    assert orjson.loads(text) == value


@given(st.text(min_size=1, max_size=40), st.dictionaries(st.text(), st.text(), max_size=5), st.text(max_size=40))
def test_peeking_reads_the_id_of_any_request(execution_id: str, env_vars: dict[str, str], other: str) -> None:
    request = WorkflowExecuteInput(workflow_execution_id=other, workflow_yaml=DOCUMENT, env_vars=env_vars)
    last_wins = (
        request.SerializeToString() + WorkflowExecuteInput(workflow_execution_id=execution_id).SerializeToString()
    )
    assert peek_execution_id(last_wins) == execution_id
    assert WorkflowExecuteInput.FromString(last_wins).workflow_execution_id == execution_id


def test_peeking_refuses_what_is_no_message() -> None:
    with pytest.raises(InvalidRequest):
        peek_execution_id(b"\x0a\xff")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_field_1_is_what_protobuf_writes(size: int) -> None:
    assert field_1(b"x" * size) == ItemsView(items=[b"x" * size]).SerializeToString()
