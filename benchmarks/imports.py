"""Support: what the first effect of each kind costs a worker: the time and the memory that its libraries take.

    python -m benchmarks.imports --rounds 5

Each kind is loaded in a process of its own that has what a worker has, and the HTTP client where others need it.
Figures are medians on top of that.
"""

import argparse
import statistics
import subprocess
import sys

from rich.progress import track

LOADED = {
    "call: http": "call_http.perform",
    "call: openapi": "call_openapi.perform",
    "call: grpc": "call_grpc.perform",
    "call: mcp": "call_mcp.perform",
    "call: a2a": "call_a2a.perform",
    "call: asyncapi": "call_asyncapi.perform",
    "... over redis": "call_asyncapi.clients.redis",
    "... over nats": "call_asyncapi.clients.nats",
    "... over mqtt": "call_asyncapi.clients.mqtt",
    "... over kafka": "call_asyncapi.clients.kafka",
    "... over amqp": "call_asyncapi.clients.amqp",
}
"""Modules of `tasks/` by what documents call; what stands above one of `...` is there before it."""

_CODE = """
import importlib, os, sys, time
import fastrunner.processes.worker
*before, module = sys.argv[1:]
for each in before:
    importlib.import_module(each)
def mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
mib_before, began_s = mib(), time.perf_counter()
importlib.import_module(module)
print((time.perf_counter() - began_s) * 1000, mib() - mib_before)
"""


def before(name: str) -> list[str]:
    """What is loaded already when something is."""
    if name == "call: http":
        return []
    return ["call_http.perform", *(["call_asyncapi.perform"] if name.startswith("...") else [])]


def measured(name: str) -> tuple[float, float]:
    """ms and MiB of one load."""
    modules = [f"fastrunner.tasks.{each}" for each in (*before(name), LOADED[name])]
    done = subprocess.run([sys.executable, "-c", _CODE, *modules], capture_output=True, text=True, check=True)
    taken_ms, taken_mib = map(float, done.stdout.split())
    return taken_ms, taken_mib


def main() -> None:
    """Measures all by turns, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is loaded (5)")
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADED}
    for _ in track(range(rounds), "loading", disable=not sys.stderr.isatty()):
        for name in LOADED:
            found[name].append(measured(name))
    print("| the first effect of | ms | MiB |\n|---|---|---|")
    for name, rows in found.items():
        taken_ms, taken_mib = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| `{name}` | {taken_ms:.0f} | {taken_mib:.1f} |")


if __name__ == "__main__":
    main()
