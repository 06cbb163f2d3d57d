"""Support: calls go where they may and nowhere else: servers on the loopback that count who comes, a resolver whose
answers change, authorities, redirects, and the runner's own ports."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowExecuteResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner.access.egress import Egress
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from fastrunner.tasks.call_http import connector
from fastrunner.tasks.call_http.failures import HOST_NOT_FOUND, CallProblem
from fastrunner.tasks.dialing import permitted_addresses
from fastrunner.tasks.surroundings import Surroundings
from tests.integration.http_calls import RawServer, call_http, effect, failure_of, raw_server, value_of
from tests.integration.runner_process import RunnerProcess, running, until

SERVE = ("-m", "fastrunner", "serve")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TEXT = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A port nobody may connect to: `came` tells whether somebody did."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen()
        listener.setblocking(False)
        yield listener


def came(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


class Resolver(AbstractResolver):
    """Answers one look-up after the other as the test says, the last one again and again."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


def refused(failure: EffectFailure, reason: str) -> None:
    assert (failure.type, failure.status, failure.title) == ("configuration", 403, "Destination Refused")
    assert reason in failure.detail, failure.detail


def strict(allow: str = "") -> Egress:
    return Egress(environment=Environment.PROD, allow=allow)


async def test_with_prod_loopback_and_private_addresses_are_refused_and_told() -> None:
    registry = CollectorRegistry()
    http = call_http(Metrics(registry), strict())
    with closed_port() as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"):
            failure = await failure_of(http, f"http://{host}:{port}/path?token=secret")
            refused(failure, "a loopback address, is refused: with ENV=prod FASTRUNNER_EGRESS_ALLOW has to name")
            assert failure.detail.startswith(f"GET {host}:{port}: ".replace("::ffff:127.0.0.1", "::ffff:7f00:1"))
            assert "secret" not in failure.detail
        refused(await failure_of(http, "http://10.0.0.1/"), "10.0.0.1, a private address")
        refused(await failure_of(http, "http://169.254.169.254/latest/"), "a metadata service of a cloud")
        refused(await failure_of(http, "http://[fe80::1]/"), "a link-local address")
        for host in ("fe80::1%25eth0", "::1%25lo"):
            zoned = await failure_of(http, f"http://[{host}]:{port}/")
            assert (zoned.type, zoned.status, zoned.title) == ("configuration", 400, "Invalid HTTP Call")
        assert not came(listener)
    counted = {
        reason: registry.get_sample_value("workflow_runner_egress_refused_total", {"reason": reason})
        for reason in ("loopback", "private", "metadata", "link_local", "own_port")
    }
    assert counted == {"loopback": 5, "private": 1, "metadata": 1, "link_local": 1, "own_port": 0}
    await http.close()


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.", "１２７.1"]
)
async def test_an_address_in_another_spelling_goes_nowhere(host: str) -> None:
    """Nowhere at all: what it means to the runner, it may not mean to a proxy or to the next version of a library."""
    for egress in (Egress(), strict(), strict("*")):
        http = call_http(egress=egress)
        with closed_port() as listener:
            refused(await failure_of(http, f"http://{host}:{listener.getsockname()[1]}/"), "write that address")
            assert not came(listener)
        await http.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0.0.0.0"])
async def test_redirects_lead_nowhere_else_than_calls(host: str) -> None:
    async with raw_server(OK) as raw:
        http = call_http(egress=strict(f"127.0.0.1:{raw.port}"))
        with closed_port() as listener:
            port = listener.getsockname()[1]
            location = f"Location: http://{host}:{port}/readyz".encode()
            raw.answers = [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location + b"\r\n\r\n"]
            failure = await failure_of(http, f"{raw.url}/", redirect=True)
            refused(failure, "a loopback address")
            assert not came(listener)
        assert len(raw.heads) == 1
        await http.close()


@pytest.fixture
async def servers() -> AsyncIterator[tuple[RawServer, socket.socket]]:
    """One at 127.0.0.1 that may be called, and at the same port of 127.0.0.2 one that may not."""
    async with raw_server(TEXT) as raw:
        with socket.socket() as listener:
            listener.bind(("127.0.0.2", raw.port))
            listener.listen()
            listener.setblocking(False)
            yield raw, listener


async def test_a_name_whose_addresses_change_is_connected_to_at_those_that_were_judged(
    servers: tuple[RawServer, socket.socket],
) -> None:
    """There is one look-up and no time between it and the connection: the second answer is judged like the first."""
    raw, listener = servers
    resolver = Resolver(["127.0.0.1"], ["127.0.0.2"])
    http = call_http(egress=strict("127.0.0.1"), resolver=resolver)
    assert await value_of(http, f"http://rebinding.example:{raw.port}/") == "ok"
    assert resolver.asked == ["rebinding.example"]
    with closed_port("127.0.0.2") as other:
        failure = await failure_of(http, f"http://rebinding.example:{other.getsockname()[1]}/")
        refused(failure, "rebinding.example at 127.0.0.2, a loopback address")
        assert not came(other)
    assert resolver.asked == ["rebinding.example"] * 2
    assert not came(listener)
    await http.close()


async def test_of_a_names_addresses_only_the_permitted_are_tried(servers: tuple[RawServer, socket.socket]) -> None:
    raw, listener = servers
    http = call_http(egress=strict("127.0.0.1"), resolver=Resolver(["127.0.0.2", "169.254.1.1", "127.0.0.1", "::1"]))
    assert await value_of(http, f"http://many.example:{raw.port}/") == "ok"
    assert not came(listener)
    await http.close()


