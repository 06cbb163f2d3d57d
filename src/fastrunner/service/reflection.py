"""Stage 1, service: server reflection, v1 and v1alpha, over the descriptor set that protoc wrote.

That set has the JSON names; the descriptors inside Python's generated modules do not, and a client that prints JSON
through them shows `workflow_execution_id` where the contract says `workflowExecutionId`. Both versions of the protocol
have the same messages on the wire, so one servicer answers both. Rule: the router's internal package is not shown.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from importlib.resources import files
from typing import Final, Protocol

from google.protobuf import duration_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import INVALID_ARGUMENT, NOT_FOUND
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from fastrunner.service.decode import parse

REFLECTION_SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_INTERNAL_PACKAGE: Final = "fastrunner"
_DETAILS: Final = (status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR)


class _Descriptors(Protocol):
    """What a generated module says of its file."""

    name: str

    @property
    def serialized_pb(self) -> bytes: ...


class Reflection:
    """Answers ServerReflectionInfo."""

    def __init__(self) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._file_of_symbol: dict[str, str] = {}
        self._file_of_extension: dict[tuple[str, int], str] = {}
        self._services: list[str] = []
        for file in _all_files():
            self._add(file)
        self._services.sort()

    async def converse(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """One answer to each request of a stream."""
        async for request in requests:
            yield self.answer(request)

    def answer(self, payload: bytes) -> bytes:
        """The answer to one request; what is not found is an answer too. Raises InvalidRequest."""
        request = parse(ServerReflectionRequest, payload)
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        question = request.WhichOneof("message_request")
        if question == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
        elif question == "file_by_filename":
            self._show(response, request.file_by_filename, request.file_by_filename)
        elif question == "file_containing_symbol":
            symbol = request.file_containing_symbol
            self._show(response, self._file_of_symbol.get(symbol.lstrip(".")), symbol)
        elif question == "file_containing_extension":
            wanted = request.file_containing_extension
            key = (wanted.containing_type, wanted.extension_number)
            self._show(response, self._file_of_extension.get(key), f"extension {key[1]} of {key[0]}")
        elif question == "all_extension_numbers_of_type":
            self._number(response, request.all_extension_numbers_of_type)
        else:
            _fail(response, INVALID_ARGUMENT, "the request asks nothing")
        return bytes(response.SerializeToString())

    def _show(self, response: ServerReflectionResponse, file_name: str | None, what: str) -> None:
        """The file and everything it imports: clients need both, and this saves them a question for each."""
        if file_name is None or file_name not in self._files:
            _fail(response, NOT_FOUND, f"{what} is not known here")
            return
        shown = dict.fromkeys([file_name])
        queue = [file_name]
        for name in queue:
            imports = [wanted for wanted in self._files[name].dependency if wanted not in shown]
            shown.update(dict.fromkeys(imports))
            queue.extend(imports)
        for name in shown:
            response.file_descriptor_response.file_descriptor_proto.append(self._files[name].SerializeToString())

    def _number(self, response: ServerReflectionResponse, type_name: str) -> None:
        if type_name not in self._file_of_symbol:
            _fail(response, NOT_FOUND, f"{type_name} is not known here")
            return
        numbers = sorted(number for extended, number in self._file_of_extension if extended == type_name)
        response.all_extension_numbers_response.base_type_name = type_name
        response.all_extension_numbers_response.extension_number.extend(numbers)

    def _add(self, file: FileDescriptorProto) -> None:
        self._files[file.name] = file
        prefix = f"{file.package}." if file.package else ""
        symbols = [
            *_symbols_of_messages(prefix, file.message_type),
            *_symbols_of_enums(prefix, file.enum_type),
            *(prefix + extension.name for extension in file.extension),
        ]
        for service in file.service:
            name = prefix + service.name
            self._services.append(name)
            symbols.append(name)
            symbols.extend(f"{name}.{method.name}" for method in service.method)
        self._file_of_symbol.update(dict.fromkeys(symbols, file.name))
        for extension in _extensions(file):
            self._file_of_extension[extension.extendee.lstrip("."), extension.number] = file.name


def _all_files() -> Iterator[FileDescriptorProto]:
    """Every file a client may ask for, with JSON names."""
    written = FileDescriptorSet.FromString(files("fastrunner._pb").joinpath("descriptors.binpb").read_bytes())
    for file in written.file:
        if file.package.split(".")[0] != _INTERNAL_PACKAGE:
            yield file
    # Clients that print a refusal and its details ask for their types here.
    known = {file.name for file in written.file}
    yield from (_named(module) for module in _DETAILS if module.name not in known)
    yield _named(health_pb2.DESCRIPTOR)
    alpha = _named(reflection_pb2.DESCRIPTOR)
    yield alpha
    # The generated package has v1alpha only. v1 is the same file under another name, and so are its bytes.
    yield FileDescriptorProto.FromString(_renamed(alpha))


def _named(module: _Descriptors) -> FileDescriptorProto:
    """A generated module's file with the JSON names that Python leaves out."""
    file = FileDescriptorProto.FromString(module.serialized_pb)
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        for field in message.field:
            head, *tail = field.name.split("_")
            field.json_name = head + "".join(part.capitalize() for part in tail)
    return file


def _renamed(alpha: FileDescriptorProto) -> bytes:
    stable = FileDescriptorProto()
    stable.CopyFrom(alpha)
    stable.name = alpha.name.replace("v1alpha", "v1")
    stable.package = alpha.package.replace("v1alpha", "v1")
    stable.ClearField("options")
    messages = list(stable.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        for field in message.field:
            if field.HasField("type_name"):
                field.type_name = field.type_name.replace("v1alpha", "v1")
    for service in stable.service:
        for method in service.method:
            method.input_type = method.input_type.replace("v1alpha", "v1")
            method.output_type = method.output_type.replace("v1alpha", "v1")
    return stable.SerializeToString()


def _symbols_of_messages(prefix: str, messages: Iterable[DescriptorProto]) -> Iterator[str]:
    for message in messages:
        name = prefix + message.name
        yield name
        yield from (f"{name}.{field.name}" for field in message.field)
        yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
        yield from (f"{name}.{extension.name}" for extension in message.extension)
        yield from _symbols_of_enums(f"{name}.", message.enum_type)
        yield from _symbols_of_messages(f"{name}.", message.nested_type)


def _symbols_of_enums(prefix: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield prefix + enum.name
        # Values live beside their enum, not within it.
        yield from (prefix + value.name for value in enum.value)


def _extensions(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from file.extension
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        yield from message.extension


def _fail(response: ServerReflectionResponse, code: int, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message
