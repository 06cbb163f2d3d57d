"""Stage 5, tasks: content codings of HTTP bodies, undone as the bytes come.

Rules: pure, no I/O. A body is whole or an error: one that ends within a coding, goes on after it or is no such coding
is refused, as is a coding that is not spoken here. Every layer is bounded like the body itself, so that a small body
that unpacks to a large one costs no more than a large one; pieces are small, so that whoever asks for them can rest.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fastrunner.base import limits

__all__ = ["ACCEPTED", "BodyTooLarge", "Decoding", "MalformedCoding", "UnknownCoding"]

ACCEPTED: Final = "gzip, deflate"
"""What the runner asks servers for. Everything else would need a further library."""

_PIECE_SIZE_BYTES: Final = 65_536
_GZIP: Final = 16 + zlib.MAX_WBITS


class MalformedCoding(ValueError):
    """A body that is not what its Content-Encoding says."""


class UnknownCoding(ValueError):
    """A body in a coding that is not spoken here."""


class BodyTooLarge(ValueError):
    """A body, or what a coding of it contains, beyond its bound."""


class Decoding:
    """Undoes the codings of one body."""

    def __init__(self, content_encodings: Iterable[str]) -> None:
        """Takes the values of the Content-Encoding headers, in their order. Raises UnknownCoding."""
        names = [name.strip(" \t").lower() for value in content_encodings for name in value.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if len(names) > limits.HTTP_CODINGS_COUNT_MAX:
            raise UnknownCoding
        # The last one named was applied last.
        self._layers = [_Layer(name) for name in reversed(names)]
        self._received_size_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the body, some of them empty. Raises MalformedCoding and BodyTooLarge."""
        self._received_size_bytes += len(data)
        if self._received_size_bytes > limits.HTTP_RESPONSE_SIZE_BYTES_MAX:
            raise BodyTooLarge
        return _through(self._layers, data)

    def end(self) -> None:
        """To be called when no more comes. Raises MalformedCoding. A body without bytes has no codings either."""
        if self._received_size_bytes:
            for layer in self._layers:
                layer.end()


def _through(layers: Sequence["_Layer"], data: bytes) -> Iterator[bytes]:
    if not layers:
        yield data
        return
    for piece in layers[0].feed(data):
        if piece:
            yield from _through(layers[1:], piece)
        else:
            yield piece


class _Layer:
    """One coding of a body."""

    def __init__(self, name: str) -> None:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise UnknownCoding
        self._is_gzip = name != "deflate"
        self._inflating = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._start = b""
        self._members_count = 1
        self._size_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflating is None:
            self._start += data
            if len(self._start) < 2:
                return
            data, self._start = self._start, b""
            self._inflating = zlib.decompressobj(zlib.MAX_WBITS if _is_zlib(data) else -zlib.MAX_WBITS)
        is_pending = False
        while data or is_pending:
            if self._inflating.eof:
                self._begin_member()
            try:
                piece = self._inflating.decompress(data, _PIECE_SIZE_BYTES)
            except zlib.error:
                raise MalformedCoding from None
            self._size_bytes += len(piece)
            if self._size_bytes > limits.HTTP_RESPONSE_SIZE_BYTES_MAX:
                raise BodyTooLarge
            yield piece
            # A full piece may leave more behind although all input is consumed.
            is_pending = len(piece) == _PIECE_SIZE_BYTES and not self._inflating.eof
            data = self._inflating.unused_data if self._inflating.eof else self._inflating.unconsumed_tail

    def _begin_member(self) -> None:
        self._members_count += 1
        if not self._is_gzip or self._members_count > limits.HTTP_CODING_MEMBERS_MAX:
            raise MalformedCoding
        self._inflating = zlib.decompressobj(_GZIP)

    def end(self) -> None:
        if self._inflating is None or not self._inflating.eof:
            raise MalformedCoding


def _is_zlib(data: bytes) -> bool:
    """Whether `deflate` is what its specification says; some servers send it without the header of zlib."""
    return data[0] & 0x0F == zlib.DEFLATED and data[0] >> 4 <= 7 and (data[0] << 8 | data[1]) % 31 == 0
