"""Support: the parent process: forks the workers, the web process and who copies elsewhere, watches, replaces and
stops them.

Rules: no grpc, no thread, no event loop in here: children are forked from a clean process, at start and whenever one is
replaced. Signal handlers do nothing; the signals' numbers arrive through a socket and are handled in the loop.

Workers and the web process are forked with their modules loaded (`prepare`), so that another serves some hundredths of
a second after one has died, and all share those pages, untouched.

Theory of operation: one Slot per child. A slot is absent (nothing runs; `spawn_at_s` says when to spawn), starting
(spawned, not yet ready), ready, or stopping (SIGTERM sent, SIGKILL due at `kill_at_s`). A child's death makes its slot
absent, and another starts after a back-off, whether it crashed or could not start. Only before the tree was ever ready
does a child that cannot start end it, with ExitCode.BOOT: later that would take healthy siblings along. In a rolling
restart a child's successor is forked first, makes its parts and proves itself while the predecessor serves: it stands
beside the slots until it takes over. If it fails, the predecessor stays and another is tried after a back-off.

The kernel says at once when a signal has stopped a child (SIGCHLD). One that is still stopped in several looks is
killed: it would be given new connections as long as it listens. The looks are counted, not timed: a tree that is
stopped as a whole and goes on finds its children stopped for one look at most.
"""

import contextlib
import gc
import logging
import math
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from fastrunner.base import deaths, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.logs import configure_logs
from fastrunner.config import Config, misspelt
from fastrunner.counts.definitions import Metrics
from fastrunner.processes.cleartext import secrets_in_clear
from fastrunner.processes.dumps import forbid_dumps
from fastrunner.processes.folder import child_identity
from fastrunner.processes.link import ExitCode, Role, StartError
from fastrunner.processes.reserve import SUPERVISOR, Reserved, announcement, reserve, warn_of_lost_connections
from fastrunner.processes.slots import (
    HANDLED_SIGNALS,
    ChildMain,
    Slot,
    assert_forkable,
    fork_child,
    prepare,
    respawn_delay_s,
    run_replica_child,
    run_web_child,
    run_worker_child,
)
from fastrunner.processes.strangers import PortWatch

