"""Support: ghz as a load client: a stock gRPC client in Go, which templates, encodes and decodes every message.

Rules: it is given the description of the service as a file, so that servers without reflection answer it as well; every
execution has an id of its own, from the number of its request; what ends otherwise than with OK is counted and never
thrown away. `make tools` installs it.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from benchmarks.loads import CALL, Figures
from benchmarks.servers import ROOT
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import command_pb2

__all__ = ["closed", "program"]

_PERCENTILES = {50: "p50", 95: "p95", 99: "p99"}


def closed(
    target: str, document: str, prefix: str, *, count: int, in_flight: int = 64, connections: int = 16
) -> Figures:
    """ExecuteAsync with a document until `count` calls have been made. Raises RuntimeError if ghz fails."""
    data = {
        "workflow_execution_id": f"{prefix}-{{{{.RequestNumber}}}}",
        "workflow_yaml": document,
        "input_json": '{"counter": 1}',
    }
    with tempfile.TemporaryDirectory(prefix="ghz-") as folder:
        described, message = Path(folder) / "service.protoset", Path(folder) / "data.json"
        described.write_bytes(_description())
        message.write_text(json.dumps(data), encoding="utf-8")
        command = [
            program(), "--insecure", "--protoset", str(described), "--call", CALL.lstrip("/"), "-O", "json",
            "--count-errors", "-n", str(count), "-c", str(in_flight), "--connections", str(connections),
            "-D", str(message), target,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"ghz failed: {done.stderr[:1000]}")
    report = json.loads(done.stdout)
    answered = report["statusCodeDistribution"].get("OK", 0)
    quantiles = {
        _PERCENTILES[each["percentage"]]: each["latency"] / 1e6
        for each in report["latencyDistribution"] or ()
        if each["percentage"] in _PERCENTILES
    }
    return Figures(
        rate_per_s=answered / (report["total"] / 1e9),
        count=answered,
        errors_count=count - answered,
        latency_ms={"mean": report["average"] / 1e6, **quantiles},
        late_ms=0.0,
    )


def program() -> str:
    """Where ghz is: beside this interpreter, else on the path. Raises RuntimeError."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("ghz", path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if found is None:
        raise RuntimeError("ghz is not installed: `make tools` gets it")
    return found


@functools.cache
def _description() -> bytes:
    """The service and all that it refers to, what is referred to first."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for each in file.dependencies:
            add(each)
        files.setdefault(file.name, file)

    add(command_pb2.DESCRIPTOR)
    described = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(described.file.add())
    return described.SerializeToString()
