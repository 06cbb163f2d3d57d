"""Support: `fastrunner doctor`: what a runner would meet here, in one table with remedies."""

import asyncio
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fastrunner.base.printable import printable
from fastrunner.cli.leaving import leave

if TYPE_CHECKING:
    from fastrunner.processes.examination import Finding

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
def doctor(as_json: bool) -> None:
    """Look whether a runner can work here, with the environment's configuration: data directory, disk, open files,
    certificates, clock, ports, receiver, Temporal.

    Changes nothing, and may be run beside a running runner. Exits with 0 if nothing is bad, 1 if something is, 2 if the
    configuration cannot be used, which is told as `fastrunner serve` tells it.
    """
    from fastrunner.config import ConfigurationError, load_config

    try:
        config = load_config()
    except ConfigurationError as error:
        click.echo(printable(f"fastrunner: {error}"), err=True)
        sys.exit(2)
    asyncio.run(_told(config, as_json))


async def _told(config: Any, as_json: bool) -> NoReturn:
    """Shows each finding when it is there, and ends the process: the loop's end would wait for the thread of a volume
    that hangs."""
    from fastrunner.base.redaction import redact
    from fastrunner.processes.examination import examine

    is_bad = False
    async for finding in examine(config):
        is_bad = is_bad or finding.state == "bad"
        click.echo(redact(_json(finding)) if as_json else printable(redact(_row(finding))))
        if finding.remedy and not as_json:
            click.echo(printable(f"{'':27}{finding.remedy}"))
    leave(1 if is_bad else 0)


def _row(finding: "Finding") -> str:
    return f"{finding.state:9} {finding.what:16} {finding.text}"


def _json(finding: "Finding") -> str:
    import orjson

    from fastrunner.base.printable import escaped_json

    return escaped_json(orjson.dumps(finding).decode())
