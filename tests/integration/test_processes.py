"""Support: the process tree: start, crash, restart, drain, refusals, metrics and readiness, with real processes."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.processes.slots import respawn_delay_s
from tests.integration.runner_process import TINY, RunnerProcess, alive, children, running, until


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[RunnerProcess]:
    """A ready tree of two tiny workers."""
    with running(tmp_path / "data", TINY) as runner:
        yield runner.wait_ready()


def test_ready_tree_serves_and_stops(tiny: RunnerProcess) -> None:
    """Both workers answer on one port; SIGTERM ends everything with 0 and leaves nothing behind."""
    until(lambda: {tiny.ask()[0] for _ in range(20)} == {0, 1})
    assert tiny.get("/healthz") == (200, "ok\n")
    status, body = tiny.get("/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)
    assert json.loads(tiny.get("/")[1])["grpc_port"] == tiny.ports["grpc_port"]
    assert tiny.get("/nothing")[0] == 404
    pids = [worker["pid"] for worker in tiny.workers()]
    code, out, _ = tiny.stop()
    assert code == 0
    assert f"grpc 127.0.0.1:{tiny.ports['grpc_port']}" in out.splitlines()[0]
    assert not any(map(alive, pids))
    assert not Path(tiny.ports["runtime_dir"]).exists()
    assert not (tiny.data_dir / "ports.json").exists()


def test_killed_worker_is_replaced(tiny: RunnerProcess) -> None:
    """After kill -9 the other worker goes on and a successor takes over; counters go on, gauges do not double."""
    until(lambda: {tiny.ask()[0] for _ in range(20)} == {0, 1})
    accepted = tiny.metric("workflow_runner_executions_accepted_total")
    assert tiny.metric("workflow_runner_active_executions") == 20
    first = tiny.workers()[0]["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: answered(tiny))
    until(lambda: tiny.replaced(first))
    assert tiny.workers()[0]["restarts"] == 1
    assert tiny.metric("workflow_runner_executions_accepted_total") >= accepted
    assert tiny.metric("workflow_runner_active_executions") == 20
    assert tiny.metric("workflow_runner_worker_restarts_total") == 1


def serving_web(tiny: RunnerProcess, workers: set[int]) -> int:
    """The web process of a tree with such workers."""
    [web] = until(lambda: [pid for pid in children(tiny.process.pid) if pid not in workers and alive(pid)])
    return web


class Asker(threading.Thread):
    """Asks for a page over and over, each time on a new connection; notes from when to when each asking failed."""

    def __init__(self, runner: RunnerProcess, path: str) -> None:
        super().__init__()
        self.runner, self.path = runner, path
        self.answered = 0
        self.failed: list[tuple[float, float, str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            began_s = time.monotonic()
            try:
                status, _ = self.runner.get(self.path)
                assert status == 200
                self.answered += 1
            except Exception as error:
                self.failed.append((began_s, time.monotonic(), str(error)))


@contextlib.contextmanager
def asked(runner: RunnerProcess) -> Iterator[list[Asker]]:
    """While somebody asks for pages; every one of them is answered in the end."""
    askers = [Asker(runner, "/healthz"), Asker(runner, "/metrics")]
    for asker in askers:
        asker.start()
    try:
        yield askers
        before = [asker.answered for asker in askers]
        until(lambda: all(asker.answered > count for asker, count in zip(askers, before, strict=True)))
    finally:
        for asker in askers:
            asker.stopped.set()
        for asker in askers:
            asker.join()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_web_process_that_dies_over_and_over(tiny: RunnerProcess, signum: signal.Signals) -> None:
    """Connections wait while another is started: only those fail that were being answered at that moment."""
    workers = {worker["pid"] for worker in tiny.workers()}
    deaths_s = []
    with asked(tiny) as askers:
        for _ in range(5):
            web = serving_web(tiny, workers)
            count = askers[0].answered
            until(lambda: askers[0].answered > count + 5)  # noqa: B023
            deaths_s.append(time.monotonic())
            os.kill(web, signum)
            until(lambda: not alive(web))  # noqa: B023
    for began_s, ended_s, error in askers[0].failed + askers[1].failed:
        assert any(began_s <= death_s <= ended_s for death_s in deaths_s), error
        assert "refused" not in error


def listeners(port: int) -> set[str]:
    """What listening sockets of a port are called in /proc."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}


def listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens on a port."""
    found = listeners(port)
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # Others may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(file) in found:
                return True
    return False


def test_web_process_that_stops_answers_whom_it_has_accepted(tiny: RunnerProcess) -> None:
    """A request whose head comes when it listens no more, too; who connects meanwhile is its successor's."""
    web, port = serving_web(tiny, {worker["pid"] for worker in tiny.workers()}), tiny.ports["http_port"]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as accepted:
        accepted.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        # It accepts in turn: what came before this has been accepted.
        assert tiny.get("/healthz") == (200, "ok\n")
        os.kill(web, signal.SIGTERM)
        until(lambda: not listens(web, port))
        accepted.sendall(b"Connection: close\r\n\r\n")
        assert tiny.get("/healthz") == (200, "ok\n")
        assert accepted.recv(4096).startswith(b"HTTP/1.1 200")
    assert not alive(web)


def test_many_connections_wait_for_the_web_process(tiny: RunnerProcess) -> None:
    """More than one turn of a loop accepts find room while it is replaced."""
    (tiny.data_dir / "crash-web").touch()
    workers = {worker["pid"] for worker in tiny.workers()}
    os.kill(serving_web(tiny, workers), signal.SIGKILL)
    address = ("127.0.0.1", tiny.ports["http_port"])
    with contextlib.ExitStack() as stack:
        # A full queue answers nobody: connecting would take as long as the kernel tries.
        waiting = [stack.enter_context(socket.create_connection(address, timeout=0.5)) for _ in range(300)]
        for connection in waiting:
            connection.settimeout(30)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        (tiny.data_dir / "crash-web").unlink()
        for connection in waiting:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def answered(runner: RunnerProcess) -> bool:
    """Whether a new connection is answered: one in the backlog of a listener that closes is reset."""
    with contextlib.suppress(ConnectionError, ValueError):
        return bool(runner.ask())
    return False


def short_handed(runner: RunnerProcess) -> set[int]:
    """Processes of workers that know of a replacement; asks until chance has led to all of them, almost surely."""
    with contextlib.suppress(ConnectionError, ValueError):
        return {pid for is_short, pid in (runner.ask("short-handed") for _ in range(30)) if is_short}
    return set()


def test_every_worker_knows_of_a_replacement(tiny: RunnerProcess) -> None:
    """A worker that stays, one that is restarted and the successor of a killed one; nobody of a fresh tree."""
    until(lambda: {tiny.ask()[0] for _ in range(20)} == {0, 1})
    assert short_handed(tiny) == set()
    pids = {worker["pid"] for worker in tiny.workers()}
    os.kill(min(pids), signal.SIGKILL)
    until(lambda: short_handed(tiny) == {worker["pid"] for worker in tiny.workers()} != pids)


def test_every_worker_knows_of_a_rolling_restart(tiny: RunnerProcess) -> None:
    before = {worker["pid"] for worker in tiny.workers()}
    tiny.signal(signal.SIGHUP)
    until(lambda: tiny.replaced(*before))
    until(lambda: short_handed(tiny) == {worker["pid"] for worker in tiny.workers()})


def test_hangup_restarts_every_worker(tiny: RunnerProcess) -> None:
    """SIGHUP replaces all processes one at a time, and one worker always answers."""
    before = {worker["pid"] for worker in tiny.workers()}
    tiny.signal(signal.SIGHUP)

    def replaced() -> bool:
        answered(tiny)
        states = [worker["state"] for worker in tiny.workers()]
        assert states.count("ready") >= 1, states
        return tiny.replaced(*before)

    until(replaced)
    assert [worker["restarts"] for worker in tiny.workers()] == [0, 0]
    assert tiny.stop()[0] == 0


def test_children_end_with_their_supervisor(tiny: RunnerProcess) -> None:
    """kill -9 of the supervisor takes the children along, and the next start succeeds at once on the same ports."""
    pids = children(tiny.process.pid)
    assert len(pids) == 3
    tiny.signal(signal.SIGKILL)
    ports = {"GRPC_PORT": str(tiny.ports["grpc_port"]), "FASTRUNNER_HTTP_PORT": str(tiny.ports["http_port"])}
    with running(tiny.data_dir, TINY, **ports) as successor:
        tiny.end()
        until(lambda: not any(map(alive, pids)))
        until(successor._ports)
        assert successor.stop()[0] == 0


