"""Support: runs a target: a plain seeded loop with `--seconds`, else under atheris (group `fuzz`).

    python -m tests.fuzz.fuzz_X --seconds N [--seed S] [--slack F]    N seconds of random bytes
    python -m tests.fuzz.fuzz_X --input FILE                          one input, as a broken run has left it
    python -m tests.fuzz.fuzz_X [options of libFuzzer]                under atheris, on seeds of random bytes

The loop keeps the input at hand in a file, so that it is there whatever ends the process, and takes it away when all
is well. `--slack` multiplies what a call may take, for builds that are slow. The core is native and not instrumented,
for that needs clang: what guides atheris is the way from bytes to inputs, which is Python, and what the targets see of
the results.
"""

import argparse
import faulthandler
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CPU_S_MAX", "measured", "run"]

CPU_S_MAX = 0.5
"""Of the processor, for one call."""
SEEDS = 200
SIZE_BYTES_MAX = 2_048
HANGING_S = 60
TOLD_INTERVAL_S = 5.0


class Costs:
    """The slowest call so far."""

    def __init__(self) -> None:
        self.slack = 1.0
        self.slowest_s = 0.0
        self.told = "none"

    def add(self, call: str, size: int, taken_s: float) -> None:
        if taken_s > self.slowest_s:
            self.slowest_s = taken_s
            self.told = f"{taken_s * 1000:.1f} ms for {call} of {size} characters"
        assert taken_s < CPU_S_MAX * self.slack, f"{taken_s} s for {call} of {size} characters"


_COSTS = Costs()


@contextmanager
def measured(call: str, size: int) -> Iterator[None]:
    """Fails if what is done within takes too long; `size` is that of its input."""
    started_s = time.process_time()
    try:
        yield
    finally:
        _COSTS.add(call, size, time.process_time() - started_s)


def run(check: Callable[[bytes], None]) -> None:
    """Does as the command line says; ends the process with another code than 0 when something breaks."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slack", type=float, default=1.0)
    parser.add_argument("--input", type=Path)
    options, others = parser.parse_known_args()
    _COSTS.slack = options.slack
    if options.input is not None:
        check(options.input.read_bytes())
    elif options.seconds is not None:
        _loop(check, options.seconds, options.seed)
    else:
        _under_atheris(check, others)


def _loop(check: Callable[[bytes], None], seconds: float, seed: int) -> None:
    faulthandler.enable()
    numbers = random.Random(seed)
    path = Path(f"{Path(sys.argv[0]).stem}-{seed}-{os.getpid()}.input")
    started_s = told_s = time.monotonic()
    executions = 0
    with path.open("wb", buffering=0) as file:
        print(f"the input at hand is in {path.resolve()}")
        while (now_s := time.monotonic()) < started_s + seconds:
            data = numbers.randbytes(numbers.choice((0, 10, 30, 100, 300, 1000)))
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), data, 0)
            # Nothing handles the signal: a call that hangs ends the process.
            signal.alarm(HANGING_S)
            check(data)
            executions += 1
            if now_s - told_s > TOLD_INTERVAL_S:
                told_s = now_s
                print(f"{now_s - started_s:.0f} of {seconds:.0f} s, {executions} executions", flush=True)
    signal.alarm(0)
    path.unlink()
    print(f"{executions} executions; the slowest call: {_COSTS.told}")


def _under_atheris(check: Callable[[bytes], None], options: list[str]) -> None:
    """Fuzzes until libFuzzer's options say otherwise; a failed assertion ends it with the input that failed."""
    import atheris

    seeds = random.Random(1)
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seeds.randbytes(seeds.randrange(SIZE_BYTES_MAX)))
        own = [f"-max_len={SIZE_BYTES_MAX}", "-len_control=0", "-timeout=10", "-rss_limit_mb=1500"]
        atheris.Setup([sys.argv[0], *own, *options, folder], check)
        atheris.Fuzz()
