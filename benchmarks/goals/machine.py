"""Support: what the figures were measured on, and with."""

import datetime
import os
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT
from fastrunner.base.clock import monotonic_s

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """Processor, memory, versions, the disk's fsync, and how busy it was before."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpu": f"{len(cpus)} x {cpus[0]}" if cpus else platform.machine(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "uvloop", "orjson")},
        "load_before": round(os.getloadavg()[0], 1),
        "fsync_ms": _fsync_ms(Path("/var/tmp")),
    }


def _fsync_ms(folder: Path) -> dict[str, float]:
    """What it takes this disk to make 8 KiB durable."""
    spans = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(200):
            os.write(file.fileno(), b"x" * 8192)
            begun_s = monotonic_s()
            os.fdatasync(file.fileno())
            spans.append(1000 * (monotonic_s() - begun_s))
    spans.sort()
    return {"p50": round(spans[100], 3), "p99": round(spans[197], 3)}
