"""Stage 1, service: how many calls are under way in a worker, and what they hold. Who finds no room is refused.

Rules: streams have a bound of their own, and each client one of its; submissions leave places, and bytes, to commands
and queries, so that whoever ends work, or looks, finds room whatever others do. A refusal says when to come again.
"""

from collections import Counter

from fastrunner.base import limits
from fastrunner.errors import AtCapacity

__all__ = ["Capacity"]

_TOO_MANY = "too many calls wait for their answers, or follow executions"


class Capacity:
    """The calls of one worker that have been received and not been answered."""

    def __init__(self) -> None:
        self.unary_count = self.streams_count = 0
        """Calls under way."""
        self.size_bytes = 0
        """Bytes of the requests of those that have not been taken over by anybody else."""
        self._streams_by_client: Counter[str] = Counter()

    def check(self, size_bytes: int, *, submits: bool) -> None:
        """Whether a unary call with a request of such a size finds room. Raises AtCapacity."""
        reserve = limits.GRPC_CALLS_RESERVED if submits else 0
        if self.unary_count + self.streams_count >= limits.GRPC_CALLS_OPEN_MAX - reserve:
            raise AtCapacity(_TOO_MANY)
        self._check_size(size_bytes, 0 if submits else limits.REQUEST_SIZE_BYTES_MAX)

    def begin(self, size_bytes: int) -> None:
        """A unary call that found room waits for its answer."""
        self.unary_count += 1
        self.size_bytes += size_bytes

    def end(self, size_bytes: int) -> None:
        """The call is answered."""
        self.unary_count -= 1
        self.size_bytes -= size_bytes

    def open(self, client: str, size_bytes: int) -> None:
        """A stream of a client with a request of such a size. Raises AtCapacity."""
        if self.streams_count >= limits.GRPC_STREAMS_OPEN_MAX:
            raise AtCapacity(_TOO_MANY)
        if self._streams_by_client[client] >= limits.GRPC_STREAMS_PER_CLIENT_MAX:
            raise AtCapacity("too many streams of one client are open: end some, or follow through fewer clients")
        self._check_size(size_bytes, 0)
        self.size_bytes += size_bytes
        self.streams_count += 1
        self._streams_by_client[client] += 1

    def taken_over(self, size_bytes: int) -> None:
        """What a stream's request asked for has begun: nobody holds its bytes any more."""
        self.size_bytes -= size_bytes

    def close(self, client: str) -> None:
        """The stream has ended."""
        self.streams_count -= 1
        self._streams_by_client[client] -= 1
        if not self._streams_by_client[client]:
            del self._streams_by_client[client]

    def _check_size(self, size_bytes: int, reserve_size_bytes: int) -> None:
        if self.size_bytes + size_bytes > limits.GRPC_REQUESTS_SIZE_BYTES_MAX + reserve_size_bytes:
            raise AtCapacity("the requests that wait for their answers are too large together")
