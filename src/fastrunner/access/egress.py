"""Support: where effects may go: the one policy of all transports.

Theory of operation: an address decides, whatever name or spelling led to it. A transport asks twice. `check` takes what
the workflow wrote, before anything is looked up; `permitted` takes the addresses that a name has, and the transport
connects to one of those it gives back and to no other: looked up once more, the name may have other addresses. A proxy
looks names up by itself, so what goes through one is judged by `check` alone.

Rules: no I/O but the question whether an address is this machine's. Addresses that stand for others (IPv4 within IPv6)
are judged as those. What no call may reach, no setting opens.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fastrunner.base.destinations import Address, Destinations, Network, plain_name
from fastrunner.config import Config, Environment
from fastrunner.counts.definitions import REFUSED_DESTINATIONS

__all__ = ["Egress", "Refused", "is_loopback"]


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_METADATA: Final = _networks(
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"
) + _networks("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")
"""Where clouds tell a machine its credentials: AWS, its containers, Alibaba, Azure, Oracle; in IPv6 AWS and Google."""
_METADATA_NAMES: Final = frozenset({"instance-data.ec2.internal", "metadata.goog", "metadata.google.internal"})
_LOOPBACK: Final = _networks("127.0.0.0/8", "0.0.0.0", "::1", "::")  # noqa: S104 - judged
"""Of the unspecified addresses the system makes loopback."""
_LOOPBACK_NAMES: Final = frozenset({"ip6-localhost", "ip6-loopback", "localhost", "localhost.localdomain"})
_PRIVATE: Final = _networks(
    *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
    *("64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fec0::/10"),
)
"""What the registries of special-purpose addresses (RFC 6890) do not route between networks."""
_NEVER: Final[Mapping[str, tuple[Network, ...]]] = {
    "metadata": _METADATA,
    "link_local": _networks("169.254.0.0/16", "fe80::/10"),
    "no_host": _networks("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "ff00::/8"),
}
_INNER: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""IPv6 that stands for IPv4, and how many bits lie below that: mapped, translated, compatible, NAT64, 6to4."""
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)

