"""Support: who is let in: a call's credentials to its principal, for both ports.

Theory of operation: a bearer token that the file of callers names costs one hash and one look-up. What looks like a
JSON Web Token is found in the same way once it has been verified, for as long as it is good. A client's certificate
counts where a call has no token: whoever sends one means it, whatever stands between it and the runner.

Rules: a token is in no message; what is refused says what is wrong with it, not what would be right.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastrunner.access.callers import CallersFile, digest_of
from fastrunner.access.jwt import JWT_PREFIX, JwtVerifier
from fastrunner.access.principal import ALL_ROLES, Principal
from fastrunner.config import Config
from fastrunner.errors import Unauthenticated

__all__ = ["Gate", "open_gate"]

_SCHEME: Final = "bearer "


class Gate:
    """Lets the calls of one process in."""

    def __init__(self, callers: CallersFile | None, jwt: JwtVerifier | None, *, knows_certificates: bool) -> None:
        """`knows_certificates`: whether clients show certificates that have been verified."""
        self._callers = callers
        self._jwt = jwt
        self._knows_certificates = knows_certificates
        self._changes = 0

    def admit(
        self, authorization: str | bytes | None, certificate_names: Callable[[], Sequence[str]]
    ) -> Principal | Awaitable[Principal]:
        """Who calls with an `authorization` header (None: without one) and a certificate of such names, now or later.

        Raises Unauthenticated, now or later; later also AtCapacity, and Unavailable if what proves it cannot be had.
        """
        if authorization is None:
            return self._of_certificate(certificate_names)
        if isinstance(authorization, bytes) or not authorization[: len(_SCHEME)].lower() == _SCHEME:
            raise Unauthenticated("the authorization header is no bearer token: send `authorization: Bearer <token>`")
        token = authorization[len(_SCHEME) :].strip()
        digest = digest_of(token)
        if self._callers is not None:
            principal = self._callers.callers.of_digest(digest)
            if principal is not None:
                return principal
        if self._jwt is not None and token.count(".") == 2:
            return self._jwt.principal_of(digest, token)
        raise Unauthenticated("the token is not known: it was never given out, or has been taken back")

    def _of_certificate(self, names_of: Callable[[], Sequence[str]]) -> Principal:
        names = names_of() if self._knows_certificates else ()
        if not names:
            raise Unauthenticated("no credentials: send `authorization: Bearer <token>`")
        if self._callers is not None:
            certificates = self._callers.callers.certificates
            for name in names:
                if name in certificates:
                    return certificates[name]
        elif self._jwt is None:
            # Nothing tells those apart for whom the authority vouches.
            return Principal(f"certificate:{names[0]}", ALL_ROLES)
        raise Unauthenticated("the certificate's names are no caller's: send `authorization: Bearer <token>`")

    @property
    def changes(self) -> int:
        """A number that is another one when other credentials may be good than before."""
        return self._changes + (0 if self._jwt is None else self._jwt.changes)

    @property
    def knows_tokens_that_end(self) -> bool:
        """Whether some credentials are good for a time only."""
        return self._jwt is not None

    def ends_by_itself(self, principal: Principal) -> bool:
        """Whether what proved a principal is good for a time only."""
        return self._jwt is not None and principal.name.startswith(JWT_PREFIX)

    def look(self) -> None:
        """Takes up files that have changed."""
        if self._callers is not None:
            self._changes += self._callers.look()
        if self._jwt is not None:
            self._jwt.look()

    async def close(self) -> None:
        """Releases what it holds."""
        if self._jwt is not None:
            await self._jwt.close()


def open_gate(config: Config) -> Gate | None:
    """The gate that settings ask for; None where callers are not told apart. Raises ValueError, naming the variable."""
    if not config.tells_callers_apart:
        return None
    callers = CallersFile(config.callers_file) if config.callers_file is not None else None
    jwt = JwtVerifier(config) if config.jwt_issuer is not None else None
    return Gate(callers, jwt, knows_certificates=config.tls_client_ca_file is not None)
