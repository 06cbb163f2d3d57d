"""Stage 3, journal: the connection of one worker to Temporal: how it is made, what it shows and trusts, and as what.

Rules: whoever needs the client asks for it each time, since files of TLS that have changed make it anew. What cannot be
used then changes nothing, and the log says so. No key is in a message.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from temporalio.client import Client, TLSConfig
from temporalio.converter import DataConverter
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from fastrunner.access.files import signature_of
from fastrunner.base import limits
from fastrunner.base.checks import read_key
from fastrunner.config import Config
from fastrunner.errors import Unavailable

__all__ = ["Connection", "is_late", "sentence_of", "unavailable"]

_log = logging.getLogger(__name__)

_OUT_OF_TIME: Final = (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED)
_OF_KEYS: Final = (RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED)
_UNKNOWN_AUTHORITY: Final = "UnknownIssuer"
_OTHER_NAME: Final = "NotValidForName"
_NO_CERTIFICATE: Final = "InvalidCertificate"
_NO_TLS: Final = "InvalidContentType"
_HUNG_UP: Final = ("close_notify", "broken pipe", "connection reset", "CertificateRequired")
"""How the library tells of a peer that has ended the connection in its first moment."""


class Connection:
    """Temporal, as one worker reaches it. Construct it on the worker's loop, then `connect`."""

    def __init__(self, config: Config, converter: DataConverter) -> None:
        """`converter` makes payloads of values. Raises ValueError without an address."""
        if config.temporal_service_address is None:
            raise ValueError("the distributed engine needs TEMPORAL_SERVICE_ADDRESS")
        self.address = config.temporal_service_address
        """host:port."""
        self._config = config
        self._converter = converter
        self._client: Client | None = None
        self._key_file = config.temporal_api_key_file
        self._tls_files: tuple[Path | None, ...] = (
            config.temporal_tls_server_ca_cert_path,
            config.temporal_tls_client_cert_path,
            config.temporal_tls_client_key_path,
        )
        self._signature = signature_of(self._key_file, *self._tls_files)
        self._looking: asyncio.Task[None] | None = None
        config.warn_of_temporal_dates()

    @property
    def client(self) -> Client:
        """The client, once connected."""
        assert self._client is not None
        return self._client

    async def connect(self) -> None:
        """Tries once. Raises RPCError, RuntimeError, ValueError, which `sentence_of` puts into words."""
        self._client = await self._connected()

    async def _connected(self) -> Client:
        self._config.check_temporal_tls()
        return await Client.connect(
            self.address,
            namespace=self._config.temporal_namespace,
            api_key=self._key(),
            tls=self._tls(),
            data_converter=self._converter,
            # It costs both sides more than the bytes of a step do: a tenth of a worker's time.
            grpc_compression=GrpcCompression.NONE,
        )

    def _key(self) -> str | None:
        if self._key_file is not None:
            # The settings are as old as the supervisor.
            with contextlib.suppress(ValueError):
                return read_key(self._key_file)
        key = self._config.temporal_api_key
        return None if key is None else key.get_secret_value()

    def _tls(self) -> TLSConfig | bool:
        if not self._config.temporal_uses_tls:
            return False
        authorities, certificate, key = (None if file is None else file.read_bytes() for file in self._tls_files)
        return TLSConfig(
            server_root_ca_cert=authorities,
            domain=self._config.temporal_tls_server_name,
            client_cert=certificate,
            client_private_key=key,
        )

    def watch(self, replaced: Callable[[Client], None]) -> None:
        """Looks at the files from now on; `replaced` is told of a client that is made anew."""
        if any((self._key_file, *self._tls_files)):
            self._looking = asyncio.create_task(self._look(replaced))

    async def close(self) -> None:
        """Looks no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self, replaced: Callable[[Client], None]) -> None:
        while True:
            await asyncio.sleep(limits.CREDENTIALS_LOOK_INTERVAL_S)
            signature = signature_of(self._key_file, *self._tls_files)
            before, self._signature = self._signature, signature
            if signature[0] != before[0]:
                self._take_key()
            if signature[1:] == before[1:]:
                continue
            try:
                self._client = await self._connected()
                self._config.warn_of_temporal_dates()
                replaced(self._client)
            except (OSError, RPCError, RuntimeError, ValueError) as error:
                # It is tried again: a half of a pair may be there, or Temporal away for a moment.
                self._signature = (signature[0], *before[1:])
                _log.error("%s: the certificates of before stay", sentence_of(error, self._config))

    def _take_key(self) -> None:
        assert self._key_file is not None
        try:
            self.client.api_key = read_key(self._key_file)
        except ValueError as error:
            _log.error("TEMPORAL_API_KEY_FILE=%s: %s: the key of before stays", self._key_file, error)


def sentence_of(error: Exception, config: Config) -> str:
    """Why Temporal is not reached, in words of the settings."""
    where = f"Temporal at {config.temporal_service_address}"
    text = str(error)
    if isinstance(error, ValueError):
        return text
    if isinstance(error, RPCError):
        return _refusal(where, error.status, error.message, config)
    for status in _OF_KEYS:
        # The first request is made while it connects.
        if f"code: {status.name.title().replace('_', '')}," in text:
            return _refusal(where, status, text.partition("message: ")[2].partition(", metadata")[0], config)
    if _UNKNOWN_AUTHORITY in text:
        authorities = config.temporal_tls_server_ca_cert_path
        trusted = "the system trusts" if authorities is None else f"TEMPORAL_TLS_SERVER_CA_CERT_PATH={authorities} has"
        return f"{where} shows a certificate that none of the authorities has signed that {trusted}"
    if _OTHER_NAME in text:
        name = config.temporal_tls_server_name
        wanted = "the address" if name is None else f"TEMPORAL_TLS_SERVER_NAME={name}"
        return f"{where} shows a certificate for other names than that of {wanted}: set TEMPORAL_TLS_SERVER_NAME"
    if _NO_CERTIFICATE in text:
        return f"{where} shows a certificate that is no good ({text.partition(_NO_CERTIFICATE)[2].strip('() ')})"
    if _NO_TLS in text:
        return f"{where} does not speak TLS: set TEMPORAL_TLS=false if that is meant"
    if any(words in text for words in _HUNG_UP):
        if not config.temporal_uses_tls:
            return f"{where} hangs up: it may want TLS, see TEMPORAL_TLS"
        wanted = "another certificate" if config.temporal_tls_client_cert_path else "a certificate"
        return f"{where} hangs up: it may want {wanted} of the runner, see TEMPORAL_TLS_CLIENT_CERT_PATH"
    return f"{where} does not answer: {text}"


def is_late(error: RPCError) -> bool:
    """Whether its time was up, by the clock of either side."""
    return error.status in _OUT_OF_TIME


def unavailable(error: RPCError) -> Unavailable:
    """What a caller is told whose request Temporal has not carried out."""
    if is_late(error):
        # The words are those of whoever has looked at the clock first.
        return Unavailable("neither Temporal nor a worker of the runner has answered in time: try again")
    return Unavailable(f"Temporal does not answer ({error.message}): try again")


def _refusal(where: str, status: RPCStatusCode, words: str, config: Config) -> str:
    if status in _OF_KEYS:
        which = "the key in TEMPORAL_API_KEY" if config.temporal_api_key else "a runner without TEMPORAL_API_KEY"
        return f"{where} refuses {which}: {words}"
    if status is RPCStatusCode.NOT_FOUND:
        return f"{where} has no namespace {config.temporal_namespace!r} (TEMPORAL_NAMESPACE): {words}"
    return f"{where} does not answer: {words}"
