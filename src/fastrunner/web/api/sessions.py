"""Support: sessions of browsers: a cookie that holds the bearer token of its caller, sealed, for a short time.

Theory of operation: nothing is kept of a session but the key, so any process that has the key knows all of them, and a
process that dies takes none along. What a cookie holds goes through the gate with each request, as the token itself
would: so it is good for what the token is good for, and not a moment longer. What has been ended early is remembered,
by the process that was told.

Rules: a script cannot read the cookie, a page of another site does not send it, and it leaves by TLS only where it came
by TLS. `cryptography` is loaded for the first session.
"""

import base64
import binascii
import os
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from aiohttp import web

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.errors import InvalidRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Session", "Sessions"]

_NONCE_SIZE_BYTES: Final = 12
_TIME_SIZE_BYTES: Final = 8
_PREFIXES: Final = ("", "__Host-")
"""Of the cookie's name; the second one is for TLS: browsers take it from no other host, and by TLS alone."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie holds."""

    token: str
    """The bearer token."""
    begun_ms: int
    """When the token was shown, in ms since the epoch."""
    ends_ms: int
    """Until when the cookie is good."""


class Sessions:
    """Those of one key."""

    def __init__(self, key: bytes) -> None:
        """`key` is secret, of any size from 16 bytes on; each purpose has its own."""
        self._key = sha256(b"fastrunner session\0" + key).digest()
        # Cookies know no ports: several services of one machine must not take each other's away.
        self._name = f"fastrunner_{sha256(self._key).hexdigest()[:8]}"
        self._cipher: AESGCM | None = None
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        """Cookies that were ended early, by their nonces, as many as fit."""

    def find(self, request: web.Request) -> Session | None:
        """The session that a request belongs to; None if it belongs to none that is still good."""
        for prefix in _PREFIXES:
            value = request.cookies.get(prefix + self._name)
            if value is not None:
                return self._opened(value)
        return None

    def begin(self, request: web.Request, response: web.StreamResponse, token: str, begun_ms: int = 0) -> Session:
        """Gives a cookie with a caller's token; `begun_ms` is of a session that goes on. Raises InvalidRequest."""
        if len(token) > limits.API_SESSION_TOKEN_SIZE_CHARS_MAX:
            raise InvalidRequest(
                "authorization",
                f"the token has {len(token)} characters, and browsers keep cookies of "
                f"{limits.API_SESSION_TOKEN_SIZE_CHARS_MAX} at most: send it with each request instead",
            )
        now_ms = wall_ms()
        begun_ms = begun_ms or now_ms
        ends_ms = min(now_ms + int(limits.API_SESSION_S * 1000), begun_ms + int(limits.API_SESSION_AGE_S_MAX * 1000))
        session = Session(token, begun_ms, ends_ms)
        is_secure = _came_by_tls(request)
        response.set_cookie(
            _PREFIXES[is_secure] + self._name,
            self._sealed(session),
            max_age=max(0, (ends_ms - now_ms) // 1000),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=is_secure,
        )
        return session

    def end(self, request: web.Request, response: web.StreamResponse) -> None:
        """Takes the cookie away, and takes it from nobody any more."""
        for prefix in _PREFIXES:
            value = request.cookies.get(prefix + self._name)
            if value is None:
                continue
            if self._opened(value) is not None:
                self._ended[_decoded(value)[:_NONCE_SIZE_BYTES]] = None
                while len(self._ended) > limits.API_SESSIONS_ENDED_MAX:
                    self._ended.popitem(last=False)
            response.del_cookie(prefix + self._name, path="/", httponly=True, samesite="Strict", secure=bool(prefix))

    def _sealed(self, session: Session) -> str:
        nonce = os.urandom(_NONCE_SIZE_BYTES)
        times = session.begun_ms.to_bytes(_TIME_SIZE_BYTES) + session.ends_ms.to_bytes(_TIME_SIZE_BYTES)
        sealed = self._aead().encrypt(nonce, times + session.token.encode(), self._name.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def _opened(self, value: str) -> Session | None:
        from cryptography.exceptions import InvalidTag

        sealed = _decoded(value)
        nonce = sealed[:_NONCE_SIZE_BYTES]
        if len(sealed) <= _NONCE_SIZE_BYTES or nonce in self._ended:
            return None
        try:
            plain = self._aead().decrypt(nonce, sealed[_NONCE_SIZE_BYTES:], self._name.encode())
        except InvalidTag:
            return None
        begun, ends = plain[:_TIME_SIZE_BYTES], plain[_TIME_SIZE_BYTES : 2 * _TIME_SIZE_BYTES]
        session = Session(plain[2 * _TIME_SIZE_BYTES :].decode(), int.from_bytes(begun), int.from_bytes(ends))
        return session if wall_ms() < session.ends_ms else None

    def _aead(self) -> "AESGCM":
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self._key)
        return self._cipher


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _came_by_tls(request: web.Request) -> bool:
    """Also where a proxy ends TLS: the page's own origin says so, which browsers send and pages cannot forge."""
    return request.secure or request.headers.get("Origin", "").lower().startswith("https://")
