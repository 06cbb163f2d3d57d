"""Stage 5, tasks: reads the body of a response: whole, decompressed, within its bound and the worker's memory.

Rules: bytes are counted as they come, and no more is read than there is room for. A body that is cut, or is not what
its headers say, is an error and never a shorter body.
"""

import aiohttp

from fastrunner.base import limits
from fastrunner.tasks.call_http.codings import ACCEPTED, BodyTooLarge, Decoding, MalformedCoding, UnknownCoding
from fastrunner.tasks.call_http.failures import CallProblem, headers_too_large
from fastrunner.tasks.call_http.room import Share
from fastrunner.tasks.call_http.slices import Pace

__all__ = ["read_body"]


async def read_body(response: aiohttp.ClientResponse, share: Share) -> bytes:
    """The whole body. Raises CallProblem, and what the client library raises."""
    head_size_bytes = sum(len(name) + len(value) for name, value in response.raw_headers)
    if head_size_bytes > limits.HTTP_HEADERS_SIZE_BYTES_MAX:
        raise headers_too_large()
    try:
        return await _read(response, share)
    except UnknownCoding:
        raise CallProblem(
            "Unsupported Content Coding", f"the body has another coding than {ACCEPTED} and x-gzip, or too many"
        ) from None
    except MalformedCoding:
        raise CallProblem("Malformed Response", "the compressed body is damaged or ended early") from None
    except BodyTooLarge:
        raise CallProblem(
            "Response Too Large", f"the response's body exceeds {limits.HTTP_RESPONSE_SIZE_BYTES_MAX} bytes"
        ) from None


async def _read(response: aiohttp.ClientResponse, share: Share) -> bytes:
    has_body = response.method != "HEAD" and response.status not in (204, 304)
    if has_body and (response.content_length or 0) > limits.HTTP_RESPONSE_SIZE_BYTES_MAX:
        raise BodyTooLarge
    transfer_codings = [
        name
        for value in response.headers.getall("Transfer-Encoding", ())
        for name in value.split(",")
        if name.strip(" \t").lower() != "chunked"
    ]
    decoding = Decoding([*response.headers.getall("Content-Encoding", ()), *transfer_codings])
    pieces: list[bytes] = []
    pace = Pace()
    async for data in response.content.iter_any():
        for piece in decoding.feed(data):
            await share.grow(len(piece))
            pieces.append(piece)
            await pace.rest()
    decoding.end()
    return b"".join(pieces)
