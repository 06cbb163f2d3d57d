"""Stage 5, tasks: connections to the brokers of a Kafka cluster: those that the first one names are judged like the
first one is, before anything is sent to them.

Theory of operation: the library asks its client for a connection to a broker by number, and the client connects to the
host that the cluster gave it. This is the library's client with a way of its own to connect. What another attempt
would not change, and a cluster that stays away, is told to whoever waits; the rest the library tries again.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordTooLargeError,
    SaslAuthenticationFailed,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from fastrunner.base import clock, limits
from fastrunner.tasks.call_asyncapi.clients import Target
from fastrunner.tasks.call_asyncapi.clients.fields import BindingProblem
from fastrunner.tasks.call_asyncapi.clients.sockets import (
    Unreachable,
    dial,
    lost,
    refused_login,
    tls_context,
    tls_problem,
    too_large,
)
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["Cluster", "problem_of", "settings"]

_FRAME_SIZE_BYTES_MAX = limits.ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX
"""What one answer of a broker may have: a broker gives a message that is larger than was asked for by itself."""

_SCRAM = {"scramSha512": "SCRAM-SHA-512", "scramSha256": "SCRAM-SHA-256"}
"""Ways to show a password that a document's security scheme has the name of."""

Result = TypeVar("Result")


async def settings(target: Target, client_id: str) -> dict[str, Any]:
    """What the library's producers and consumers are made with."""
    timeout_s = target.around.config.http_timeout_s
    policy = target.policy or {}
    made: dict[str, Any] = {
        # A text: `Cluster` connects.
        "bootstrap_servers": "broker:9092",
        "client_id": client_id or "fastrunner",
        # Below the bound of a call, so that it is this that ends it, and says why.
        "request_timeout_ms": max(1_000, int(timeout_s * 800)),
        "security_protocol": ("SASL_" if policy else "") + ("SSL" if target.is_tls else "PLAINTEXT"),
        "ssl_context": await tls_context(target.around) if target.is_tls else None,
    }
    if "basic" in policy:
        made |= {
            "sasl_mechanism": _mechanism(target),
            "sasl_plain_username": policy["basic"]["username"],
            "sasl_plain_password": policy["basic"]["password"],
        }
    elif policy:
        made |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _Token(policy["bearer"]["token"])}
    return made


def _mechanism(target: Target) -> str:
    """How a name and a password are shown: as the document says, else as they are."""
    kinds = {str(scheme.get("type")) for scheme in target.security}
    if kinds & {"plain", "userPassword"}:
        return "PLAIN"
    return next((name for kind, name in _SCRAM.items() if kind in kinds), "PLAIN")


class _Token(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


class Cluster(AIOKafkaClient):  # type: ignore[misc]
    """The library's client, whose connections are judged."""

    target: Target
    ended: "asyncio.Future[CallProblem]"
    """Why nothing more will come of it."""
    lost_at_s: float | None
    is_shut: bool

    @classmethod
    def taking_over(cls, client: AIOKafkaClient, target: Target) -> "Cluster":
        """The client that a producer or a consumer has made for itself, and keeps."""
        client.__class__ = cls
        client.target, client.lost_at_s, client.is_shut = target, None, False
        client.ended = asyncio.get_running_loop().create_future()
        taken_over: Cluster = client
        return taken_over

    async def bootstrap(self) -> None:
        """See AIOKafkaClient. Raises CallProblem."""
        connection = await self._open(self.target.host, self.target.port, None)
        try:
            self.cluster.update_metadata(await connection.send(MetadataRequest([])))
        except BaseException:
            connection.close()
            raise
        if self.cluster.brokers():
            connection.close()
        else:
            self._conns["bootstrap", ConnectionGroup.DEFAULT] = connection
        self._sync_task = asyncio.create_task(self._md_synchronizer())

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, **_: Any) -> Any:
        connection = self._conns.get((node_id, group))
        if connection is not None and connection.connected():
            return connection
        async with self._get_conn_lock:
            connection = self._conns.get((node_id, group))
            if connection is not None and connection.connected():
                return connection
            try:
                broker = self.cluster.broker_metadata(node_id)
                if broker is None:
                    raise StaleMetadata
                connection = await self._open(broker.host, broker.port, self._on_connection_closed)
            except CallProblem as problem:
                self._missed(problem)
            except (KafkaError, OSError):
                self._missed(lost())
            else:
                self.lost_at_s = None
                self._conns[node_id, group] = connection
                return connection
        self.force_metadata_update()
        return None

    def _missed(self, problem: CallProblem) -> None:
        now_s = clock.monotonic_s()
        self.lost_at_s = self.lost_at_s or now_s
        is_away = isinstance(problem, Unreachable)
        if not is_away or now_s - self.lost_at_s >= limits.ASYNCAPI_RECONNECT_S_MAX:
            self.end(problem)

    def end(self, problem: CallProblem) -> None:
        """Tells whoever waits. The first problem counts."""
        if not self.ended.done():
            self.ended.set_result(problem)

    async def _open(self, host: str, port: int, on_close: Any) -> "_Connection":
        if self.is_shut:
            raise lost()
        connection = _Connection(
            host,
            port,
            client_id=self._client_id,
            request_timeout_ms=self._request_timeout_ms,
            ssl_context=self._ssl_context,
            security_protocol=self._security_protocol,
            on_close=on_close,
            max_idle_ms=self._connections_max_idle_ms,
            sasl_mechanism=self._sasl_mechanism,
            sasl_plain_username=self._sasl_plain_username,
            sasl_plain_password=self._sasl_plain_password,
            sasl_oauth_token_provider=self._sasl_oauth_token_provider,
        )
        connection.cluster = self
        try:
            async with asyncio.timeout(self.target.connect_timeout_s):
                await connection.connect()
        except TimeoutError:
            raise Unreachable("No Response In Time", "the broker does not answer in time") from None
        except KafkaError as error:
            raise problem_of(error) from None
        return connection

    async def guarded(self, work: Awaitable[Result]) -> Result:
        """What the library does, unless nothing will come of it. Raises CallProblem."""
        doing = asyncio.ensure_future(work)
        waited: set[asyncio.Future[Any]] = {doing, self.ended}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise self.ended.result()
            return doing.result()
        except KafkaError as error:
            raise self.ended.result() if self.ended.done() else problem_of(error) from None
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def shut(self, stop: Awaitable[None]) -> None:
        """`stop` of the producer or the consumer, which says goodbye; after a while without a connection."""
        stopping = asyncio.ensure_future(stop)
        try:
            await asyncio.wait({stopping}, timeout=limits.ASYNCAPI_CLOSE_S_MAX)
        finally:
            self.is_shut = True
            for connection in list(self._conns.values()):
                connection.close()
            await asyncio.wait({stopping}, timeout=limits.ASYNCAPI_CLOSE_S_MAX)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)


