"""Stage 5, tasks: the bounds of effects."""

from typing import Final

EFFECTS_IN_FLIGHT_PER_WORKER_MAX: Final = 2_000
"""Effects a worker performs at once; more wait in order. Each holds a socket."""

HTTP_RESPONSE_SIZE_BYTES_MAX: Final = 8_388_608
"""Body of a response a call may return into the workflow."""

HTTP_REDIRECTS_MAX: Final = 10
"""Redirects followed for one call: the number browsers and curl's documentation settle on."""

HTTP_CONNECTIONS_PER_HOST_MAX: Final = 100
"""Pooled connections per host and worker."""

HTTP_RESPONSE_DEPTH_MAX: Final = 128
"""Nesting of a JSON response: what a document may have; deeper data could not be written into a snapshot."""

HTTP_CONNECT_TIMEOUT_S_MAX: Final = 30.0
"""Time to reach a host: one that drops packets must not hold a call for as long as a slow answer may take."""
