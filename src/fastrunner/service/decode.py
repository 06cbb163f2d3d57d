"""Stage 1, service: request bytes into what the engine takes, every bound and value checked.

Rules: a request that gets past here is within its size bounds and well-formed; nothing is corrected silently. Numbers
of `Struct` and `Value` are doubles on the wire: integral ones become integers, so that `1` stays `1`; protobuf itself
bounds how deep they nest (some 30 objects). `input_json` is passed on as the text it is, and decoded once. What is
plainly fine is read by compiled code (`wire/requests.pxi`), to the same submission; protobuf reads everything else.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowRef
from fastrunner._wire import read_execution
from fastrunner.base import limits
from fastrunner.base.checks import is_deeper
from fastrunner.engine import LATEST, DefinitionRef, Submission
from fastrunner.errors import InvalidRequest, TooLarge

Json = Any

_M = TypeVar("_M", bound=Message)
_INT64_BOUND = 2.0**63
_LOOKS_MAX = 10_000
"""Fields looked at for the one that is no text: some milliseconds, for a message that is refused in any case."""
_LOOKS_DEPTH_MAX = 50
_SHOWN_CHARS_MAX = 40


def parse(message: type[_M], payload: bytes) -> _M:
    """`payload` as a message. Raises InvalidRequest if it is none."""
    try:
        return message.FromString(payload)
    except DecodeError:
        pass
    field = _field_without_text(cast("Descriptor", message.DESCRIPTOR), memoryview(payload), iter(range(_LOOKS_MAX)))
    if field:
        raise InvalidRequest(field, f"{field} is not UTF-8: a text has no lone surrogates and no other bytes")
    raise InvalidRequest("", f"the request is not a {message.DESCRIPTOR.full_name} in protobuf encoding")


def _field_without_text(descriptor: Descriptor, payload: memoryview, looks: Iterator[int], depth: int = 0) -> str:
    """The path of the first text in a message that is none; empty if it is not found by so many looks at fields."""
    for number, data in _fields_with_length(payload, looks):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        if field.type == field.TYPE_STRING:
            try:
                str(data, "utf-8")
            except UnicodeDecodeError:
                return str(field.name)
        elif field.message_type is not None and depth < _LOOKS_DEPTH_MAX:
            within = _field_without_text(field.message_type, data, looks, depth + 1)
            if within:
                is_map = field.message_type.GetOptions().map_entry
                return str(field.name) if is_map else f"{field.name}.{within}"
    return ""


def _fields_with_length(payload: memoryview, looks: Iterator[int]) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each text, group of bytes or message within a message, as far as it can be read."""
    at = 0
    while at < len(payload) and next(looks, None) is not None:
        tag, at = _varint(payload, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 2:
            size_bytes, at = _varint(payload, at)
            yield number, payload[at : at + size_bytes]
            at += size_bytes
        elif wire_type == 0:
            _, at = _varint(payload, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            return


def _varint(payload: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in payload[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            break
    return value, at


def decode_execution(payload: bytes, client: str = "") -> Submission:
    """A client's WorkflowExecuteInput, checked. Raises InvalidRequest, TooLarge."""
    read = read_execution(payload)
    if read is None:
        return decode_plainly(payload, client)
    execution_id, document, input_json, env_vars, metadata, timeout_s_max, debug, labels, silent = read
    more = (env_vars, metadata, timeout_s_max, debug, client, None, labels, silent)
    if not input_json:
        return Submission(execution_id, document, b"null", None, *more)
    try:
        value = orjson.loads(input_json)
    except orjson.JSONDecodeError:
        return decode_plainly(payload, client)
    return Submission(execution_id, document, input_json, value, *more)


def decode_plainly(payload: bytes, client: str = "") -> Submission:
    """The same for any request, with the words to refuse it."""
    request = parse(WorkflowExecuteInput, payload)
    check_execution_id(request.workflow_execution_id, "workflow_execution_id")
    ref = _ref(request)
    if ref is None:
        check_document(request.workflow_yaml)
    input_json, input_value = _input(request)
    return Submission(
        execution_id=request.workflow_execution_id,
        document=request.workflow_yaml,
        input_json=input_json,
        input_value=input_value,
        env_vars=_env_vars(request),
        metadata=_metadata(request),
        timeout_s_max=_timeout_s_max(request),
        debug=request.config.debug_enabled,
        client=client,
        ref=ref,
        labels=check_labels(request.labels),
        silent=request.config.callbacks_disabled,
    )


def _ref(request: WorkflowExecuteInput) -> DefinitionRef | None:
    """The registered workflow a request names, instead of a document."""
    if not request.HasField("workflow_ref"):
        return None
    if request.workflow_yaml:
        raise InvalidRequest(
            "workflow_ref",
            "workflow_ref and workflow_yaml are both set: give the document, or the name of a registered one",
        )
    return checked_ref(request.workflow_ref)


def checked_ref(ref: WorkflowRef) -> DefinitionRef:
    """The name of a registered workflow; without a version, and with `latest`, the highest one. Raises InvalidRequest,
    TooLarge."""
    for field in ("namespace", "name", "version"):
        value = getattr(ref, field)
        if not value and field != "version":
            raise InvalidRequest(
                f"workflow_ref.{field}", f"workflow_ref.{field} is empty: say which registered workflow is meant"
            )
        _check_size(f"workflow_ref.{field}", _size_bytes(value), limits.WORKFLOW_REF_SIZE_BYTES_MAX)
    return DefinitionRef(ref.namespace, ref.name, "" if ref.version == LATEST else ref.version)


def check_execution_id(execution_id: str, field: str) -> None:
    """Raises InvalidRequest unless the id has 1 to 255 bytes of UTF-8 and no control characters."""
    if not execution_id:
        raise InvalidRequest(field, f"{field} is empty: give each execution an id of its own")
    size_bytes = _size_bytes(execution_id)
    if size_bytes > limits.EXECUTION_ID_SIZE_BYTES_MAX:
        raise InvalidRequest(
            field, f"{field} has {size_bytes} bytes: at most {limits.EXECUTION_ID_SIZE_BYTES_MAX} are allowed"
        )
    if _has_control(execution_id):
        raise InvalidRequest(field, f"{field} has a control character: it also travels in headers of HTTP calls")


def check_document(document: str) -> None:
    """Raises InvalidRequest for an empty document, TooLarge for one over the bound."""
    if not document or document.isspace():
        raise InvalidRequest("workflow_yaml", "workflow_yaml is empty: it must hold the whole workflow document")
    _check_size("workflow_yaml", _size_bytes(document), limits.DOCUMENT_SIZE_BYTES_MAX)


def check_reason(reason: str) -> str:
    """The reason of a command. Raises TooLarge beyond the bound."""
    _check_size("reason", _size_bytes(reason), limits.REASON_SIZE_BYTES_MAX)
    return reason


def _check_size(field: str, size_bytes: int, size_bytes_max: int) -> None:
    if size_bytes > size_bytes_max:
        raise TooLarge(f"{field} has {size_bytes} bytes: at most {size_bytes_max} are allowed")


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _env_vars(request: WorkflowExecuteInput) -> dict[str, str]:
    if not request.env_vars:
        return {}
    env_vars = dict(request.env_vars)
    if "" in env_vars:
        raise InvalidRequest("env_vars", "env_vars has an empty name: every variable needs one")
    size_bytes = sum(_size_bytes(name) + _size_bytes(value) for name, value in env_vars.items())
    _check_size("env_vars", size_bytes, limits.ENV_VARS_SIZE_BYTES_MAX)
    return env_vars


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an execution, or those that a listing asks for. Raises InvalidRequest beyond a bound."""
    if not labels:
        return {}
    if len(labels) > limits.LABELS_COUNT_MAX:
        raise InvalidRequest("labels", f"labels has {len(labels)} names: at most {limits.LABELS_COUNT_MAX} are allowed")
    for name, value in labels.items():
        if not name:
            raise InvalidRequest("labels", f"labels has an empty name, for {_shown(value)}: every label needs one")
        if "=" in name:
            raise InvalidRequest("labels", f"labels: the name {_shown(name)} has a `=`, which ends names in commands")
        for what, text, size_bytes_max in (
            ("name", name, limits.LABEL_NAME_SIZE_BYTES_MAX),
            ("value", value, limits.LABEL_VALUE_SIZE_BYTES_MAX),
        ):
            of = f"labels: the {what} {_shown(text)}" + (f" of {_shown(name)}" if what == "value" else "")
            size_bytes = _size_bytes(text)
            if size_bytes > size_bytes_max:
                raise InvalidRequest("labels", f"{of} has {size_bytes} bytes: at most {size_bytes_max} are allowed")
            if _has_control(text):
                raise InvalidRequest("labels", f"{of} has a control character: labels are shown in lines")
    return dict(labels)


def _shown(text: str) -> str:
    """The beginning of a name or value, for a sentence."""
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…")


def _has_control(text: str) -> bool:
    return not text.isprintable() and any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)


def _metadata(request: WorkflowExecuteInput) -> bytes:
    if not request.HasField("metadata"):
        return b""
    metadata = request.metadata.SerializeToString(deterministic=True)
    _check_size("metadata", len(metadata), limits.METADATA_SIZE_BYTES_MAX)
    return metadata


def _timeout_s_max(request: WorkflowExecuteInput) -> int:
    seconds: int = request.config.max_timeout_seconds
    if seconds < 0:
        raise InvalidRequest(
            "config.max_timeout_seconds", f"config.max_timeout_seconds is {seconds}: it must be 0 (no bound) or more"
        )
    return seconds


def _input(request: WorkflowExecuteInput) -> tuple[bytes, Json]:
    """The input's JSON text and value: input_json over input over workflow_input over `null`."""
    if request.input_json:
        return _checked_text(request.input_json)
    if request.HasField("input"):
        return _converted(request.input, "input")
    if request.HasField("workflow_input"):
        return _converted(request.workflow_input, "workflow_input")
    return b"null", None


def _checked_text(text: str) -> tuple[bytes, Json]:
    """`text` unchanged, with every digit of its numbers, and what it says."""
    encoded = text.encode()
    _check_size("input_json", len(encoded), limits.INPUT_SIZE_BYTES_MAX)
    try:
        value = orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            "input_json",
            f"input_json is not JSON: {error.msg} at line {error.lineno}, column {error.colno}, offset {error.pos}",
        ) from None
    brackets = encoded.count(b"[") + encoded.count(b"{")
    if brackets > limits.INPUT_DEPTH_MAX and is_deeper(value, limits.INPUT_DEPTH_MAX):
        raise InvalidRequest("input_json", f"input_json nests deeper than {limits.INPUT_DEPTH_MAX} levels")
    return encoded, value


class _Misfit(Exception):
    """A value that JSON cannot hold; its pointer is found on the way out, so that good values pay nothing for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = ""

    def within(self, step: str) -> "_Misfit":
        """The same misfit, seen from one level further out."""
        self.pointer = f"/{step}{self.pointer}"
        return self


def _converted(value: Value | Struct, field: str) -> tuple[bytes, Json]:
    try:
        converted = _object(value) if isinstance(value, Struct) else _value(value)
    except _Misfit as misfit:
        raise InvalidRequest(field, f"{field}: the value at {misfit.pointer or '/'} {misfit.message}") from None
    encoded = orjson.dumps(converted)
    _check_size(field, len(encoded), limits.INPUT_SIZE_BYTES_MAX)
    return encoded, converted


def _value(value: Value) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "null_value":
        return None
    if kind == "struct_value":
        return _object(value.struct_value)
    if kind == "list_value":
        return _array(value.list_value)
    raise _Misfit("has no kind: null is `null_value`")


def _object(struct: Struct) -> Json:
    """Keys sorted: a map has no order on the wire, and a repeated request must give the same bytes."""
    converted = {}
    fields = struct.fields
    for name in sorted(fields):
        try:
            converted[name] = _value(fields[name])
        except _Misfit as misfit:
            raise misfit.within(name.replace("~", "~0").replace("/", "~1")) from None
    return converted


def _array(values: ListValue) -> Json:
    converted = []
    for index, value in enumerate(values.values):
        try:
            converted.append(_value(value))
        except _Misfit as misfit:
            raise misfit.within(str(index)) from None
    return converted


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise _Misfit(f"is the number {number}: JSON has no such number")
    if number.is_integer() and -_INT64_BOUND <= number < _INT64_BOUND:
        return int(number)
    return number
