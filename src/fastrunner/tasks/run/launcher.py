"""Stage 5, tasks: the program between a worker and what it runs; it is executed, never imported by the runner.

    worker -> launcher -> init (process 1 of a namespace) -> the program

Theory of operation: the launcher joins the control groups, makes the namespaces, and starts an init, with which the
kernel ends everything that was started in them, whatever it did to hide. The launcher dies with the worker's thread,
and the init with the launcher. Without a namespace the launcher itself adopts and kills what the program leaves
behind.

Rules: no module beyond what starts in milliseconds; what to do comes through a descriptor, because command lines are
seen by everybody on the machine. SIGTERM is passed on to the program's group; SIGUSR1 kills everything at once. That
the program runs, and how it went, are messages through the status pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import resource
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Order = dict[str, Any]

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES_MAX = 64
NAMESPACES = {
    "mount": 0x00020000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
MS_REC_PRIVATE = 0x4000 | 0x40000
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x1 | 0x40

libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A step that did not succeed."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step)
        self.step, self.number = step, number


def check(step: str, result: int) -> None:
    """Raises Failed for the result of a call of the C library."""
    if result != 0:
        raise Failed(step, ctypes.get_errno())


def prctl(option: int, value: int) -> int:
    """Sets an attribute of this process; what an older kernel does not have is left out."""
    return int(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def write(path: str, text: str) -> None:
    """Writes into one of the kernel's files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


# --- namespaces ---


def enter(order: Order) -> None:
    """Makes the namespaces that the order names."""
    user, group = os.geteuid(), os.getegid()
    check("namespace", libc.unshare(sum(NAMESPACES[name] for name in order["namespaces"])))
    if "user" in order["namespaces"]:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{user} {user} 1")
        write("/proc/self/gid_map", f"{group} {group} 1")


def furnish(order: Order) -> None:
    """What a new namespace has to have: the processes under /proc, and a loopback interface."""
    if "mount" in order["namespaces"]:
        check("mount", libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None))
        check("proc", libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV_NOEXEC, None))
    if "network" in order["namespaces"]:
        number = libc.socket(2, 2, 0)
        if number >= 0:
            interface = b"lo".ljust(16, b"\0") + IFF_UP_RUNNING.to_bytes(2, sys.byteorder) + bytes(22)
            libc.ioctl(number, SIOCSIFFLAGS, ctypes.create_string_buffer(interface))
            os.close(number)


# --- the program ---


def become(order: Order, status: int, failing: int) -> NoReturn:
    """Turns into the program, which closes `failing`; writes to that, tells and ends if it cannot."""
    step = "start"
    try:
        os.setsid()
        for name, bound in order["limits"]:
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.setrlimit(kind, (bound, bound))
        if order["is_confined"]:
            for number in range(CAPABILITIES_MAX):
                prctl(PR_CAPBSET_DROP, number)
            prctl(PR_SET_NO_NEW_PRIVS, 1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o077)
        os.chdir(order["folder"])
        step = "exec"
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606
    except OSError as error:
        tell(status, {"failed": step, "errno": error.errno})
    except Exception:
        tell(status, {"failed": step, "errno": 0})
    os.write(failing, b"1")
    os._exit(127)


def tell(status: int, message: dict[str, Any]) -> None:
    """A message of this run."""
    os.write(status, marshal.dumps(message))


