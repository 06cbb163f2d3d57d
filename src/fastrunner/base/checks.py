"""Support: whether values can be used: of settings, such as addresses, URIs of issuers, files of certificates; of data.

Rules: what cannot be used of settings raises ValueError, which says what is wrong and names no secret; nothing is kept
open.
"""

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import orjson

from fastrunner.base.extras import engine_refusal

__all__ = [
    "TLS_AUTHORITIES",
    "TLS_CERTIFICATE",
    "TLS_KEY",
    "catalog",
    "check_authorities",
    "check_certificates",
    "check_pair",
    "check_temporal",
    "check_without_temporal",
    "contents",
    "encodable",
    "host_and_port",
    "is_deeper",
    "is_host",
    "is_loopback",
    "issuer",
    "no_password",
    "proxy",
    "read_key",
    "readable_folder",
    "sendable",
]

TLS_CERTIFICATE: Final = "FASTRUNNER_TLS_CERTIFICATE_FILE"
TLS_KEY: Final = "FASTRUNNER_TLS_KEY_FILE"
TLS_AUTHORITIES: Final = "FASTRUNNER_TLS_CLIENT_CA_FILE"
"""Variables of what the runner serves with."""
_ORJSON_DEPTH_MAX: Final = 254

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_CATALOG: Final = re.compile(r"(?:https?://[^\s/?#@{}]+|file://[^\s/?#@{}]*)(?:/[^\s?#{}]*)?")


def catalog(value: str) -> str:
    """The URL of a catalog's root. Raises ValueError."""
    if not value.isascii() or _CATALOG.fullmatch(value) is None:
        raise ValueError(
            "expected an https, http or file URL below which functions/<name>/<version>/function.yaml lie, such as "
            "https://catalog.example/root, without user information, query and fragment"
        )
    return value


def host_and_port(value: str, tls_variable: str = "STIGMER_SERVICE_USE_TLS") -> str:
    """Where a service is; `tls_variable` says whether it is reached by TLS. Raises ValueError."""
    host, _, port = value.rpartition(":")
    if "://" in value:
        raise ValueError(
            "expected host:port without a scheme, such as stigmer.example:443; whether TLS is used is set by "
            f"{tls_variable}"
        )
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not is_host(host):
        raise ValueError("expected host:port, such as localhost:50051, or [::1]:50051 for an IPv6 address")
    return value


def is_host(host: str) -> bool:
    """Whether it is a name, an IPv4 address, or an IPv6 address in brackets."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return bool(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def proxy(value: str) -> str:
    """A proxy's URI with scheme and port. Raises ValueError without any text of it, because it may hold a password."""
    text = value.strip()
    try:
        uri = urlsplit(text if "://" in text else f"http://{text}")
        port = uri.port or 80
    except ValueError:
        raise ValueError("expected http://host:port of a proxy, with user:password@ or without") from None
    if uri.scheme != "http" or not is_host(f"[{uri.hostname}]" if ":" in (uri.hostname or "") else uri.hostname or ""):
        raise ValueError(
            "expected http://host:port of a proxy, with user:password@ or without: those of other kinds are not spoken "
            "(https targets are reached through an http proxy as well)"
        )
    if not (text.isascii() and text.isprintable()) or uri.path not in ("", "/") or uri.query or uri.fragment:
        raise ValueError("expected http://host:port of a proxy, nothing behind it, in ASCII: percent-encode the rest")
    authority = uri.netloc if uri.port else f"{uri.netloc.removesuffix(':')}:{port}"
    return f"http://{authority}"


