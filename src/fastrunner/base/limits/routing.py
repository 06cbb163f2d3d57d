"""Stage 1, routing: its bounds."""

from typing import Final

ROUTER_FRAME_SIZE_BYTES_MAX: Final = 67_108_864
"""One frame between workers; larger than any request, so that framing never refuses what the service took."""

ROUTER_REQUESTS_MAX: Final = 10_000
"""Forwarded requests awaiting an answer per link; streams and the reserve are not among them."""

ROUTER_REQUESTS_SIZE_BYTES_MAX: Final = 134_217_728
"""Bytes of those requests, which are kept for a successor until they are answered: 16 MiB each would be 160 GB."""

ROUTER_RESERVE_REQUESTS_MAX: Final = 1_000
"""More requests per link that only command and show one execution: an operator can cancel what others wait for."""

ROUTER_RESERVE_SIZE_BYTES_MAX: Final = 33_554_432
"""Bytes of those: commands are small, but a client's half must hold a request of any size."""

ROUTER_STREAMS_MAX: Final = 10_000
"""Forwarded streams per link: followers wait for hours, and must not take the place of requests."""

ROUTER_STREAMS_SIZE_BYTES_MAX: Final = 33_554_432
"""Bytes of their requests, which are small, too; see the reserve's."""

ROUTER_CLIENT_PARTS: Final = 2
"""A client may have this part of each of the above, a half: however much it asks for, others find room."""

ROUTER_OWNER_WAIT_S_MAX: Final = 10.0
"""How long a request waits for a crashed owner's successor, or for a sign of life of a silent one, before
UNAVAILABLE."""

ROUTER_RECONNECT_INTERVAL_S: Final = 0.02
"""Between attempts to reach an owner that is down; a successor takes some hundred milliseconds to boot."""

ROUTER_RETRY_INTERVAL_S: Final = 0.2
"""Between looks at requests that have no answer: asks again what was refused for now, ends what waited too long."""

ROUTER_PING_LOOKS: Final = 5
"""An owner that was silent for so many looks in a row is asked for a sign of life: once a second."""

ROUTER_FLUSH_SIZE_BYTES: Final = 262_144
"""Bytes collected into one frame before another is begun: a frame is decoded in one go, on the loop."""

ROUTER_MESSAGES_PER_TURN_MAX: Final = 64
"""Requests and answers of a link that are handed out in one turn of the loop: an event may have thousands of followers,
and each costs some 50 microseconds."""

ROUTER_ANSWERS_SIZE_BYTES_MAX: Final = 67_108_864
"""Answers kept for a worker that does not read them; what would make it more is refused instead. One always fits."""

ROUTER_STREAM_CREDITS_MAX: Final = 256
"""What a forwarded stream may send ahead of its reader: hides the hop, bounds what a slow reader costs."""

ROUTER_STREAM_CREDITS_MIN: Final = 8
"""What a stream has at least, however many there are: fewer would cost a grant for every few messages."""

ROUTER_CREDIT_SIZE_BYTES: Final = 1_024
"""A message costs one credit, and one more for each so many bytes of it: a reader of large events is no dearer."""

ROUTER_LINK_CREDITS: Final = 65_536
"""Shared out among a link's streams, 64 MiB: with ever more streams each new one gets ever less."""

PLACEMENT_BACKLOG_MIN: Final = 64
"""Executions that wait for their first commit at a worker before it places single ones elsewhere, and twice as many as
there: to hand one on takes a third of what it takes to accept it, and each worker's commits carry fewer."""

PLACEMENT_PEAK_AGE_S_MAX: Final = 0.02
"""How long a worker counts as busy after it was: a commit with all that it had to do lands every few milliseconds."""

PLACEMENT_BATCH_COUNT_MIN: Final = 16
"""Executions of a batch that are placed by another rule: they are handed on in one request and share a commit there."""

PLACEMENT_ATTEMPTS_MAX: Final = 5
"""Workers asked in a row for one submission, each of which says that another has its id: a race takes one or two."""

PLACEMENT_KNOWN_WAIT_S_MAX: Final = 20.0
"""How long a starting worker waits for the others to read the ids of their shards; a million take a second or two."""

PLACEMENT_KNOWN_INTERVAL_S: Final = 0.01
"""Between looks whether they have."""

SHARED_LOCK_WAIT_S_MAX: Final = 1.0
"""How long a worker waits for a lock in shared memory: a holder needs microseconds, unless it was stopped; meanwhile
this worker does nothing else, so it must be well below what it has to answer a ping."""

PLACEMENT_STRIPE_LOG2_MAX: Final = 20
"""Binary logarithm of the places of one of the 256 stripes of the placement table: 250 million executions in all, which
is far more than the shards' files bear, in 8 GiB of addresses, of which memory is taken only for what is used."""