log = logging.getLogger(__name__)


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
        if config.replica_url is not None:
            self._slots.append(Slot(Role.REPLICA, 0))
        self._exit_code: ExitCode | None = None  # set when the tree is stopping
        self._rolling: list[Slot] = []
        self._successor: Slot | None = None
        """In a rolling restart: a child that has been forked and waits for its predecessor's end."""
        self._metrics = Metrics(segment=reserved.segments[SUPERVISOR])
        self._port_watch = PortWatch(config.grpc_host, config.grpc_port)
        self._port_watched_s = -math.inf
        self._strangers: list[str] = []
        self._announced = False
        self._interrupts = 0
        self._published: Any = None
        self._selector = selectors.DefaultSelector()
        self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Starts the children and keeps them until the tree is stopped; gives its exit code."""
        self._listen_to_signals()
        try:
            while self._exit_code is None or any(slot.pid for slot in self._everyone()):
                self._spawn_due()
                # A new web process serves once it has been told how the tree is.
                self._publish()
                for key, _ in self._selector.select(self._pause_s()):
                    key.data()
                self._reap()
                self._watch()
                self._roll()
        finally:
            self._kill_all()
            self._ignore_signals()
        return self._exit_code

    # --- signals ---

    def _listen_to_signals(self) -> None:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for signum in HANDLED_SIGNALS:
            signal.signal(signum, lambda _signum, _frame: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._read_signals)

    def _ignore_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for signum in HANDLED_SIGNALS:
            # Who asks once more while the last files are tidied away changes nothing: not the exit code, either.
            signal.signal(signum, signal.SIG_DFL if signum is signal.SIGCHLD else signal.SIG_IGN)
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
            # Somebody may have mended what they cannot start for.
            for slot in self._slots:
                slot.spawn_at_s = slot.replace_at_s = 0.0

    # --- children: start ---

    def _spawn_due(self) -> None:
        if self._exit_code is not None:
            return
        now = monotonic_s()
        for slot in self._slots:
            if not slot.pid and slot.spawn_at_s <= now:
                self._spawn(slot)
                if slot.pid and slot.follows_crash:
                    self._count_restart(slot)
                if slot.restarts:
                    self._tell_replacing()

    def _count_restart(self, slot: Slot) -> None:
        slot.restarts += 1
        if slot.role is Role.WORKER:
            self._metrics.worker_restarts.inc()

    def _everyone(self) -> list[Slot]:
        return self._slots if self._successor is None else [*self._slots, self._successor]

    def _spawn(self, slot: Slot, *, waiting: bool = False) -> None:
        main, close = self._mains[slot.role], lambda: self._close_inherited(slot.role)
        prepare(main)
        slot.enter("starting")
        try:
            fork_child(slot, main, self._config, self._reserved, close, waiting=waiting)
        except OSError as error:
            # The system has no room for another process; it may have some again.
            slot.last_words = f"the system refuses another process: {error.strerror}"
            self._bury(slot, ExitCode.BOOT)
            return
        assert slot.link is not None
        self._selector.register(slot.link, selectors.EVENT_READ, lambda: self._read_link(slot))

    def _close_inherited(self, role: Role) -> None:
        # Copies of the siblings' links would keep them open when the supervisor dies.
        for slot in self._everyone():
            if slot.link is not None:
                slot.link.close()
        self._selector.close()
        for end in self._wakeup:
            end.close()
        self._reserved.grpc.close()
        if role is not Role.WEB:
            self._reserved.http.close()

    # --- children: messages and death ---

    def _read_link(self, slot: Slot) -> None:
        while slot.link is not None and (message := slot.link.receive()) != {}:
            if message is None:
                self._drop_link(slot)
            elif message["kind"] == "pong":
                slot.answered = True
            elif message["kind"] == "ready" and slot.state == "starting":
                slot.enter("ready")
                slot.boots_failed, slot.failure = 0, ""
                # At the first start one line says that all of them are.
                level = logging.INFO if self._announced else logging.DEBUG
                log.log(level, "%s is ready (pid %d)", slot.name, slot.pid)
            elif message["kind"] == "trouble":
                slot.trouble = str(message["cause"])
            elif message["kind"] == "prepared" and slot is self._successor:
                self._hand_over_from(self._predecessor())
            elif message["kind"] == "failed":
                slot.last_words = str(message["message"])[: limits.FAILURE_SIZE_CHARS_MAX]

    def _drop_link(self, slot: Slot) -> None:
        assert slot.link is not None
        self._selector.unregister(slot.link)
        slot.link.close()
        slot.link = None

    def _reap(self) -> None:
        for slot in self._everyone():
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG | os.WUNTRACED)
                if pid and os.WIFSTOPPED(status):
                    slot.looks_left, slot.look_at_s = limits.STOPPED_LOOKS, 0.0
                elif pid:
                    self._read_link(slot)
                    if slot.link is not None:
                        self._drop_link(slot)
                    self._bury(slot, os.waitstatus_to_exitcode(status))

    def _bury(self, slot: Slot, code: int) -> None:
        was, pid, lasted_s = slot.state, slot.pid, monotonic_s() - slot.since_s
        cause = deaths.HUNG if slot.is_hung else _signal_name(-code) if code < 0 else ""
        why = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
        if code == ExitCode.BOOT and was == "starting":
            why = f"cannot start: {slot.last_words or why}"
        slot.pid, slot.spawn_at_s, slot.trouble, slot.is_hung, slot.death = 0, 0.0, "", False, None
        slot.follows_crash, slot.looks_left = False, 0
        slot.enter("absent")
        if slot is self._successor:
            self._bury_successor(why, pid)
            return
        self._reserved.segments[child_identity(slot.role, slot.index)].forget_gauges()
        if self._exit_code is None and self._successor is not None and slot is self._predecessor():
            log.info("%s ended (pid %d), its successor takes over (pid %d)", slot.name, pid, self._successor.pid)
            if was != "stopping":
                self._count_restart(slot)
            self._hand_over(slot)
            return
        if self._exit_code is not None or was == "stopping":
            log.info("%s ended (pid %d)", slot.name, pid)
            return
        if was == "starting":
            self._metrics.start_failures.labels(slot.role).inc()
            slot.boots_failed += 1
            is_needed = slot.role is not Role.REPLICA
            if not self._announced and is_needed and self._is_hopeless(slot, code, why):
                return
        slot.crashes_in_row = 1 if was == "ready" and lasted_s >= limits.RESPAWN_STABLE_S else slot.crashes_in_row + 1
        slot.follows_crash = True
        slot.death = deaths.Death(cause, monotonic_s()) if cause else None
        delay_s = respawn_delay_s(slot.crashes_in_row)
        if slot.role is Role.WEB and was == "ready":
            delay_s = min(delay_s, limits.RESPAWN_WEB_DELAY_S_MAX)
        slot.spawn_at_s = monotonic_s() + delay_s
        slot.failure = _failure(slot.name, why, slot.crashes_in_row, delay_s)
        log.error("%s %s (pid %d); starting another in %g s", slot.name, why, pid, delay_s)

    def _bury_successor(self, why: str, pid: int) -> None:
        """Its predecessor stays, and another is tried later."""
        slot, self._successor = self._predecessor(), None
        if self._exit_code is not None:
            return
        log.error("the successor of %s %s (pid %d)", slot.name, why, pid)
        self._metrics.start_failures.labels(slot.role).inc()
        if slot.state == "stopping":
            # It was prepared, and has died since: the predecessor ends, and another starts at once.
            return
        slot.successors_failed += 1
        delay_s = respawn_delay_s(slot.successors_failed + 1)
        slot.replace_at_s = monotonic_s() + delay_s
        slot.failure = _failure(f"the successor of {slot.name}", why, slot.successors_failed, delay_s)
        self._rolling.insert(0, slot)

    def _is_hopeless(self, slot: Slot, code: int, why: str) -> bool:
        """Ends a tree that was never ready, if waiting for this child would be waiting for ever."""
        if code == ExitCode.BOOT:
            self._fail(f"{slot.name} {why}")
        elif slot.boots_failed >= limits.BOOT_ATTEMPTS_MAX:
            self._fail(f"{slot.name} {why} {slot.boots_failed} times in a row before it was ready")
        return self._exit_code is not None

    def _predecessor(self) -> Slot:
        """Whose successor waits."""
        assert self._successor is not None
        name = self._successor.name
        return next(slot for slot in self._slots if slot.name == name)

    def _hand_over_from(self, slot: Slot) -> None:
        """Ends a child whose successor is waiting."""
        if slot.link is not None:
            slot.link.send("hand_over")
        self._terminate(slot)

    def _hand_over(self, slot: Slot) -> None:
        """The child that waits takes the place of one that has ended, however it did."""
        successor, self._successor = self._successor, None
        assert successor is not None
        assert successor.link is not None
        successor.restarts = slot.restarts
        successor.enter("starting")
        self._slots[self._slots.index(slot)] = successor
        if slot.role is Role.WORKER:
            self._tell_replacing()
        successor.link.send("go")

    def _tell_replacing(self) -> None:
        """Workers that have too much to do may have it only because one of them is being replaced."""
        for slot in self._everyone():
            if slot.role is Role.WORKER and slot.link is not None:
                slot.link.send("replacing")

    def _fail(self, message: str) -> None:
        sys.stderr.write(f"fastrunner: {message}\n")
        self._stop(ExitCode.BOOT)

    # --- children: watching, restarting, stopping ---

    def _watch(self) -> None:
        now = monotonic_s()
        if self._announced and now - self._port_watched_s >= limits.PORT_WATCH_INTERVAL_S:
            self._port_watched_s = now
            self._watch_port()
        for slot in self._everyone():
            if slot.looks_left and now >= slot.look_at_s:
                self._look_at_stopped(slot)
            if slot.state == "stopping" and now >= slot.kill_at_s:
                self._kill(slot, "did not end in time")
            elif slot.state == "starting" and slot.trouble:
                # It waits for the disk; once that is back it has its time.
                slot.since_s = now
            elif slot.state == "starting" and now - slot.since_s > limits.BOOT_S_MAX:
                self._kill_hung(slot, "did not become ready in time")
            elif slot.state == "ready" and slot.link is not None:
                if not slot.answered and now - slot.pinged_s > limits.PING_TIMEOUT_S:
                    self._kill_hung(slot, "does not answer")
                elif slot.answered and now - slot.pinged_s >= limits.PING_INTERVAL_S:
                    slot.pinged_s, slot.answered = now, False
                    slot.link.send("ping")
        if self._exit_code is not None and not any(slot.pid for slot in self._slots if slot.role is Role.WORKER):
            # The web process goes last: until then it tells that the tree is draining. Before it goes who sends the
            # workers' last commits.
            for slot in self._slots:
                if slot.role is Role.REPLICA or not any(each.pid for each in self._slots if each.role is Role.REPLICA):
                    self._terminate(slot)

    def _look_at_stopped(self, slot: Slot) -> None:
        """Kills a child that a signal has stopped, unless it goes on meanwhile."""
        if not slot.is_stopped:
            slot.looks_left = 0
            return
        slot.looks_left -= 1
        slot.look_at_s = monotonic_s() + limits.STOPPED_LOOK_INTERVAL_S
        if not slot.looks_left:
            self._kill_hung(slot, "was stopped by a signal, and clients are still given to it")

    def _watch_port(self) -> None:
        found = self._port_watch.strangers(slot.pid for slot in self._everyone() if slot.pid)
        for sentence in found:
            if sentence not in self._strangers:
                log.error("%s", sentence)
        self._strangers = found
        self._metrics.port_strangers.set(len(found))

    def _kill_hung(self, slot: Slot, reason: str) -> None:
        slot.is_hung = True
        self._kill(slot, reason)

    def _kill(self, slot: Slot, reason: str) -> None:
        log.error("%s %s: killing it (pid %d)", slot.name, reason, slot.pid)
        os.kill(slot.pid, signal.SIGKILL)
        slot.kill_at_s = slot.since_s = slot.pinged_s = monotonic_s() + limits.PING_TIMEOUT_S

    def _terminate(self, slot: Slot) -> None:
        if slot.pid and slot.state != "stopping":
            slot.enter("stopping")
            slot.kill_at_s = slot.since_s + self._config.drain_timeout_s + limits.DRAIN_MARGIN_S
            os.kill(slot.pid, signal.SIGTERM)

    def _stop(self, code: ExitCode) -> None:
        if self._exit_code is None:
            self._exit_code = code
        self._rolling.clear()
        if self._successor is not None:
            # It waits with nothing open: the default action of SIGTERM ends it.
            self._terminate(self._successor)
        for slot in self._slots:
            if slot.role is Role.WORKER:
                self._terminate(slot)

    def _kill_all(self) -> None:
        for slot in self._everyone():
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)

    def _roll(self) -> None:
        # Nobody waits for the copy elsewhere.
        all_ready = all(slot.state == "ready" for slot in self._slots if slot.role is not Role.REPLICA)
        if all_ready and self._rolling and self._successor is None and self._rolling[0].replace_at_s <= monotonic_s():
            slot = self._rolling.pop(0)
            if slot.state == "ready":
                self._replace(slot)
        elif all_ready and not self._announced:
            self._announced = True
            self._on_ready()

    def _replace(self, slot: Slot) -> None:
        """Has another take a child's place: it is forked, and proves itself, before the child is asked to go."""
        self._successor = Slot(slot.role, slot.index)
        if slot.role is Role.WORKER:
            self._tell_replacing()
        self._spawn(self._successor, waiting=True)

    # --- what others see ---

    def _publish(self) -> None:
        """Tells the web process how the tree is, when that has changed."""
        now = monotonic_s()
        self._metrics.backing_off.set(
            sum(self._exit_code is None and max(slot.spawn_at_s, slot.replace_at_s) > now for slot in self._slots)
        )
        web = next(slot for slot in self._slots if slot.role is Role.WEB)
        copying = [slot for slot in self._slots if slot.role is Role.REPLICA]
        self._metrics.replica_down.set(sum(slot.state != "ready" for slot in copying))
        state = {
            "draining": self._exit_code is not None,
            "workers": [
                {
                    "index": slot.index,
                    "pid": slot.pid,
                    "state": slot.state,
                    "restarts": slot.restarts,
                    "trouble": slot.trouble,
                }
                for slot in self._slots
                if slot.role is Role.WORKER
            ],
            "copy": [slot.trouble or slot.failure for slot in copying if slot.trouble or slot.failure],
            "failures": [slot.failure for slot in self._slots if slot.failure and slot.role is not Role.REPLICA],
            "strangers": self._strangers,
        }
        if web.link is not None and (web.pid, state) != self._published and web.link.send("state", state=state):
            self._published = (web.pid, state)

    def _pause_s(self) -> float:
        now = monotonic_s()
        due = [slot.spawn_at_s - now for slot in self._slots if not slot.pid and self._exit_code is None]
        due += [slot.kill_at_s - now for slot in self._slots if slot.state == "stopping"]
        due += [slot.look_at_s - now for slot in self._everyone() if slot.looks_left]
        due += [slot.replace_at_s - now for slot in self._rolling[:1] if slot.replace_at_s > now]
        return max(0.0, min([limits.PING_INTERVAL_S, *due]))


