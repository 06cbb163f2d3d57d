"""Stage 3, journal: where values are sealed on their way into a shard's file, and opened on their way out.

What is sealed, if there is a key: requests' digests, inputs, env_vars, snapshots, events, errors, outputs, what
listeners wait for, events that they are still to take, and what is stored under its hash. Not: ids, clients, names,
documents, metadata, statuses, times, counts and hashes, by which rows are found.

Rules: a sealed value names its place, so it opens nowhere else. Checksums of rows are over what is stored. Values of
before the first key are read as they are.
"""

from fastrunner.access.sealing import DataKeys, NotOpened, Sealer, bytes_of_text, is_sealed, is_sealed_text, sealed_with

__all__ = ["DataKeys", "NotOpened", "Seals", "events_place", "filter_place", "inbox_place", "place"]


def place(column: str, execution_id: str) -> bytes:
    """What a value of an execution is bound to."""
    return f"{column} {execution_id}".encode("utf-8", "surrogatepass")


def events_place(execution_id: str, first_sequence: int, last_sequence: int) -> bytes:
    """The same of a row of events."""
    return place(f"events {first_sequence} {last_sequence}", execution_id)


def filter_place(execution_id: str, subscription_id: int) -> bytes:
    """The same of what a listener waits for."""
    return place(f"filter {subscription_id}", execution_id)


def inbox_place(event_key: int) -> bytes:
    """What an event is bound to that is still to be taken, by whichever executions."""
    return b"inbox %d" % event_key


class Seals:
    """The seals of one shard's file, in one process."""

    def __init__(self, keys: DataKeys | None = None) -> None:
        self.sealer = None if keys is None else Sealer(keys)
        """What seals; None without a key."""

    def opened(self, value: bytes, place: bytes) -> bytes:
        """A stored value as it was before it was sealed. Raises NotOpened."""
        if not is_sealed(value):
            return value
        if self.sealer is None:
            raise _no_key(value)
        return self.sealer.open(value, place)

    def opened_text(self, text: str, place: bytes) -> str:
        """The same of a text."""
        if not is_sealed_text(text):
            return text
        if self.sealer is None:
            raise _no_key(bytes_of_text(text))
        return self.sealer.open_text(text, place)

    def looked_at(self, value: bytes, place: bytes) -> bytes | None:
        """The same for whoever checks: None for one that is sealed, and whole, if there is no key. Raises NotOpened."""
        if self.sealer is not None or not is_sealed(value):
            return self.opened(value, place)
        sealed_with(value)
        return None

    def looked_at_text(self, text: str, place: bytes) -> None:
        """The same of a text; whether it opens is all that counts. Raises NotOpened."""
        if is_sealed_text(text):
            self.looked_at(bytes_of_text(text), place)


def _no_key(value: bytes) -> NotOpened:
    return NotOpened(f"is sealed with the key {sealed_with(value)!r}, and FASTRUNNER_DATA_KEY_FILE is not set")
