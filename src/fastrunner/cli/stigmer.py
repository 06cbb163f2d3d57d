"""Support: `fastrunner stigmer`: the reference Stigmer Service, and whether its store is whole."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from fastrunner.base.printable import printable
from fastrunner.cli.access import Access, access_options
from fastrunner.config import (
    ConfigurationError,
    Environment,
    LogLevel,
    quiet_grpc,
    receiver_token,
    runner_target,
    stigmer_folder,
)

EXIT_FINDINGS = 1
EXIT_CONFIGURATION = 2
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_data_dir = click.option(
    "--data-dir",
    default=None,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the store; default: $XDG_STATE_HOME/fastrunner-stigmer.",
)


@click.group()
def stigmer() -> None:
    """The reference Stigmer Service: keeps workflows, has a runner execute them, keeps and shows their progress."""


@stigmer.command()
@_data_dir
@click.option("--runner", default=None, metavar="HOST:PORT", help="The runner's gRPC port.  [FASTRUNNER_TARGET]")
@click.option("--grpc-host", default="127.0.0.1", show_default=True, help="Address that reports are taken at.")
@click.option("--grpc-port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--http-host", default="127.0.0.1", show_default=True, help="Address of the HTTP API.")
@click.option("--http-port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--report-token-file",
    default=None,
    type=_file,
    help="File of the bearer token that reports must have; neither this nor FASTRUNNER_RECEIVER_TOKEN: no check.",
)
@click.option("--callers-file", default=None, type=_file, help="File of the HTTP API's callers; none: no check.")
@click.option(
    "--audit-file",
    default=None,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a line of JSON for each request that changes something.",
)
@click.option("--tls-certificate", default=None, type=_file, help="PEM file; with --tls-key turns TLS on.")
@click.option("--tls-key", default=None, type=_file, help="PEM file of the certificate's private key.")
@click.option(
    "--tls-client-ca", default=None, type=_file, help="PEM file; who reports must show certificates of these."
)
@click.option("--http-tls", is_flag=True, help="The HTTP API speaks TLS, too, with that certificate.")
@click.option("--allow-host", "allow_hosts", multiple=True, help="Further name the HTTP API is called by; repeatable.")
@click.option("--allow-origin", "allow_origins", multiple=True, help="Origin whose pages may call it; repeatable.")
@click.option(
    "--retention-s",
    default=30 * 24 * 3600.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="How long an execution is kept after its end.",
)
@click.option("--drain-timeout-s", default=10.0, show_default=True, type=click.FloatRange(0), help="When it stops.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice([level.value for level in LogLevel]),
    help="Least severity.",
)
@click.option("--json-logs", is_flag=True, help="Logs as JSON lines.")
@access_options
def serve(
    data_dir: Path | None, runner: str | None, report_token_file: Path | None, log_level: str, json_logs: bool,
    tls: bool, token_file: Path | None, ca_file: Path | None, certificate_file: Path | None, key_file: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Serve: reports from runners by gRPC, the HTTP API below /api/v1.

    The runner is told of this service by STIGMER_SERVICE_ENDPOINT, and proves itself with STIGMER_SERVICE_API_KEY.
    --tls, --token-file, --ca-file, --certificate-file and --key-file are about the connection to the runner. Prints a
    line of JSON with the ports once it serves. SIGTERM and Ctrl-C drain and stop.
    """
    quiet_grpc()
    import uvloop

    from fastrunner.base.logs import configure_logs
    from fastrunner.stigmer.server import CannotServe, ServiceOptions
    from fastrunner.stigmer.server import serve as serve_until_stopped

    access = Access(
        tls=tls, token_file=token_file, ca_file=ca_file, certificate_file=certificate_file, key_file=key_file
    )
    try:
        target = runner or runner_target()
        access.check(target)
        service = ServiceOptions(
            data_dir=data_dir or stigmer_folder(),
            runner=target,
            runner_metadata=access.metadata,
            runner_credentials=access.credentials if tls else None,
            report_token=receiver_token(report_token_file),
            **options,
        )
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    configure_logs(Environment.PROD if json_logs else Environment.LOCAL, LogLevel(log_level), "stigmer")
    try:
        uvloop.run(serve_until_stopped(service))
    except CannotServe as error:
        click.echo(printable(f"fastrunner stigmer: {error}"), err=True)
        sys.exit(EXIT_CONFIGURATION)


@stigmer.command()
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: each finding, then the summary.")
def verify(data_dir: Path | None, as_json: bool) -> None:
    """Check the whole store: nothing missing, one last event each, what is shown follows from the events.

    The service may run meanwhile. Exits with 1 if anything is wrong.
    """
    from fastrunner.errors import RunnerError
    from fastrunner.stigmer.store.sqlite import FILE_NAME

    folder = data_dir or stigmer_folder()
    if not (folder / FILE_NAME).exists():
        raise click.UsageError(f"there is no {FILE_NAME} in {folder}: give the service's folder with --data-dir")
    try:
        findings = asyncio.run(_verify(folder, as_json))
    except RunnerError as error:
        click.echo(printable(f"fastrunner stigmer: {error.message}"), err=True)
        sys.exit(EXIT_CONFIGURATION)
    sys.exit(EXIT_FINDINGS if findings else 0)


async def _verify(folder: Path, as_json: bool) -> int:
    from dataclasses import asdict

    import orjson

    from fastrunner.stigmer.store.sqlite import SqliteStore
    from fastrunner.stigmer.verify import Verified
    from fastrunner.stigmer.verify import verify as findings_of

    store = SqliteStore(folder, retention_s=1.0)
    verified = Verified()
    try:
        async for finding in findings_of(store, verified):
            if as_json:
                click.echo(orjson.dumps({"finding": asdict(finding)}).decode())
            else:
                click.echo(printable(f"{finding.about}: {finding.kind}: {finding.message}"))
    finally:
        await store.close()
    if as_json:
        click.echo(orjson.dumps({"summary": asdict(verified)}).decode())
    else:
        click.echo(
            f"{verified.executions} executions ({verified.unfinished} not ended), {verified.events} events: "
            f"{verified.findings} findings"
        )
    return verified.findings
