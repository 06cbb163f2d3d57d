"""Support: the files of credentials that a child process needs, as it finds them when it starts, and looks at later.

They are read anew by every child, so that what one serves with is proved before it serves, and before its predecessor
is asked to go. Afterwards they are looked at every second; what has changed is taken up without a restart.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastrunner.access.audit import AuditLog
from fastrunner.access.certificates import Certificates, open_certificates
from fastrunner.access.gate import Gate, open_gate
from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.processes.link import ExitCode, StartError

__all__ = ["Credentials", "Looks", "web_credentials", "worker_credentials"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a process has for telling callers who it is, and them apart."""

    certificates: Certificates | None
    """What it serves with; None without TLS."""
    gate: Gate | None
    """Who is let in; None where callers are not told apart."""
    audit: AuditLog | None = None
    """Where it is told who did what."""

    @property
    def looks(self) -> list[Callable[[], object]]:
        """What takes up files that have changed."""
        return [each.look for each in (self.certificates, self.gate, self.audit) if each is not None]

    async def close(self) -> None:
        """Releases what they hold."""
        if self.gate is not None:
            await self.gate.close()
        if self.audit is not None:
            self.audit.close()


def worker_credentials(config: Config) -> Credentials:
    """Those of a worker. Raises StartError if a file, those of callbacks included, is unusable."""
    try:
        config.check_callback_files()
        audit = AuditLog(config.audit_file) if config.audit_file is not None else None
        return Credentials(open_certificates(config), open_gate(config), audit)
    except ValueError as error:
        raise StartError(ExitCode.BOOT, str(error)) from None


def web_credentials(config: Config) -> Credentials:
    """Those of the web process. Raises StartError if a file is unusable."""
    try:
        audit = AuditLog(config.audit_file) if config.audit_file is not None else None
        return Credentials(open_certificates(config) if config.http_tls else None, open_gate(config), audit)
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
