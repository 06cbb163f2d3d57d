"""Support: what commands show to a runner, and what they trust: a token, a certificate, an authority.

Rules: a token comes from a file or the environment, never from a flag, which others see; it goes over TLS, or to this
machine.
"""

import shlex
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrunner.base.checks import is_loopback
from fastrunner.config import ConfigurationError, load_client

if TYPE_CHECKING:
    import grpc

__all__ = ["ACCESS_FLAGS", "Access", "access_options"]

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
ACCESS_FLAGS = ("tls", "token_file", "ca_file", "certificate_file", "key_file")
"""What `access_options` adds to a command's parameters."""


def access_options(command: Any) -> Any:
    """Adds the flags of `ACCESS_FLAGS`."""
    for option in (
        click.option("--key-file", default=None, type=_file, help="PEM file of its key.  [FASTRUNNER_KEY_FILE]"),
        click.option(
            "--certificate-file",
            default=None,
            type=_file,
            help="PEM file of a certificate to show, with TLS.  [FASTRUNNER_CERTIFICATE_FILE]",
        ),
        click.option(
            "--ca-file",
            default=None,
            type=_file,
            help="PEM file of the authorities to trust, with TLS.  [FASTRUNNER_CA_FILE]",
        ),
        click.option(
            "--token-file",
            default=None,
            type=_file,
            help="File of the token to send.  [FASTRUNNER_TOKEN_FILE, or the token itself in FASTRUNNER_TOKEN]",
        ),
        click.option("--tls", is_flag=True, help="Connect with TLS."),
    ):
        command = option(command)
    return command


class Access:
    """How a command proves itself, and to whom."""

    def __init__(self, *, tls: bool = False, **files: Path | None) -> None:
        """Leaves with a sentence if that is of no use."""
        try:
            settings = load_client(**files)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        self.tls = tls
        """Whether to connect with TLS."""
        self._ca, self._certificate, self._key = settings.ca_file, settings.certificate_file, settings.key_file
        self._token = settings.token.get_secret_value() if settings.token is not None else ""
        given = [(f"--{name.replace('_', '-')}", file) for name, file in files.items() if file is not None]
        self.flags = (" --tls" if tls else "") + "".join(f" {flag} {shlex.quote(str(file))}" for flag, file in given)
        """The same, to be typed again."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to send with a call."""
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def check(self, target: str) -> None:
        """Leaves with a sentence if the token would go to host:port for others to read."""
        host = target.rpartition(":")[0]
        if self._token and not self.tls and not is_loopback(host):
            raise click.UsageError(f"the token would go to {host} for others to read: connect with --tls")

    def credentials(self) -> "grpc.ChannelCredentials":
        """For a channel with TLS."""
        import grpc

        authorities, certificate, key = (
            None if file is None else file.read_bytes() for file in (self._ca, self._certificate, self._key)
        )
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def context(self) -> ssl.SSLContext:
        """For HTTPS. Raises OSError if a file is of no use."""
        context = ssl.create_default_context(cafile=self._ca)
        if self._certificate is not None:
            context.load_cert_chain(self._certificate, self._key)
        return context
