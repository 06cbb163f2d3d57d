"""Support: the parent process: forks the workers and the web process, watches, replaces and stops them.

Rules: no grpc, no thread, no event loop in here: children are forked from a clean process, at start and whenever one is
replaced. Signal handlers do nothing; the signals' numbers arrive through a socket and are handled in the loop.

Theory of operation: one Slot per child. A slot is absent (nothing runs; `spawn_at_s` says when to spawn), starting
(spawned, not yet ready), ready, or stopping (SIGTERM sent, SIGKILL due at `kill_at_s`). A child's death makes its slot
absent, and what happens next depends on why: asked to stop in a rolling restart: the successor starts at once; crashed:
it starts after a back-off; could not boot: the tree ends with ExitCode.BOOT, because a successor would fail as well.
"""

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from fastrunner import limits
from fastrunner.clock import monotonic_s
from fastrunner.config import Config, export_metrics_folder
from fastrunner.engine.manifest import DataDirectoryRefused, open_data_directory
from fastrunner.logs import configure_logs
from fastrunner.runtime import (
    ChildContext,
    ExitCode,
    Link,
    Role,
    RuntimeFolder,
    StartError,
    die_with_parent,
    metrics_identity,
    remove_ports_file,
    reserve_port,
    write_ports_file,
)

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_MIGRATE_SETTING: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")

log = logging.getLogger(__name__)

State = Literal["absent", "starting", "ready", "stopping"]
ChildMain = Callable[[ChildContext], int]
"""What a child does; gives its exit code."""


@dataclass(slots=True)
class Slot:
    """One child, its predecessors and successors."""

    role: Role
    """What the child is."""
    index: int
    """Its number among those of its role."""
    state: State = "absent"
    """See the theory of operation."""
    pid: int = 0
    """Process id; 0 while absent."""
    link: Link | None = None
    """To the child; none while absent."""
    spawn_at_s: float = 0.0
    """When an absent child is due, on the monotonic clock."""
    since_s: float = 0.0
    """When the state began."""
    pinged_s: float = 0.0
    """When the last ping was sent."""
    answered: bool = True
    """Whether the last ping was answered."""
    kill_at_s: float = 0.0
    """When a stopping child is killed."""
    crashes_in_row: int = 0
    """Crashes since the last child that was ready for long."""
    boots_failed: int = 0
    """Crashes since the last child that was ready at all."""
    restarts: int = 0
    """Children started because their predecessor crashed."""
    crashes_uncounted: int = 0
    """Crashes that are not in the metrics yet."""
    last_words: str = ""
    """What the child said it cannot start for."""

    @property
    def name(self) -> str:
        """As logs show it."""
        return f"worker {self.index}" if self.role is Role.WORKER else "web process"


def run_worker_child(context: ChildContext) -> int:
    """A worker; imported in the child only, because it needs grpc."""
    from fastrunner.worker import run_worker

    return run_worker(context)


