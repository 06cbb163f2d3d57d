"""Support: gRPC servers on the loopback, made of .proto files that tests write, and calls that go to them."""

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks import build_performers
from fastrunner.tasks.descriptions import Description, NoDescription
from tests.integration.http_calls import KEY, effect

__all__ = [
    "GREETER",
    "GREET_URI",
    "KINDS",
    "Calls",
    "Greeter",
    "Texts",
    "calling",
    "described",
    "files_of",
    "reflecting",
    "serving",
]

GREET_URI = "file://app/greet.proto"
"""As the specification's example has it: with an authority."""
GREETER = """
syntax = "proto3";
package app.greet;
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import public "kinds.proto";

enum Colour { RED = 0; GREEN = 3; }
message Hello {
  string name = 1;
  int64 big = 2;
  bytes raw = 3;
  Colour colour = 4;
  oneof way { string road = 5; int32 rail = 6; }
  google.protobuf.Any any = 7;
  google.protobuf.Struct open = 8;
  google.protobuf.Timestamp at = 9;
  map<string, Hello> others = 10;
  repeated double numbers = 11;
  optional bool polite_form = 12;
  google.protobuf.Int64Value boxed = 13;
  Old old = 14;
}
service Greeter {
  rpc SayHello(Hello) returns (Hello);
  rpc Collect(stream Hello) returns (Hello);
  rpc Spread(Hello) returns (stream Hello);
  rpc Chat(stream Hello) returns (stream Hello);
  rpc Shout(google.protobuf.StringValue) returns (google.protobuf.StringValue);
}
"""
KINDS = """
syntax = "proto2";
package app.greet;
enum Size { SMALL = 1; LARGE = 5; }
message Old {
  required string must = 1;
  optional int32 number = 2 [default = 7];
  optional Size size = 3;
  extensions 100 to 199;
}
extend Old { optional string more = 100; }
"""


@cache
def files_of(main: str, *texts: tuple[str, str]) -> FileDescriptorSet:
    """What texts by name describe: compiled here, as the server's side does."""
    with TemporaryDirectory() as folder:
        for name, text in texts:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        command = [sys.executable, "-I", "-m", "grpc_tools.protoc", "-I.", "--include_imports", "-oout", main]
        subprocess.run(command, cwd=folder, check=True, timeout=60)
        return FileDescriptorSet.FromString(Path(folder, "out").read_bytes())


class Texts:
    """Descriptions by URL, counted."""

    def __init__(self, **texts: str) -> None:
        self.texts = {"file://app/greet.proto": GREETER, "file://app/kinds.proto": KINDS, **texts}
        self.asked: list[Mapping[str, Any]] = []
        self.problem: NoDescription | None = None

    async def get(self, resource: Mapping[str, Any]) -> Description:
        self.asked.append(resource)
        url = resource["uri"]
        if self.problem is not None:
            raise self.problem
        if url not in self.texts:
            raise NoDescription(f"{url} cannot be fetched: there is no such file", is_transient=False)
        text = self.texts[url]
        return Description(url, text, hashlib.sha256(text.encode()).digest())


@dataclass
class Greeter:
    """What the server was asked, and how it answers: with what it got, unless a test says otherwise."""

    asked: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    time_left_s: list[float | None] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    cancelled: int = 0
    answer: Callable[[Any, Any], Awaitable[Any]] | None = None
    """Given a request as JSON (a list, of a stream) and the context, the reply as JSON, or those of a stream."""
    port: int = 0


def _handlers(greeter: Greeter, files: FileDescriptorSet, service_name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    methods = {}
    for method in pool.FindServiceByName(service_name).methods:
        reads = message_factory.GetMessageClass(method.input_type).FromString
        kind = "stream" if method.client_streaming else "unary"
        kind += "_stream" if method.server_streaming else "_unary"
        maker = getattr(grpc, f"{kind}_rpc_method_handler")
        handle = _streaming(greeter, method, pool) if method.server_streaming else _single(greeter, method, pool)
        methods[method.name] = maker(handle, reads, lambda reply: reply.SerializeToString())
    return grpc.method_handlers_generic_handler(service_name, methods)


async def _asked(greeter: Greeter, request: Any, context: Any, method: Any, pool: Any) -> Any:
    greeter.metadata.append(dict(context.invocation_metadata()))
    greeter.time_left_s.append(context.time_remaining())
    greeter.peers.add(context.peer())
    if method.client_streaming:
        return [json_format.MessageToDict(each, descriptor_pool=pool) async for each in request]
    return json_format.MessageToDict(request, descriptor_pool=pool)


def _made(method: Any, pool: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        return message_factory.GetMessageClass(method.output_type).FromString(value)
    return json_format.ParseDict(value, message_factory.GetMessageClass(method.output_type)(), descriptor_pool=pool)


def _single(greeter: Greeter, method: Any, pool: Any) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        try:
            asked = await _asked(greeter, request, context, method, pool)
            greeter.asked.append(asked)
            reply = asked if greeter.answer is None else await greeter.answer(asked, context)
            if method.client_streaming and greeter.answer is None:
                reply = {"others": {str(number): each for number, each in enumerate(asked)}}
            return _made(method, pool, reply)
        except asyncio.CancelledError:
            greeter.cancelled += 1
            raise

    return handle


def _streaming(greeter: Greeter, method: Any, pool: Any) -> Any:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            asked = await _asked(greeter, request, context, method, pool)
            greeter.asked.append(asked)
            replies = asked if method.client_streaming else [asked]
            if greeter.answer is not None:
                replies = await greeter.answer(asked, context)
            for reply in replies:
                yield _made(method, pool, reply)
        except (asyncio.CancelledError, GeneratorExit):
            greeter.cancelled += 1
            raise

    return handle


@asynccontextmanager
async def serving(
    greeter: Greeter,
    files: FileDescriptorSet | None = None,
    service: str = "app.greet.Greeter",
    *,
    credentials: grpc.ServerCredentials | None = None,
    more: Sequence[Any] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    compression: grpc.Compression | None = None,
) -> AsyncIterator[Greeter]:
    """A server of one service on a free port."""
    files = files or files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], compression=compression)
    server.add_generic_rpc_handlers((_handlers(greeter, files, service), *more))
    where = f"{host}:{port}"
    greeter.port = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    await server.start()
    try:
        yield greeter
    finally:
        await server.stop(None)


