"""What is read by compiled code is what protobuf reads: the same submission, or the same refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value
from hypothesis import example, given
from hypothesis import strategies as st

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    WorkflowExecuteInput,
    WorkflowExecutionConfig,
    WorkflowMetadata,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ExecutionIdView
from fastrunner._wire import framed, json_parts, read_execution, read_execution_id
from fastrunner.base import limits
from fastrunner.errors import InvalidRequest, RunnerError
from fastrunner.routing.facts import peek_execution_id
from fastrunner.service.decode import decode_execution, decode_plainly

Decode = Callable[[bytes, str], Any]

TEXTS = st.text(max_size=6) | st.sampled_from(["x", "e-1", "x" * 200, "ä", " x"])
DOCUMENT = "document: {}\n"
LABELS = TEXTS | st.sampled_from(["a=b", "n" * 63, "n" * 64, "v" * 255, "v" * 256, "\n", "\x7f"])
INPUTS = st.sampled_from(["null", "{}", '{"a": [1, 2.50]}', "[" * 129 + "]" * 129, "[" * 128 + "]" * 128, "{"])
REQUESTS = st.builds(
    WorkflowExecuteInput,
    workflow_execution_id=st.just("e-1") | TEXTS,
    workflow_yaml=st.just(DOCUMENT) | TEXTS,
    env_vars=st.dictionaries(TEXTS, TEXTS, max_size=3),
    metadata=st.none() | st.builds(WorkflowMetadata, name=TEXTS, version=TEXTS, namespace=TEXTS, description=TEXTS),
    config=st.none()
    | st.builds(
        WorkflowExecutionConfig,
        max_timeout_seconds=st.integers(-1, 300) | st.integers(-(2**31), 2**31 - 1),
        debug_enabled=st.booleans(),
        callbacks_disabled=st.booleans(),
    ),
    labels=st.dictionaries(LABELS, LABELS, max_size=3),
    input=st.sampled_from([None, None, Value(number_value=1)]),
    input_json=INPUTS | TEXTS,
).map(WorkflowExecuteInput.SerializeToString)


def number(value: int, padding: int = 0) -> bytes:
    """A varint, longer by some bytes than it has to be."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    for _ in range(padding):
        encoded[-1] |= 0x80
        encoded.append(0)
    return bytes(encoded)


@st.composite
def fields(draw: Any, depth: int = 2) -> bytes:
    """A message of any fields, known ones most often, in any form that protobuf has, and in some that it has not."""
    message = b""
    for _ in range(draw(st.integers(0, 5))):
        field = draw(st.integers(0, 10) | st.sampled_from([15, 16, 1000, 2**29 - 1, 2**29]))
        wire_type = draw(st.sampled_from([2, 2, 2, 2, 0, 0, 1, 3, 4, 5, 6, 7]))
        message += number(field << 3 | wire_type, draw(st.sampled_from([0, 0, 0, 0, 1, 3, 4, 5])))
        if wire_type == 0:
            padding = draw(st.sampled_from([0, 0, 1, 8, 9, 10]))
            message += number(draw(st.integers(0, 2**32) | st.sampled_from([2**63, 2**64 - 1, 2**65])), padding)
        elif wire_type == 2:
            texts = TEXTS.map(str.encode) | st.binary(max_size=4) | st.just(b"\xed\xa0\x80")
            content = draw(texts | fields(depth - 1) if depth else texts)
            message += number(len(content) + draw(st.sampled_from([0] * 20 + [1])), draw(st.sampled_from([0, 0, 1, 4])))
            message += content
        elif wire_type in (1, 5):
            message += bytes(8 if wire_type == 1 else 4)
    return message


@st.composite
def mutated(draw: Any) -> bytes:
    """A request with some of its bytes changed, doubled or left out."""
    payload = bytearray(draw(REQUESTS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(payload)))
        length = draw(st.integers(0, 3))
        payload[at : at + length] = draw(st.binary(max_size=3) | st.just(bytes(payload[at : at + 2 * length])))
    return bytes(payload)


PAYLOADS = REQUESTS | mutated() | fields() | st.tuples(REQUESTS, REQUESTS | fields()).map(b"".join)


def outcome(decode: Decode, payload: bytes) -> Any:
    """The submission, with the types and the order of its input, or what is said to who is refused."""
    try:
        submission = decode(payload, "c")
    except RunnerError as error:
        return type(error), error.message
    return submission, repr(submission.input_value)


@given(PAYLOADS)
@example(WorkflowExecuteInput(workflow_execution_id="e", workflow_yaml="d", input_json="1e5").SerializeToString())
@example(b"\x0a\x01e\x12\x01d\x32\x00\x32\x02\x10\x01\x32\x02\x08\x05")
@example(b"\x0a\x01e\x12\x01d\x22\x00")
def test_a_request_is_read_as_protobuf_reads_it(payload: bytes) -> None:
    assert outcome(decode_execution, payload) == outcome(decode_plainly, payload)


def id_by_protobuf(payload: bytes) -> str | None:
    try:
        return ExecutionIdView.FromString(payload).execution_id
    except DecodeError:
        return None


