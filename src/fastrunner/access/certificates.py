"""Support: what a server speaks TLS with, read again when its files have changed.

Theory of operation: whoever writes new files may be just about it, one after the other, so what does not fit together
is looked at once more before it is complained of. What is proved to fit takes the place of what was there: connections
that begin from then on get it, those that are open stay as they are.

Rule: files that cannot be used change nothing, and the log says so.
"""

import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastrunner.access.files import Signature, signature_of
from fastrunner.base.checks import (
    TLS_AUTHORITIES,
    TLS_CERTIFICATE,
    TLS_KEY,
    check_certificates,
    contents,
    no_password,
)
from fastrunner.base.validity import warn_of_dates
from fastrunner.config import Config

__all__ = ["Certificates", "RotatingContext", "TlsFiles", "names_of", "open_certificates"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Contents of PEM files with which a server speaks TLS."""

    certificate: bytes
    """Its certificate chain."""
    key: bytes = field(repr=False)
    """The private key."""
    client_authorities: bytes | None
    """One of these must vouch for every client; None: clients show no certificate."""


class Certificates:
    """The files of one process's servers."""

    def __init__(self, certificate: Path, key: Path, authorities: Path | None) -> None:
        """Raises ValueError, naming the variable, if they cannot be used."""
        self.paths = (certificate, key, authorities)
        """The certificate chain, its key, the authorities of clients."""
        self._signature = self._look_at()
        self._doubtful = False
        self.files = _read(*self.paths)
        """What they hold."""
        self._warn_of_dates()

    def look(self) -> bool:
        """Reads them again if they have changed; whether there is something else to serve with."""
        signature = self._look_at()
        if signature == self._signature and not self._doubtful:
            return False
        seen_before, self._signature = signature == self._signature, signature
        try:
            files = _read(*self.paths)
        except ValueError as error:
            self._doubtful = not seen_before
            if seen_before:
                _log.error("%s: the certificate of before stays", error)
            return False
        self._doubtful = False
        if files == self.files:
            return False
        self.files = files
        _log.info("serving with the certificate that is now in %s=%s", TLS_CERTIFICATE, self.paths[0])
        self._warn_of_dates()
        return True

    def _warn_of_dates(self) -> None:
        warn_of_dates(TLS_CERTIFICATE, self.paths[0], is_chain=True)
        warn_of_dates(TLS_AUTHORITIES, self.paths[2], is_chain=False)

    def _look_at(self) -> tuple[Signature | None, ...]:
        return signature_of(*self.paths)


class RotatingContext(ssl.SSLContext):
    """A server's context for asyncio, each of whose connections begins with the certificate of that moment.

    A context that is given other authorities keeps those it had, so each certificate has a context of its own. Clients
    may show a certificate, if there are authorities; one that they do not vouch for is refused.
    """

    _certificates: Certificates
    _protocols: Sequence[str]
    _insists: bool
    _current: tuple[TlsFiles, ssl.SSLContext]

    def __new__(
        cls, certificates: Certificates, protocols: Sequence[str] = (), *, insists: bool = False
    ) -> "RotatingContext":
        """`protocols` are offered by ALPN. `insists`: a client has to show a certificate, if there are authorities."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._certificates = certificates
        made._protocols = protocols
        made._insists = insists
        made._current = (certificates.files, made._made())
        return made

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """See SSLContext."""
        files = self._certificates.files
        if files is not self._current[0]:
            try:
                self._current = (files, self._made())
            except (OSError, ValueError) as error:
                # Files that are changing again; what is read of them then comes here, too.
                _log.warning("the new certificate cannot be had yet: %s", error)
        return self._current[1].wrap_bio(*arguments, **options)

    def _made(self) -> ssl.SSLContext:
        certificate, key, _ = self._certificates.paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=no_password)
        if self._protocols:
            context.set_alpn_protocols(list(self._protocols))
        if self._certificates.files.client_authorities is not None:
            context.load_verify_locations(cadata=self._certificates.files.client_authorities.decode())
            context.verify_mode = ssl.CERT_REQUIRED if self._insists else ssl.CERT_OPTIONAL
        return context


def names_of(shown: Mapping[str, Any]) -> Sequence[str]:
    """The names in a client's certificate, as `SSLSocket.getpeercert` has it: alternative ones, else the common one."""
    names = [str(name) for _, name in shown.get("subjectAltName", ())]
    return names or [str(value) for part in shown.get("subject", ()) for key, value in part if key == "commonName"]


def open_certificates(config: Config) -> Certificates | None:
    """Those that settings name; None without TLS. Raises ValueError, naming the variable, if they cannot be used."""
    if config.tls_certificate_file is None or config.tls_key_file is None:
        return None
    return Certificates(config.tls_certificate_file, config.tls_key_file, config.tls_client_ca_file)


def _read(certificate: Path, key: Path, authorities: Path | None) -> TlsFiles:
    """Raises ValueError, naming the variable, unless they fit together."""
    files = _contents(certificate, key, authorities)
    check_certificates(certificate, key, authorities)
    if files != _contents(certificate, key, authorities):
        raise ValueError(f"{TLS_CERTIFICATE}={certificate}: it is just being written")
    return files


def _contents(certificate: Path, key: Path, authorities: Path | None) -> TlsFiles:
    return TlsFiles(
        certificate=contents(TLS_CERTIFICATE, certificate),
        key=contents(TLS_KEY, key),
        client_authorities=None if authorities is None else contents(TLS_AUTHORITIES, authorities),
    )
