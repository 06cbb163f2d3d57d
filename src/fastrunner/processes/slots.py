"""Support: the children of the supervisor: what it knows of each, and how one is forked.

Rules as in `supervisor`: no grpc, no thread, no event loop. A child never returns into the supervisor's code.
"""

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.deaths import Death
from fastrunner.base.logs import configure_logs
from fastrunner.config import Config, quiet_grpc
from fastrunner.processes.folder import child_identity
from fastrunner.processes.link import ChildContext, ExitCode, Link, Role, StartError, die_with_parent
from fastrunner.processes.reserve import Reserved

HANDLED_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the supervisor handles and a child must not inherit."""

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
    """Children started because their predecessor crashed, or could not start."""
    follows_crash: bool = False
    """Whether the next child is, or the present one was, started for that reason."""
    successors_failed: int = 0
    """Successors in a row that ended before they could take over from this child."""
    replace_at_s: float = 0.0
    """When the next successor may be forked, on the monotonic clock."""
    looks_left: int = 0
    """How often a child that has been stopped by a signal is looked at before it is killed; 0 if it has not."""
    look_at_s: float = 0.0
    """When it is looked at next."""
    is_hung: bool = False
    """Whether the child is being killed because it does not answer."""
    death: Death | None = None
    """How its predecessor died, if nobody asked it to end."""
    trouble: str = ""
    """Why a child takes no new work, or waits with its start; empty if it does not."""
    last_words: str = ""
    """What the child said it cannot start for."""
    failure: str = ""
    """How the last child, or the last successor, ended that was not asked to; empty once another is ready."""

    @property
    def name(self) -> str:
        """As logs show it."""
        return f"worker {self.index}" if self.role is Role.WORKER else f"{self.role} process"

    @property
    def is_stopped(self) -> bool:
        """Whether a signal such as SIGSTOP has stopped the child, and it has not gone on since."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[:1] == ["T"]

    def enter(self, state: State) -> None:
        """Begins a state."""
        self.state, self.since_s = state, monotonic_s()
        self.pinged_s, self.answered = self.since_s, True


def run_worker_child(context: ChildContext) -> int:
    """A worker; grpc, if it needs it, is imported in the child only."""
    quiet_grpc()
    from fastrunner.processes.worker import run_worker

    return run_worker(context)


def run_replica_child(context: ChildContext) -> int:
    """Who sends what is committed to the copy elsewhere; imported in the child only."""
    from fastrunner.processes.replica import run_replica

    return run_replica(context)


def run_web_child(context: ChildContext) -> int:
    """The web process; begins an event loop, so in the child only."""
    from fastrunner.processes.web import run_web

    return run_web(context)


_MADE_OF: Final[Mapping[ChildMain, str]] = {
    run_worker_child: "fastrunner.processes.worker",
    run_web_child: "fastrunner.processes.web",
}
"""The modules of children that are many, or must be back at once."""


def assert_forkable() -> None:
    """That children forked from here are whole."""
    assert "grpc" not in sys.modules, "grpc in the supervisor would be forked into every worker"
    assert threading.active_count() == 1, "a thread in the supervisor would be missing in every child"


def prepare(main: ChildMain) -> None:
    """Loads here what a child is made of: forked with it, one serves a moment later, and all share its pages."""
    module = _MADE_OF.get(main)
    if module is None or module in sys.modules:
        return
    try:
        importlib.import_module(module)
    except Exception:
        # The child will fail likewise, and what becomes of a child that cannot start is ruled.
        log.debug("%s cannot be loaded", module, exc_info=True)
    assert_forkable()
    gc.freeze()


def respawn_delay_s(crashes_in_row: int) -> float:
    """How long to wait before the next child: nothing after the first crash, then doubling up to the bound."""
    if crashes_in_row <= 1:
        return 0.0
    return float(min(limits.RESPAWN_DELAY_S_MIN * 2.0 ** min(crashes_in_row - 2, 30), limits.RESPAWN_DELAY_S_MAX))


def fork_child(
    slot: Slot,
    main: ChildMain,
    config: Config,
    reserved: Reserved,
    close_inherited: Callable[[], None],
    *,
    waiting: bool = False,
) -> None:
    """Starts a slot's child; `close_inherited` closes in the child what is the supervisor's alone.

    A waiting child prepares itself, says so, and begins when it is told to `go`. Raises OSError if the system has no
    room for another process or its link.
    """
    ours, theirs = Link.pair()
    for stream in (sys.stdout, sys.stderr):
        # A runner may have been started without them.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    # A signal between the fork and the child's own handlers would reach the supervisor's wake-up socket.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    parent_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        code: int = ExitCode.CRASH
        try:
            _forget_parent(parent_pid)
            ours.close()
            close_inherited()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = _live(slot, main, config, reserved, theirs, waiting)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    slot.pid, slot.link, slot.last_words = pid, ours, ""
    slot.enter("starting")


def _forget_parent(parent_pid: int) -> None:
    """Gives up the supervisor's signal handling, but not its death."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Ctrl-C and a hang-up reach the whole process group; the supervisor decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    die_with_parent(parent_pid)


def _live(slot: Slot, main: ChildMain, config: Config, reserved: Reserved, link: Link, waiting: bool) -> int:
    """A child's life; gives its exit code and never raises."""
    configure_logs(config.env, config.log_level, child_identity(slot.role, slot.index))
    context = ChildContext(
        config=config,
        role=slot.role,
        index=slot.index,
        shared=reserved.shared,
        folder=reserved.folder,
        link=link,
        http=reserved.http if slot.role is Role.WEB else None,
        segment=reserved.segments[child_identity(slot.role, slot.index)],
        segments=tuple(reserved.segments.values()),
        follows_crash=slot.follows_crash,
        death=slot.death,
        waits=waiting,
    )
    try:
        # Before the child imports what is there now.
        reserved.package.refuse_other()
        return main(context)
    except StartError as error:
        link.send("failed", message=str(error))
        return ExitCode.BOOT
    except BaseException as error:
        log.exception("%s ended by an exception", slot.name)
        if "ready" in link.sent:
            return ExitCode.CRASH
        link.send("failed", message=f"{type(error).__name__}: {error}")
        return ExitCode.BOOT
    finally:
        logging.shutdown()
