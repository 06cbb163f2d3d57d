"""Stage 5, tasks: a server asked for its description: server reflection, v1, and v1alpha where there is no other.

Rules: the messages of both versions are the same on the wire. What a server sends is bounded in number and size, and
goes into a pool of its own. Files that come with protobuf and that a server leaves out are taken from there.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.described import Described, in_order
from fastrunner.tasks.call_grpc.exchange import patient
from fastrunner.tasks.call_grpc.outcome import GrpcProblem, invalid_call
from fastrunner.tasks.call_grpc.sources import invalid_proto
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["reflected"]

_METHODS: Final = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_WELL_KNOWN: Final = {
    f"google/protobuf/{name}.proto": f"google.protobuf.{name}_pb2"
    for name in (
        *("any", "api", "descriptor", "duration", "empty", "field_mask", "source_context", "struct", "timestamp"),
        *("type", "wrappers"),
    )
}
"""Files of protobuf's own, and the modules that have them."""
_SHOWN_COUNT_MAX: Final = 20
_SHOWN_SIZE_CHARS_MAX: Final = 500


async def reflected(
    channel: grpc.aio.Channel, service: str, metadata: Sequence[tuple[str, str]], timeout_s: float
) -> Described:
    """What a server says of a service, named whole or by its end. Raises CallProblem, grpc.aio.AioRpcError."""
    for method in _METHODS:
        asking: Any = channel.unary_stream(
            method, ServerReflectionRequest.SerializeToString, ServerReflectionResponse.FromString
        )
        try:
            files = await _Asking(partial(asking, timeout=timeout_s, metadata=metadata)).files_of(service)
            return await asyncio.to_thread(Described, files)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
    raise GrpcProblem(
        "configuration",
        501,
        "No Reflection",
        "the server does not tell what it serves (reflection v1, v1alpha): let proto.endpoint be the URI of a .proto "
        "file",
    )


class _Asking:
    """Questions to one server."""

    def __init__(self, ask: Callable[[ServerReflectionRequest], Any]) -> None:
        """`ask` begins a call with one question: so there is nothing to be sent to a server that has ended it."""
        self._ask = ask
        self._files: dict[str, FileDescriptorProto] = {}
        self._size_bytes = 0

    async def files_of(self, service: str) -> list[FileDescriptorProto]:
        """The file of a service last, before it those that it imports."""
        reply = await self._asked(file_containing_symbol=service)
        if reply.HasField("error_response"):
            reply = await self._asked(file_containing_symbol=await self._whole_name(service))
        names = self._taken(reply)
        if not names:
            raise CallProblem("Malformed Response", "the server says that it has a service, and does not describe it")
        main = next((name for name in names if self._serves(name, service)), names[0])
        while missing := self._missing():
            for name in missing:
                await self._take(name)
        return in_order(self._files.values(), main)

    def _serves(self, name: str, service: str) -> bool:
        file = self._files[name]
        return any(f".{file.package}.{each.name}".endswith(f".{service}") for each in file.service)

    async def _whole_name(self, service: str) -> str:
        """The one service whose name ends so."""
        reply = await self._asked(list_services="*")
        there = [each.name for each in reply.list_services_response.service]
        found = [name for name in there if name.endswith(f".{service}")]
        if len(found) != 1:
            listed = printable(", ".join(there[:_SHOWN_COUNT_MAX]))[:_SHOWN_SIZE_CHARS_MAX]
            raise invalid_call("configuration", f"the server has no service {service}; it has {listed}")
        return str(found[0])

    def _missing(self) -> list[str]:
        """Files that others import and that are not here yet."""
        wanted = {name for file in self._files.values() for name in file.dependency} - set(self._files)
        if len(self._files) + len(wanted) > limits.GRPC_PROTO_FILES_MAX:
            raise invalid_proto(f"the server describes it in more than {limits.GRPC_PROTO_FILES_MAX} files")
        return sorted(wanted)

    async def _take(self, name: str) -> None:
        if name in self._files:
            return
        reply = await self._asked(file_by_filename=name)
        if not reply.HasField("error_response") and name in self._taken(reply):
            return
        own = _well_known(name)
        if own is None:
            shown = printable(name)[:_SHOWN_SIZE_CHARS_MAX]
            raise invalid_proto(f"the server does not have {shown}, which its own description imports")
        self._files[name] = own

    def _taken(self, reply: ServerReflectionResponse) -> list[str]:
        """The names of the files that a reply brings, all kept."""
        names = []
        for encoded in reply.file_descriptor_response.file_descriptor_proto:
            self._size_bytes += len(encoded)
            if self._size_bytes > limits.GRPC_COMPILED_SIZE_BYTES_MAX:
                raise invalid_proto(f"the server describes it in more than {limits.GRPC_COMPILED_SIZE_BYTES_MAX} bytes")
            try:
                file = FileDescriptorProto.FromString(encoded)
            except DecodeError:
                raise CallProblem("Malformed Response", "the server's description cannot be read") from None
            self._files[file.name] = file
            names.append(file.name)
        return names

    async def _asked(self, **question: str) -> ServerReflectionResponse:
        call = patient(self._ask(ServerReflectionRequest(**question)))
        try:
            reply = await call.read()
        finally:
            call.cancel()
        if not isinstance(reply, ServerReflectionResponse):
            raise CallProblem("Malformed Response", "the server does not answer what it is asked by reflection")
        return reply


def _well_known(name: str) -> FileDescriptorProto | None:
    """A file of protobuf's own."""
    module = _WELL_KNOWN.get(name)
    if module is None:
        return None
    return FileDescriptorProto.FromString(import_module(module).DESCRIPTOR.serialized_pb)
