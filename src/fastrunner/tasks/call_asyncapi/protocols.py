"""Stage 5, tasks: the protocols that messages travel by, each with the names that documents have for it.

Rules: pure. A name that is not here, and one whose libraries are not installed, is refused with what would help.
"""

from dataclasses import dataclass

from fastrunner.base.extras import extra_refusal
from fastrunner.tasks.call_asyncapi.document import ConfigurationProblem

__all__ = ["PROTOCOLS", "Protocol", "protocol_of"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol by one of its names."""

    client: str
    """The module of `clients`."""
    port: int
    """Where servers listen if the document does not say."""
    is_tls: bool
    """Whether it is spoken over TLS."""
    names: tuple[str, ...]
    """Those that the DSL's `protocol` and a document's bindings have for it."""
    dividers: str = ""
    """What parts of an address stand between, and what stands for several addresses: no parameter may hold them, or it
    would lead elsewhere. Empty where addresses have no parts, or parts are escaped."""
    has_own_addresses: bool = False
    """Whether addresses that begin with `$` are the broker's own."""

    @property
    def is_path(self) -> bool:
        """Whether an address is a path of URLs."""
        return self.client in ("http", "ws")


def _both(
    client: str,
    names: tuple[str, ...],
    port: int,
    secure: tuple[str, ...],
    secure_port: int,
    dividers: str = "",
    *,
    has_own_addresses: bool = False,
) -> dict[str, Protocol]:
    return {
        **{name: Protocol(client, port, False, names, dividers, has_own_addresses) for name in names},
        **{name: Protocol(client, secure_port, True, names, dividers, has_own_addresses) for name in secure},
    }


PROTOCOLS = {
    **_both("http", ("http",), 80, ("https",), 443),
    **_both("ws", ("ws",), 80, ("wss",), 443),
    **_both("kafka", ("kafka",), 9092, ("kafka-secure",), 9092),
    **_both("amqp", ("amqp",), 5672, ("amqps",), 5671, ".*#"),
    **_both("mqtt", ("mqtt", "mqtt5"), 1883, ("mqtts", "secure-mqtt"), 8883, "/+#", has_own_addresses=True),
    **_both("nats", ("nats",), 4222, ("tls",), 4222, ".*>", has_own_addresses=True),
    **_both("redis", ("redis",), 6379, ("rediss",), 6379),
}
"""By what a document calls them."""


def protocol_of(name: str) -> Protocol:
    """Raises ConfigurationProblem for one that is not spoken here."""
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        known = ", ".join(PROTOCOLS)
        raise ConfigurationProblem(
            f"the server's protocol {name!r:.40} is not supported; those that are: {known}", "Protocol Not Supported"
        )
    refusal = extra_refusal(f"asyncapi:{protocol.client}")
    if refusal:
        raise ConfigurationProblem(refusal, "Not Installed")
    return protocol
