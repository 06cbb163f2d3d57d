"""Support: `fastrunner stigmer`: the reference Stigmer Service, and whether its store is whole."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from fastrunner.base.printable import printable
from fastrunner.cli.access import Access, access_options
from fastrunner.cli.flags import by_flag, settings_flags
from fastrunner.config import (
    ConfigurationError,
    Environment,
    StigmerSettings,
    load_stigmer,
    quiet_grpc,
    receiver_token,
    runner_target,
)

if TYPE_CHECKING:
    from fastrunner.stigmer.server import ServiceOptions
    from fastrunner.stigmer.store import Store

EXIT_FINDINGS = 1
EXIT_CONFIGURATION = 2
_where = settings_flags(StigmerSettings, ("data_dir", "mongodb_url", "retention_s"))


@click.group()
def stigmer() -> None:
    """The reference Stigmer Service: keeps workflows, has a runner execute them, keeps and shows their progress."""


@stigmer.command()
@click.option("--runner", default=None, metavar="HOST:PORT", help="The runner's gRPC port.  [FASTRUNNER_TARGET]")
@settings_flags(StigmerSettings, tuple(StigmerSettings.model_fields), switches=True)
@access_options
def serve(
    runner: str | None, tls: bool, token_file: Path | None, ca_file: Path | None, certificate_file: Path | None,
    key_file: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Serve: reports from runners by gRPC, the HTTP API below /api/v1.

    Settings come from the environment; each flag below overrides the variable in brackets. The runner is told of this
    service by STIGMER_SERVICE_ENDPOINT, and proves itself with STIGMER_SERVICE_API_KEY. --tls, --token-file, --ca-file,
    --certificate-file and --key-file are about the connection to the runner. Prints a line of JSON with the ports once
    it serves. SIGTERM and Ctrl-C drain and stop.
    """
    quiet_grpc()
    import uvloop

    from fastrunner.base.logs import configure_logs
    from fastrunner.stigmer.opening import CannotServe
    from fastrunner.stigmer.server import serve as serve_until_stopped

    access = Access(
        tls=tls, token_file=token_file, ca_file=ca_file, certificate_file=certificate_file, key_file=key_file
    )
    settings = _settings(flags)
    try:
        service = _options(settings, access, runner or runner_target())
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    configure_logs(Environment.PROD if settings.json_logs else Environment.LOCAL, settings.log_level, "stigmer")
    try:
        uvloop.run(serve_until_stopped(service))
    except CannotServe as error:
        click.echo(printable(f"fastrunner stigmer: {error}"), err=True)
        sys.exit(EXIT_CONFIGURATION)


def _settings(flags: dict[str, Any]) -> StigmerSettings:
    try:
        return load_stigmer(**flags)
    except ConfigurationError as error:
        lines = [by_flag(line, flags, StigmerSettings) for line in str(error).splitlines()]
        raise click.UsageError("\n".join(lines)) from None


def _options(settings: StigmerSettings, access: Access, target: str) -> "ServiceOptions":
    """Raises ConfigurationError."""
    from fastrunner.stigmer.server import ServiceOptions

    access.check(target)
    token = receiver_token(settings.report_token_file)
    apart = {"mongodb_url", "redis_url", "report_token_file", "log_level", "json_logs"}
    return ServiceOptions(
        mongodb_url=_text(settings.mongodb_url),
        redis_url=_text(settings.redis_url),
        runner=target,
        runner_metadata=access.metadata,
        runner_credentials=access.credentials if access.tls else None,
        report_token=token,
        **settings.model_dump(exclude=apart),
    )


def _text(url: SecretStr | None) -> str | None:
    return None if url is None else url.get_secret_value()


@stigmer.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: each finding, then the summary.")
def verify(as_json: bool, **flags: Any) -> None:
    """Check the whole store: nothing missing, one last event each, what is shown follows from the events.

    The service may run meanwhile. Exits with 1 if anything is wrong. In a database it first finishes what services have
    left half-done; what ends by that is kept for --retention-s from then on, as with them.
    """
    from fastrunner.errors import RunnerError
    from fastrunner.stigmer.opening import CannotServe
    from fastrunner.stigmer.store.sqlite import FILE_NAME

    settings = _settings(flags)
    if settings.mongodb_url is None and not (settings.data_dir / FILE_NAME).exists():
        raise click.UsageError(
            f"there is no {FILE_NAME} in {settings.data_dir}: give the service's folder with --data-dir, or its "
            "database with --mongodb-url"
        )
    try:
        findings = asyncio.run(_verify(lambda: _store(settings), as_json))
    except (CannotServe, RunnerError) as error:
        click.echo(printable(f"fastrunner stigmer: {error}"), err=True)
        sys.exit(EXIT_CONFIGURATION)
    sys.exit(EXIT_FINDINGS if findings else 0)


def _store(settings: StigmerSettings) -> "Store":
    """Raises CannotServe."""
    from fastrunner.stigmer.opening import store_of

    return store_of(settings.data_dir, _text(settings.mongodb_url), settings.retention_s)


async def _verify(make: "Callable[[], Store]", as_json: bool) -> int:
    from dataclasses import asdict

    import orjson

    from fastrunner.stigmer.store import SharedStore
    from fastrunner.stigmer.verify import Verified
    from fastrunner.stigmer.verify import verify as findings_of

    store = make()
    verified = Verified()
    try:
        await store.open()
        if isinstance(store, SharedStore):
            await store.settle_all()
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
