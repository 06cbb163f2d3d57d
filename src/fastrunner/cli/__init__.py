"""Support: the `fastrunner` command.

Rules: importing this package imports neither grpc nor the core, so that `serve` forks from a clean process; results go
to stdout, everything else to stderr; `--json` where a script would read it. Exit codes: 0 as asked, 1 the answer is bad
news (invalid document, failed execution), 2 wrong usage or configuration, 3 and up as each command says; 130 after
Ctrl-C, 141 when nobody reads stdout any more.
"""

import errno
import os
import sys
from typing import Any

import click

from fastrunner._version import __version__
from fastrunner.cli.arguments import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED
from fastrunner.cli.backup import backup, restore
from fastrunner.cli.bench import bench
from fastrunner.cli.data import data
from fastrunner.cli.dev import dev
from fastrunner.cli.doctor import doctor
from fastrunner.cli.graph import graph
from fastrunner.cli.local import run, validate
from fastrunner.cli.protos import protos
from fastrunner.cli.remote import cancel, delete, events, get, list_executions, pause, resume, submit
from fastrunner.cli.schedules import schedule
from fastrunner.cli.send_event import send_event
from fastrunner.cli.serve import receiver, serve
from fastrunner.cli.status import status
from fastrunner.cli.stigmer import stigmer
from fastrunner.cli.temporal import temporal
from fastrunner.cli.test import test
from fastrunner.cli.token import token
from fastrunner.cli.watch import watch
from fastrunner.cli.workflows import workflow

__all__ = ["main"]


class _Commands(click.Group):
    """How commands end that are cut short: to click that is 1, which is bad news here, such as damage found."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("fastrunner: interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever reads has enough, as in `fastrunner data export | head`. Nothing is left to flush at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_BROKEN_PIPE)
        except click.FileError as error:
            # To click it is 1.
            raise click.UsageError(error.format_message()) from None
        except UnicodeEncodeError as error:
            if not any(str(error.object) in argument for argument in sys.argv):
                raise
            raise click.UsageError(f"{error.object!r} is not UTF-8 text") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # Of stdout, too, as in `fastrunner data check > FILE`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"fastrunner: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastrunner")
def main() -> None:
    """Run Open Workflow (Serverless Workflow) DSL 1.x documents: durably, fast, behind gRPC.

    \b
    fastrunner serve                          start the runner
    fastrunner run order.yaml --input @o.json execute one document here, without a server
    fastrunner dev order.yaml                 the same again whenever the file is saved
    fastrunner graph order.yaml               draw it, as Mermaid or SVG
    fastrunner test order.yaml                what its scenarios expect, in virtual time
    fastrunner submit order.yaml --follow     send it to a running runner and watch
    fastrunner status                         is it behind, what runs, what fails, how slow?

    Shell completion: eval "$(_FASTRUNNER_COMPLETE=bash_source fastrunner)", or zsh_source, fish_source.
    """


for command in (
    serve,
    run,
    dev,
    validate,
    test,
    graph,
    submit,
    get,
    list_executions,
    events,
    watch,
    status,
    cancel,
    pause,
    resume,
    delete,
    workflow,
    send_event,
    schedule,
    receiver,
    stigmer,
    temporal,
    data,
    bench,
    doctor,
    protos,
    token,
):
    main.add_command(command)

data.add_command(backup)
data.add_command(restore)
