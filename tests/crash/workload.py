"""Support: what the workflows of crash tests reach outside, and clients that note what they are told."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
from aiohttp import web
from google.protobuf.message import Message

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import CloudEvent, SendEventsRequest
from fastrunner.base.clock import monotonic_s
from fastrunner.progress.names import FINAL_STATUSES
from tests.crash.documents import CHANNELS, CHILDREN, DESCRIPTION, DETACHED, PROTO, Outside
from tests.crash.hearing import HEARS, PARTNERS, WORD
from tests.integration.asyncapi_calls import asyncapi_3, redis_server
from tests.integration.grpc_calls import Greeter, files_of, serving
from tests.integration.wire import path

__all__ = ["Clients", "Promise", "Service", "Shells", "serve_effects"]


class Shells:
    """What shells have written down."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()
        self.runs: dict[str, list[float]] = {}
        """Monotonic times by idempotency key: each run wrote then or later, before the next look into the file."""
        self._offset = 0
        self._looked_s = 0.0

    def read(self) -> None:
        """Notes what was written since the last time."""
        not_before_s, self._looked_s = self._looked_s, monotonic_s()
        with self.file.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self.runs.setdefault(line[:-1].decode(), []).append(not_before_s)


_DESCRIBED = "/described"
"""Of the paths of operations that are called by name."""
_OPERATIONS = {
    "openapi": "3.1.0",
    "paths": {f"{_DESCRIBED}/{name}": {"get": {"operationId": name}} for name in ("work", "flaky")},
}


_WORK = """
syntax = "proto3";
package crash;
message Asked {}
message Done { string key = 1; }
service Work {
  rpc Do(Asked) returns (Done);
  rpc Flaky(Asked) returns (Done);
  rpc Stream(stream Asked) returns (stream Done);
}
"""

_STREAMS = asyncapi_3("redis", "127.0.0.1:{port}", "work-{id}", bindings={"x-type": "stream", "x-group": "crash"})
_STREAMS["servers"] = {"broker": {**_STREAMS["servers"]["s"], "variables": {"port": {}}}}
_STREAMS["channels"]["c"]["parameters"] = {"id": {}}
_STREAMS["operations"] = {"work": _STREAMS["operations"]["send"]}


class Service:
    """What workflows call; knows when which effect was asked of it, and of shells."""

    def __init__(self, seed: int, shells: Shells) -> None:
        self.calls: dict[str, list[float]] = {}
        """Monotonic times of the calls by idempotency key."""
        self.described: dict[str, list[float]] = {}
        """Those of operations that it describes."""
        self.rpcs: dict[str, list[float]] = {}
        """Those by gRPC."""
        self.shells = shells
        self.url = ""
        self.rpc_port = self.broker_port = 0
        self._chance = random.Random(seed)

    @property
    def outside(self) -> Outside:
        """What documents are made for."""
        return Outside(self.url, str(self.shells.file), self.rpc_port, self.broker_port)

    def effects(self) -> dict[str, list[float]]:
        """Times of all effects so far, by idempotency key."""
        self.shells.read()
        return self.calls | self.shells.runs

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == DESCRIPTION:
            return web.json_response(_OPERATIONS)
        if request.path == CHANNELS:
            return web.json_response(_STREAMS)
        if request.path == PROTO:
            return web.Response(text=_WORK)
        key = request.headers["Idempotency-Key"]
        self.calls.setdefault(key, []).append(monotonic_s())
        if request.path.startswith(_DESCRIBED):
            self.described[key] = self.calls[key]
        await asyncio.sleep(self._chance.uniform(0.002, 0.03))
        if request.path in ("/flaky", f"{_DESCRIBED}/flaky") and key.endswith("/1"):
            raise web.HTTPServiceUnavailable
        if request.path == "/sulk" and key.partition("/")[0].endswith("~1"):
            raise web.HTTPServiceUnavailable
        return web.json_response({"key": key})

    async def answer_rpc(self, asked: Any, context: Any) -> Any:
        key = dict(context.invocation_metadata())["idempotency-key"]
        self.rpcs[key] = self.calls.setdefault(key, [])
        self.calls[key].append(monotonic_s())
        await asyncio.sleep(self._chance.uniform(0.002, 0.03))
        if key.endswith("/1") and "/ask/" in key:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not at first")
        return [{"key": key}] * len(asked) if isinstance(asked, list) else {"key": key}


