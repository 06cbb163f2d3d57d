"""Support: callers that prove themselves with a JSON Web Token of one issuer.

Theory of operation: the keys come from a JWKS file, or from where the issuer's OpenID configuration says. A token that
has been verified is kept by its SHA-256 until it ends, a few minutes at most, so a call costs a look-up. A key that is
not known has the keys asked for again, but not at once again: anybody can make a token that names one.

Rules: only signatures by a private key of the issuer count, none by a shared secret; `iss`, `aud`, `exp` and `sub` must
be there. Keys that cannot be asked for again stay, and the log says so. The library is loaded by the first token.
"""

import asyncio
import importlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner.access.files import signature_of
from fastrunner.access.principal import Principal, Role, with_implied
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.config import Config
from fastrunner.errors import AtCapacity, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from aiohttp import ClientSession

__all__ = ["JWT_PREFIX", "JwtVerifier"]

JWT_PREFIX: Final = "jwt:"
"""What names of principals begin with whom a token has proved."""

_log = logging.getLogger(__name__)

_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_DISCOVERY: Final = "/.well-known/openid-configuration"
_SUBJECT_SIZE_CHARS_MAX: Final = 255


class _Verified:
    """A token that is good, and until when."""

    __slots__ = ("end_s", "expires_ms", "principal")

    def __init__(self, principal: Principal, expires_ms: int) -> None:
        self.principal = principal
        self.expires_ms = expires_ms
        self.end_s = monotonic_s() + limits.JWT_VERIFIED_S_MAX

    def is_good(self) -> bool:
        return wall_ms() < self.expires_ms and monotonic_s() < self.end_s