def run_web_child(context: ChildContext) -> int:
    """The web process; imported in the child only, because it needs an event loop."""
    from fastrunner.web.process import run_web

    return run_web(context)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What the supervisor holds for its children."""

    grpc: socket.socket
    """Bound, not listening."""
    http: socket.socket
    """Bound and listening."""
    folder: RuntimeFolder
    """Sockets and metrics of this run."""
    shards: int
    """Shards of the data directory."""


class Supervisor:
    """The loop over the children."""

    def __init__(
        self, config: Config, reserved: Reserved, mains: Mapping[Role, ChildMain], on_ready: Callable[[], None]
    ) -> None:
        """`on_ready` is called once, when every child is ready for the first time."""
        self._config = config
        self._reserved = reserved
        self._mains = mains
        self._on_ready = on_ready
        self._slots = [Slot(Role.WORKER, index) for index in range(config.workers)] + [Slot(Role.WEB, 0)]
        self._exit_code: ExitCode | None = None  # set when the tree is stopping
        self._rolling: list[Slot] = []
        self._announced = False
        self._interrupts = 0
        self._published: Any = None
        self._selector = selectors.DefaultSelector()
        self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Starts the children and keeps them until the tree is stopped; gives its exit code."""
        self._listen_to_signals()
        try:
            while self._exit_code is None or any(slot.pid for slot in self._slots):
                self._spawn_due()
                for key, _ in self._selector.select(self._pause_s()):
                    key.data()
                self._reap()
                self._watch()
                self._roll()
                self._publish()
        finally:
            self._kill_all()
            self._ignore_signals()
        return self._exit_code

    # --- signals ---

    def _listen_to_signals(self) -> None:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for signum in _HANDLED:
            signal.signal(signum, lambda _signum, _frame: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._read_signals)

    def _ignore_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for signum in _HANDLED:
            signal.signal(signum, signal.SIG_DFL)
        self._selector.close()
        for end in self._wakeup:
            end.close()

    def _read_signals(self) -> None:
        handlers = {
            signal.SIGTERM: self._handle_term,
            signal.SIGINT: self._handle_int,
            signal.SIGHUP: self._handle_hup,
        }
        with contextlib.suppress(BlockingIOError):
            for signum in self._wakeup[0].recv(256):
                # SIGCHLD only wakes the loop, which reaps at every turn.
                handlers.get(signal.Signals(signum), lambda: None)()

    def _handle_term(self) -> None:
        log.info("stopping: draining for up to %g s", self._config.drain_timeout_s)
        self._stop(ExitCode.OK)

    def _handle_int(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self._handle_term()
            return
        log.warning("stopping now, without draining")
        self._exit_code = ExitCode.FORCED
        self._kill_all()

    def _handle_hup(self) -> None:
        if self._exit_code is None:
            log.info("restarting every process, one at a time")
            self._rolling = list(self._slots)

    # --- children: start ---

    def _spawn_due(self) -> None:
        if self._exit_code is not None:
            return
        now = monotonic_s()
        for slot in self._slots:
            if not slot.pid and slot.spawn_at_s <= now:
                self._spawn(slot)

    def _spawn(self, slot: Slot) -> None:
        ours, theirs = Link.pair()
        for stream in (sys.stdout, sys.stderr):
            # A runner may have been started without them.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        # A signal between the fork and the child's own handlers would reach the supervisor's wake-up socket.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_child(slot, theirs, parent_pid, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        slot.pid, slot.link, slot.last_words = pid, ours, ""
        self._enter(slot, "starting")
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._read_link(slot))

    def _become_child(self, slot: Slot, link: Link, parent_pid: int, mask: Any) -> NoReturn:
        code: int = ExitCode.CRASH
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Ctrl-C and a hang-up reach the whole process group; the supervisor decides what they mean.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            die_with_parent(parent_pid)
            self._close_inherited(slot)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            configure_logs(self._config.env, self._config.log_level, metrics_identity(slot.role, slot.index))
            code = self._mains[slot.role](
                ChildContext(
                    config=self._config,
                    role=slot.role,
                    index=slot.index,
                    shards=self._reserved.shards,
                    folder=self._reserved.folder,
                    link=link,
                    http=self._reserved.http if slot.role is Role.WEB else None,
                    crashes=slot.crashes_uncounted,
                )
            )
        except BaseException as error:
            log.exception("%s ended by an exception", slot.name)
            if "ready" not in link.sent:
                link.send("failed", message=f"{type(error).__name__}: {error}")
                code = ExitCode.BOOT
        finally:
            logging.shutdown()
            os._exit(code)

    def _close_inherited(self, slot: Slot) -> None:
        # Copies of the siblings' links would keep them open when the supervisor dies.
        for other in self._slots:
            if other.link is not None:
                other.link.close()
        self._selector.close()
        for end in self._wakeup:
            end.close()
        self._reserved.grpc.close()
        if slot.role is not Role.WEB:
            self._reserved.http.close()

    # --- children: messages and death ---

    def _read_link(self, slot: Slot) -> None:
        while slot.link is not None and (message := slot.link.receive()) != {}:
            if message is None:
                self._drop_link(slot)
            elif message["kind"] == "pong":
                slot.answered = True
            elif message["kind"] == "ready" and slot.state == "starting":
                self._enter(slot, "ready")
                slot.boots_failed = slot.crashes_uncounted = 0
                log.info("%s is ready (pid %d)", slot.name, slot.pid)
            elif message["kind"] == "failed":
                slot.last_words = str(message["message"])

    def _drop_link(self, slot: Slot) -> None:
        assert slot.link is not None
        self._selector.unregister(slot.link)
        slot.link.close()
        slot.link = None

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._read_link(slot)
                    if slot.link is not None:
                        self._drop_link(slot)
                    self._bury(slot, os.waitstatus_to_exitcode(status))

    def _bury(self, slot: Slot, code: int) -> None:
        was, pid, lasted_s = slot.state, slot.pid, monotonic_s() - slot.since_s
        slot.pid, slot.spawn_at_s = 0, 0.0
        self._enter(slot, "absent")
        self._reserved.folder.forget_gauges(metrics_identity(slot.role, slot.index))
        if self._exit_code is not None or was == "stopping":
            log.info("%s ended (pid %d)", slot.name, pid)
            return
        reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        if code == ExitCode.BOOT:
            self._fail(f"{slot.name} cannot start: {slot.last_words or reason}")
            return
        if was == "starting":
            slot.boots_failed += 1
            if slot.boots_failed >= limits.BOOT_ATTEMPTS_MAX:
                self._fail(f"{slot.name} {reason} {slot.boots_failed} times in a row before it was ready")
                return
        slot.crashes_in_row = 1 if was == "ready" and lasted_s >= limits.RESPAWN_STABLE_S else slot.crashes_in_row + 1
        slot.restarts += 1
        slot.crashes_uncounted += 1
        delay_s = respawn_delay_s(slot.crashes_in_row)
        slot.spawn_at_s = monotonic_s() + delay_s
        log.error("%s %s (pid %d); starting another in %g s", slot.name, reason, pid, delay_s)

    def _fail(self, message: str) -> None:
        sys.stderr.write(f"fastrunner: {message}\n")
        self._stop(ExitCode.BOOT)

    # --- children: watching, restarting, stopping ---

    def _watch(self) -> None:
        now = monotonic_s()
        for slot in self._slots:
            if slot.state == "stopping" and now >= slot.kill_at_s:
                self._kill(slot, "did not end in time")
            elif slot.state == "starting" and now - slot.since_s > limits.BOOT_S_MAX:
                self._kill(slot, "did not become ready in time")
            elif slot.state == "ready" and slot.link is not None:
                if not slot.answered and now - slot.pinged_s > limits.PING_TIMEOUT_S:
                    self._kill(slot, "does not answer")
                elif slot.answered and now - slot.pinged_s >= limits.PING_INTERVAL_S:
                    slot.pinged_s, slot.answered = now, False
                    slot.link.send("ping")
        if self._exit_code is not None and not any(slot.pid for slot in self._slots if slot.role is Role.WORKER):
            # The web process goes last: until then it tells that the tree is draining.
            for slot in self._slots:
                self._terminate(slot)

    def _kill(self, slot: Slot, reason: str) -> None:
        log.error("%s %s: killing it (pid %d)", slot.name, reason, slot.pid)
        os.kill(slot.pid, signal.SIGKILL)
        slot.kill_at_s = slot.since_s = slot.pinged_s = monotonic_s() + limits.PING_TIMEOUT_S

    def _terminate(self, slot: Slot) -> None:
        if slot.pid and slot.state != "stopping":
            self._enter(slot, "stopping")
            slot.kill_at_s = slot.since_s + self._config.drain_timeout_s + limits.DRAIN_MARGIN_S
            os.kill(slot.pid, signal.SIGTERM)

    def _stop(self, code: ExitCode) -> None:
        if self._exit_code is None:
            self._exit_code = code
        self._rolling.clear()
        for slot in self._slots:
            if slot.role is Role.WORKER:
                self._terminate(slot)

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)

    def _roll(self) -> None:
        all_ready = all(slot.state == "ready" for slot in self._slots)
        if all_ready and self._rolling:
            self._terminate(self._rolling.pop(0))
        elif all_ready and not self._announced:
            self._announced = True
            self._on_ready()

    # --- what others see ---

    def _enter(self, slot: Slot, state: State) -> None:
        slot.state, slot.since_s = state, monotonic_s()
        slot.pinged_s, slot.answered = slot.since_s, True

    def _publish(self) -> None:
        """Tells the web process how the tree is, when that has changed."""
        web = self._slots[-1]
        state = {
            "draining": self._exit_code is not None,
            "workers": [
                {"index": slot.index, "pid": slot.pid, "state": slot.state, "restarts": slot.restarts}
                for slot in self._slots[:-1]
            ],
        }
        if web.link is not None and (web.pid, state) != self._published and web.link.send("state", state=state):
            self._published = (web.pid, state)

    def _pause_s(self) -> float:
        now = monotonic_s()
        due = [slot.spawn_at_s - now for slot in self._slots if not slot.pid and self._exit_code is None]
        due += [slot.kill_at_s - now for slot in self._slots if slot.state == "stopping"]
        return max(0.0, min([limits.PING_INTERVAL_S, *due]))


