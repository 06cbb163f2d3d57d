"""Support: `fastrunner temporal`: what goes with executions that Temporal keeps."""

import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from fastrunner.base.printable import printable
from fastrunner.cli.leaving import leave
from fastrunner.config import ConfigurationError, load_config, quiet_grpc

if TYPE_CHECKING:
    from fastrunner.config import Config

EXIT_CONFIGURATION = 2
EXIT_UNREACHABLE = 3


@click.group()
def temporal() -> None:
    """What goes with executions that Temporal keeps. Settings are those of the replicas, from the environment."""


@temporal.command("codec-server")
@click.option(
    "--ui-origin",
    "ui_origins",
    multiple=True,
    required=True,
    metavar="ORIGIN",
    help="Origin of Temporal's UI, such as http://localhost:8233; repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", default=8234, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--allow-host", "allow_hosts", multiple=True, help="Further name it is called by; repeatable.")
def codec_server(ui_origins: tuple[str, ...], host: str, port: int, allow_hosts: tuple[str, ...]) -> None:
    """Show Temporal's UI what is sealed, or lies in the blob store.

    Answers POST /decode and /encode, to pages of the UI's origin alone. Who may ask is who may call a runner with this
    environment: roles read (decode) and submit (encode), of all namespaces; with FASTRUNNER_HTTP_TLS it speaks TLS.
    Prints a line of JSON with the port once it serves. SIGTERM and Ctrl-C stop it.

    \b
    fastrunner temporal codec-server --ui-origin http://localhost:8233
    temporal workflow show -w order-1 --codec-endpoint http://localhost:8234
    """
    config = _config()
    quiet_grpc()
    from fastrunner.base.logs import configure_logs
    from fastrunner.processes.codec_server import CodecOptions, serve_codec

    configure_logs(config.env, config.log_level, "codec-server")
    try:
        asyncio.run(serve_codec(config, CodecOptions(ui_origins, host, port, allow_hosts)))
    except ConfigurationError as error:
        _refuse(error)


@temporal.command()
@click.option("--delete", is_flag=True, help="Delete them; else they are only counted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sweep(delete: bool, as_json: bool) -> None:
    """Count, or delete, blobs of executions that Temporal has forgotten.

    A blob goes when it is older than two days, and Temporal has neither its execution nor a child of it. Blobs of
    executions that are open, or within the namespace's retention, stay. The blob store must belong to this Temporal
    namespace alone. Exits with 3 if Temporal or the store cannot be used; what was deleted until then was unwanted.
    """
    config = _config()
    if config.blob_url is None:
        _refuse(ConfigurationError("FASTRUNNER_BLOB_URL is not set: there is no blob store to look through"))
    from temporalio.service import RPCError

    from fastrunner.errors import RunnerError

    try:
        unwanted_count, kept_count = asyncio.run(_sweep(config, delete))
    except (RPCError, RunnerError, RuntimeError) as error:
        click.echo(printable(f"fastrunner temporal: {error}"), err=True)
        leave(EXIT_UNREACHABLE)
    if as_json:
        import orjson

        click.echo(orjson.dumps({"deleted" if delete else "unwanted": unwanted_count, "kept": kept_count}).decode())
    else:
        click.echo(f"{unwanted_count} blobs {'deleted' if delete else 'unwanted'}, {kept_count} kept")
    leave(0)


async def _sweep(config: "Config", delete: bool) -> tuple[int, int]:
    from temporalio.converter import DataConverter

    from fastrunner.base.clock import wall_ms
    from fastrunner.blobs import open_store
    from fastrunner.engine.temporal.client import Connection
    from fastrunner.engine.temporal.sweeping import Sweep

    assert config.blob_url is not None
    connection = Connection(config, DataConverter.default)
    await connection.connect()
    blobs = open_store(config.blob_url)
    sweep, count = Sweep(connection.client, blobs, wall_ms()), 0
    async for name in sweep.unwanted():
        count += 1
        if delete:
            await blobs.delete(name)
    return count, sweep.kept_count


def _config() -> "Config":
    try:
        config = load_config()
        if config.temporal_service_address is None:
            raise ConfigurationError("TEMPORAL_SERVICE_ADDRESS is not set: give this command the replicas' environment")
        return config
    except ConfigurationError as error:
        _refuse(error)


def _refuse(error: ConfigurationError) -> NoReturn:
    for line in str(error).splitlines():
        click.echo(printable(f"fastrunner: {line}"), err=True)
    sys.exit(EXIT_CONFIGURATION)