class JwtVerifier:
    """Verifies the tokens of one issuer in one process."""

    def __init__(self, config: Config) -> None:
        """Raises ValueError, naming the variable, if the JWKS file cannot be used."""
        self._issuer = str(config.jwt_issuer)
        self._audience = str(config.jwt_audience)
        self._roles_claim = config.jwt_roles_claim
        self._namespaces_claim = config.jwt_namespaces_claim
        self._file = config.jwt_jwks_file
        self._signature = signature_of(self._file)
        self._keys: list[Mapping[str, Any]] = []
        """As JWKs."""
        self._key_set: Any = None
        """The same as the library has it; None until it is needed."""
        self._asked_s = -limits.JWT_KEYS_AGE_S_MAX
        self._asking: asyncio.Task[None] | None = None
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[Principal]] = {}
        self._session: ClientSession | None = None
        self.changes = 0
        """How often the keys have become others."""
        if self._file is not None:
            try:
                self._keys = _read(self._file)
            except ValueError as error:
                raise ValueError(f"FASTRUNNER_JWT_JWKS_FILE={self._file}: {error}") from None

    def principal_of(self, digest: bytes, token: str) -> Principal | Awaitable[Principal]:
        """Whose token it is, now if it has been seen. Raises AtCapacity; later Unauthenticated, Unavailable."""
        verified = self._verified.get(digest)
        if verified is not None:
            if verified.is_good():
                return verified.principal
            del self._verified[digest]
        task = self._under_way.get(digest)
        if task is None:
            if len(self._under_way) >= limits.JWT_VERIFICATIONS_MAX:
                raise AtCapacity("too many tokens are being verified: try again")
            task = asyncio.get_running_loop().create_task(self._verify(digest, token))
            self._under_way[digest] = task
            task.add_done_callback(lambda _: self._under_way.pop(digest, None))
        # One of several who wait for it may give up.
        return asyncio.shield(task)

    def look(self) -> None:
        """Reads the file again if it has changed; tokens are then verified anew."""
        signature = signature_of(self._file)
        if self._file is None or signature == self._signature:
            return
        self._signature = signature
        try:
            self._take(_read(self._file))
        except ValueError as error:
            _log.error("FASTRUNNER_JWT_JWKS_FILE=%s: %s: the keys of before stay", self._file, error)
        else:
            _log.info("FASTRUNNER_JWT_JWKS_FILE=%s has changed and was read again", self._file)

    async def close(self) -> None:
        """Ends what is under way."""
        for task in [*self._under_way.values(), *filter(None, (self._asking,))]:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    # --- tokens ---

    async def _verify(self, digest: bytes, token: str) -> Principal:
        # It takes a tenth of a second, once.
        joserfc_jwt = await asyncio.to_thread(importlib.import_module, "joserfc.jwt")
        kid = _kid_of(token)
        if self._file is None and monotonic_s() - self._asked_s > limits.JWT_KEYS_AGE_S_MAX:
            await self._ask()
        if self._file is None and not self._has(kid):
            if monotonic_s() - self._asked_s > limits.JWT_KEYS_ASK_INTERVAL_S:
                await self._ask()
            if not self._keys:
                raise Unavailable("the keys of the issuer of tokens cannot be had now: try again")
        if not self._has(kid):
            raise Unauthenticated("the token is signed with a key that is not the issuer's")
        claims = self._claims(joserfc_jwt, token)
        principal = self._principal(claims)
        self._verified[digest] = _Verified(principal, int((claims["exp"] + limits.JWT_CLOCK_SKEW_S_MAX) * 1000))
        while len(self._verified) > limits.JWT_VERIFIED_MAX:
            self._verified.popitem(last=False)
        return principal

    def _has(self, kid: str | None) -> bool:
        return bool(self._keys) if kid is None else any(key.get("kid") == kid for key in self._keys)

    def _claims(self, joserfc_jwt: Any, token: str) -> Mapping[str, Any]:
        """Raises Unauthenticated."""
        from joserfc.errors import JoseError

        if self._key_set is None:
            self._key_set = _key_set(self._keys)
        registry = joserfc_jwt.JWTClaimsRegistry(
            now=wall_ms() // 1000,
            leeway=limits.JWT_CLOCK_SKEW_S_MAX,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            decoded = joserfc_jwt.decode(token, self._key_set, algorithms=list(_ALGORITHMS))
            registry.validate(decoded.claims)
        except JoseError as error:
            # Its text may quote the token.
            claim = getattr(error, "claim", None)
            about = f"its {claim}" if claim in ("iss", "aud", "exp", "nbf", "iat", "sub") else "its signature or form"
            raise Unauthenticated(f"the token is no good: {about} ({error.error})") from None
        except Exception:
            # What strangers send takes libraries to places that nobody has been to.
            raise Unauthenticated("the token is no good: its signature or form") from None
        claims: Mapping[str, Any] = decoded.claims
        return claims

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        """Raises Unauthenticated."""
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= _SUBJECT_SIZE_CHARS_MAX:
            raise Unauthenticated(
                f"the token is no good: its sub is no printable text of at most {_SUBJECT_SIZE_CHARS_MAX} characters"
            )
        named = set(_texts(_at(claims, self._roles_claim)))
        roles = frozenset(role for role in Role if role in named)
        namespaces = None
        if self._namespaces_claim is not None:
            namespaces = frozenset(_texts(_at(claims, self._namespaces_claim)))
        return Principal(f"{JWT_PREFIX}{subject}", with_implied(roles), namespaces)

    # --- keys ---

    def _take(self, keys: list[Mapping[str, Any]]) -> None:
        if keys != self._keys:
            # A key that is gone has been taken back.
            self._verified.clear()
            self._keys, self._key_set = keys, None
            self.changes += 1

    async def _ask(self) -> None:
        """Asks the issuer for its keys; whoever wants them meanwhile waits for the same answer."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._asked())
            self._asking.add_done_callback(self._done_asking)
        await asyncio.shield(self._asking)

    def _done_asking(self, _: "asyncio.Task[None]") -> None:
        self._asking = None

    async def _asked(self) -> None:
        try:
            found = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
            if found.get("issuer") != self._issuer:
                raise ValueError("its OpenID configuration is another issuer's")
            where = found.get("jwks_uri")
            if not isinstance(where, str) or not where.startswith(("https://", "http://")):
                raise ValueError("its OpenID configuration has no jwks_uri")
            if self._issuer.startswith("https://") and not where.startswith("https://"):
                raise ValueError("its jwks_uri is not HTTPS")
            self._take(_keys_in(await self._get(where)))
        except Exception as error:
            kept = "the keys of before stay" if self._keys else "no token of it can be verified"
            _log.error("the keys of FASTRUNNER_JWT_ISSUER=%s cannot be had: %s: %s", self._issuer, _why(error), kept)
        finally:
            self._asked_s = monotonic_s()

    async def _get(self, uri: str) -> Mapping[str, Any]:
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=limits.TOKEN_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)
        async with self._session.get(uri, headers={"Accept": "application/json"}, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"it answers {response.status}")
            chunks, size_bytes = [], 0
            async for chunk in response.content.iter_any():
                size_bytes += len(chunk)
                if size_bytes > limits.TOKEN_RESPONSE_SIZE_BYTES_MAX:
                    raise ValueError(f"its answer has more than {limits.TOKEN_RESPONSE_SIZE_BYTES_MAX} bytes")
                chunks.append(chunk)
        return _object(b"".join(chunks))


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read(file: Path) -> list[Mapping[str, Any]]:
    """Raises ValueError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.TOKEN_RESPONSE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(data) > limits.TOKEN_RESPONSE_SIZE_BYTES_MAX:
        raise ValueError(f"has more than {limits.TOKEN_RESPONSE_SIZE_BYTES_MAX} bytes")
    return _keys_in(_object(data))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


def _keys_in(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The keys of a JWKS that may prove signatures. Raises ValueError."""
    keys = found.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('has no list of keys: a JWKS is {"keys": [...]}')
    usable = [key for key in keys if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"]
    if not usable:
        raise ValueError("has no public key that proves signatures")
    return usable


def _key_set(keys: list[Mapping[str, Any]]) -> Any:
    from joserfc.jwk import JWKRegistry, KeySet

    made = []
    for key in keys:
        try:
            made.append(JWKRegistry.import_key(dict(key)))
        except Exception:
            # One key of a kind that the library does not have must not take the others away.
            _log.warning("a key of the issuer of tokens cannot be used: kid %r", key.get("kid"))
    return KeySet(made)


def _kid_of(token: str) -> str | None:
    """The key that a token names, if any. Raises Unauthenticated."""
    from base64 import urlsafe_b64decode

    head = token.partition(".")[0]
    try:
        header = orjson.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        kid = header.get("kid")
    except (ValueError, AttributeError):
        raise Unauthenticated("the token is neither known nor a JSON Web Token") from None
    if kid is not None and not isinstance(kid, str):
        raise Unauthenticated("the token is no good: its kid is no text")
    return kid


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by the names that lead to it with dots between them."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _texts(claim: Any) -> list[str]:
    """The texts of a claim: a list of them, or one with spaces between them."""
    if isinstance(claim, str):
        return claim.split()
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []
