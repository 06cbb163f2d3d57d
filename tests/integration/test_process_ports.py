"""Where a runner listens: addresses mean the same for gRPC and HTTP, and who joins its port is named."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from tests.integration.runner_process import SERVE, RunnerProcess, running, until, with_limits

PREFIX = "workflow_runner_"


def connects(address: str, port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=10).close()
        return True
    return False


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", {"127.0.0.1"}), ("::", {"127.0.0.1", "::1"}), ("::1", {"::1"}), ("[::1]", {"::1"})],
)
def test_host_is_where_everything_listens(tmp_path: Path, host: str, reached: set[str]) -> None:
    """A real runner, its gRPC port and its HTTP port, by IPv4 and by IPv6."""
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    hosts = {"FASTRUNNER_GRPC_HOST": host, "FASTRUNNER_HTTP_HOST": host, "FASTRUNNER_AUTH": "none"}
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **hosts) as runner:
        runner.wait_ready()
        for port in (runner.ports["grpc_port"], runner.ports["http_port"]):
            assert {address for address in ("127.0.0.1", "::1") if connects(address, port)} == reached
        code, out, _ = runner.stop()
    assert code == 0
    shown = host if "." in host else f"[{host.strip('[]')}]"
    assert f"grpc {shown}:{runner.ports['grpc_port']}, http {shown}:{runner.ports['http_port']}" in out


def joined(runner: RunnerProcess) -> socket.socket:
    """A listener of this process on the runner's port."""
    stranger = socket.socket()
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stranger.bind(("127.0.0.1", runner.ports["grpc_port"]))
    stranger.listen()
    return stranger


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says who listens")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_stranger_on_the_port_is_named(tmp_path: Path, host: str) -> None:
    """Who takes some of the connections is in /readyz, the metrics and the log, until it is gone; workers are not."""
    command = with_limits(PORT_WATCH_INTERVAL_S=0.1)
    with running(tmp_path / "data", command, FASTRUNNER_GRPC_HOST=host, FASTRUNNER_AUTH="none") as runner:
        runner.wait_ready()
        with joined(runner):
            reason = until(lambda: runner.readiness()[1])
            assert not runner.ready()
            until(lambda: runner.metric(f"{PREFIX}port_strangers") == 1)
        name = Path("/proc/self/comm").read_text().strip()
        assert reason == (
            f"process {os.getpid()} ({name}) listens on port {runner.ports['grpc_port']}, too, and takes connections "
            "of this runner: stop it"
        )
        until(lambda: runner.readiness() == (True, ""))
        until(lambda: runner.metric(f"{PREFIX}port_strangers") == 0)
        _, _, err = runner.stop()
    assert err.count(reason) == 1
    assert err.count("listens on port") == 1
