"""Header blocks and connections of the compiled HTTP/2, without a socket: a library's encoder, bytes cut anywhere."""

import asyncio
import random
import struct
from collections.abc import Iterator

import pytest
from hpack import Encoder

from fastrunner._http2 import Bounds, Call, Session, header
from fastrunner.base import limits
from tests.transport.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    decode,
    frame,
    message,
    settings,
)

BOUNDS = Bounds(16_384, 1_000_000, 1_000)
PSEUDO = [(":method", "POST"), (":scheme", "http"), (":authority", "tests")]
GRPC = ("content-type", "application/grpc")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


def session(loop: asyncio.AbstractEventLoop) -> Session:
    return Session(BOUNDS, lambda: None, lambda call, _, packed: call.unpacked(packed, None), loop.create_future)


def taken(session: Session, data: bytes) -> list[Call]:
    """New calls."""
    calls: list[Call] = []
    for call in session.receive(data):
        call.turn(calls.append)
    return calls


@pytest.mark.parametrize("seed", range(20))
def test_header_blocks_of_a_library(loop: asyncio.AbstractEventLoop, seed: int) -> None:
    """Huffman's code, its table, entries that are dropped, sizes that change: the same comes out."""
    chance = random.Random(seed)
    encoder, served = Encoder(), session(loop)
    served.receive(PREFACE + settings())
    names = [f"x-{number}" for number in range(12)]
    for stream in range(1, 401, 2):
        if chance.random() < 0.05:
            encoder.header_table_size = chance.choice((0, 100, 1000, 4096))
        text = "".join(chr(chance.randrange(0x20, 0x7F)) for _ in range(chance.choice((0, 3, 30, 300))))
        sent = [(chance.choice(names), chance.choice((text, "again", str(stream)))) for _ in range(chance.randrange(6))]
        path = chance.choice(("/a.B/C", "/a.B/D", f"/{stream}"))
        block = encoder.encode([*PSEUDO, (":path", path), GRPC, *sent], huffman=chance.random() < 0.7)
        [call] = taken(served, frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        assert call.path == path
        assert list(call.metadata) == [GRPC, *sent]
        call.finish(5, b"50% of \xc3\xa4")
        served.output()
    assert not served.is_over


def test_bytes_cut_anywhere_are_the_same_calls(loop: asyncio.AbstractEventLoop) -> None:
    encoder = Encoder()
    said = PREFACE + settings()
    for stream in range(1, 21, 2):
        block = encoder.encode([*PSEUDO, (":path", f"/{stream % 4}"), GRPC])
        said += frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message(b"x" * stream))
    for seed in range(50):
        chance = random.Random(seed)
        served, calls, at = session(loop), [], 0
        while at < len(said):
            size = chance.choice((1, 7, 30, 300))
            calls += taken(served, said[at : at + size])
            at += size
        assert [(call.path, call.take()) for call in calls] == [(f"/{n % 4}", b"x" * n) for n in range(1, 21, 2)]
        for call in calls:
            call.reply(b"y")
            # Over: nothing more is said, and nothing harms.
            call.reply(b"z")
            call.finish(13)
        assert served.output().count(b"grpc-status") == len(calls)
        assert served.is_idle


@pytest.mark.parametrize("seed", range(30))
def test_any_bytes_raise_nothing(loop: asyncio.AbstractEventLoop, seed: int) -> None:
    """Wrong blocks and frames end a connection at most."""
    chance = random.Random(seed)
    for _ in range(60):
        served = session(loop)
        served.receive(PREFACE + settings())
        for stream in range(1, 41, 2):
            block = bytearray(Encoder().encode([*PSEUDO, (":path", "/a"), GRPC, ("x", "y" * chance.randrange(40))]))
            for _ in range(chance.randrange(4)):
                block[chance.randrange(len(block))] = chance.randrange(256)
            said = frame(chance.choice((1, 1, 1, 9)), chance.choice((4, 5, 0, 12, 36, 44)), stream, bytes(block))
            for call in taken(
                served, said + frame(chance.randrange(10), 0, stream, chance.randbytes(chance.choice((4, 8))))
            ):
                call.receive(lambda _: None)
                call.reply(b"x")
        for call in served.lose():
            call.turn(lambda _: None)
        served.output()


def test_large_answers_wait_for_windows_and_take_turns(loop: asyncio.AbstractEventLoop) -> None:
    served = session(loop)
    served.receive(PREFACE + settings(window_4=2**30))
    block = Encoder().encode([*PSEUDO, (":path", "/a"), GRPC])
    calls = [call for n in (1, 3) for call in taken(served, frame(HEADERS, 5, n, block))]
    served.output()
    body = bytes(60_000)
    for call in calls:
        call.reply(body)
    # The connection's first window.
    first = served.output()
    assert 65_535 <= len(first) < 66_000
    assert not served.is_idle
    served.receive(frame(8, 0, 0, (2**20).to_bytes(4, "big")))
    assert (first + served.output()).count(b"grpc-status") == 2
    assert served.is_idle


def test_leaving_in_two_steps(loop: asyncio.AbstractEventLoop) -> None:
    """Calls that are on their way are taken until the client has heard; further ones are its to make elsewhere."""
    served = session(loop)
    served.receive(PREFACE + settings())
    block = Encoder().encode([*PSEUDO, (":path", "/a"), GRPC])
    [first] = taken(served, frame(HEADERS, 5, 1, block))
    served.output()
    served.retire()
    last = 2**31 - 1
    assert served.output() == frame(GOAWAY, 0, 0, struct.pack(">II", last, 0)) + frame(PING, 0, 0, b"retiring")
    [second] = taken(served, frame(HEADERS, 5, 3, block))
    assert not taken(served, frame(PING, ACK, 0, b"retiring"))
    assert served.output() == frame(GOAWAY, 0, 0, struct.pack(">II", 3, 0))
    assert not taken(served, frame(HEADERS, 5, 5, block))
    refused_stream = 7
    assert served.output() == frame(RST_STREAM, 0, 5, struct.pack(">I", refused_stream))
    for call in (first, second):
        assert not served.is_done
        call.reply(b"x")
        assert served.output().count(b"grpc-status") == 1
    assert served.is_done


def test_so_many_calls_at_once(loop: asyncio.AbstractEventLoop) -> None:
    """Each comes with what follows its headers; the rest wait, and none is lost or told twice."""
    served = session(loop)
    block = Encoder().encode([*PSEUDO, (":path", "/a"), GRPC])
    said = PREFACE + settings()
    count = limits.HTTP2_CALLS_PER_TURN_MAX * 5 // 2
    for stream in range(1, 2 * count, 2):
        said += frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message(b"%d" % stream))
    turns = [taken(served, said)]
    while served.has_more:
        turns.append(taken(served, b""))
    assert [len(calls) for calls in turns] == [100, 100, 50]
    got = [call.take() for calls in turns for call in calls]
    assert got == [b"%d" % stream for stream in range(1, 2 * count, 2)]


def test_literals_are_read_back() -> None:
    for size in (0, 1, 126, 127, 128, 300, 20_000):
        assert decode(header(b"x-name", b"v" * size)) == {"x-name": "v" * size}
