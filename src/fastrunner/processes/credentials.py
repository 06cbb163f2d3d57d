"""Support: the files of credentials that a child process needs, as it finds them when it starts, and looks at later.

They are read anew by every child, so that what one serves with is proved before it serves, and before its predecessor
is asked to go. Afterwards they are looked at every second; what has changed is taken up without a restart.
"""

import asyncio
from collections.abc import Callable, Iterable

from fastrunner.access.certificates import Certificates, open_certificates
from fastrunner.access.gate import Gate, open_gate
from fastrunner.base import limits
from fastrunner.base.checks import check_authorities
from fastrunner.config import Config
from fastrunner.processes.link import ExitCode, StartError

__all__ = ["Looks", "read_certificates", "read_gate"]


def read_certificates(config: Config) -> Certificates | None:
    """What to serve with; None without TLS. Raises StartError if a file, that of callbacks included, is unusable."""
    try:
        if config.callback_ca_file is not None:
            check_authorities("FASTRUNNER_CALLBACK_CA_FILE", config.callback_ca_file)
        return open_certificates(config)
    except ValueError as error:
        raise StartError(ExitCode.BOOT, str(error)) from None


def read_gate(config: Config) -> Gate | None:
    """Who is let in; None where callers are not told apart. Raises StartError if a file is unusable."""
    try:
        return open_gate(config)
    except ValueError as error:
        raise StartError(ExitCode.BOOT, str(error)) from None


class Looks:
    """Looks again and again whether files of credentials have changed; nothing to look at costs nothing."""

    def __init__(self) -> None:
        self._looks: tuple[Callable[[], object], ...] = ()
        self._next: asyncio.TimerHandle | None = None

    def begin(self, looks: Iterable[Callable[[], object]]) -> None:
        """Looks from now on, on the running loop."""
        self._looks = tuple(looks)
        self._again()

    def close(self) -> None:
        """Looks no more."""
        if self._next is not None:
            self._next.cancel()

    def _again(self) -> None:
        if self._looks:
            self._next = asyncio.get_running_loop().call_later(limits.CREDENTIALS_LOOK_INTERVAL_S, self._look)

    def _look(self) -> None:
        self._again()
        for look in self._looks:
            look()
