"""Support: the layout of snapshots (format 2), for tests that compare two of them or make lies of them."""

import zlib
from typing import Any

import orjson

__all__ = ["FORMAT", "KINDS_MAX", "fields_of", "packed", "resolved"]

FORMAT = 2
BEHAVIOUR, OUTPUT, ERROR, HELD, STRANDS, DETACHED, NOTES = 1, 3, 4, 17, 19, 20, 21
"""Places in the list that is a snapshot; the table of values is its last."""

KIND_FOR, KIND_FORK, KIND_TRY, KINDS_MAX = 3, 4, 5, 64
WRITTEN_EFFECT, WRITTEN_CAPSULE, WRITTEN_RENDERED, WRITTEN_SUBSCRIPTION = range(4)


def fields_of(snapshot: bytes) -> list[Any]:
    """A snapshot's JSON."""
    fields: list[Any] = orjson.loads(snapshot[5:])
    return fields


def packed(fields: Any, written_as: int = FORMAT) -> bytes:
    """A snapshot with a right checksum, whatever it holds."""
    body = orjson.dumps(fields)
    return bytes([written_as]) + zlib.crc32(body).to_bytes(4, "big") + body


class _Values:
    """Puts values in their places."""

    def __init__(self, table: list[Any], input_: Any) -> None:
        self.table = table
        self.input = input_

    def value(self, place: Any) -> Any:
        if not isinstance(place, list):
            return place
        if place[0] >= 0:
            return self.table[place[0]]
        value = self.input
        for key in place[1:]:
            value = value[key]
        return value

    def values(self, places: list[Any]) -> list[Any]:
        return [self.value(place) for place in places]

    def put_back(self, notes: list[Any]) -> None:
        """What several values share belongs into each of them."""
        for entry, path, place in notes:
            holder = self.table[entry]
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = self.value(place)

    def strand(self, entry: list[Any]) -> None:
        entry[3] = self.value(entry[3])
        bottom, *frames = entry[7]
        bottom[2] = self.value(bottom[2])
        for frame in frames:
            for at in (3, 5, 6):
                frame[at] = self.value(frame[at])
            for resource in frame[10] or ():
                self.resource(resource)
            self.own(frame)

    def own(self, frame: list[Any]) -> None:
        """What only a kind has."""
        if frame[1] == KIND_FOR:
            frame[11] = self.value(frame[11])
        elif frame[1] == KIND_FORK:
            frame[11] = self.values(frame[11])
            frame[12] = [context and self.values(context) for context in frame[12]]
        elif frame[1] == KIND_TRY:
            frame[12] = self.value(frame[12])
        elif frame[1] >= KINDS_MAX:
            # Of a task that extensions surround: its output, transformed and raw.
            frame[15:17] = self.values(frame[15:17])

    def resource(self, entry: list[Any]) -> None:
        if entry[0] == WRITTEN_SUBSCRIPTION:
            entry[3] = self.value(entry[3])
        elif entry[0] == WRITTEN_RENDERED:
            entry[4] = self.value(entry[4])
        elif entry[0] == WRITTEN_CAPSULE:
            entry[7:10] = self.values(entry[7:10])
            entry[10] = [self.values(pair) for pair in entry[10]]


def resolved(snapshot: bytes, input_: Any) -> list[Any]:
    """What a snapshot says but for the bounds, and for which equal values are one and the same: a restore forgets that
    of values that come from the document, and of parts of the input within other values."""
    *fields, table = fields_of(snapshot)
    values = _Values(table, input_)
    values.put_back(fields[NOTES])
    fields[BEHAVIOUR] = fields[NOTES] = None
    fields[OUTPUT], fields[ERROR] = values.values([fields[OUTPUT], fields[ERROR]])
    fields[HELD] = [[number, *values.values(pair)] for number, *pair in fields[HELD]]
    for strand in fields[STRANDS]:
        values.strand(strand)
    for resource in fields[DETACHED]:
        values.resource(resource)
    return fields
