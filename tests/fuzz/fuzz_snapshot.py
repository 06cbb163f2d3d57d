"""Invariant: a snapshot with a right checksum is refused with a ValueError, or is a walk that takes outcomes, can be
read, and can be written and restored again.

python -m tests.fuzz.fuzz_snapshot [--seconds N] [--seed S] [options of libFuzzer]
"""

from functools import cache
from random import Random

from tests.core.lies import Truth, lie, refused, truths
from tests.fuzz.running import measured
from tests.fuzz.source import ByteSource

TRUTHS = 100


@cache
def all_truths() -> list[Truth]:
    return truths(TRUTHS, 20_261_128)


def check(data: bytes) -> None:
    """One input of the fuzzer: which snapshot, and the choices that make a lie of it and drive it."""
    source = ByteSource(data)
    known = all_truths()
    truth = known[source.number(len(known))]
    choices = Random(source.rest())
    fields = lie(truth, choices)
    with measured("a walk and some turns", len(repr(fields))):
        refused(truth, fields, choices)


if __name__ == "__main__":
    from tests.fuzz.running import run

    run(check)