class _Reader(asyncio.StreamReader):
    """What comes from a broker, in frames that are bounded."""

    cluster: Cluster

    async def readexactly(self, n: int) -> bytes:
        """See StreamReader."""
        if n > _FRAME_SIZE_BYTES_MAX:
            self.cluster.end(too_large(n, limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX))
            raise ConnectionError
        return await super().readexactly(n)


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    """The library's connection, over a socket of ours; closed at once when it is closed."""

    cluster: Cluster

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See AIOKafkaConnection. Raises CallProblem."""
        loop = self._loop
        trusted = self._ssl_context if self._security_protocol.endswith("SSL") else None
        sock = await dial(self.cluster.target, self.host, self.port)
        self._closed_fut = loop.create_future()
        reader = _Reader(loop=loop)
        reader.cluster = self.cluster
        protocol = AIOKafkaProtocol(self._closed_fut, reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=sock, ssl=trusted, server_hostname=self.host if trusted else None
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and trusted and not isinstance(error, TimeoutError):
                raise tls_problem() from None
            raise
        self._reader, self._protocol = reader, protocol
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._read_task = self._create_reader_task()
        try:
            await self._do_version_lookup()
            if self._security_protocol.startswith("SASL"):
                await self._do_sasl_handshake()
        except BaseException:
            self.close()
            raise
        return reader, self._writer

    def close(self, *arguments: Any, **options: Any) -> Any:
        """See AIOKafkaConnection."""
        writer = self._writer
        closed = super().close(*arguments, **options)
        if writer is not None:
            writer.transport.abort()
        return closed


def problem_of(error: KafkaError) -> CallProblem:
    """The problem that an error of the library means."""
    match error:
        case (
            SaslAuthenticationFailed()
            | UnsupportedSaslMechanismError()
            | IllegalSaslStateError()
            | AuthenticationFailedError()
            | AuthenticationMethodNotSupported()
        ):
            return refused_login()
        case TopicAuthorizationFailedError() | GroupAuthorizationFailedError() | ClusterAuthorizationFailedError():
            return CallProblem("Permission Denied", "the broker does not let this user do that", 403)
        case MessageSizeTooLargeError() | RecordTooLargeError():
            return CallProblem("Message Too Large", "the broker takes no message of this size")
        case InvalidTopicError():
            return BindingProblem("the channel's address, or the binding topic, is no topic of Kafka")
        case UnknownTopicOrPartitionError():
            return CallProblem("Broker Refused", "the broker has no such topic")
        case BrokerResponseError():
            return CallProblem("Broker Refused", f"the broker answers with error {error.errno} ({error.message})")
        case _:
            return lost()
