"""Support: stand-ins that are no hosts of HTTP: the gRPC server and the MCP server that examples name."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from tests.conformance.hosts import Hosts

__all__ = ["GREETER_PROTO", "greeter", "put_npx"]

GREETER_PROTO = """\
syntax = "proto3";
package GreeterApi;
message Somebody { string name = 1; }
message Greeting { string message = 1; }
service Greeter { rpc SayHello(Somebody) returns (Greeting); }
"""
_PORT = 5011


@asynccontextmanager
async def greeter(hosts: Hosts) -> AsyncIterator[None]:
    """A greeter on the port that the example has, and on an address of `localhost` that nobody else listens on."""

    async def say_hello(request: StringValue, context: object) -> StringValue:
        hosts.asked.append(f"SayHello {request.value}")
        return StringValue(value=f"Hello {request.value}")

    # On the wire either message of GREETER_PROTO is a StringValue.
    method = grpc.unary_unary_rpc_method_handler(
        say_hello, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
    )
    address = f"127.57.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("GreeterApi.Greeter", {"SayHello": method})])
    server.add_insecure_port(f"{address}:{_PORT}")
    await server.start()
    hosts.others["localhost"] = address
    try:
        yield
    finally:
        await server.stop(None)


def put_npx(folder: Path) -> None:
    """A program `npx` that serves the tools of Slack's MCP server over stdio, if that is what it is to run."""
    folder.mkdir()
    path = folder / "npx"
    path.write_text(f"#!{sys.executable}\n{_NPX}")
    path.chmod(0o755)


_NPX = """\
import json, os, sys

assert sys.argv[1:] == ["slack-mcp-serverr@latest", "--transport", "stdio"], sys.argv
assert os.environ["SLACK_MCP_XOXP_TOKEN"].startswith("xoxp-")
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] == "initialize":
        result = {
            "protocolVersion": asked["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "slack", "version": "1.0.0"},
        }
    elif asked["method"] == "tools/list":
        result = {"tools": [{"name": "conversations_add_message", "inputSchema": {"type": "object"}}]}
    else:
        given = asked["params"]["arguments"]
        text = asked["params"]["name"] + ": " + given["payload"] + " in " + given["channel_id"]
        result = {"content": [{"type": "text", "text": text}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