def test_draining_is_visible_and_bounded(tmp_path: Path) -> None:
    """While a worker drains, /readyz says so; one that does not end in time is killed; the exit code is 0."""
    with running(tmp_path, TINY, FASTRUNNER_DRAIN_TIMEOUT_S="0.1") as runner:
        runner.wait_ready()
        (tmp_path / "slow-0").touch()
        runner.signal(signal.SIGTERM)
        until(lambda: runner.get("/readyz")[0] == 503)
        assert json.loads(runner.get("/readyz")[1])["reason"] == "draining"
        assert runner.get("/healthz")[0] == 200
        code, _, err = runner.end()
        assert code == 0
        assert "did not end in time" in err


def test_who_asks_again_and_again_to_stop_is_heard_once(tmp_path: Path) -> None:
    """Up to the last moment: the exit code is 0, and what tells where the tree listens is gone."""
    with running(tmp_path, TINY) as runner:
        runner.wait_ready()
        while runner.process.poll() is None:
            runner.signal(signal.SIGTERM)
            runner.signal(signal.SIGHUP)
        assert runner.end()[0] == 0
        assert not (tmp_path / "ports.json").exists()


def test_second_interrupt_forces_the_end(tmp_path: Path) -> None:
    """The first Ctrl-C drains, the second ends everything at once."""
    with running(tmp_path, TINY) as runner:
        runner.wait_ready()
        (tmp_path / "slow-1").touch()
        pids = children(runner.process.pid)
        runner.signal(signal.SIGINT)
        until(lambda: runner.get("/readyz")[0] == 503)
        runner.signal(signal.SIGINT)
        assert runner.end()[0] == 130
        assert not any(map(alive, pids))


def test_worker_that_cannot_start_ends_the_tree(tmp_path: Path) -> None:
    """A refusal to start is one line with its reason and exit code 3, not an endless respawn."""
    (tmp_path / "refuse-1").write_text("the store is damaged")
    with running(tmp_path, TINY) as runner:
        code, out, err = runner.end()
    assert code == 3
    assert out == ""
    assert "fastrunner: worker 1 cannot start: the store is damaged" in err.splitlines()


def test_worker_that_crashes_before_it_is_ready_ends_the_tree(tmp_path: Path) -> None:
    """Crashes at start are retried a bounded number of times."""
    (tmp_path / "crash-0").touch()
    with running(tmp_path, TINY) as runner:
        code, _, err = runner.end()
    assert code == 3
    assert f"was killed by SIGKILL {limits.BOOT_ATTEMPTS_MAX} times in a row" in err


def _tree_with(**bounds: float) -> tuple[str, str]:
    """The command of a tree with other bounds."""
    changed = "".join(f"limits.{name} = {value}\n" for name, value in bounds.items())
    run = "import runpy; runpy.run_module('tests.integration.tiny_tree', run_name='__main__')"
    return "-c", f"from fastrunner.base import limits\n{changed}{run}"


def test_silent_worker_is_killed(tmp_path: Path) -> None:
    """A worker whose loop does not turn is killed and replaced."""
    command = _tree_with(PING_INTERVAL_S=0.1, PING_TIMEOUT_S=0.5)
    with running(tmp_path, command, FASTRUNNER_WORKERS="1") as runner:
        runner.wait_ready()
        before = runner.workers()[0]["pid"]
        with socket.create_connection(("127.0.0.1", runner.ports["grpc_port"])) as client:
            client.sendall(b"spin\n")
            until(lambda: runner.replaced(before))
        assert "does not answer: killing it" in runner.stop()[2]


def test_stopped_worker_is_replaced_soon(tmp_path: Path) -> None:
    """A worker that SIGSTOP has stopped is still given new connections: it is replaced before it could miss a ping."""
    command = _tree_with(PING_TIMEOUT_S=10_000)
    with running(tmp_path, command, FASTRUNNER_WORKERS="1") as runner:
        runner.wait_ready()
        before = runner.workers()[0]["pid"]
        os.kill(before, signal.SIGSTOP)
        until(lambda: runner.replaced(before))
        until(lambda: answered(runner))
        assert "was stopped by a signal" in runner.stop()[2]


