"""Stage 5, tasks: where connections go that are not the HTTP client's: names looked up, and every address judged.

Rule: whoever connects, connects to an address that this gave, never to a name, because a library would look it up
again and might go elsewhere. The name is for TLS, and for whatever the protocol tells a server about itself.
"""

import socket

import aiohttp

from fastrunner.access.egress import Refused
from fastrunner.tasks.call_http.failures import HOST_NOT_FOUND, CallProblem, DestinationRefused
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["permitted_addresses"]


async def permitted_addresses(around: Surroundings, host: str, port: int) -> list[str]:
    """The addresses of a host that may be connected to, at least one, as the system orders them. Raises CallProblem."""
    try:
        around.egress.check(host, port)
        found = await (around.resolver or aiohttp.ThreadedResolver()).resolve(host, port, socket.AF_UNSPEC)
        return around.egress.permitted(host, port, [each["host"] for each in found])
    except Refused as refused:
        around.metrics.egress_refused.labels(refused.reason).inc()
        raise DestinationRefused(refused.sentence) from None
    except (OSError, UnicodeError):
        # Names that no system has, such as `a..b`, which a broker may give, fail before they are looked up.
        raise CallProblem(HOST_NOT_FOUND, f"the name {host} could not be resolved") from None