def let_go_of_streams() -> None:
    """The program's streams end when the program lets go of them, and nobody else has them."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def send(how: Callable[[int, int], None], pid: int, number: int) -> None:
    """A signal for whom it may not find any more."""
    with contextlib.suppress(OSError):
        how(pid, number)


class Program:
    """The program, for whoever reaps it."""

    def __init__(self, order: Order, status: int, is_init: bool) -> None:
        self.status = status
        self.parent, self.on_death, self.environment = order["parent"], order["on_death"], order["environment"]
        self.is_init, self.is_whole = is_init, order["is_whole"]
        self.pid = 0
        # What comes before the program is there is kept back for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
        signal.signal(signal.SIGTERM, self.pass_on)
        signal.signal(signal.SIGUSR1, self.kill)
        failed, failing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            become(order, status, failing)
        os.close(failing)
        let_go_of_streams()
        # The kernel closes the other end when the program has taken over.
        if not os.read(failed, 1):
            tell(status, {"started": True})
        os.close(failed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1))

    def pass_on(self, *_: object) -> None:
        """Asks the program's group to end."""
        send(os.killpg, self.pid, signal.SIGTERM)

    def kill(self, *_: object) -> None:
        """Ends at once: the worker wants it, or is gone."""
        if not self.is_init:
            if self.is_whole:
                kill_descendants()
            else:
                send(os.killpg, self.pid, signal.SIGKILL)
            if self.on_death and os.getppid() != self.parent:
                program, *_ = self.on_death
                os.spawnve(os.P_WAIT, program, self.on_death, self.environment)  # noqa: S606
        os._exit(0)

    def reap(self) -> None:
        """Waits for the program and for what it leaves behind; tells how it ended."""
        while True:
            pid, result = os.wait()
            if pid == self.pid:
                break
        code = os.waitstatus_to_exitcode(result)
        # One that could not become the program has told already.
        tell(self.status, {"code": code})
        if self.is_whole and not self.is_init:
            kill_descendants()


def kill_descendants() -> None:
    """Kills what this process has started or adopted, and what that leaves behind, until nothing is left."""
    me = os.getpid()
    while True:
        try:
            with open(f"/proc/{me}/task/{me}/children") as file:
                children = [int(each) for each in file.read().split()]
        except OSError:
            children = []
        for child in children:
            send(os.kill, child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0 if children else os.WNOHANG)
        except ChildProcessError:
            return
        if not children:
            return


def run_as_init(order: Order, status: int, alive: int) -> None:
    """Process 1 of the namespace."""
    check("death", prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)
    os.close(alive)
    furnish(order)
    Program(order, status, True).reap()
    os._exit(0)


def run_with_namespace(order: Order, status: int) -> None:
    """Starts an init and waits for it."""
    alive, mine = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
    init = os.fork()
    if init == 0:
        os.close(mine)
        guarded(lambda: run_as_init(order, status, alive), status)
    os.close(status)
    let_go_of_streams()
    signal.signal(signal.SIGTERM, lambda *_: send(os.kill, init, signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: send(os.kill, init, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR1))
    os.waitpid(init, 0)


def run_without(order: Order, status: int) -> None:
    """Adopts what the program leaves behind, if that is to end with it."""
    if order["is_whole"]:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    Program(order, status, False).reap()


def die_with_parent(order: Order, is_killed: bool) -> None:
    """Has the kernel tell when the worker dies, which it may have done already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL if is_killed else signal.SIGUSR1)
    if os.getppid() != order["parent"]:
        os._exit(1)


def guarded(work: Callable[[], None], status: int) -> NoReturn:
    """Ends this process with the work, and tells what failed."""
    try:
        work()
    except Failed as failed:
        tell(status, {"failed": failed.step, "errno": failed.number})
    except OSError as error:
        tell(status, {"failed": "launch", "errno": error.errno})
    os._exit(0)


def main() -> None:
    """Usage: launcher.py ORDER STATUS, two descriptors."""
    order_number, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(status, False)
    with open(order_number, "rb") as file:
        order = marshal.loads(file.read())  # noqa: S302 - the worker wrote it
    has_namespace = "pid" in order["namespaces"]
    die_with_parent(order, has_namespace)

    def work() -> None:
        for folder in order["cgroups"]:
            write(folder + "/cgroup.procs", "0")
        if order["namespaces"]:
            enter(order)
            # New credentials forget it.
            die_with_parent(order, has_namespace)
        if has_namespace:
            run_with_namespace(order, status)
        else:
            furnish(order)
            run_without(order, status)

    guarded(work, status)


if __name__ == "__main__":
    main()
