"""Support: a real Prometheus server with the rules that ship.

It is Debian's package `prometheus`, which `make tools` installs.
"""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.runner_process import ROOT, until
from tests.outside import require_tool
from tests.ports import free_port

__all__ = ["RULES", "Prometheus", "prometheus"]

RULES = ROOT / "deploy" / "prometheus"


class Prometheus:
    """A Prometheus server that scrapes every second and evaluates the rules that ship."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.port = free_port()
        config = (RULES / "prometheus.yml").read_text(encoding="utf-8")
        config = config.replace("15s", "1s")
        jobs = config.partition("scrape_configs:")[0] + "scrape_configs:\n"
        for job, port in ports.items():
            jobs += f"  - job_name: {job}\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        for name in ("recording.yml", "alerts.yml"):
            jobs = jobs.replace(name, str(RULES / name))
        (folder / "prometheus.yml").write_text(jobs)
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    require_tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.loads(reply.read())["data"]

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """Values of an instant query, by the values of their labels in the order of label names."""
        result = self.get("query", query=expression)["result"]
        return {
            tuple(each["metric"][name] for name in sorted(each["metric"])): float(each["value"][1]) for each in result
        }


@contextmanager
def prometheus(folder: Path, **ports: int) -> Iterator[Prometheus]:
    """A server that scrapes these ports, by the names of their jobs, and is gone afterwards."""
    folder.mkdir()
    server = Prometheus(folder, ports)
    try:
        until(lambda: len(server.query("up == 1")) == len(ports), 30)
        yield server
    finally:
        server.process.kill()
        server.process.wait(30)
