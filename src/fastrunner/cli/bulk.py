"""Support: one command for all executions that a filter finds: `fastrunner cancel|pause|resume --where ...`.

Rules: what is meant is listed first, so a filter that a command makes true of others does not grow; nothing is done
without `--yes`; one that has ended meanwhile is none that is refused.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from fastrunner.base.clock import monotonic_s
from fastrunner.cli.arguments import EXIT_INTERRUPTED, Number, Since
from fastrunner.progress.names import FINAL_STATUSES, STATUSES

if TYPE_CHECKING:
    from fastrunner.cli.client import Client

__all__ = ["Bulk", "bulk_of", "bulk_options", "perform"]

_PAGE_SIZE: Final = 1000
_SHOWN: Final = 5
_UNFINISHED: Final = tuple(status for status in STATUSES if status not in FINAL_STATUSES)
_MEANT: Final = {"cancel": _UNFINISHED, "pause": ("pending", "running"), "resume": ("paused",)}
"""What a command is for, where the filter names no status."""
_KEYS: Final = ("status", "name", "namespace", "label", "since", "until", "parent")
_DONE: Final = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}


@dataclass(frozen=True, slots=True)
class Bulk:
    """What is asked for."""

    where: tuple[str, ...]
    """Conditions, as they are typed."""
    rate: float
    """Calls per second, at most."""
    is_meant: bool
    """Whether to do it, and not only count."""


def bulk_options(command: Any) -> Any:
    """The options of a command that may be for many."""
    for option in (
        click.option("--yes", is_flag=True, help="Do it; without this those that --where finds are counted only."),
        click.option("--rate", default=100.0, show_default=True, type=Number(0.1, 10_000),
                     help="With --where: at most so many per second."),
        click.option("--where", multiple=True, metavar="KEY=VALUE",
                     help="Instead of an id all with this; repeatable, all of it is to hold, of statuses one. "
                     f"KEY is one of {', '.join(_KEYS)}; of a label --where label=NAME=VALUE."),
    ):  # fmt: skip
        command = option(command)
    return command


def bulk_of(execution_id: str | None, options: dict[str, Any]) -> Bulk | None:
    """What the options ask for, taken out of them; None: one execution. Raises click.UsageError."""
    where, rate, is_meant = options.pop("where"), options.pop("rate"), options.pop("yes")
    if bool(where) == (execution_id is not None):
        raise click.UsageError("give the id of an execution, or --where to have all that it finds")
    if not where and is_meant:
        raise click.UsageError("--yes belongs to --where")
    return Bulk(where, rate, is_meant) if where else None


def perform(client: "Client", command: str, bulk: Bulk, invoke: Callable[[str], None]) -> None:
    """Has a command carried out for all that are meant, and leaves with an exit code. `invoke` does it for one id, and
    raises grpc.RpcError."""
    from fastrunner.cli.client import EXIT_RPC
    from fastrunner.cli.present import say

    query = _query(bulk.where, command)
    found = list(_listed(client, query))
    if not found:
        say("no execution is meant")
        return
    if not bulk.is_meant:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        say(f"{len(found)} executions would be {_DONE[command]}: {shown}; with --yes they are")
        return
    refused = _each(found, bulk.rate, command, invoke)
    if refused:
        sys.exit(EXIT_RPC)


def _query(where: tuple[str, ...], command: str) -> dict[str, Any]:
    """The filter as ListExecutions has it. Raises click.BadParameter."""
    query: dict[str, Any] = {"statuses": [], "labels": {}}
    for condition in where:
        key, is_there, value = condition.partition("=")
        if key not in _KEYS or not is_there or not value:
            expected = f"expected KEY=VALUE with one of {', '.join(_KEYS)}"
            raise click.BadParameter(f"{condition!r}: {expected}", param_hint="--where")
        _ADD[key](query, value)
    query["statuses"] = query["statuses"] or list(_MEANT[command])
    return query


def _add_status(query: dict[str, Any], value: str) -> None:
    if value not in STATUSES:
        raise click.BadParameter(f"{value!r} is no status: {', '.join(STATUSES)}", param_hint="--where")
    query["statuses"].append(value)


def _add_label(query: dict[str, Any], value: str) -> None:
    name, is_there, text = value.partition("=")
    if not is_there:
        raise click.BadParameter(f"label={value}: expected label=NAME=VALUE", param_hint="--where")
    _put(query["labels"], name, text, f"label={name}")


def _setter(field: str, word: str) -> Callable[[dict[str, Any], str], None]:
    return lambda query, value: _put(query, field, value, word)


def _moment(field: str, word: str) -> Callable[[dict[str, Any], str], None]:
    return lambda query, value: _put(query, field, Since().convert(value, None, None), word)


def _put(into: dict[str, Any], key: str, value: object, what: str) -> None:
    """All conditions are to hold: of two of a kind none may be passed over, or others would be meant than were said."""
    if key in into:
        raise click.BadParameter(f"two conditions for {what}, which has one value: give one", param_hint="--where")
    into[key] = value


_ADD: Final[Mapping[str, Callable[[dict[str, Any], str], None]]] = {
    "status": _add_status,
    "label": _add_label,
    "name": _setter("workflow_name", "name"),
    "namespace": _setter("workflow_namespace", "namespace"),
    "parent": _setter("parent_execution_id", "parent"),
    "since": _moment("accepted_from_ms", "since"),
    "until": _moment("accepted_until_ms", "until"),
}


def _listed(client: "Client", query: Mapping[str, Any]) -> Iterator[str]:
    """The ids of all that match."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2

    token = ""
    while True:
        request = query_pb2.ListExecutionsRequest(**query, page_size=_PAGE_SIZE, page_token=token)
        reply = client.call("ListExecutions", request)
        yield from (execution.execution_id for execution in reply.executions)
        token = reply.next_page_token
        if not token:
            return


def _each(found: list[str], rate: float, command: str, invoke: Callable[[str], None]) -> int:
    """How many were refused."""
    import grpc

    from fastrunner.cli.present import say

    done = ended = refused = 0
    begun_s = monotonic_s()
    try:
        with click.progressbar(found, label=command, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for at, execution_id in enumerate(bar):
                time.sleep(max(0.0, begun_s + at / rate - monotonic_s()))
                try:
                    invoke(execution_id)
                    done += 1
                except grpc.RpcError as error:
                    if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                        ended += 1
                    else:
                        refused += 1
                        say(f"{execution_id}: {error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        say(f"interrupted: {done} of {len(found)} executions {_DONE[command]}")
        sys.exit(EXIT_INTERRUPTED)
    say(f"{done} executions {_DONE[command]}, {ended} had ended or were not to be, {refused} refused")
    return refused
