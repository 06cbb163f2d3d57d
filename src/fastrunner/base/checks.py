"""Support: whether values of settings can be used: addresses, URIs of issuers, files of certificates.

Rules: what cannot be used raises ValueError, which says what is wrong and names no secret; nothing is kept open.
"""

import ipaddress
import re
import socket
import ssl
from pathlib import Path
from typing import NoReturn

__all__ = ["check_authorities", "check_certificates", "is_loopback", "issuer"]


def issuer(value: str) -> str:
    """The URI of an issuer of tokens. Raises ValueError for one whose keys anybody could give out."""
    secure, plain = value.startswith("https://"), value.startswith("http://")
    host = re.sub(r"^https?://|[/?#].*$", "", value)
    if not (secure or plain) or not host or "?" in value or "#" in value:
        raise ValueError("expected an https URI without a query, such as https://id.example/realms/main")
    if plain and re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host) is None:
        raise ValueError("expected https: whoever is between could give out keys of its own; http is for this machine")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of a name, all of its addresses.

    A name that nobody knows now may be known when the port is bound.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def check_certificates(certificate: Path, key: Path, authorities: Path | None) -> None:
    """Raises ValueError, naming the variable, unless a certificate and its key are in these files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the function, a key that is encrypted would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"FASTRUNNER_TLS_CERTIFICATE_FILE={certificate}: no certificate for the key in "
            f"FASTRUNNER_TLS_KEY_FILE={key}: {error}"
        ) from None
    if authorities is not None:
        check_authorities("FASTRUNNER_TLS_CLIENT_CA_FILE", authorities)


def check_authorities(variable: str, file: Path) -> None:
    """Raises ValueError, naming the variable, unless there are certificates in the file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise ValueError(f"{variable}={file}: no certificates there: {error}") from None


def _no_password() -> NoReturn:
    raise ValueError("the key is encrypted")
