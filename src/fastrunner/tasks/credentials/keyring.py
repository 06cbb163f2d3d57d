"""Stage 5, tasks: the one door to all schemes: a policy as rendered becomes what a call is sent with.

Rules: everything a proof is made of is hidden from texts before it is returned. A proof is for one call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from fastrunner.base.redaction import hide
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.credentials import basic, bearer, digest
from fastrunner.tasks.credentials.policy import Authorization, malformed
from fastrunner.tasks.credentials.tokens import Grant, Tokens

__all__ = ["Keyring", "Proof"]

_PRIVATE = frozenset({"assertion", "password", "secret", "token"})
"""Fields of a policy whose texts are secret wherever they come from."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How one call proves who calls."""

    authorization: Authorization
    """What is sent with it, or that a challenge decides on it."""
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
    """What answers a challenge."""
    grant: Grant | None = None
    """The token behind it, if another one can be obtained."""


class Keyring:
    """The credentials of one worker's calls."""

    def __init__(self, client: Client) -> None:
        """`client` is the worker's, for what is asked of authorities."""
        self._tokens = Tokens(client)

    async def proof(self, policy: Mapping[str, Any]) -> Proof:
        """What a policy as rendered (a scheme, and its fields below it) resolves to. Raises CallProblem."""
        [(scheme, fields)] = policy.items()
        if not isinstance(fields, dict):
            raise malformed(scheme, "it is no object")
        _hide_private(fields)
        match scheme:
            case "basic":
                return _told(Proof(basic.authorization(fields)))
            case "bearer":
                return _told(Proof(bearer.authorization(fields)))
            case "digest":
                return Proof(Authorization("Digest", None), (digest.answering(fields),))
            case _:
                grant = await self._tokens.get(scheme, fields)
                return _told(Proof(Authorization("Bearer", grant.token.text), grant=grant))

    def refused(self, proof: Proof) -> bool:
        """The called service has refused a proof: whether another one can be had."""
        if proof.grant is None:
            return False
        self._tokens.drop(proof.grant)
        return True

    async def close(self) -> None:
        """Ends what is asked of authorities."""
        await self._tokens.close()


def _told(proof: Proof) -> Proof:
    hide(proof.authorization.parameter)
    return proof


def _hide_private(value: Mapping[str, Any]) -> None:
    for name, part in value.items():
        if isinstance(part, dict):
            _hide_private(part)
        elif name in _PRIVATE:
            hide(part)
