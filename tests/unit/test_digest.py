"""Which requests are the same: any spelling of the same input, and no two inputs that differ in a digit."""

from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.engine import Submission
from fastrunner.engine.embedded.admit.digest import env_text, request_digest


def digest(text: str, **changes: object) -> bytes:
    encoded = text.encode()
    submission = Submission("e-1", "", encoded, orjson.loads(encoded), {}, b"", 0, False)
    for name, value in changes.items():
        setattr(submission, name, value)
    return request_digest(submission, sha256(), env_text(submission.env_vars))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":[2.5,"x"]}', ' { "b" : [ 2.5, "\\u0078" ],\n"a" : 1 }'),
        ("0.1", "0.10"),
        ("0.1", "1e-1"),
        ("1e300", "1E+300"),
        # Powers of ten beyond 64 bits are doubles of their own.
        ("100000000000000000000", "1e20"),
        ("123456789012345678901234567890", "123456789012345678901234567890.0"),
        ('{"b":123456789012345678901,"a":1e-400}', '{"a":1.0e-0400, "b":123456789012345678901}'),
        ('{"a":"1","a":123456789012345678901}', '{"a":123456789012345678901}'),
    ],
)
def test_spellings_of_the_same_input_are_the_same(one: str, other: str) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("18446744073709551616", "18446744073709551617"),
        ("-9223372036854775809", "-9223372036854775810"),
        ("9007199254740992.0", "9007199254740993.0"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("0.00000000000000000010000000000000000001", "1e-19"),
        ("1e-400", "2e-400"),
        ("1e-400", "0.0"),
        ("1e-99999999999999999999999", "2e-99999999999999999999999"),
        ("-1e-400", "1e-400"),
        (
            '{"a":12345678901234567890123,"b":12345678901234567890124}',
            '{"b":12345678901234567890123,"a":12345678901234567890124}',
        ),
        ('["12345678901234567890123"]', "[12345678901234567890123]"),
        ('["\\\\",12345678901234567890123]', '["\\\\",12345678901234567890124]'),
        ('["\\"",12345678901234567890123]', '["\\"",12345678901234567890124]'),
    ],
)
def test_inputs_that_differ_in_a_digit_are_different(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def test_any_number_of_long_numbers() -> None:
    def numbers(count: int, last: int) -> str:
        return f"[{', '.join(['12345678901234567890123'] * count)}, 1234567890123456789012{last}]"

    for count in (1, 10, 1_000, 2_000):
        assert digest(numbers(count, 4)) == digest(numbers(count, 4))
        assert digest(numbers(count, 4)) != digest(numbers(count, 5))


def test_digests_of_stored_requests_stay_what_they_are() -> None:
    """Also of those with strings, integers and doubles that look long."""
    assert (
        digest('{"b": [1, 2.5], "a": "\\u00e9"}', metadata=b"m", env_vars={"K": "v"}, timeout_s_max=3).hex()
        == GOLDEN[0]
    )
    long = '{"id":"12345678901234567890123","n":18446744073709551615,"d":0.30000000000000004,"e":1e-300}'
    assert digest(long).hex() == GOLDEN[1]


GOLDEN = (
    "d0bf9fe81b7122fae1d4d20c10003e9bb95b68f9aae320a7183d31113f5dc1a3",
    "0af15b41a3d28aef6673cb9e19dfa840a4c5ef710797ba35b9910851a1ab09ea",
)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_decoding_keeps_goes_in_as_it_always_did(number: float, as_key: bool) -> None:
    """Integers of 64 bits and shortest texts of doubles: the digest is of what was decoded, and of nothing else."""
    written = repr(number)
    text = f'{{"{written}": 1}}' if as_key else written
    if isinstance(number, int) and not as_key and not -(2**63) <= number < 2**64:
        return
    value = orjson.loads(text)
    assert digest(text) == digest(orjson.dumps(value).decode())