def _signal_name(number: int) -> str:
    """Most real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _failure(who: str, why: str, in_row: int, delay_s: float) -> str:
    """How a child ended, and what comes next, in words that stay true until then."""
    times = f", {in_row} times in a row" if in_row > 1 else ""
    return f"{who} {why}{times}; the next one starts {delay_s:g} s after that"


def run(config: Config, *, worker: ChildMain = run_worker_child, web: ChildMain = run_web_child) -> int:
    """Runs the whole tree until it is stopped; gives the exit code. Refusals to start are one line on stderr each."""
    assert_forkable()
    configure_logs(config.env, config.log_level, SUPERVISOR)
    # What a runner keeps is what its callers gave it: nobody else's to read.
    os.umask(0o077)
    forbid_dumps(config)
    try:
        config, reserved, held = reserve(config)
    except StartError as error:
        sys.stderr.write(f"fastrunner: {error}\n")
        return error.code
    with held:
        warn_of_lost_connections(config)
        for sentence in misspelt() + secrets_in_clear(config):
            log.warning("%s", sentence)
        # What is alive now stays shared with the children: their collectors never touch its pages.
        gc.freeze()
        mains = {Role.WORKER: worker, Role.WEB: web, Role.REPLICA: run_replica_child}
        return Supervisor(config, reserved, mains, announcement(config, reserved)).run()
