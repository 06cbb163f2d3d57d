"""Support: the commands that serve: `serve` (the runner) and `receiver` (the reference Stigmer Service).

Every field of `config.Config` but the secret ones is a flag of `serve`; flags win over the environment.
"""

import sys
from pathlib import Path
from typing import Any

import click

from fastrunner.base.printable import printable
from fastrunner.cli.arguments import Number
from fastrunner.cli.flags import by_flag, settings_flags
from fastrunner.config import Config, ConfigurationError, flag_fields, load_config, receiver_token

EXIT_CONFIGURATION = 2
_pem = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@settings_flags(Config, flag_fields())
def serve(**flags: str | None) -> None:
    """Start the runner: a supervisor, its workers and the web process.

    Settings come from the environment; each flag below overrides the variable in brackets. SIGTERM and Ctrl-C drain and
    stop; SIGHUP restarts the workers one by one.
    """
    try:
        config = load_config(**flags)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            click.echo(printable(f"fastrunner: {by_flag(line, flags, Config)}"), err=True)
        sys.exit(EXIT_CONFIGURATION)
    from fastrunner.processes.supervisor import run

    sys.exit(run(config))


@click.command()
@click.option("--port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option(
    "--token-file",
    default=None,
    type=_pem,
    help="File of the bearer token that callers must send; neither this nor FASTRUNNER_RECEIVER_TOKEN: no check.",
)
@click.option(
    "--store",
    default=None,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep what arrives in this file; read again at the next start.",
)
@click.option("--no-batch", is_flag=True, help="Answer ReportProgressBatch with UNIMPLEMENTED.")
@click.option("--fail-rate", default=0.0, type=Number(0, 1), help="Share of calls to refuse on purpose.")
@click.option("--delay-ms", default=0, type=click.IntRange(0), help="Wait before each answer, in milliseconds.")
@click.option("--tls-certificate", default=None, type=_pem, help="PEM file; with --tls-key turns TLS on.")
@click.option("--tls-key", default=None, type=_pem, help="PEM file of the certificate's private key.")
@click.option("--tls-client-ca", default=None, type=_pem, help="PEM file; callers must show certificates of these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: where it listens, each event, the summary.")
@click.option("--quiet", is_flag=True, help="Print no events, only the summary.")
def receiver(token_file: Path | None, **options: Any) -> None:
    """Receive progress as Stigmer Service would, and check it.

    Checks the bearer token (from --token-file or FASTRUNNER_RECEIVER_TOKEN, because others see flags), contiguous
    sequence numbers, identical duplicates and exactly one terminal event per execution. Prints a summary at the end;
    exits with 1 if anything was wrong.
    """
    from fastrunner.stigmer.receiver import ReceiverOptions, run_receiver

    try:
        token = receiver_token(token_file)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(run_receiver(ReceiverOptions(token=token, **options)))
