"""Support: a seeded stream of wrong bytes for a real server: calls that are right, mutated frame by frame.

    python -m tests.transport.fuzz [--seed N] [--seconds S]

Invariant: the server lives, serves others, closes what it opened, and its memory stays flat. A failure prints its seed.
"""

import argparse
import random
import secrets
import time
from contextlib import suppress

from tests.transport import frames
from tests.transport.frames import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Connection, frame, message
from tests.transport.server_process import (
    EXECUTE_ASYNC,
    GET,
    REFLECTION,
    SUBSCRIBE,
    ServerProcess,
    server_process,
    until,
)

PATHS = (EXECUTE_ASYNC, GET, SUBSCRIBE, REFLECTION, "/grpc.health.v1.Health/Watch", "/x/y")
PAYLOADS = (b"", b"\x0a\x01f\x12\x01d", b"\x0a\x04fuzz", b"\x3a\x00", b"\xff" * 9)
ROUND = 200
GROWTH_MIB_MAX = 48.0


def conversation(chance: random.Random) -> bytes:
    """What a client might say on one connection, with some of it wrong."""
    said = [frames.settings(table_1=0)]
    for stream in range(1, 2 * chance.randint(1, 6), 2):
        block = frames.request_block(chance.choice(PATHS))
        body = message(chance.choice(PAYLOADS), compressed=chance.random() < 0.1)
        said.append(frame(HEADERS, END_HEADERS, stream, mutated(chance, block, 0.2)))
        said.append(frame(DATA, chance.choice((0, END_STREAM)), stream, mutated(chance, body, 0.3)))
        if chance.random() < 0.3:
            said.append(frame(RST_STREAM, 0, stream, chance.randbytes(4)))
    if chance.random() < 0.5:
        said.insert(chance.randrange(len(said)), any_frame(chance))
    if chance.random() < 0.2:
        chance.shuffle(said)
    return mutated(chance, b"".join(said), 0.5)


def any_frame(chance: random.Random) -> bytes:
    """A frame of any kind, on any stream, with any flags."""
    payload = chance.randbytes(chance.choice((0, 4, 5, 6, 8, 100, 20_000)))
    return frame(chance.randrange(12), chance.randrange(256), chance.choice((0, 1, 2, 3, 2**31 - 1)), payload)


def mutated(chance: random.Random, said: bytes, likelihood: float) -> bytes:
    """Bits flipped, bytes cut out, repeated or replaced, in some of the cases."""
    changed = bytearray(said)
    while changed and chance.random() < likelihood:
        at = chance.randrange(len(changed))
        size = chance.choice((1, 1, 4, 30))
        kind = chance.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = changed[at : at + size]
        else:
            changed[at : at + size] = chance.randbytes(size)
    return bytes(changed)


def round_of(server: ServerProcess, chance: random.Random) -> None:
    """Some connections one after the other; some wait for an answer, some drop at once."""
    for _ in range(ROUND):
        with suppress(ConnectionError, TimeoutError), Connection(server.port, frames.PREFACE) as connection:
            connection.give_up_after(0.02)
            connection.send(conversation(chance))
            for _ in range(chance.choice((0, 1, 5))):
                connection.read()
    server.serves_others()


def run(server: ServerProcess, seed: int, seconds: float) -> int:
    """Rounds for so long, at least two; how many conversations there were. Raises AssertionError."""
    chance = random.Random(seed)
    server.submit("f", "quiet")
    server.submit("fuzz", "flood")
    round_of(server, chance)
    before_mib = server.resident_mib()
    end_s = time.monotonic() + seconds
    rounds = 1
    while rounds < 2 or time.monotonic() < end_s:
        round_of(server, chance)
        rounds += 1
        grown_mib = server.resident_mib() - before_mib
        assert grown_mib < GROWTH_MIB_MAX, f"memory grew by {grown_mib:.0f} MiB in {rounds * ROUND} conversations"
    until(lambda: server.open() == 0, "something is still open")
    return rounds * ROUND


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with server_process() as server:
        count = run(server, seed, options.seconds)
        print(f"{count} conversations, {server.resident_mib():.0f} MiB resident, {server.peak_mib():.0f} MiB at most")


if __name__ == "__main__":
    main()
