"""Stage 7, callback: how the runner proves itself to the receiver, and what vouches for the receiver.

The key, the client's certificate and the authorities come from files that may change; they are looked at before an
attempt, every second at most. Rules: what cannot be used then changes nothing, and the log says so; keys are hidden
from logs, those of before, too, because answers to them may still come.
"""

import logging
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from fastrunner.access.files import signature_of
from fastrunner.base import limits
from fastrunner.base.checks import read_key
from fastrunner.base.clock import monotonic_s
from fastrunner.base.validity import warn_of_dates
from fastrunner.config import Config

__all__ = ["Credentials"]

_log = logging.getLogger(__name__)
_KEYS_HIDDEN: Final = 4


class Credentials:
    """What a client of callbacks shows and trusts, as it is now."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._key_file = config.stigmer_service_api_key_file
        self._tls_files = (
            (config.callback_ca_file, config.callback_certificate_file, config.callback_key_file)
            if config.stigmer_service_use_tls
            else ()
        )
        self._files: tuple[Path | None, ...] = (self._key_file, *self._tls_files)
        self._signature = signature_of(*self._files)
        self._looked_s = monotonic_s()
        self._warn_of_dates()
        self._keys: list[str] = []
        key = config.stigmer_service_api_key
        self._use(key.get_secret_value() if key is not None else "")
        if self._key_file is not None:
            # The settings are as old as the supervisor.
            self._read_key(self._key_file)

    def _warn_of_dates(self) -> None:
        if self._tls_files:
            warn_of_dates("FASTRUNNER_CALLBACK_CERTIFICATE_FILE", self._config.callback_certificate_file, is_chain=True)
            warn_of_dates("FASTRUNNER_CALLBACK_CA_FILE", self._config.callback_ca_file, is_chain=False)

    def _use(self, key: str) -> None:
        self._keys = [key, *self._keys][:_KEYS_HIDDEN] if key else self._keys
        # Made once: of a tuple, grpc.aio would make it anew for every call.
        self.metadata = grpc.aio.Metadata(*((("authorization", f"Bearer {key}"),) if key else ()))
        """What is sent with every call."""

    def _read_key(self, file: Path) -> None:
        try:
            key = read_key(file)
        except ValueError as error:
            _log.error("STIGMER_SERVICE_API_KEY_FILE=%s: %s: the key of before stays", file, error)
            return
        if not self._keys or key != self._keys[0]:
            self._use(key)

    def has_changed(self) -> bool:
        """Looks at the files, if that is due; whether a channel is to be made anew."""
        if not any(self._files) or monotonic_s() - self._looked_s < limits.CREDENTIALS_LOOK_INTERVAL_S:
            return False
        self._looked_s = monotonic_s()
        signature = signature_of(*self._files)
        key_changed, tls_changed = signature[0] != self._signature[0], signature[1:] != self._signature[1:]
        if tls_changed:
            try:
                self._config.check_callback_files()
                self._warn_of_dates()
            except ValueError as error:
                _log.error("%s: the certificates of before stay", error)
                tls_changed = False
        self._signature = signature
        if key_changed and self._key_file is not None:
            self._read_key(self._key_file)
        return tls_changed

    def for_channel(self) -> grpc.ChannelCredentials:
        """What a new connection shows and trusts."""
        authorities, certificate, key = (None if file is None else file.read_bytes() for file in self._tls_files)
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def hidden(self, words: str) -> str:
        """A receiver's words without our keys should they repeat one."""
        for key in self._keys:
            words = words.replace(key, "***")
        return words