def encodable(value: Path) -> Path:
    """A path whose name goes into files and messages, which are UTF-8. Raises ValueError for another."""
    try:
        # What it is relative to counts as well.
        str(value.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError("a path of UTF-8 text is needed: rename the folder, or choose another") from None
    except OSError as error:
        raise ValueError(f"the current folder cannot be had ({error.strerror}): give an absolute path") from None
    if "\0" in str(value):
        raise ValueError("a path has no zero bytes")
    return value


def readable_folder(value: Path) -> Path:
    """A folder that can be read. Raises ValueError."""
    try:
        os.scandir(value).close()
    except OSError as error:
        raise ValueError(f"the folder cannot be read: {error.strerror}") from None
    return value


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
    """Raises ValueError, naming the variable, unless what a server needs is in these files."""
    check_pair((TLS_CERTIFICATE, TLS_KEY), certificate, key)
    if authorities is not None:
        check_authorities(TLS_AUTHORITIES, authorities)


def check_pair(variables: tuple[str, str], certificate: Path, key: Path) -> None:
    """Raises ValueError, naming the variables, unless a certificate and its key are in these files."""
    for variable, file in zip(variables, (certificate, key), strict=True):
        contents(variable, file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the function, a key that is encrypted would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password=no_password)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{variables[0]}={certificate}: no certificate for the key in {variables[1]}={key}: {error}"
        ) from None


def contents(variable: str, file: Path) -> bytes:
    """What a file holds. Raises ValueError, naming the variable, if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{variable}={file}: cannot be read ({error.strerror}): put the file there, readable by the runner's user"
        ) from None


def read_key(file: Path) -> str:
    """A key as a header may hold it, from a file. Raises ValueError."""
    try:
        key = file.read_bytes().decode().strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}") from None
    if not key:
        raise ValueError("it is empty; write the key into it")
    return sendable(key)


def sendable(key: str) -> str:
    """A key as a header may hold it. Raises ValueError, which does not show it."""
    text = key.strip()
    if not text:
        raise ValueError("expected a key, found only white space; unset it to send none")
    if not (text.isascii() and text.isprintable()):
        raise ValueError("expected printable ASCII, as a header may hold it, without control characters or line breaks")
    return text


def check_authorities(variable: str, file: Path) -> None:
    """Raises ValueError, naming the variable, unless there are certificates in the file."""
    contents(variable, file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise ValueError(f"{variable}={file}: no certificates there: {error}") from None


def no_password() -> NoReturn:
    """For a key that needs one: nobody is asked on a terminal."""
    raise ValueError("the key is encrypted")


def is_deeper(value: Any, depth_max: int) -> bool:
    """Whether `value` nests deeper than `depth_max`.

    orjson writes a fixed number of levels and refuses one more: wrapping the value in the difference makes it the
    judge, at the speed of C.
    """
    for _ in range(_ORJSON_DEPTH_MAX - depth_max):
        value = [value]
    try:
        # Integers beyond 64 bits never come out of `loads`, so nothing but depth can fail here.
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False


def check_temporal(set_names: Sequence[str]) -> None:
    """Raises ValueError for what is set beside TEMPORAL_SERVICE_ADDRESS and of no use there, or is missing."""
    refusal = engine_refusal()
    if refusal:
        raise ValueError(f"TEMPORAL_SERVICE_ADDRESS is set, and {refusal}")
    why = {
        "FASTRUNNER_DATA_KEY_FILE": "what Temporal keeps is sealed by FASTRUNNER_TEMPORAL_KEY_FILE",
        "FASTRUNNER_REPLICA_URL": "what Temporal keeps is copied by its operators",
    }
    for name in set_names:
        raise ValueError(f"{name} is of no use with TEMPORAL_SERVICE_ADDRESS: {why[name]}; unset one of the two")


def check_without_temporal(set_names: Sequence[str]) -> None:
    """Raises ValueError for what is set of the distributed engine where that is not used."""
    for name in set_names:
        raise ValueError(f"{name} is of use only with TEMPORAL_SERVICE_ADDRESS: set that, too, or unset it")


def host_names(text: str) -> tuple[str, ...]:
    """Names or addresses without ports, with commas or spaces between. Raises ValueError."""
    hosts = tuple(text.replace(",", " ").split())
    for host in hosts:
        if "/" in host or "@" in host:
            raise ValueError(f"{host!r} is no host: give a name or an address without a port, runner.example")
    return hosts


def origins(text: str) -> tuple[str, ...]:
    """Origins of pages, with commas or spaces between. Raises ValueError."""
    found = tuple(text.replace(",", " ").split())
    for origin in found:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{origin!r} is no origin: give scheme, host and port alone, https://console.example")
    return found