@given(PAYLOADS)
def test_an_id_is_read_as_protobuf_reads_it(payload: bytes) -> None:
    try:
        read = peek_execution_id(payload)
    except InvalidRequest:
        assert id_by_protobuf(payload) is None
    else:
        assert read == id_by_protobuf(payload)


ORDINARY = WorkflowExecuteInput(
    workflow_execution_id="e-1",
    workflow_yaml=DOCUMENT,
    env_vars={"REGION": "eu", "LEER": ""},
    metadata=WorkflowMetadata(name="wörkflow", description="d" * 300),
    config=WorkflowExecutionConfig(max_timeout_seconds=2**31 - 1, debug_enabled=True, callbacks_disabled=True),
    labels={"team": "a b", "empty": ""},
    input_json='{"a": "ä"}',
)


def test_ordinary_requests_are_read_by_compiled_code() -> None:
    """Without this the tests above could compare protobuf with itself."""
    assert read_execution(ORDINARY.SerializeToString(deterministic=True)) == (
        "e-1",
        DOCUMENT,
        '{"a": "ä"}'.encode(),
        {"REGION": "eu", "LEER": ""},
        ORDINARY.metadata.SerializeToString(deterministic=True),
        2**31 - 1,
        True,
        {"team": "a b", "empty": ""},
        True,
    )
    assert read_execution_id(ORDINARY.SerializeToString()) == "e-1"


AT_THEIR_BOUNDS: list[tuple[str, Any, Any]] = [
    ("workflow_execution_id", "e" * limits.EXECUTION_ID_SIZE_BYTES_MAX, "e" * (limits.EXECUTION_ID_SIZE_BYTES_MAX + 1)),
    ("workflow_yaml", "d" * limits.DOCUMENT_SIZE_BYTES_MAX, "d" * (limits.DOCUMENT_SIZE_BYTES_MAX + 1)),
    (
        "env_vars",
        {"A": "v" * (limits.ENV_VARS_SIZE_BYTES_MAX - 10)},
        {"A": "v" * limits.ENV_VARS_SIZE_BYTES_MAX},
    ),
    (
        "labels",
        {f"n{at}": "" for at in range(limits.LABELS_COUNT_MAX)},
        {f"n{at}": "" for at in range(limits.LABELS_COUNT_MAX + 1)},
    ),
    (
        "labels",
        {"n" * limits.LABEL_NAME_SIZE_BYTES_MAX: "v" * limits.LABEL_VALUE_SIZE_BYTES_MAX},
        {"n" * (limits.LABEL_NAME_SIZE_BYTES_MAX + 1): "v"},
    ),
    ("labels", {"n": ""}, {"n": "v" * (limits.LABEL_VALUE_SIZE_BYTES_MAX + 1)}),
    (
        "metadata",
        WorkflowMetadata(description="m" * (limits.METADATA_SIZE_BYTES_MAX - 4)),
        WorkflowMetadata(description="m" * limits.METADATA_SIZE_BYTES_MAX),
    ),
    (
        "input_json",
        f'"{"i" * (limits.INPUT_SIZE_BYTES_MAX - 2)}"',
        f'"{"i" * (limits.INPUT_SIZE_BYTES_MAX - 1)}"',
    ),
]


@pytest.mark.parametrize(("field", "within", "beyond"), AT_THEIR_BOUNDS)
def test_bounds_are_those_of_the_plain_decoder(field: str, within: Any, beyond: Any) -> None:
    for value, is_read in ((within, True), (beyond, False)):
        given_fields = {"workflow_execution_id": "e-1", "workflow_yaml": "d"} | {field: value}
        payload = WorkflowExecuteInput(**given_fields).SerializeToString()
        assert (read_execution(payload) is not None) is is_read
        assert outcome(decode_execution, payload) == outcome(decode_plainly, payload)


@given(st.lists(st.sampled_from(["document: {}\n", "document: []\n", "döcument\n", "d"]), min_size=2, max_size=6))
def test_documents_in_turns_stay_themselves(documents: list[str]) -> None:
    """The one before is remembered, so that it need not be made again."""
    for document in documents:
        payload = WorkflowExecuteInput(workflow_execution_id="e-1", workflow_yaml=document).SerializeToString()
        assert decode_execution(payload).document == document


def test_a_document_that_comes_again_is_the_same_object() -> None:
    payloads = [
        WorkflowExecuteInput(workflow_execution_id=each, workflow_yaml=DOCUMENT).SerializeToString() for each in "ab"
    ]
    assert decode_execution(payloads[0]).document is decode_execution(payloads[1]).document


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_parts_are_framed_by_their_lengths(parts: list[bytes]) -> None:
    assert framed(tuple(parts)) == b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def test_what_is_framed_is_bytes() -> None:
    for parts in ((None,), ("x",)):
        with pytest.raises(TypeError):
            framed(parts)  # type: ignore[arg-type] # what this is about


@given(st.text(alphabet='{[,:}]" 1', max_size=30))
def test_parts_of_json_are_counted(text: str) -> None:
    encoded = text.encode()
    assert json_parts(encoded) == sum(encoded.count(mark) for mark in (b"{", b"[", b",", b":", b":"))