_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A host that ends in a number is an address or nothing: what systems take for one, they spell in many ways."""
_WORDS: Final = {
    "denied": "which FASTRUNNER_EGRESS_DENY names",
    "link_local": "a link-local address",
    "loopback": "a loopback address",
    "metadata": "a metadata service of a cloud",
    "no_host": "no address of one host",
    "own_port": "a port of this runner itself",
    "private": "a private address",
}
_CLOSED: Final = "no call may go there, and no setting opens it"
_DENIED: Final = "FASTRUNNER_EGRESS_ALLOW would win over that"
assert {*_WORDS, "spelling"} == set(REFUSED_DESTINATIONS)


class Refused(Exception):
    """A destination that no effect may go to."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        """One of `REFUSED_DESTINATIONS`."""
        self.sentence = sentence
        """Names the host, the address and what an operator can set."""


class Egress:
    """The policy of one process."""

    def __init__(
        self,
        *,
        environment: Environment = Environment.LOCAL,
        allow: str = "",
        deny: str = "",
        own: Iterable[tuple[str, int]] = (),
    ) -> None:
        """`allow` and `deny` as `Destinations.parse` reads them; `own`: address and port the runner listens on.

        Loopback and private addresses are open with ENV=local alone, and where `allow` names them.
        """
        self._environment = environment
        self._allow, self._deny = Destinations.parse(allow), Destinations.parse(deny)
        self._own = [(ipaddress.ip_address(host.partition("%")[0].strip("[]")), port) for host, port in own]

    @classmethod
    def of(cls, config: Config, *, serves: bool = False) -> "Egress":
        """The policy that a configuration asks for; `serves`: this is a runner, which has ports of its own."""
        own = [(config.grpc_host, config.grpc_port), (config.http_host, config.http_port)] if serves else []
        return cls(environment=config.env, allow=config.egress_allow, deny=config.egress_deny, own=own)

    def check(self, host: str, port: int, *, is_looked_up_elsewhere: bool = False) -> None:
        """Judges a host as a workflow names it: an address, or a name by itself. Raises Refused.

        `is_looked_up_elsewhere`: nobody asks `permitted`, because a proxy looks the name up.
        """
        bare = host.strip("[]")
        name = plain_name(bare)
        address = _address(name)
        if address is not None:
            if ":" not in bare and str(address) != bare:
                raise Refused("spelling", f"{bare}, a spelling of {address}, is refused: write that address")
            self._judge(bare, port, "", address)
        elif _NUMERIC.fullmatch(name) or ":" in name:
            raise Refused("spelling", f"{bare} is neither a name nor an address as they are written")
        elif name in _METADATA_NAMES:
            raise _refusal("metadata", bare, _CLOSED)
        elif is_looked_up_elsewhere:
            if is_loopback(bare):
                self.permitted(bare, port, ("127.0.0.1", "::1"))
            elif self._deny.has_name(name, port) and not self._allow.has_name(name, port):
                raise _refusal("denied", bare, _DENIED)

    def permitted(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """Those of a host's addresses that may be connected to, in order. Raises Refused if it has others only."""
        bare = host.strip("[]")
        name = "" if _address(bare) is not None else plain_name(bare)
        kept, refusal = [], None
        for text in addresses:
            try:
                self._judge(bare, port, name, ipaddress.ip_address(text.partition("%")[0]))
                kept.append(text)
            except Refused as refused:
                refusal = refusal or refused
        if not kept and refusal is not None:
            raise refusal
        return kept

    def _judge(self, host: str, port: int, name: str, address: Address) -> None:
        for meant in _meant(address):
            reason = self._reason(port, name, meant)
            if reason:
                where = host if str(address) == host else f"{host} at {address}"
                where += "" if meant == address else f" for {meant}"
                raise _refusal(reason, f"{where}:{port}" if reason == "own_port" else where, self._remedy(reason))

    def _reason(self, port: int, name: str, address: Address) -> str:
        """Why an address is refused; empty if it is not."""
        is_loopback = _is_in(address, _LOOPBACK)
        never = "" if is_loopback else next((why for why, of in _NEVER.items() if _is_in(address, of)), "")
        if never:
            return never
        if self._is_own(address, port):
            return "own_port"
        if self._allow.has_address(address, port) or (name and self._allow.has_name(name, port)):
            return ""
        if self._deny.has_address(address, port) or (name and self._deny.has_name(name, port)):
            return "denied"
        if self._environment is Environment.LOCAL:
            return ""
        return "loopback" if is_loopback else "private" if _is_in(address, _PRIVATE) else ""

    def _is_own(self, address: Address, port: int) -> bool:
        """Whether the runner itself listens there."""
        ports = [bound for bound, own_port in self._own if own_port == port]
        return any(bound == address or (bound.is_unspecified and _is_here(address)) for bound in ports) or (
            # Connections to the unspecified address reach whatever listens on loopback.
            address.is_unspecified and any(bound.is_loopback for bound in ports)
        )

    def _remedy(self, reason: str) -> str:
        if reason in ("loopback", "private"):
            return f"with ENV={self._environment} FASTRUNNER_EGRESS_ALLOW has to name the host or the address"
        return _DENIED if reason == "denied" else _CLOSED


def is_loopback(host: str) -> bool:
    """Whether a name or an address as a workflow gives it means the machine itself."""
    name = plain_name(host.strip("[]"))
    address = _address(name)
    if address is None:
        return name in _LOOPBACK_NAMES or name.endswith(".localhost")
    return any(_is_in(meant, _LOOPBACK) for meant in _meant(address))


def _refusal(reason: str, where: str, remedy: str) -> Refused:
    return Refused(reason, f"{where}, {_WORDS[reason]}, is refused: {remedy}")


def _address(text: str) -> Address | None:
    """The address that systems take a text for, in whatever spelling; None if for none."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        pass
    if not _NUMERIC.fullmatch(text):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return None


def _meant(address: Address) -> list[Address]:
    """The addresses that packets to an address reach, or may reach by way of a relay."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    number = int(address)
    # As the address of a host a zone means nothing here.
    plain = ipaddress.IPv6Address(number)
    if plain in _TEREDO:
        return [_inner(number >> 64), _inner(~number)]
    if number > 1:
        for network, shift in _INNER:
            if plain in network:
                return [_inner(number >> shift)]
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        return [plain, _inner(number)]
    return [plain]


def _inner(number: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(number & 0xFFFFFFFF)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _is_here(address: Address) -> bool:
    """Whether the machine has an address: only then can something be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
