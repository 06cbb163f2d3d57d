"""A client that knows a server only by what its reflection says, as grpcurl does."""

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

VERSIONS = ("v1", "v1alpha")


class ReflectingClient:
    """Calls methods by name with JSON in and JSON out."""

    def __init__(self, channel: Any, version: str) -> None:
        self._channel = channel
        self._path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        self.pool = DescriptorPool()

    async def ask(self, **question: Any) -> ServerReflectionResponse:
        """One question on a stream of its own."""
        call = self._channel.stream_stream(self._path)()
        await call.write(ServerReflectionRequest(host="h", **question).SerializeToString())
        await call.done_writing()
        response = ServerReflectionResponse.FromString(await call.read())
        assert response.original_request == ServerReflectionRequest(host="h", **question)
        return response

    async def services(self) -> list[str]:
        """Names of all services."""
        response = await self.ask(list_services="*")
        return [service.name for service in response.list_services_response.service]

    async def learn(self, symbol: str) -> Any:
        """Adds the file that has `symbol`, with everything it imports, to the pool."""
        response = await self.ask(file_containing_symbol=symbol)
        assert not response.HasField("error_response"), response.error_response
        files = {}
        for encoded in response.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(encoded)
            files[file.name] = file
        for name in files:
            self._add(name, files)

    def _add(self, name: str, files: dict[str, FileDescriptorProto]) -> None:
        try:
            self.pool.FindFileByName(name)
        except KeyError:
            for imported in files[name].dependency:
                self._add(imported, files)
            self.pool.Add(files[name])

    async def call(self, service: str, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """One unary call; the reply has exactly the fields that are set, under their JSON names."""
        await self.learn(service)
        described = self.pool.FindServiceByName(service).FindMethodByName(method)
        payload = ParseDict(request, GetMessageClass(described.input_type)()).SerializeToString()
        reply = await self._channel.unary_unary(f"/{service}/{method}")(payload, timeout=10)
        return MessageToDict(GetMessageClass(described.output_type).FromString(reply))