def respawn_delay_s(crashes_in_row: int) -> float:
    """How long to wait before the next child: nothing after the first crash, then doubling up to the bound."""
    if crashes_in_row <= 1:
        return 0.0
    return float(min(limits.RESPAWN_DELAY_S_MIN * 2.0 ** min(crashes_in_row - 2, 30), limits.RESPAWN_DELAY_S_MAX))


def run(config: Config, *, worker: ChildMain = run_worker_child, web: ChildMain = run_web_child) -> int:
    """Runs the whole tree until it is stopped; gives the exit code. Refusals to start are one line on stderr each."""
    assert "grpc" not in sys.modules, "grpc in the supervisor would be forked into every worker"
    assert threading.active_count() == 1, "a thread in the supervisor would be missing in every child"
    configure_logs(config.env, config.log_level, "supervisor")
    try:
        config, reserved, held = _reserve_patiently(config)
    except StartError as error:
        sys.stderr.write(f"fastrunner: {error}\n")
        return error.code
    with held:
        _warn_of_lost_connections(config)
        export_metrics_folder(reserved.folder.metrics)
        # What is alive now stays shared with the children: their collectors never touch its pages.
        gc.freeze()
        held.callback(remove_ports_file, config.data_dir)
        tree = Supervisor(config, reserved, {Role.WORKER: worker, Role.WEB: web}, _announcement(config, reserved))
        return tree.run()


