"""HTTP/2 (RFC 9113) and gRPC's messages as a server speaks them: bytes in, calls out, bytes out. No I/O, no clock."""

from asyncio import Future
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from fastrunner.access.principal import Principal
from fastrunner.access.roles import Wanted
from fastrunner.service.audit import AuditEntry

INVALID_ARGUMENT: int
DEADLINE_EXCEEDED: int
RESOURCE_EXHAUSTED: int
UNIMPLEMENTED: int
INTERNAL: int

def header(name: bytes, value: bytes) -> bytes:
    """One header of a block, as a literal that no table keeps (RFC 7541, section 6.2.2)."""

def waiting_size_bytes() -> int:
    """What the calls of all connections have to say and their callers have not taken yet, with those calls."""

@final
class Call:
    """One call, from its headers on. Methods that answer return at once; the answer travels on its own.

    A call that is over takes what is still said to it, and does nothing.
    """

    def __init__(self, *args: object) -> None:
        """Raises TypeError: a `Session` makes them."""
    @property
    def path(self) -> str:
        """The method's path as the caller wrote it; empty where its headers were not taken."""

    @property
    def timeout_s(self) -> float:
        """For how many seconds the caller waits; infinite if for ever."""
    deadline_s: float
    """When the caller stops waiting, in seconds since the epoch; infinite if never. Whoever has the clock sets it."""
    client: str
    """Whom the server takes the caller for, once it has found out."""
    principal: Principal | None
    """Who calls, where callers are told apart."""
    admitted: tuple[Wanted, str, int] | None
    """The role and the method that the principal was admitted for, and as of which change of who is known."""
    audit: AuditEntry | None
    """What is to be told of it."""
    deadlines: dict[Call, None] | None
    """Where it waits for its deadline; it leaves by itself when it is over."""
    @property
    def fault(self) -> tuple[int, str] | None:
        """A code of gRPC's and words: why its request cannot be taken."""
    @property
    def is_malformed(self) -> bool:
        """Whether its headers are at fault."""
    @property
    def http_status(self) -> int:
        """With which status of HTTP it is refused: its caller does not speak gRPC. 0 of a call."""
    @property
    def is_over(self) -> bool:
        """Whether it is answered, or its caller is gone."""
    @property
    def peer(self) -> str:
        """Who calls, such as `ipv4:127.0.0.1:51234`."""
    @property
    def certificate_names(self) -> Sequence[str]:
        """The names in the certificate that the caller has shown: alternative ones, else the common one; none without.

        The server has verified it.
        """
    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """What the caller sent along."""
    def header(self, name: bytes) -> str | bytes | None:
        """The first of the metadata with a name, in lower case; bytes where it is no ASCII, or by its name binary."""
    def forget_metadata(self) -> None:
        """Keeps of what the caller sent along only what proves who it is."""
    @property
    def has_message(self) -> bool:
        """Whether `take` has something to say."""
    def take(self) -> bytes | None:
        """The next message; None when the caller sends no more, or what it sends is at fault."""
    def hear_no_more(self) -> None:
        """Drops what is there of further messages, and what comes."""
    def receive(self, received: Callable[[bytes | None], None]) -> None:
        """Hands over the next message as soon as it is there, as `take` does."""
    def watch(self, closed: Callable[[bool], None]) -> None:
        """Calls `closed(True)` when the caller gives the call up before it is answered."""
    def reply(self, message: bytes) -> None:
        """Answers with one message and OK."""
    def send(self, message: bytes) -> Future[None] | None:
        """Sends one message of several; what to wait for before the next one, None if it has left already."""
    def finish(
        self, code: int = 0, message: bytes = b"", trailers: Iterable[tuple[str, str | bytes]] | None = None
    ) -> None:
        """Ends the call with a status, after what has been sent."""
    def expire(self) -> None:
        """Ends the call because its deadline has passed."""
    def turn(self, on_call: Callable[[Call], None]) -> None:
        """Lets it have its turn after `Session.receive`: hands a new one to `on_call`, tells who waits for it."""
    def unpacked(self, message: bytes | None, fault: tuple[int, str] | None) -> None:
        """What a compressed message was, or why it cannot be had."""

@final
class Bounds:
    """What one connection may have."""

    def __init__(self, header_list_size_bytes_max: int, message_size_bytes_max: int, streams_max: int) -> None: ...
    @property
    def header_list_size_bytes_max(self) -> int:
        """Headers of a call, unpacked, with 32 bytes for each (RFC 9113, section 6.5.2)."""
    @property
    def message_size_bytes_max(self) -> int:
        """A message, as it is sent and unpacked."""
    @property
    def streams_max(self) -> int:
        """Calls at once."""

@final
class Session:
    """One connection of a client. It speaks first: there is output as soon as it is made."""

    peer: str
    """The client's address, as its calls tell it."""
    certificate_names: Sequence[str]
    """The names that its certificate proves."""
    def __init__(
        self,
        bounds: Bounds,
        on_output: Callable[[], object],
        on_packed: Callable[[Call, bytes, bytes], object],
        new_future: Callable[[], Future[Any]],
    ) -> None:
        """`on_output` is told when there is output outside `receive`; `on_packed` unpacks a message of a call that is
        compressed as `grpc-encoding` says, now or later: see `Call.unpacked`."""
    @property
    def is_over(self) -> bool:
        """Whether the client has broken the protocol, or is lost: what is left is to send the output and to close."""
    @property
    def is_idle(self) -> bool:
        """Whether there are no calls."""
    @property
    def is_retiring(self) -> bool:
        """Whether the client has been told to go."""
    @property
    def is_done(self) -> bool:
        """Whether it can be closed."""
    @property
    def is_acknowledged(self) -> bool:
        """Whether the client has taken note of the server's settings."""
    @property
    def output_size_bytes(self) -> int:
        """What is to be sent."""
    @property
    def is_urgent(self) -> bool:
        """Whether any of that has to be sent now; answers to pings go with what is next, or a moment later."""
    @property
    def waiting_size_bytes(self) -> int:
        """What its calls have to say and the client has not taken yet, with those calls."""
    @property
    def has_more(self) -> bool:
        """Whether calls that have come are still to be taken, by `receive`: there were many at once."""
    @property
    def has_blocked(self) -> bool:
        """Whether more can be sent when the output has been fetched."""
    def receive(self, data: bytes) -> list[Call]:
        """Takes what has come, after what is left; gives the calls that are to have their turn."""
    def output(self) -> bytes:
        """What is to be sent; it is not here any more."""
    def pump(self) -> None:
        """Makes output of what waits."""
    def pause(self) -> None:
        """Makes none of bodies until `resume`: what was fetched does not leave."""
    def resume(self) -> None:
        """See `pause`."""
    def ping(self) -> None:
        """Asks the client whether it is there."""
    def forgive(self) -> None:
        """Forgets how often the client was a nuisance; call it once a minute or so."""
    def retire(self) -> None:
        """Asks the client to take another connection for further calls; those that come meanwhile are taken."""
    def leave(self) -> None:
        """Takes no further calls: they are the client's to make elsewhere."""
    def lose(self) -> list[Call]:
        """The connection is gone; gives the calls that are to have their turn."""
