"""Stage 5, tasks: JSON as protobuf messages and back, by protobuf's own JSON mapping.

Rules: pure, no I/O. No problem's text holds a value, because values may be secrets: it names the field and what that
takes. What comes out is plain JSON within the bounds of a call's output; integral doubles are integers, as everywhere.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError

from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.outcome import GrpcProblem, invalid_call, too_large
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.scalars import json_kind

__all__ = ["MESSAGES", "are_small", "decoded", "encoded", "requests_of"]

MESSAGES: Final = "messages"
"""The one argument of a method that takes a stream."""
_VALUE: Final = "value"
"""The one argument where a request's JSON is no object."""
_SCALARS: Final = frozenset(
    "google.protobuf." + name
    for name in (
        *("BoolValue", "BytesValue", "DoubleValue", "Duration", "FieldMask", "FloatValue", "Int32Value", "Int64Value"),
        *("ListValue", "StringValue", "Timestamp", "UInt32Value", "UInt64Value"),
    )
)
_STEP: Final = re.compile(r"Failed to parse (\S+) field: ")
_UNKNOWN: Final = re.compile(r'Message type "([^"]*)" has no field named "([^"]*)"')
_NAMES: Final = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in vars(FieldDescriptor)
    if name.startswith("TYPE_")
}
_SHOWN_SIZE_CHARS_MAX: Final = 200


def requests_of(method: MethodDescriptor, arguments: Any) -> Sequence[Any]:
    """The messages to send, as JSON, for the document's `arguments`. Raises GrpcProblem."""
    if arguments is not None and not isinstance(arguments, dict):
        raise invalid_call("expression", f"arguments is {json_kind(arguments)}, an object is needed")
    if method.client_streaming:
        messages = arguments.get(MESSAGES) if arguments is not None and len(arguments) == 1 else None
        if not isinstance(messages, list):
            raise invalid_call(
                "configuration",
                f"{method.name} takes a stream: arguments has to be `{MESSAGES}` alone, an array with one element for "
                "each message",
            )
        if len(messages) > limits.GRPC_STREAM_MESSAGES_MAX:
            raise invalid_call("configuration", f"a stream may have {limits.GRPC_STREAM_MESSAGES_MAX} messages at most")
        return messages
    if method.input_type.full_name not in _SCALARS:
        return [arguments or {}]
    if arguments is None or list(arguments) != [_VALUE]:
        raise invalid_call(
            "configuration", f"{method.name} takes a {method.input_type.full_name}: arguments has to be `value` alone"
        )
    return [arguments[_VALUE]]


def encoded(method: MethodDescriptor, pool: DescriptorPool, requests: Iterable[Any]) -> list[bytes]:
    """JSON as the messages that a method takes. Raises GrpcProblem."""
    messages, size_bytes = [], 0
    for number, request in enumerate(requests):
        where = f"arguments.{MESSAGES}[{number}]" if method.client_streaming else "arguments"
        message = _encoded(method.input_type, pool, request, where)
        size_bytes += len(message)
        if len(message) > limits.GRPC_MESSAGE_SIZE_BYTES_MAX:
            raise invalid_call(
                "configuration",
                f"{where} makes a message of {len(message)} bytes: {limits.GRPC_MESSAGE_SIZE_BYTES_MAX} may be sent",
            )
        if size_bytes > limits.GRPC_STREAM_SIZE_BYTES_MAX:
            raise invalid_call(
                "configuration", f"all messages of a stream may have {limits.GRPC_STREAM_SIZE_BYTES_MAX} bytes"
            )
        messages.append(message)
    return messages


def _encoded(type_: Descriptor, pool: DescriptorPool, value: Any, where: str) -> bytes:
    if not isinstance(value, dict) and type_.full_name not in _SCALARS and type_.full_name != "google.protobuf.Value":
        raise invalid_call("validation", f"{where} is {json_kind(value)}: {type_.full_name} takes an object")
    message: Any = message_factory.GetMessageClass(type_)()
    try:
        json_format.ParseDict(value, message, descriptor_pool=pool)
        return bytes(message.SerializeToString())
    except json_format.ParseError as error:
        raise _misfit(type_, str(error), where) from None
    except EncodeError:
        missing = ", ".join(message.FindInitializationErrors())[:_SHOWN_SIZE_CHARS_MAX]
        raise invalid_call("validation", f"{where} has not all that {type_.full_name} requires: {missing}") from None
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        raise invalid_call("validation", f"{where} cannot be made a {type_.full_name}") from None


