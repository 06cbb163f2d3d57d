"""Support: runs a target under atheris (group `fuzz`), on seeds of random bytes.

The core is native and not instrumented, for that needs clang: what guides the fuzzer is the way from bytes to programs
and data, which is Python, and what the targets see of the results.
"""

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SEEDS = 200
SIZE_BYTES_MAX = 2_048


def run(check: Callable[[bytes], None]) -> None:
    """Fuzzes until libFuzzer's options say otherwise; a failed assertion ends it with the input that failed."""
    import atheris

    seeds = random.Random(1)
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seeds.randbytes(seeds.randrange(SIZE_BYTES_MAX)))
        options = [f"-max_len={SIZE_BYTES_MAX}", "-len_control=0", "-timeout=10", "-rss_limit_mb=1500"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], folder], check)
        atheris.Fuzz()
