"""Support: a runner at three times what it can take, and one restarted under half of it, as a table.

    python -m benchmarks.overload --workers 1 --seconds 8

The load is open: it does not wait for answers. Everything runs on this machine, so the load takes its part of it.
"""

import argparse
import asyncio
import signal
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from fastrunner.clock import monotonic_s
from tests.crash.tree import Tree, until
from tests.integration.open_loop import Load, Tally, channel, work

CONNECTIONS = 8


def _memory_mib(tree: Tree) -> float:
    """Resident memory of the workers and the web process, shared pages counted once each."""
    total_kib = 0
    for pid in tree.children():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def _metric(tree: Tree, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{tree.ports['http_port']}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def _show(title: str, tally: Tally) -> None:
    print(f"{title}: {sum(map(len, tally.latencies_s.values())) / tally.span_s:.0f} calls/s")
    for code in sorted(tally.latencies_s):
        quantiles = "  ".join(f"p{share:g} {tally.quantile_ms(code, share / 100):.1f} ms" for share in (50, 99, 99.9))
        print(f"    {code:<20} {tally.count(code):6d}  {tally.count(code) / tally.span_s:6.0f}/s  {quantiles}")
    if tally.lags_s:
        lags = sorted(tally.lags_s)
        print(
            f"    the load itself was late: p50 {1000 * lags[len(lags) // 2]:.1f} ms, at most {1000 * lags[-1]:.1f} ms"
        )
    for message, count in tally.messages.most_common(3):
        print(f"    {count} x {message}")


async def _measure(tree: Tree, seconds: float, tasks: int) -> None:
    channels: list[Any] = [channel(tree.target) for _ in range(CONNECTIONS)]
    retrying: list[Any] = [channel(tree.target, retrying=True) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(each.channel_ready() for each in (*channels, *retrying)))
    document = work(tasks)
    await Load(channels, document, "warm").closed(64, 1)
    saturated = await Load(channels, document, "saturated").closed(64, seconds / 2)
    _show("saturated, 64 callers", saturated)
    rate = saturated.count("OK") / saturated.span_s
    half = await Load(channels, document, "half").open(rate / 2, seconds / 2)
    _show("half of it", half)
    task = asyncio.ensure_future(Load(retrying, document, "restart").open(rate / 2, 2 * seconds))
    await asyncio.sleep(0.5)
    pids = set(tree.children())
    began_s = monotonic_s()
    tree.signal(signal.SIGHUP)
    await until(lambda: len(tree.children()) == len(pids) and not pids & set(tree.children()), "the restart")
    restart_s = monotonic_s() - began_s
    _show(f"half of it, restarted within {restart_s:.1f} s, clients that retry UNAVAILABLE", await task)
    before_mib = _memory_mib(tree)
    _show("three times as much, its first two seconds", await Load(channels, document, "first").open(3 * rate, 2))
    over = await Load(channels, document, "over").open(3 * rate, seconds)
    _show("three times as much", over)
    refused = over.count("RESOURCE_EXHAUSTED")
    print(f"    {over.retry_infos} of {refused} refusals say when to come again")
    print(f"    memory {before_mib:.0f} MiB before, {_memory_mib(tree):.0f} MiB after")
    began_s = monotonic_s()
    await until(lambda: _metric(tree, "workflow_runner_active_executions") == 0, "everything accepted to end")
    print(f"    everything accepted has ended {monotonic_s() - began_s:.1f} s after the last answer")


async def _main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.data_dir) as folder:
        tree = Tree(Path(folder) / "data", Path(folder) / "log", FASTRUNNER_WORKERS=str(arguments.workers))
        try:
            await tree.start()
            await _measure(tree, arguments.seconds, arguments.tasks)
        finally:
            await tree.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the overload; the rest follows from it")
    parser.add_argument("--tasks", type=int, default=100, help="of the document, so that executing is what takes time")
    parser.add_argument("--data-dir", type=Path, default=Path("/var/tmp"))
    asyncio.run(_main(parser.parse_args()))
