"""Stage 1, service: what one client may do, and how it is told that it has done more."""

cdef Py_ssize_t HEADER_BLOCK_SIZE_BYTES_MAX = _limits.HTTP2_HEADER_BLOCK_SIZE_BYTES_MAX
cdef int64_t STREAM_WINDOW_SIZE_BYTES = _limits.HTTP2_STREAM_WINDOW_SIZE_BYTES
cdef int64_t CONNECTION_WINDOW_SIZE_BYTES = _limits.HTTP2_CONNECTION_WINDOW_SIZE_BYTES
cdef Py_ssize_t UNREAD_SIZE_BYTES_MAX = _limits.HTTP2_UNREAD_SIZE_BYTES_MAX
cdef int IDLE_FRAMES_MAX = _limits.HTTP2_IDLE_FRAMES_MAX
cdef Py_ssize_t CALLS_PER_TURN_MAX = _limits.HTTP2_CALLS_PER_TURN_MAX
cdef int CALLS_PER_FRAME = 50
"""So many calls are looked at in the time that a frame takes."""
cdef bytes RETIRING = b"retiring"
cdef bytes GRPC = b"application/grpc"
cdef int LENGTH_DIGITS_MAX = 15
"""Of content-length: more than anybody sends."""
cdef int RESET_COST = 2
"""In frames that ask for nothing, whoever resets the call: what was begun is of no use."""
cdef int ENDED_KEPT = 32
"""So many calls that clients have ended are known to be over, a power of two; of older ones frames are ignored."""


class _Broken(Exception):
    """The client has broken the protocol: a code, and words for its log."""


def _nothing():
    """For whom output is made no more."""


cdef class Bounds:
    """See _http2.pyi."""

    cdef readonly Py_ssize_t header_list_size_bytes_max, message_size_bytes_max, streams_max

    def __init__(
        self, Py_ssize_t header_list_size_bytes_max, Py_ssize_t message_size_bytes_max, Py_ssize_t streams_max
    ):
        self.header_list_size_bytes_max = header_list_size_bytes_max
        self.message_size_bytes_max = message_size_bytes_max
        self.streams_max = streams_max