@asynccontextmanager
async def serve_effects(seed: int, file: Path) -> AsyncIterator[Service]:
    """The service on a free port of this machine; `file` is for shells."""
    service = Service(seed, Shells(file))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    files = await asyncio.to_thread(files_of, "work.proto", ("work.proto", _WORK))
    greeter = Greeter(answer=service.answer_rpc)
    try:
        with redis_server() as service.broker_port:
            async with serving(greeter, files, "crash.Work") as served:
                service.rpc_port = served.port
                yield service
    finally:
        await runner.cleanup()


@dataclass
class Promise:
    """What was asked and promised of one execution."""

    execution_id: str
    kind: str
    may_be_gone: bool = False
    """Whether it may be deleted while clients still ask for it."""
    accepted: bool = False
    cancel_sent: bool = False
    cancelled: bool = False
    """A cancel was answered with OK."""
    pause_sent: bool = False
    paused: bool = False
    """A pause was answered with OK, and no resume or cancel has been sent since."""
    watched: list[bytes] = field(default_factory=list)
    """Events as a subscriber got them."""
    errors: list[str] = field(default_factory=list)
    """Answers that no client should ever get."""
    pair: str = ""
    """What it and its partner know their events by, if it hears any."""
    child: "Promise | None" = None
    """What was asked and promised of its first child, if anything was."""

    def partner(self) -> "Promise | None":
        """Whom it talks to, if it does."""
        kind = PARTNERS.get(self.kind)
        return None if kind is None else Promise(f"{self.execution_id}-{kind}", kind, self.may_be_gone, pair=self.pair)

    def touch_child(self) -> "Promise":
        """Its first child, for a client to command; it may not be there yet, or never."""
        if self.child is None:
            self.child = Promise(f"{self.execution_id}~1", "child", may_be_gone=True)
        return self.child


