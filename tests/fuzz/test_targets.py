"""Every fuzz target on some hundred seeded inputs, without a fuzzer, so that targets do not rot."""

import random
from collections.abc import Callable

import pytest

from tests.fuzz import fuzz_document, fuzz_jq_compile, fuzz_jq_evaluate, fuzz_schema, fuzz_snapshot

INPUTS = 400
TARGETS = (fuzz_document, fuzz_jq_compile, fuzz_jq_evaluate, fuzz_schema, fuzz_snapshot)


@pytest.mark.parametrize("check", [target.check for target in TARGETS], ids=[target.__name__ for target in TARGETS])
def test_target(check: Callable[[bytes], None]) -> None:
    """Its invariant holds for short and long inputs."""
    numbers = random.Random(20_261_123)
    for _ in range(INPUTS):
        check(numbers.randbytes(numbers.choice((0, 10, 30, 100, 300, 1000))))
