"""Stage 5, tasks: what the clients of all protocols share. Each protocol is a module here, named by it, with two
functions, which raise CallProblem:

    async def publish(target: Target, message: Message, key: str) -> None
    async def subscribe(target: Target, consumer: str) -> Subscription

`publish` returns when the other side has the message, as far as the protocol can say; `key` is the effect's idempotency
key, equal when it is performed again, sent where the protocol has room for it. `consumer` names the subscription, equal
when it is opened again after a crash: brokers that remember consumers know it by that name.

Rules: a connection goes to an address of `tasks.dialing.permitted_addresses`, also where a broker names other brokers;
TLS verifies the host's name with `around.ssl_context`. Nothing is read ahead beyond `ASYNCAPI_MESSAGES_AHEAD_MAX`
messages; a message larger than `ASYNCAPI_MESSAGE_SIZE_BYTES_MAX` is a CallProblem. Cancelling a coroutine closes what
it opened. No library writes credentials or bodies to the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fastrunner.tasks.surroundings import Surroundings

if TYPE_CHECKING:
    from fastrunner.tasks.call_http.client import Client

__all__ = ["Message", "Settling", "Subscription", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A channel at a server."""

    protocol: str
    """As the document names it: `kafka`, `kafka-secure`, `amqp`, `amqps`, `mqtt`, `mqtt5`, `nats`, `ws`, ..."""
    host: str
    """A name or an address."""
    port: int
    """The protocol's default if the document has none."""
    is_tls: bool
    """Whether the protocol is spoken over TLS."""
    path: str
    """The server's, variables filled; empty or with a leading slash."""
    address: str
    """The channel's, parameters filled: a topic, a routing key, a subject, a path."""
    bindings: Mapping[str, Mapping[str, Any]]
    """This protocol's of the `server`, the `channel`, the `operation` and the `message`: all four keys, empty without;
    values are as the document has them, so of any type."""
    policy: Mapping[str, Mapping[str, str]] | None
    """Who calls: `{"basic": {"username", "password"}}` or `{"bearer": {"token"}}`, checked; None without."""
    around: Surroundings
    """The performer's."""
    connect_timeout_s: float
    """How long opening a connection may take. The whole of `publish` and `subscribe` is bounded by the caller."""
    security: tuple[Mapping[str, Any], ...] = ()
    """The document's security schemes in force, as it has them; any of them suffices."""
    client: "Client | None" = None
    """The performer's HTTP client, for protocols that begin with HTTP."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel carries."""

    body: bytes
    """As it is on the wire."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The application's own; of names that a protocol has in lower case, as they are."""
    content_type: str = ""
    """A media type; empty: not said."""
    correlation_id: str | None = None
    """The protocol's own, where it has one."""
    id: str = ""
    """What the broker knows it by, where it can be acknowledged by that: see `Settling`."""


class Subscription(Protocol):
    """An open subscription. Used by one coroutine at a time."""

    async def next(self) -> Message:
        """The next message, once there is one; given once, in the order of the channel. Cancelling it loses none.
        Raises CallProblem: the subscription is of no use afterwards."""

    async def taken(self, count: int) -> None:
        """The next `count` messages, in the order in which `next` gave them, are done with, durably: acknowledged to a
        broker that waits for it. Raises CallProblem."""

    async def close(self) -> None:
        """Ends it; what was given and not taken is the broker's again, if it keeps messages. Never raises."""


@runtime_checkable
class Settling(Subscription, Protocol):
    """A subscription that knows its messages by their ids, also those that one before it gave, as after a crash."""

    async def settle(self, ids: Sequence[str]) -> None:
        """Before the first `next`: these are done with, durably, and are not given again. Raises CallProblem."""
