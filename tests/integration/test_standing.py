"""Support: open calls of callers whose credentials are taken back: on a real runner, and judged alone."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.access.callers import line_of
from fastrunner.access.gate import Gate
from fastrunner.access.jwt import JwtVerifier
from fastrunner.access.principal import Principal
from fastrunner.access.roles import Open
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.errors import RunnerError, Unauthenticated
from fastrunner.routing.facts import CallFacts
from fastrunner.service.reflection import REFLECTION_SERVICES
from fastrunner.service.transport.standing import Standing
from tests.integration.engines import until as until_true
from tests.integration.runner_process import SERVE, running, until
from tests.integration.test_callers import DENIED, UNKNOWN, WAITS, Caller, path_of, submit, token
from tests.integration.test_jwt import AUDIENCE, Issuer, serving_issuer

REFLECTION = f"/{next(iter(REFLECTION_SERVICES))}/ServerReflectionInfo"


class Following:
    """A stream that a thread reads to its end."""

    def __init__(self, caller: Caller, name: str, request: Any) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.count = 0
        self._stream = caller.channel.unary_stream(path_of(name))(
            request.SerializeToString(), metadata=caller.metadata, timeout=120
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in self._stream:
                self.count += 1
        self.details = self._stream.details() or ""
        self.code = self._stream.code()

    def end(self) -> None:
        self._stream.cancel()
        self._thread.join(timeout=30)


def lines(**callers: tuple[str, str]) -> str:
    return "\n".join(line_of(name, roles, namespaces, token(name)) for name, (roles, namespaces) in callers.items())


def status(caller: Caller, execution_id: str) -> str:
    request = q.GetExecutionRequest(execution_id=execution_id)
    return str(caller.call(path_of("GetExecution"), request, q.GetExecutionResponse).execution.status)


def executing(execution_id: str) -> m.WorkflowExecuteInput:
    return m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=WAITS.format("shop"))


def held_back(gate: threading.Event) -> Iterator[bytes]:
    """A request that is sent when a test says so."""
    gate.wait(60)
    yield executing("late").SerializeToString()


def test_open_calls_end_with_the_credentials_they_began_with(tmp_path: Path) -> None:
    file = tmp_path / "callers"
    staying = {"stays": ("admin", "")}
    file.write_text(lines(gone=("submit,read", ""), fewer=("admin", ""), narrow=("read", "shop"), **staying))
    with (
        running(tmp_path / "data", SERVE, FASTRUNNER_CALLERS_FILE=str(file)) as runner,
        contextlib.ExitStack() as open_,
    ):
        runner.wait_ready()
        gone, fewer, narrow, stays, again = (
            open_.enter_context(Caller(runner, name)) for name in ("gone", "fewer", "narrow", "stays", "gone")
        )
        submit(stays, "followed")
        subscribe = q.SubscribeRequest(execution_id="followed", from_sequence_number=1)
        ends = {
            "a token that is gone": (Following(gone, "Subscribe", subscribe), UNKNOWN),
            "another connection of it": (Following(again, "Subscribe", subscribe), UNKNOWN),
            "an execution of it": (Following(gone, "Execute", executing("executed")), UNKNOWN),
            "a role that is gone": (Following(fewer, "Execute", executing("by-fewer")), DENIED),
            "a namespace that is gone": (Following(narrow, "Subscribe", subscribe), DENIED),
        }
        kept = Following(stays, "Subscribe", subscribe)
        until(lambda: kept.count and all(following.count for following, _ in ends.values()))
        gate = threading.Event()
        held = gone.channel.stream_unary(path_of("ExecuteAsync")).future(
            held_back(gate), metadata=gone.metadata, timeout=60
        )
        reflecting = gone.channel.stream_stream(REFLECTION)(held_back(gate), metadata=gone.metadata, timeout=60)
        file.write_text(lines(fewer=("read", ""), narrow=("read", "billing"), **staying))
        until(lambda: all(following.code is not None for following, _ in ends.values()), 60)
        assert {name: following.code for name, (following, _) in ends.items()} == {
            name: code for name, (_, code) in ends.items()
        }
        assert "has been taken back" in ends["a token that is gone"][0].details
        assert held.exception(timeout=60).code() is UNKNOWN
        assert reflecting.code() is UNKNOWN
        gate.set()
        # Nobody went away: what was executed goes on, and nothing came of the request that was held back.
        assert {status(stays, each) for each in ("followed", "executed", "by-fewer")} == {"running"}
        assert stays.code(path_of("GetExecution"), q.GetExecutionRequest(execution_id="late").SerializeToString()) is (
            grpc.StatusCode.NOT_FOUND
        )
        assert kept.code is None
        kept.end()


# --- judged alone ---


class Call:
    """What is judged of a call."""

    def __init__(self, authorization: str, principal: Principal) -> None:
        self._authorization = f"Bearer {authorization}"
        self.principal = principal
        self.certificate_names: list[str] = []
        self.admitted: Any = None

    def header(self, name: bytes) -> str | None:
        return self._authorization if name == b"authorization" else None


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serving_issuer() as served:
        yield served


@pytest.fixture
async def gate(issuer: Issuer) -> AsyncIterator[Gate]:
    verifier = JwtVerifier(load_config(jwt_issuer=issuer.url, jwt_audience=AUDIENCE))
    made = Gate(None, verifier, knows_certificates=False)
    yield made
    await made.close()


async def opened(standing: Standing, gate: Gate, text: str) -> "tuple[asyncio.Task[None], CallFacts]":
    """A stream that lasts until it is ended."""
    admitted = gate.admit(f"Bearer {text}", list)
    call: Any = Call(text, admitted if isinstance(admitted, Principal) else await admitted)
    facts = CallFacts("peer", 0, local=False, principal=call.principal)
    standing.begin(call, Open.TO_CALLERS, "Subscribe")

    async def serve() -> None:
        with standing.kept(call, facts):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    return task, facts


def never(call: Any, refusal: RunnerError) -> None:
    raise AssertionError(call, refusal)


async def test_a_stream_ends_when_its_token_has(
    issuer: Issuer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "JWT_CLOCK_SKEW_S_MAX", 0)
    monkeypatch.setattr(limits, "STREAM_CREDENTIALS_LOOK_INTERVAL_S", 0.2)
    standing = Standing(gate, lambda: (), never)
    soon, facts = await opened(standing, gate, issuer.token(exp=int(time.time()) + 2))
    later, _ = await opened(standing, gate, issuer.token())

    def looked() -> bool:
        standing.look()
        return soon.done()

    await until_true(looked, "the end of the stream")
    assert isinstance(soon.exception(), Unauthenticated)
    assert (facts.is_turned_away, later.done()) == (True, False)
    later.cancel()
    standing.close()


async def test_streams_are_judged_in_slices(
    issuer: Issuer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that is taken back ends them all; whoever else needs the loop has it in between."""
    monkeypatch.setattr(limits, "STREAM_CREDENTIALS_SLICE", 5)
    monkeypatch.setattr(limits, "JWT_KEYS_AGE_S_MAX", 0.0)
    monkeypatch.setattr(limits, "JWT_KEYS_ASK_INTERVAL_S", 0.0)
    standing = Standing(gate, lambda: (), never)
    text = issuer.token()
    streams = [await opened(standing, gate, text) for _ in range(20)]
    issuer.keys = [type(issuer.keys[0]).generate_key("P-256", {"kid": "two"})]
    # Somebody comes with the new key: the old one is gone.
    admitted = gate.admit(f"Bearer {issuer.token()}", list)
    assert not isinstance(admitted, Principal)
    await admitted
    standing.look()
    ended = 0
    for _ in range(1_000):
        await asyncio.sleep(0)
        before, ended = ended, sum(task.done() for task, _ in streams)
        if before == 0 and ended:
            assert ended <= 15
        if ended == 20:
            break
        await asyncio.sleep(0.001)
    assert all(isinstance(task.exception(), Unauthenticated) for task, _ in streams)
    standing.close()