def _reserve_patiently(config: Config) -> tuple[Config, Reserved, contextlib.ExitStack]:
    """As `_reserve`, but waits a moment for what a killed predecessor's children still hold."""
    give_up_s = monotonic_s() + limits.START_WAIT_S_MAX
    while True:
        try:
            return _reserve(config)
        except StartError:
            if monotonic_s() >= give_up_s:
                raise
            time.sleep(limits.START_WAIT_S_MAX / 20)


def _reserve(config: Config) -> tuple[Config, Reserved, contextlib.ExitStack]:
    """Takes everything that only one runner may have; raises StartError. The stack gives it all up again."""
    with contextlib.ExitStack() as stack:
        grpc = stack.enter_context(reserve_port(config.grpc_host, config.grpc_port, "GRPC_PORT", shared=True))
        http = stack.enter_context(reserve_port(config.http_host, config.http_port, "FASTRUNNER_HTTP_PORT"))
        try:
            data = open_data_directory(config.data_dir, config.workers, config.shards)
        except DataDirectoryRefused as error:
            raise StartError(ExitCode.LOCKED, str(error)) from None
        stack.callback(data.close)
        remove_ports_file(config.data_dir)
        folder = RuntimeFolder.create(config.data_dir)
        stack.callback(folder.remove)
        chosen = {"grpc_port": grpc.getsockname()[1], "http_port": http.getsockname()[1]}
        reserved = Reserved(grpc, http, folder, data.shard_count)
        return config.model_copy(update=chosen), reserved, stack.pop_all()


def _announcement(config: Config, reserved: Reserved) -> Callable[[], None]:
    def announce() -> None:
        ports = {"grpc_port": config.grpc_port, "http_port": config.http_port, "pid": os.getpid()}
        try:
            write_ports_file(config.data_dir, {**ports, "runtime_dir": str(reserved.folder.path)})
            sys.stdout.write(
                f"fastrunner is ready: grpc {config.grpc_host}:{config.grpc_port}, http {config.http_host}:"
                f"{config.http_port}, workers {config.workers}, shards {reserved.shards}, data {config.data_dir}\n"
            )
            sys.stdout.flush()
        except (AttributeError, OSError, ValueError) as error:
            # A closed stdout or a full disk is no reason to stop what works.
            log.warning("ready, but cannot say so: %s", error)

    return announce


def _warn_of_lost_connections(config: Config) -> None:
    with contextlib.suppress(OSError):
        if config.workers > 1 and _MIGRATE_SETTING.read_text(encoding="ascii").strip() == "0":
            log.info(
                "net.ipv4.tcp_migrate_req is 0: connections a worker has not accepted yet are reset when it is "
                "replaced; clients retry them, or set it to 1"
            )