async def test_a_connection_is_judged_by_where_it_leads(
    servers: tuple[RawServer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the library connects to, nothing is sent to where none may go."""
    raw, _ = servers
    http = call_http(egress=strict("127.0.0.2"), resolver=Resolver(["127.0.0.1"]))

    async def unjudged(permitted: connector._Permitted, host: str, port: int, family: int) -> list[ResolveResult]:
        return await permitted._resolver.resolve(host, port, socket.AF_INET)

    monkeypatch.setattr(connector._Permitted, "resolve", unjudged)
    refused(await failure_of(http, f"http://name.example:{raw.port}/"), "name.example at 127.0.0.1")
    assert raw.heads == []
    await http.close()


async def test_allowed_hosts_are_reached(servers: tuple[RawServer, socket.socket]) -> None:
    raw, _ = servers
    for allow in ("127.0.0.0/8", "inner.example", "*.example", f"127.0.0.1:{raw.port}", f"inner.example:{raw.port}"):
        http = call_http(egress=strict(allow), resolver=Resolver(["127.0.0.1"]))
        assert await value_of(http, f"http://inner.example:{raw.port}/") == "ok"
        await http.close()


@pytest.mark.parametrize(
    ("scheme", "document"),
    [("oauth2", ""), ("oidc", ""), ("oidc", '{"issuer": "ISSUER", "token_endpoint": "REFUSED"}')],
)
async def test_authorities_are_subject_to_it(scheme: str, document: str) -> None:
    """The token endpoint, the discovery document, and what the document leads to."""
    async with raw_server(OK) as raw:
        http = call_http(egress=strict(f"127.0.0.1:{raw.port}"))
        with closed_port() as listener:
            there = f"http://127.0.0.1:{listener.getsockname()[1]}"
            authority = raw.url if document else there
            body = document.replace("ISSUER", raw.url).replace("REFUSED", f"{there}/token").encode()
            raw.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
            fields = {
                "authority": authority,
                "grant": "client_credentials",
                "client": {"id": "a", "secret": "bcdefghi"},
            }
            failure = await failure_of(http, f"{raw.url}/", authentication={scheme: fields})
            refused(failure, "the authority: 127.0.0.1, a loopback address")
            outcome = await http.authorize(effect(), {scheme: fields})
            assert isinstance(outcome, EffectFailure)
            refused(outcome, "the authority: 127.0.0.1, a loopback address")
            assert not came(listener)
        await http.close()


# --- the runner's own ports ---


def document(uri: str) -> str:
    return (
        "document: {dsl: 1.0.3, namespace: test, name: inward, version: 1.0.0}\n"
        f"do:\n  - peek:\n      call: http\n      with: {{method: get, endpoint: '{uri}', redirect: true}}\n"
    )


def end_of(runner: RunnerProcess, execution_id: str, text: str) -> tuple[str, str]:
    """Status and error of an execution."""
    with grpc.insecure_channel(runner.target) as channel:
        execute = channel.unary_unary(
            f"/{COMMAND_SERVICE}/ExecuteAsync",
            WorkflowExecuteInput.SerializeToString,
            WorkflowExecuteResponse.FromString,
        )
        get = channel.unary_unary(
            f"/{QUERY_SERVICE}/GetExecution", GetExecutionRequest.SerializeToString, GetExecutionResponse.FromString
        )
        execute(WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=text), timeout=30)

        def ended() -> GetExecutionResponse | None:
            reply: GetExecutionResponse = get(GetExecutionRequest(execution_id=execution_id), timeout=30)
            return reply if reply.execution.status in ("completed", "failed") else None

        reply = until(ended)
    assert reply is not None
    return str(reply.execution.status), str(reply.execution)


@pytest.mark.parametrize("environment", ["local", "staging"])
async def test_no_workflow_reads_the_runners_own_ports(tmp_path: Path, environment: str) -> None:
    """Neither straight nor through a redirect, in no environment, and whatever is allowed."""
    async with raw_server(OK) as raw:
        settings = {
            "ENV": environment,
            "STIGMER_SERVICE_ENDPOINT": "127.0.0.1:1",
            "FASTRUNNER_EGRESS_ALLOW": "127.0.0.0/8,::1" if environment == "staging" else "",
        }
        with running(tmp_path / "data", SERVE, **settings) as runner:
            runner.wait_ready()
            http_port, grpc_port = runner.ports["http_port"], runner.ports["grpc_port"]
            location = f"Location: http://127.0.0.1:{http_port}/readyz\r\n\r\n".encode()
            raw.answers = [b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n" + location]
            ends = []
            for number, uri in enumerate(
                (raw.url, f"http://localhost:{http_port}/metrics", f"http://127.0.0.1:{grpc_port}/")
            ):
                ends.append(await asyncio.to_thread(end_of, runner, str(number), document(uri)))
            metrics = runner.get("/metrics")[1]
            assert runner.stop()[0] == 0
    assert [status for status, _ in ends] == ["failed"] * 3
    assert all("a port of this runner itself, is refused" in error for _, error in ends), ends
    assert 'egress_refused_total{reason="own_port"} 3.0' in metrics


@pytest.mark.parametrize("host", ["a..b", ".com", "a" * 64, "ü" * 70])
async def test_names_that_no_system_has_are_not_found(host: str) -> None:
    """A broker may name such servers of its cluster."""
    config = load_config()
    around = Surroundings(config, Metrics(CollectorRegistry()), Egress.of(config), None, None, None)
    with pytest.raises(CallProblem) as raised:
        await permitted_addresses(around, host, 9092)
    assert (raised.value.type, raised.value.title) == ("communication", HOST_NOT_FOUND)
