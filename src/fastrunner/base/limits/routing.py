"""Stage 1, routing: its bounds."""

from typing import Final

ROUTER_FRAME_SIZE_BYTES_MAX: Final = 67_108_864
"""One frame between workers; larger than any request, so that framing never refuses what the service took."""

ROUTER_REQUESTS_IN_FLIGHT_MAX: Final = 10_000
"""Forwarded requests awaiting an answer per link."""

ROUTER_OWNER_WAIT_S_MAX: Final = 10.0
"""How long a request waits for a crashed owner's successor before UNAVAILABLE."""

ROUTER_RECONNECT_INTERVAL_S: Final = 0.02
"""Between attempts to reach an owner that is down; a successor takes some hundred milliseconds to boot."""

ROUTER_RETRY_INTERVAL_S: Final = 0.2
"""Between looks at requests that wait for an owner: asks again what it refused for now, ends what waited too long."""

ROUTER_FLUSH_SIZE_BYTES: Final = 262_144
"""Bytes collected into one frame before another is begun: a frame is decoded in one go, on the loop."""

ROUTER_STREAM_WINDOW_MESSAGES: Final = 256
"""Messages of a forwarded stream sent ahead of its reader: hides the hop, bounds what a slow reader costs."""

SHARED_LOCK_WAIT_S_MAX: Final = 1.0
"""How long a worker waits for a lock in shared memory: a holder needs microseconds, unless it was stopped; meanwhile
this worker does nothing else, so it must be well below what it has to answer a ping."""

PLACEMENT_STRIPE_LOG2_MAX: Final = 20
"""Binary logarithm of the places of one of the 256 stripes of the placement table: 250 million executions in all, which
is far more than the shards' files bear, in 8 GiB of addresses, of which memory is taken only for what is used."""