class Reflection:
    """Server reflection over files, or lies about them."""

    def __init__(self, files: FileDescriptorSet, version: str, lie: str) -> None:
        self.asked = 0
        """How often it was asked for the service."""
        self.authorizations: list[str | None] = []
        self._files = {file.name: file for file in files.file if not file.name.startswith("google/protobuf/")}
        self._lie = lie
        handler = grpc.stream_stream_rpc_method_handler(
            self._handle, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
        )
        self.handler = grpc.method_handlers_generic_handler(
            f"grpc.reflection.{version}.ServerReflection", {"ServerReflectionInfo": handler}
        )

    async def _handle(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.file_containing_symbol == "app.greet.Greeter":
                self.asked += 1
                self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
            if self._lie == "silent":
                return
            yield self._lied(request) if self._lie not in ("", "own") else self._reply(request)

    def _reply(self, request: Any) -> Any:
        """One file at a time, and those of protobuf's own not at all: servers differ in that."""
        reply = ServerReflectionResponse()
        if request.list_services:
            reply.list_services_response.service.add(name="app.greet.Greeter")
        elif request.file_containing_symbol == "app.greet.Greeter":
            reply.file_descriptor_response.file_descriptor_proto.append(self._files["greet.proto"].SerializeToString())
        elif self._lie == "own" and request.file_by_filename == "google/protobuf/timestamp.proto":
            own = FileDescriptorProto(name=request.file_by_filename, package="google.protobuf", syntax="proto3")
            own.message_type.add(name="Timestamp")
            reply.file_descriptor_response.file_descriptor_proto.append(own.SerializeToString())
        elif request.file_by_filename in self._files:
            encoded = self._files[request.file_by_filename].SerializeToString()
            reply.file_descriptor_response.file_descriptor_proto.append(encoded)
        else:
            reply.error_response.error_code = 5
        return reply

    def _lied(self, request: Any) -> Any:
        reply = ServerReflectionResponse()
        sent = reply.file_descriptor_response.file_descriptor_proto
        name = request.file_by_filename or "0.proto"
        match self._lie:
            case "nothing":
                reply.file_descriptor_response.SetInParent()
            case "garbage":
                sent.append(b"\xff\xff")
            case "endless":
                following = f"{int(name.removesuffix('.proto')) + 1}.proto"
                sent.append(FileDescriptorProto(name=name, dependency=[following]).SerializeToString())
            case "circle":
                sent.append(FileDescriptorProto(name="0.proto", dependency=["1.proto"]).SerializeToString())
                sent.append(FileDescriptorProto(name="1.proto", dependency=["0.proto"]).SerializeToString())
            case _:
                sent.append(FileDescriptorProto(name="other.proto").SerializeToString())
        return reply


def reflecting(files: FileDescriptorSet, version: str = "v1", lie: str = "") -> Reflection:
    """Whose `handler` is for a server."""
    return Reflection(files, version, lie)


class Calls:
    """The performer of a worker, and what describes the services."""

    def __init__(self, texts: Texts, performers: Mapping[str, Any], registry: CollectorRegistry) -> None:
        self.texts = texts
        self.performers = performers
        self.registry = registry

    @property
    def grpc(self) -> Any:
        """The performer itself, once it has been loaded."""
        return self.performers["call_grpc"]._performer

    async def outcome(self, port: int, method: Any = "SayHello", **changed: Any) -> EffectResult | EffectFailure:
        service = {"name": "app.greet.Greeter", "host": "127.0.0.1", "port": port, **changed.pop("service", {})}
        arguments = {"proto": {"uri": GREET_URI}, "service": service, "method": method, **changed}
        asked = effect()
        asked = PerformEffect(7, "call_grpc", asked.capsule, KEY, "/do/0/pay")
        given = json.loads(json.dumps(arguments))
        outcome: EffectResult | EffectFailure = await self.performers["call_grpc"].perform(asked, arguments)
        assert arguments == given, "arguments are shared"
        assert outcome.effect_id == 7
        return outcome

    async def value(self, port: int, method: Any = "SayHello", **changed: Any) -> Any:
        outcome = await self.outcome(port, method, **changed)
        assert isinstance(outcome, EffectResult), described(outcome)
        return outcome.value

    async def failure(self, port: int, method: Any = "SayHello", **changed: Any) -> EffectFailure:
        outcome = await self.outcome(port, method, **changed)
        assert isinstance(outcome, EffectFailure), outcome.value
        return outcome


def described(failure: EffectFailure) -> str:
    return f"{failure.type} {failure.status} {failure.title}: {failure.detail}"


@asynccontextmanager
async def calling(texts: Texts | None = None, around: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    """A worker's performers with the settings of a configuration; `around` goes to `build_performers`."""
    texts, registry = texts or Texts(), CollectorRegistry()
    built = build_performers(load_config(**settings), Metrics(registry), descriptions=texts, **(around or {}))
    try:
        yield Calls(texts, built, registry)
    finally:
        for performer in built.values():
            await performer.close()
