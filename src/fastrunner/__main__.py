"""Support: where the `fastrunner` command begins: what signals do before its modules are loaded.

Rule: nothing but the standard library is imported before that is settled, because loading takes most of a second.
"""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command that `sys.argv` has."""
    arguments = sys.argv[1:]
    is_runner = arguments[:1] == ["serve"]
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_runner:
        # Who asks for another start of what has not started yet has it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if interrupts:
        # An exception amid an import would be shown with all that was importing.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fastrunner.cli import main as command

    if interrupts and not (is_runner or arguments[:2] == ["stigmer", "serve"]):
        # What serves has much more to load, and handles signals itself once it has something to give up.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command(prog_name="fastrunner")


if __name__ == "__main__":
    main()
