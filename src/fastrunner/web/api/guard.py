"""Support: what every request of the HTTP API goes through before anybody looks at it.

    Host -> Origin -> credentials and role -> the write header -> the operation

- `Host` must be on a list: a name that a stranger's DNS points here (rebinding) is not.
- `Origin`, which browsers send, must be this server's own or on a list; nothing here answers CORS.
- Credentials are a bearer token, which no browser sends by itself, or a session's cookie (`sessions.py`), which holds
  one, or a client's certificate.
- What changes something needs the header `X-Requested-By`, which no page of another origin can send without asking
  first, and a body of JSON, which no form sends.
- Every answer forbids to be framed, to be sniffed, to be kept, and to load or run anything.

Rule: whoever is refused learns why, and nothing of what is behind it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from fastrunner.access.gate import Gate
from fastrunner.access.principal import Principal
from fastrunner.access.roles import Open, Wanted, check_role
from fastrunner.base import checks
from fastrunner.errors import RunnerError
from fastrunner.web.api.problems import Refused
from fastrunner.web.api.sessions import Session, Sessions
from fastrunner.web.guard import PRINCIPAL, certificate_names

__all__ = ["WRITE_HEADER", "Admission", "Guard", "HostList", "add_headers"]

WRITE_HEADER: Final = "X-Requested-By"
"""What a request that changes something has, with any text."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class HostList:
    """By which names this server is called."""

    names: frozenset[str]
    """Names and addresses, in small letters, IPv6 without brackets; any port."""
    origins: frozenset[str] = frozenset()
    """Further origins whose pages may call, such as https://console.example."""

    @classmethod
    def of(cls, bound: str, hosts: tuple[str, ...], origins: tuple[str, ...]) -> "HostList":
        """Of a server bound to an address: that, this machine's own names, what operators add. Raises ValueError."""
        hosts, origins = checks.host_names(" ".join(hosts)), checks.origins(" ".join(origins))
        names = {host.lower().strip("[]") for host in (bound, *hosts)}
        return cls(frozenset(names | _LOOPBACK), frozenset(origin.lower() for origin in origins))


def _host_of(authority: str) -> str:
    """The host of `host:port`, in small letters and without brackets; empty if there is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Admission:
    """A request that was let in, for as long as it lasts."""

    def __init__(
        self,
        principal: Principal | None,
        gate: Gate | None,
        again: Callable[[], Awaitable[Principal]],
        *,
        ends_by_itself: bool = False,
    ) -> None:
        """`again` looks at its credentials once more; `ends_by_itself`: they are good for a time only."""
        self.principal = principal
        """Who asks; None: callers are not told apart."""
        self._gate = gate
        self._again = again
        self._ends_by_itself = ends_by_itself
        self._changes = 0 if gate is None else gate.changes

    async def holds(self) -> bool:
        """Whether it would be let in now, and as the same; costs nothing while no credentials have changed."""
        if self._gate is None or (self._gate.changes == self._changes and not self._ends_by_itself):
            return True
        self._changes = self._gate.changes
        try:
            return await self._again() == self.principal
        except RunnerError:
            return False


class Guard:
    """Lets requests in."""

    def __init__(self, hosts: HostList, gate: Gate | None, sessions: Sessions) -> None:
        """Without a gate callers are not told apart."""
        self._hosts = hosts
        self._gate = gate
        self._sessions = sessions

    def check_place(self, request: web.Request) -> None:
        """Whether it was meant for this server, and by whom a browser was told to send it. Raises Refused."""
        authority = request.headers.get("Host", "")
        if _host_of(authority) not in self._hosts.names:
            raise Refused(
                421,
                "the Host header names no host of this server: call it by its own name, or add that with --allow-host",
            )
        origin = request.headers.get("Origin")
        if origin is None:
            return
        own = f"{request.scheme}://{authority}"
        if origin.lower() != own.lower() and origin.lower() not in self._hosts.origins:
            raise Refused(
                403, "pages of other origins may not call: add the origin with --allow-origin if this one may"
            )

    async def admit(self, request: web.Request, wanted: Wanted) -> Admission:
        """Lets a request in that has the role it wants. Raises RunnerError."""
        gate = None if wanted is Open.TO_ALL else self._gate

        async def look() -> Principal:
            assert gate is not None, "callers are told apart"
            admitted = gate.admit(self._authorization(request), lambda: certificate_names(request))
            principal = admitted if isinstance(admitted, Principal) else await admitted
            request[PRINCIPAL] = principal
            check_role(principal, wanted, f"{request.method} {request.path}")
            return principal

        principal = None if gate is None else await look()
        has_cookie = request.headers.get("Authorization") is None and self._sessions.find(request) is not None
        ends = has_cookie or (gate is not None and principal is not None and gate.ends_by_itself(principal))
        return Admission(principal, gate, look, ends_by_itself=ends)

    def _authorization(self, request: web.Request) -> str | None:
        """The header, or what stands in its place: a session."""
        given = request.headers.get("Authorization")
        if given is None and (session := self._sessions.find(request)) is not None:
            return f"Bearer {session.token}"
        return given

    def begin_session(self, request: web.Request, response: web.StreamResponse) -> Session | None:
        """A cookie for a request that was let in; with one already it is a new one of the same session. None where a
        cookie is of no use: callers are not told apart, or by certificates. Raises RunnerError."""
        if self._gate is None:
            return None
        given = request.headers.get("Authorization")
        if given is not None:
            return self._sessions.begin(request, response, given.partition(" ")[2].strip())
        session = self._sessions.find(request)
        if session is None:
            return None
        return self._sessions.begin(request, response, session.token, session.begun_ms)

    def end_session(self, request: web.Request, response: web.StreamResponse) -> None:
        """Takes the cookie back."""
        self._sessions.end(request, response)

    def check_write(self, request: web.Request) -> None:
        """Whether a request that changes something was meant to. Raises Refused."""
        if WRITE_HEADER not in request.headers:
            raise Refused(
                403,
                f"a request that changes something needs the header {WRITE_HEADER}, with any text: browsers do not "
                "send it for pages of others",
            )
        if request.can_read_body and request.content_type != "application/json":
            raise Refused(415, f"Content-Type {request.content_type} is not taken: send application/json")
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if request.can_read_body and encoding not in ("identity", ""):
            raise Refused(415, f"Content-Encoding {encoding[:40]} is not taken: send the body as it is")


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """What every answer has; for `on_response_prepare`."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
