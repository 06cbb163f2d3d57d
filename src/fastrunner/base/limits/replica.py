"""Support: bounds of the copy elsewhere."""

from typing import Final

REPLICA_INTERVAL_S: Final = 1.0
"""How often what was committed is copied: the lag of a copy that keeps up, and a request to the store each time."""

REPLICA_PART_SIZE_BYTES_MAX: Final = 16_777_216
"""Pages in one object: what is in memory at once, and what one request sends."""

REPLICA_KEPT_SIZE_BYTES_MAX: Final = 1_073_741_824
"""Folded journals that are kept per file for a copy that is behind, in bytes. Beyond it they go, the copy starts anew
later, and commits never wait."""

REPLICA_WHOLE_SIZE_BYTES_MAX: Final = 67_108_864
"""A file that is new to a copy, or that the copy has lost the thread of, is copied whole among the others up to this
size; a larger one makes the whole copy start anew."""

REPLICA_GENERATION_PARTS_MAX: Final = 20_000
"""Objects of one generation, five hours of a busy runner: a restore fetches every one of them."""

REPLICA_GENERATION_GROWTH_MAX: Final = 4
"""How many times the size of its snapshot a generation may have had added before another one begins."""

REPLICA_GENERATION_SIZE_BYTES_MIN: Final = 268_435_456
"""What a generation may have had added in any case."""

REPLICA_GENERATIONS_KEPT: Final = 2
"""Whole generations of a data directory that stay: if an object of the newest one is damaged, there is another."""

REPLICA_GENERATION_IDLE_S_MIN: Final = 3600.0
"""How long nobody must have written a generation before it may be deleted: another machine may be at it."""

REPLICA_ALIVE_INTERVAL_S: Final = 10.0
"""How often a runner that commits nothing says in the copy until when nothing was committed."""

REPLICA_RETRY_S_MAX: Final = 30.0
"""Longest pause between attempts to reach the store."""

REPLICA_LAST_TURN_S_MAX: Final = 5.0
"""How long a runner that stops waits for its last commits to be in the copy."""

REPLICA_FETCHES_MAX: Final = 8
"""Objects that a restore fetches at a time."""
