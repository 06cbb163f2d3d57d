"""Support: an MCP server and an agent, made with the SDKs their authors publish, served on loopback from a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from a2a.helpers.proto_helpers import (
    new_task_from_user_message,
    new_text_artifact_update_event,
    new_text_message,
    new_text_status_update_event,
)
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Role, TaskState
from google.protobuf.json_format import ParseDict
from mcp.server import MCPServer
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.ports import free_port

__all__ = ["Agent", "Served", "mcp_server", "serving", "serving_agent", "serving_mcp"]

TIMEOUT_S = 30.0


@dataclass
class Served:
    """A server, and what reached it."""

    url: str
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, headers and body of each request, in order."""
    answered: list[bytes] = field(default_factory=list)
    """The body of a request for each part of its answer."""
    gone: threading.Event = field(default_factory=threading.Event)
    """Set once a client has left before it had all of its answer."""
    asked: threading.Event = field(default_factory=threading.Event)
    """Set once something slow has begun."""
    gate: threading.Event = field(default_factory=threading.Event)
    """What is slow goes on once it is set."""
    demands: dict[str, str] = field(default_factory=dict)
    """Headers without which requests are refused."""

    async def slowly(self) -> None:
        self.asked.set()
        await asyncio.to_thread(self.gate.wait, TIMEOUT_S)


class _Watched:
    """An application whose requests are noted, and refused without the headers that are demanded."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self._app, self._served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        self._served.requests.append((scope["method"], headers, body))
        if any(headers.get(name) != value for name, value in self._served.demands.items()):
            await send({"type": "http.response.start", "status": 401, "headers": [(b"retry-after", b"7")]})
            await send({"type": "http.response.body", "body": b"no"})
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.create_task(self._left(receive))

        async def again() -> Message:
            return whole.pop() if whole else await asyncio.shield(left)

        async def noted(message: Message) -> None:
            await send(message)
            if message.get("body"):
                self._served.answered.append(body)

        try:
            await self._app(scope, again, noted)
        finally:
            left.cancel()

    async def _left(self, receive: Receive) -> Message:
        message = await receive()
        if self._served.asked.is_set() and not self._served.gate.is_set():
            self._served.gone.set()
        return message


@contextlib.contextmanager
def serving(app: ASGIApp, served: Served | None = None, port: int = 0) -> Iterator[Served]:
    """An application on a port of loopback, in a thread of its own."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", port)))
        served = served or Served("")
        served.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(_Watched(app, served), log_level="critical", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.gate.set()
            server.should_exit = True
            thread.join(TIMEOUT_S)


def mcp_server(served: Served | None = None) -> MCPServer:
    """A server with tools, a prompt, a resource and a template."""
    server = MCPServer("notes")
    calls: list[str] = []

    @server.tool()
    def add(a: int, b: int) -> int:
        calls.append("add")
        return a + b

    @server.tool()
    def large(count: int) -> str:
        return "x" * count

    @server.tool()
    async def slow() -> str:
        assert served is not None
        await served.slowly()
        return "done"

    @server.resource("note://one")
    def one() -> str:
        return "the first"

    @server.resource("note://by/{name}")
    def named(name: str) -> str:
        return f"about {name}"

    @server.prompt()
    def ask(about: str) -> str:
        return f"What about {about}?"

    return server


@contextlib.contextmanager
def serving_mcp(**options: Any) -> Iterator[Served]:
    """An MCP server over streamable HTTP, at `url`/mcp; `options` as `streamable_http_app` takes them."""
    served = Served("")
    with serving(mcp_server(served).streamable_http_app(**options), served):
        yield served


class Agent(AgentExecutor):
    """An agent that does as it is told: `say`, `work`, `slow`."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.messages: list[str] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        self.messages.append(context.message.message_id)
        text = context.get_user_input()
        if text.startswith("say "):
            await event_queue.enqueue_event(new_text_message(text.removeprefix("say "), role=Role.ROLE_AGENT))
            return
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        ids = {"task_id": task.id, "context_id": task.context_id}
        if text == "ask":
            state = TaskState.TASK_STATE_INPUT_REQUIRED
            await event_queue.enqueue_event(new_text_status_update_event(**ids, state=state, text="which?"))
            return
        working = TaskState.TASK_STATE_WORKING
        await event_queue.enqueue_event(new_text_status_update_event(**ids, state=working, text="on it"))
        if text == "slow":
            await self._served.slowly()
        size = int(text.removeprefix("work ")) if text.startswith("work ") else 0
        made = new_text_artifact_update_event(
            task.id, task.context_id, name="made", text="x" * size or "it is made", last_chunk=True
        )
        await event_queue.enqueue_event(made)
        completed = TaskState.TASK_STATE_COMPLETED
        await event_queue.enqueue_event(new_text_status_update_event(**ids, state=completed, text="done"))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        ids = {"task_id": context.task_id, "context_id": context.context_id}
        state = TaskState.TASK_STATE_CANCELED
        await event_queue.enqueue_event(new_text_status_update_event(**ids, state=state, text="stopped"))


def card_of(url: str, versions: tuple[str, ...], security: dict[str, Any] | None = None) -> AgentCard:
    """The card of an agent that speaks some versions of the protocol at one URL."""
    card = AgentCard(
        name="maker",
        description="makes things",
        version="1",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version) for version in versions
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="make", name="make", description="makes", tags=["make"])],
    )
    return ParseDict(security or {}, card)


@contextlib.contextmanager
def serving_agent(*versions: str, security: dict[str, Any] | None = None) -> Iterator[tuple[Served, Agent]]:
    """An agent, its card at /.well-known/agent-card.json, at / by JSON-RPC of 0.3 and 1.0, whatever the card says."""
    port = free_port()
    served = Served("")
    agent = Agent(served)
    card = card_of(f"http://127.0.0.1:{port}/", versions or ("0.3",), security)
    handler = DefaultRequestHandler(
        agent_executor=agent,
        task_store=InMemoryTaskStore(),
        agent_card=card,
        extended_agent_card=card,
        push_config_store=InMemoryPushNotificationConfigStore(),
    )
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/", enable_v0_3_compat=True)]
    with serving(Starlette(routes=routes), served, port):
        yield served, agent
