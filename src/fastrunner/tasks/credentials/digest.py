"""Stage 5, tasks: Digest authentication (RFC 7616): an answer to what the server asks; the client library works it out.

Rules: each call answers a challenge of its own, so calls share no nonce, and the first request of a call goes without.
"""

from collections.abc import Mapping
from typing import Any

from aiohttp import DigestAuthMiddleware

from fastrunner.tasks.credentials.policy import malformed, text

__all__ = ["answering"]


def answering(fields: Mapping[str, Any]) -> DigestAuthMiddleware:
    """What answers the challenge of one call. Raises CredentialsProblem."""
    name, password = text("digest", fields, "username"), text("digest", fields, "password")
    if ":" in name:
        raise malformed("digest", "username has a colon, which would end it")
    try:
        return DigestAuthMiddleware(name, password, preemptive=False)
    except UnicodeEncodeError:
        raise malformed("digest", "username or password has an unpaired surrogate: it is no text") from None