_HAND_DOWN_S_MAX = 20.0
_TRY_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Clients:
    """Connections to the runner, spread over its workers; calls are tried again until they have a real answer."""

    def __init__(self, target: str, seed: int, connections: int = 12, give_up_s: float = 30.0) -> None:
        self._chance = random.Random(seed)
        self._give_up_s = give_up_s
        self._target = target
        self._opened = 0
        self._channels: list[Any] = [self._channel() for _ in range(connections)]
        self._retired: list[Any] = []

    async def close(self) -> None:
        for channel in (*self._channels, *self._retired):
            await channel.close()

    def _renew(self) -> None:
        """Now and then a connection anew: those of a killed worker have all moved to another, and would stay there."""
        if self._chance.random() < 0.05:
            at = self._chance.randrange(len(self._channels))
            self._retired.append(self._channels[at])
            self._channels[at] = self._channel()

    def _channel(self) -> Any:
        self._opened += 1
        return grpc.aio.insecure_channel(self._target, options=[*_CHANNEL_OPTIONS, ("client", self._opened)])

    async def call(self, method: str, request: Message) -> tuple[grpc.StatusCode, bytes]:
        """The answer's code and message; RESOURCE_EXHAUSTED is tried again like UNAVAILABLE."""
        payload = request.SerializeToString()
        give_up_s = monotonic_s() + self._give_up_s
        while True:
            self._renew()
            try:
                reply: bytes = await self._chance.choice(self._channels).unary_unary(path(method))(payload, timeout=5)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if code not in _TRY_AGAIN and code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return code, (error.details() or "").encode()
                if monotonic_s() > give_up_s:
                    return code, f"no other answer in {self._give_up_s} s".encode()
                await asyncio.sleep(self._chance.uniform(0.02, 0.1))
            else:
                return grpc.StatusCode.OK, reply

    async def execute(self, promise: Promise, text: str) -> None:
        """Notes the promise once the execution is accepted."""
        code, reply = await self._execute(promise, text)
        promise.accepted = promise.accepted or code is grpc.StatusCode.OK
        if code is not grpc.StatusCode.OK:
            promise.errors.append(f"ExecuteAsync: {code.name} {reply.decode(errors='replace')}")

    async def take_id_again(self, promise: Promise, text: str) -> None:
        """Asks for something else under the same id, which must be refused."""
        code, _ = await self._execute(promise, text)
        if code is not grpc.StatusCode.ALREADY_EXISTS:
            promise.errors.append(f"another request with its id was answered with {code.name}")

    async def _execute(self, promise: Promise, text: str) -> tuple[grpc.StatusCode, bytes]:
        request = m.WorkflowExecuteInput(workflow_execution_id=promise.execution_id, workflow_yaml=text)
        if promise.pair:
            request.input_json = orjson.dumps({"pair": promise.pair}).decode()
        return await self.call("ExecuteAsync", request)

    async def tell(self, promise: Promise) -> None:
        """Sends an execution all it waits for, event after event."""
        for n in range(HEARS[promise.kind]):
            await asyncio.sleep(self._chance.uniform(0, 0.2))
            data = orjson.dumps({"pair": promise.pair, "n": n}).decode()
            event = CloudEvent(
                id=f"{promise.pair} {n}", source="/client", spec_version="1.0", type=WORD, text_data=data
            )
            code, reply = await self.call("SendEvents", SendEventsRequest(events=[event]))
            if code is not grpc.StatusCode.OK:
                promise.errors.append(f"SendEvents: {code.name} {reply.decode(errors='replace')}")

    async def watch(self, promise: Promise) -> None:
        """Follows an execution to its end, subscribing again from where it got whenever the stream breaks."""
        # Ends with a stream that ends with OK; a cancelled or paused runner is the caller's to give up on.
        while True:
            request = q.SubscribeRequest(
                execution_id=promise.execution_id, from_sequence_number=len(promise.watched) + 1
            )
            stream = self._chance.choice(self._channels).unary_stream(path("Subscribe"))(request.SerializeToString())
            try:
                async for message in stream:
                    promise.watched.append(message)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRY_AGAIN:
                    promise.errors.append(f"Subscribe: {error.code().name} {error.details()}")
                    return
                await asyncio.sleep(self._chance.uniform(0.02, 0.1))
            else:
                return

    async def cancel(self, promise: Promise, force: bool) -> None:
        """Notes whether the cancel is promised."""
        promise.cancel_sent, promise.paused = True, False
        request = m.CancelExecutionRequest(execution_id=promise.execution_id, reason="test", force=force)
        promise.cancelled = await self._control(promise, "CancelExecution", request)

    async def pause(self, promise: Promise) -> None:
        """Notes whether the pause is promised."""
        promise.pause_sent = True
        request = m.PauseExecutionRequest(execution_id=promise.execution_id, reason="test")
        promise.paused = await self._control(promise, "PauseExecution", request) and not promise.cancel_sent

    async def resume(self, promise: Promise) -> None:
        """Takes the pause back."""
        promise.paused = False
        request = m.ResumeExecutionRequest(execution_id=promise.execution_id, reason="test")
        await self._control(promise, "ResumeExecution", request)

    async def _control(self, promise: Promise, method: str, request: Message) -> bool:
        code, reply = await self.call(method, request)
        gone = promise.may_be_gone and code is grpc.StatusCode.NOT_FOUND
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION) and not gone:
            promise.errors.append(f"{method}: {code.name} {reply.decode()}")
        return code is grpc.StatusCode.OK

    async def register(self, documents: list[str]) -> None:
        """Registers what others run."""
        for text in documents:
            code, reply = await self.call("RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=text))
            assert code is grpc.StatusCode.OK, reply

    async def children(self, execution_id: str) -> dict[str, str]:
        """The statuses of an execution's children by ListExecutions."""
        request = q.ListExecutionsRequest(parent_execution_id=execution_id)
        code, reply = await self.call("ListExecutions", request)
        assert code is grpc.StatusCode.OK, reply
        found = q.ListExecutionsResponse.FromString(reply).executions
        return {each.execution_id: each.status for each in found}

    async def check_is_paused(self, promise: Promise) -> None:
        """What is promised to be paused still is. So are its children, unless clients had to do with them."""
        status = await self.status(promise.execution_id)
        if status != "paused":
            promise.errors.append(f"its pause was answered with OK, but it is {status}")
        if promise.kind not in CHILDREN or promise.kind == DETACHED or promise.child is not None:
            return
        give_up_s = monotonic_s() + _HAND_DOWN_S_MAX
        while running := [each for each, status in (await self.children(promise.execution_id)).items()
                          if status not in FINAL_STATUSES | {"paused"}]:  # fmt: skip
            if monotonic_s() > give_up_s:
                promise.errors.append(f"it is paused, but its children {running} are not")
                return
            await asyncio.sleep(0.1)

    async def status(self, execution_id: str) -> str:
        """The status by GetExecution; `unknown` if there is no such execution."""
        code, reply = await self.call("GetExecution", q.GetExecutionRequest(execution_id=execution_id))
        if code is grpc.StatusCode.NOT_FOUND:
            return "unknown"
        if code is not grpc.StatusCode.OK:
            return code.name
        return q.GetExecutionResponse.FromString(reply).execution.status