def _misfit(type_: Descriptor, words: str, where: str) -> GrpcProblem:
    """What does not fit where, told without the library's words, which have values in them."""
    path: list[str] = []
    at: Descriptor | None = type_
    takes = ""
    begin = 0
    while (step := _STEP.match(words, begin)) is not None:
        begin = step.end()
        path.append(step[1])
        field = None if at is None else _field(at, step[1])
        takes = "" if field is None else _type_name(field)
        at = None if field is None else field.message_type
        if at is not None and at.GetOptions().map_entry:
            at = at.fields_by_name["value"].message_type
    where = printable(".".join([where, *path]))[:_SHOWN_SIZE_CHARS_MAX]
    unknown = _UNKNOWN.match(words, begin)
    if unknown is not None:
        name = printable(unknown[2])[:_SHOWN_SIZE_CHARS_MAX]
        return invalid_call("validation", f"{where} has {name!r}, which is no field of {unknown[1]}")
    what = takes or (type_.full_name if not path else "its type")
    return invalid_call("validation", f"{where} holds what {what} does not take in protobuf's JSON mapping")


def _field(message: Descriptor, name: str) -> FieldDescriptor | None:
    fields = message.fields_by_camelcase_name
    return fields[name] if name in fields else message.fields_by_name.get(name)


def _type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return "a map" if field.message_type.GetOptions().map_entry else field.message_type.full_name
    return field.enum_type.full_name if field.enum_type is not None else _NAMES.get(field.type, "its type")


def decoded(method: MethodDescriptor, pool: DescriptorPool, replies: Sequence[bytes]) -> Any:
    """The messages that a method gave as JSON: one, or a list of those of a stream. Raises CallProblem."""
    containers = _Containers()
    values = []
    for reply in replies:
        try:
            message = message_factory.GetMessageClass(method.output_type)()
            message.ParseFromString(reply)
            value = json_format.MessageToDict(message, descriptor_pool=pool)
        except DecodeError:
            raise CallProblem("Malformed Response", f"a message is no {method.output_type.full_name}") from None
        except (json_format.Error, AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            # Those of a description that gives protobuf's own types other fields are among them.
            raise CallProblem(
                "Malformed Response",
                f"a {method.output_type.full_name} cannot be told in JSON: it holds what its description does not have",
            ) from None
        values.append(containers.plain(value, 1 if method.server_streaming else 0))
    return values if method.server_streaming else values[0]


class _Containers:
    """Counts the arrays and objects of one output."""

    def __init__(self) -> None:
        self._count = 0

    def plain(self, value: Any, depth: int) -> Any:
        """A value of plain dicts and lists. Raises CallProblem."""
        if isinstance(value, float):
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        if not isinstance(value, Mapping | list):
            return value
        self._count += 1
        if depth >= limits.HTTP_RESPONSE_DEPTH_MAX:
            raise too_large(f"the response is nested deeper than {limits.HTTP_RESPONSE_DEPTH_MAX} levels")
        if self._count > limits.HTTP_RESPONSE_CONTAINERS_MAX:
            raise too_large(f"the response has more than {limits.HTTP_RESPONSE_CONTAINERS_MAX} arrays and objects")
        if isinstance(value, list):
            return [self.plain(each, depth + 1) for each in value]
        return {name: self.plain(each, depth + 1) for name, each in value.items()}


def are_small(requests: Sequence[Any]) -> bool:
    """Whether JSON is converted in no time."""
    left = limits.GRPC_SMALL_COUNT
    pending: list[Iterator[Any]] = [iter(requests)]
    size_bytes = 0
    while pending:
        for each in pending[-1]:
            left -= 1
            size_bytes += len(each) if isinstance(each, str) else 0
            if left < 0 or size_bytes > limits.GRPC_SMALL_SIZE_BYTES:
                return False
            if isinstance(each, dict | list):
                pending.append(iter(each.values() if isinstance(each, dict) else each))
                break
        else:
            pending.pop()
    return True
