"""Support: lists of places on the network as operators write them: addresses, ranges, names of hosts.

Rules: pure, no look-ups: a name is matched as it is written, an address by its bits. What cannot be read is refused
whole, because an entry that is passed over would open or close something nobody meant.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Address", "Destinations", "Network", "plain_name"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_WITH_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:/]*):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class _Entry:
    port: int | None
    """None: every port."""
    network: Network | None = None
    """None: it is a name."""
    name: str = ""
    """In lower case, without a dot at the end."""
    is_whole: bool = True
    """Whether the name itself is meant."""
    is_domain: bool = False
    """Whether all names below it are meant."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """A list of places."""

    entries: tuple[_Entry, ...] = ()
    """All but `*`."""
    is_everything: bool = False
    """Whether `*` is in the list."""

    @classmethod
    def parse(cls, text: str, *, are_domains: bool = False) -> Self:
        """Reads entries between commas; raises ValueError, naming the first that is none.

        An entry is an address, a range (`10.0.0.0/8`), a name, `*.name` for all names below one, or `*`; with `:port`
        it is that port alone. `are_domains`: each name is one with all below it, and may begin with a dot.
        """
        words = [word.strip().lower() for word in text.split(",") if word.strip()]
        return cls(tuple(_entry(word, are_domains) for word in words if word != "*"), "*" in words)

    def has_name(self, name: str, port: int) -> bool:
        """Whether a plain name (see `plain_name`) is in the list, at that port."""
        return self.is_everything or any(
            entry.name
            and entry.port in (None, port)
            and ((entry.is_whole and entry.name == name) or (entry.is_domain and name.endswith(f".{entry.name}")))
            for entry in self.entries
        )

    def has_host(self, host: str, port: int) -> bool:
        """Whether a plain name or an address, as a text, is in the list, at that port."""
        try:
            return self.has_address(ipaddress.ip_address(host.partition("%")[0]), port)
        except ValueError:
            return self.has_name(host, port)

    def has_address(self, address: Address, port: int) -> bool:
        """Whether an address is in the list, at that port."""
        return self.is_everything or any(
            entry.network is not None
            and entry.port in (None, port)
            and entry.network.version == address.version
            and address in entry.network
            for entry in self.entries
        )


def plain_name(host: str) -> str:
    """A host's name in the form that is compared: lower case, without the dot of a complete name."""
    return host.lower().removesuffix(".")


def _entry(word: str, are_domains: bool) -> _Entry:
    bare, port = word, None
    match = _WITH_PORT.fullmatch(word)
    if match is not None:
        bare, port = match[1], int(match[2])
        if not 0 < port < 65536:
            raise ValueError(f"{word!r}: a port is between 1 and 65535")
    network = _network(bare)
    if network is not None:
        return _Entry(port, network)
    name, is_domain = bare.removesuffix("."), are_domains
    if name.startswith("*.") or (are_domains and name.startswith(".")):
        name, is_domain = name[name.index(".") + 1 :], True
    # What ends like an address, and is none, is a slip and no name.
    if not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise ValueError(
            f"{word!r} is none of: an address, a range such as 10.0.0.0/8 (without bits beyond its length), a host's "
            "name, *.name for all names below one, each but ranges with :port or without, or *"
        )
    return _Entry(port, None, name, is_whole=are_domains or not is_domain, is_domain=is_domain)


def _network(bare: str) -> Network | None:
    is_bracketed = bare.startswith("[") and bare.endswith("]")
    try:
        return ipaddress.IPv6Network(bare[1:-1]) if is_bracketed else ipaddress.ip_network(bare)
    except ValueError:
        return None
