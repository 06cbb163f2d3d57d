"""Stage 1 of the data path, service and routing: what is compiled outside the core. The contract of the extension.

`Placement` and `Loads` lie in memory that the processes of one runner share: the supervisor creates it, and its
children inherit the descriptor, or a mapping; either may be closed when the other is in use. Any process may be killed
at any moment: what it was changing is as before or as after, and nobody waits for it. Calls take some tenths of a
microsecond and keep the interpreter lock. Whatever is closed raises ValueError.
"""

from collections.abc import Iterable
from typing import final

class TableBusy(Exception):
    """A lock was not to be had within SHARED_LOCK_WAIT_S_MAX: its holder was stopped, or gets no processor."""

class TableFull(Exception):
    """The placement table takes no more ids, or there is no memory for them."""

@final
class Placement:
    """Where executions may live: in which shards there is, or may be, an execution with an id.

    A multiset of entries (hash of an id, shard), one for each execution. Never the truth, which is in the shards: a
    hash may be another id's, so whoever is told a shard asks there. What looks at entries may raise TableBusy, and
    ValueError for a shard above 65,534.
    """

    @staticmethod
    def create() -> int:
        """The descriptor of new memory, empty; it closes on exec. Raises OSError."""

    def __init__(self, descriptor: int, key: bytes, *, hash_bits: int = 48) -> None:
        """Maps what `create` made. `key`: 16 bytes, for all processes the same; `hash_bits`: fewer for tests.

        Raises ValueError, OSError.
        """

    def hash_of(self, execution_id: str) -> int:
        """The hash of an id, 48 bits. Raises UnicodeEncodeError for half a surrogate pair."""

    def find(self, execution_id: str) -> tuple[int, ...]:
        """The shards that have an id with this one's hash, each once, ascending."""

    def has_none(self, messages: list[bytes]) -> bool:
        """Whether each message's field 1 is plainly an id (see `read_execution_id`) whose hash no shard has."""

    def claim(self, execution_id: str, shard: int, excluded: tuple[int, ...] = ()) -> int:
        """If a shard that is not excluded has the hash: that shard, and nothing changes; of several, any.

        Else the shard has it from now on, and the answer is -1. Of all who claim an id at once, one is told -1. Raises
        TableFull.
        """

    def release(self, execution_id: str, shard: int) -> bool:
        """Takes one of the shard's entries with the hash away; False if there is none."""

    def settle(self, shard: int, execution_ids: Iterable[str]) -> tuple[int, int]:
        """Makes the shard's entries exactly these ids'; how many were (added, removed).

        For the shard's owner, when it has opened it. Entries that are right stay, and those of other shards are not
        touched. Raises TableFull; then, as after TableBusy, a part is as it was.
        """

    def settle_hashes(self, shard: int, hashes: bytes) -> tuple[int, int]:
        """The same from hashes, 8 bytes each, little-endian. Raises ValueError."""

    def hashes(self, shard: int) -> bytes:
        """The hashes of the shard's entries, ascending, 8 bytes each, little-endian."""

    def set_known(self, shard: int, known: bool) -> None:
        """Says whether the table has all ids of the shard; of a new table, it has none's."""

    def unknown(self, shard_count: int) -> tuple[int, ...]:
        """The shards below `shard_count` whose ids it does not have all."""

    def usage(self) -> tuple[int, int, int]:
        """How many entries there are, the bytes of memory for them, and how often a lock was taken over from a killed
        process; a moment old while others write."""

    def close(self) -> None:
        """Lets go of the memory; it lasts as long as somebody has it."""

@final
class Loads:
    """What each worker tells the others about itself, and the limits they share.

    ValueError: a worker or a cell that does not exist.
    """

    @staticmethod
    def create(workers: int) -> int:
        """The descriptor of new memory, zeros; it closes on exec. Raises ValueError, OSError."""

    def __init__(self, descriptor: int) -> None:
        """Maps what `create` made. Raises ValueError, OSError."""

    def set(self, worker: int, cell: int, value: float) -> None:
        """Stores into one of a worker's cells, 0 to 15; that worker alone does."""

    def get(self, worker: int, cell: int) -> float:
        """What it stored last; 0.0 at first."""

    def total(self, cell: int) -> float:
        """The sum of all workers' cells with this number."""

    def row(self, cell: int) -> tuple[float, ...]:
        """All workers' cells with this number, in their order."""

    def take(self, client: str, count: float, rate_per_s: float, burst: float, now_s: float) -> float:
        """Takes from the client's bucket, which all workers share: 0.0, or in how many seconds `count` will be there.

        A bucket holds `burst`, is full at first, and gets `rate_per_s`; `now_s`, on the monotonic clock. About
        CLIENTS_KNOWN_MAX are remembered; then the fullest is forgotten, which is that of the client unseen longest if
        they take alike. Raises TableBusy, and ValueError for what would never be there.
        """

    def close(self) -> None:
        """Lets go of the memory."""

def read_execution(
    payload: bytes,
) -> tuple[str, str, bytes, dict[str, str], bytes, int, bool, dict[str, str], bool] | None:
    """A WorkflowExecuteInput that is plainly fine; None leaves it to the plain decoder, to take or to refuse.

    Its execution id, document, input_json (empty if there is none, or nothing in it), env_vars, metadata serialized,
    bound on the duration in seconds, whether every step is logged, labels, and whether its events are for no receiver.
    All within their bounds; whether input_json is JSON has not been looked at.
    """

def read_execution_id(payload: bytes) -> str | None:
    """Field 1 of any message, a text; None leaves it to the plain decoder, to read or to refuse."""

def json_parts(text: bytes) -> int:
    """How much a JSON text may consist of: 1 for each `{`, `[` and `,`, and 2 for each `:`, in its strings as well."""

def framed(parts: tuple[bytes, ...]) -> bytes:
    """The parts one after the other, each after its length, 8 bytes, little-endian. Raises TypeError."""

def frames(messages: bytes) -> list[tuple[int, int]]:
    """Where each event's own message starts and ends, in order.

    Raises ValueError if `messages` is not a sequence of length-delimited fields 1.
    """

def split(messages: bytes) -> list[bytes]:
    """Those messages. Raises ValueError as well."""

def offset_after(messages: bytes, count: int, size_bytes_max: int) -> tuple[int, int]:
    """How many of the first `count` events fit into so many bytes, at least one, and the offset after them.

    What follows them is not looked at. Raises ValueError.
    """
