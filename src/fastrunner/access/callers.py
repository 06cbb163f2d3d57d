"""Support: the callers that a file names: bearer tokens by their SHA-256, and certificates by the names in them.

    # one caller's credential a line; `fastrunner token` makes lines
    name=ci       roles=submit,read  namespaces=shop,billing  sha256=9f86d081...
    name=gateway  roles=admin        certificate=spiffe://example/gateway

Theory of operation: tokens are random (`fastrunner token` makes 256 bits), so nobody guesses one, and a plain hash of
it is as good as a slow one; it is also the key by which a call's token is found. What a look-up's time tells is about
the hash of what a stranger sent, which the token does not follow from; the hash found is compared in constant time.

Rules: a token itself is nowhere: not in the file, not in messages. A file that has changed is read again; one that
cannot be used then changes nothing, and the log says why.
"""

import hmac
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastrunner.access.files import signature_of
from fastrunner.access.principal import Principal, Role, with_implied
from fastrunner.base import limits

__all__ = ["Callers", "CallersFile", "digest_of", "line_of", "read_callers"]

_log = logging.getLogger(__name__)

_FIELDS: Final = {"name", "roles", "namespaces", "sha256", "certificate"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def digest_of(token: str) -> bytes:
    """What a token is found by."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def line_of(name: str, roles: str, namespaces: str, token: str) -> str:
    """The line of a file for a new token. Raises ValueError if it is of no use."""
    within = f" namespaces={namespaces}" if namespaces else ""
    line = f"name={name} roles={roles}{within} sha256={digest_of(token).hex()}"
    if len(line.split()) != 3 + bool(within):
        raise ValueError("names, roles and namespaces have no white space: separate them by commas")
    _Line(1, line).principal()
    return line


@dataclass(frozen=True, slots=True)
class Callers:
    """What a file says."""

    tokens: Mapping[bytes, tuple[bytes, Principal]]
    """By the SHA-256 of the token; with that hash once more, to be compared with."""
    certificates: Mapping[str, Principal]
    """By a name in the certificate."""

    def of_digest(self, digest: bytes) -> Principal | None:
        """Whose token has that hash."""
        found = self.tokens.get(digest)
        return found[1] if found is not None and hmac.compare_digest(found[0], digest) else None


class _Line:
    """One line, not empty, of the file."""

    def __init__(self, number: int, text: str) -> None:
        self._number = number
        self.fields: dict[str, str] = {}
        for part in text.split():
            key, equals, value = part.partition("=")
            if key not in _FIELDS or not equals:
                # It may be a token that somebody has put here: its text is not repeated.
                raise self.wrong(f"has a word that is none of {', '.join(f'{each}=' for each in sorted(_FIELDS))}")
            if key in self.fields:
                raise self.wrong(f"has {key} twice")
            self.fields[key] = value
        if ("sha256" in self.fields) == ("certificate" in self.fields):
            raise self.wrong("needs one of sha256= and certificate=")

    def wrong(self, what: str) -> ValueError:
        """The error that says so."""
        return ValueError(f"line {self._number} {what}")

    def principal(self) -> Principal:
        """Raises ValueError."""
        name = self.fields.get("name", "")
        if not _NAME.fullmatch(name):
            raise self.wrong("needs name=, of at most 64 letters, digits, and . _ @ -")
        names = self.fields.get("roles", "").split(",")
        unknown = [each for each in names if each not in list(Role)]
        if unknown:
            raise self.wrong(f"needs roles=, some of {', '.join(Role)}, separated by commas")
        namespaces = None
        if "namespaces" in self.fields:
            namespaces = frozenset(self.fields["namespaces"].split(","))
            if not all(map(_NAMESPACE.fullmatch, namespaces)):
                raise self.wrong("has namespaces= that are no names of namespaces, separated by commas")
        if "sha256" in self.fields and not _HASH.fullmatch(self.fields["sha256"]):
            raise self.wrong("needs sha256= of 64 hexadecimal digits in small letters: fastrunner token makes it")
        if self.fields.get("certificate") == "":
            raise self.wrong("needs a name after certificate=")
        kind = "certificate" if "certificate" in self.fields else "token"
        return Principal(f"{kind}:{name}", with_implied(frozenset(map(Role, names))), namespaces)


def read_callers(file: Path) -> Callers:
    """Raises ValueError, naming the line, if it cannot be used."""
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.CALLERS_SIZE_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None
    if len(data) > limits.CALLERS_SIZE_BYTES_MAX:
        raise ValueError(f"has more than {limits.CALLERS_SIZE_BYTES_MAX} bytes")
    tokens: dict[bytes, tuple[bytes, Principal]] = {}
    certificates: dict[str, Principal] = {}
    for line in _lines(text):
        principal = line.principal()
        if "certificate" in line.fields:
            if line.fields["certificate"] in certificates:
                raise line.wrong("names a certificate that another line names")
            certificates[line.fields["certificate"]] = principal
        else:
            digest = bytes.fromhex(line.fields["sha256"])
            if digest in tokens:
                raise line.wrong("has the sha256 of another line")
            tokens[digest] = (digest, principal)
    if not tokens and not certificates:
        raise ValueError("names no caller")
    return Callers(tokens, certificates)


def _lines(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _Line(number, line)


class CallersFile:
    """A file of callers, read again when it has changed."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError if it cannot be used."""
        self._file = file
        self._signature = signature_of(file)
        try:
            self.callers = read_callers(file)
            """What it says."""
        except ValueError as error:
            raise ValueError(f"FASTRUNNER_CALLERS_FILE={file}: {error}") from None

    def look(self) -> bool:
        """Reads it again if it has changed; whether other callers are known now."""
        signature = signature_of(self._file)
        if signature == self._signature:
            return False
        self._signature = signature
        try:
            self.callers = read_callers(self._file)
        except ValueError as error:
            _log.error("FASTRUNNER_CALLERS_FILE=%s: %s: the callers of before stay", self._file, error)
            return False
        _log.info("FASTRUNNER_CALLERS_FILE=%s has changed and was read again", self._file)
        return True