def test_worker_that_is_stopped_while_it_starts_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, TINY) as runner:
        before = runner.wait_ready().workers()[0]["pid"]
        (tmp_path / "stuck-0").touch()
        os.kill(before, signal.SIGKILL)
        starting = until(lambda: {worker["pid"] for worker in runner.workers()[:1]} - {0, before}).pop()
        (tmp_path / "stuck-0").unlink()
        os.kill(starting, signal.SIGSTOP)
        until(lambda: runner.replaced(before, starting))


def test_tree_that_is_stopped_as_a_whole_goes_on_as_it_was(tiny: RunnerProcess) -> None:
    """So does a worker that was only looked at."""
    workers, everybody = tiny.workers(), [tiny.process.pid, *children(tiny.process.pid)]
    for _ in range(3):
        os.killpg(tiny.process.pid, signal.SIGSTOP)
        until(lambda: all(stopped(pid) for pid in everybody))
        os.killpg(tiny.process.pid, signal.SIGCONT)
        os.kill(workers[0]["pid"], signal.SIGSTOP)
        os.kill(workers[0]["pid"], signal.SIGCONT)
        until(tiny.ready)
    assert tiny.workers() == workers
    assert "stopped by a signal" not in tiny.stop()[2]


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("variable", ["GRPC_PORT", "FASTRUNNER_HTTP_PORT"])
def test_port_in_use_is_refused(tmp_path: Path, variable: str) -> None:
    """A port that somebody listens on is one clear line and exit code 4."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with running(tmp_path, TINY, **{variable: str(port)}) as runner:
            code, _, err = runner.end()
    assert code == 4
    [line] = err.splitlines()
    assert line.startswith(f"fastrunner: {variable}={port}: cannot bind 127.0.0.1:{port}: address already in use")


def test_port_of_another_runner_is_refused(tiny: RunnerProcess, tmp_path: Path) -> None:
    """SO_REUSEPORT does not let a second runner share the first one's port."""
    with running(tmp_path / "other", TINY, GRPC_PORT=str(tiny.ports["grpc_port"])) as runner:
        code, _, err = runner.end()
    assert code == 4
    assert "GRPC_PORT" in err


def test_data_directory_in_use_is_refused(tiny: RunnerProcess) -> None:
    """Two runners cannot share a data directory; the first keeps its ports file."""
    with running(tiny.data_dir, TINY) as runner:
        code, _, err = runner.end()
    assert code == 5
    assert "in use by another runner" in err
    assert (tiny.data_dir / "ports.json").exists()


def test_prod_logs_are_json_lines(tmp_path: Path) -> None:
    """With ENV=prod every line is a JSON object that names its process, on stdout as on stderr."""
    with running(tmp_path, TINY, ENV="prod", STIGMER_SERVICE_ENDPOINT="127.0.0.1:1") as runner:
        runner.wait_ready()
        first = runner.workers()[1]["pid"]
        os.kill(first, signal.SIGKILL)
        until(lambda: runner.replaced(first))
        _, out, err = runner.stop()
    [ready] = map(json.loads, out.splitlines())
    assert (ready["process"], ready["message"].partition(":")[0]) == ("supervisor", "fastrunner is ready")
    records = [json.loads(line) for line in err.splitlines()]
    assert {record["process"] for record in records} >= {"supervisor"}
    [crash] = [record for record in records if record["level"] == "error"]
    assert "worker 1 was killed by SIGKILL" in crash["message"]


def test_delays_between_respawns_double_up_to_the_bound() -> None:
    """The first crash is answered at once, later ones ever more slowly."""
    delays = [respawn_delay_s(crashes) for crashes in range(1, 40)]
    shortest_s = limits.RESPAWN_DELAY_S_MIN
    assert delays[:4] == [0.0, shortest_s, shortest_s * 2, shortest_s * 4]
    assert delays == sorted(delays)
    assert delays[-1] == limits.RESPAWN_DELAY_S_MAX
