"""Support: `fastrunner send-event`: CloudEvents for workflows that listen, from options, a file or stdin."""

import base64
import binascii
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.base.moments import rfc3339
from fastrunner.base.printable import printable
from fastrunner.cli.arguments import document_path, read_document, read_input, read_pairs
from fastrunner.cli.remote import client_of, connection_options, json_option

_SOURCE = "/fastrunner/cli"


@click.command("send-event")
@click.argument("file", type=document_path, required=False)
@click.option("--type", "event_type", default=None, help="What happened, such as order.approved.")
@click.option("--source", default=None, help=f"Where it comes from, a URI reference; default: {_SOURCE}.")
@click.option("--id", "event_id", default=None, help="Unique within the source; default: a new UUID.")
@click.option("--subject", default=None, help="What it is about.")
@click.option("--data", default=None, metavar="JSON|@FILE", help="Its data; @-: from stdin.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="An extension; repeatable.")
@json_option
@connection_options
def send_event(
    file: Path | None,
    event_type: str | None,
    source: str | None,
    event_id: str | None,
    subject: str | None,
    data: str | None,
    attributes: tuple[str, ...],
    as_json: bool,
    **connection: Any,
) -> None:
    """Send CloudEvents to a runner: one from options, or those in FILE (`-`: stdin).

    \b
    fastrunner send-event --type order.approved --data '{"order": 7}'
    fastrunner send-event events.json --target runner.example:9090 --tls

    FILE holds an event in CloudEvents' JSON format, or an array of them; options fill in what an event of it has not,
    and so do a new id, the time, and the version. The events are durable, and on their way to every workflow that
    listens for them, when this returns. It prints their ids, or with --json the events.
    """
    given = {"type": event_type, "source": source, "id": event_id, "subject": subject, **read_pairs(attributes)}
    options = {name: value for name, value in given.items() if value is not None}
    if data is not None:
        options["data"] = _loaded(read_input(data, file, "--data"), "--data")
    if file is None and event_type is None:
        raise click.UsageError("say what happened: --type, or the FILE of an event")
    events = [_complete(event, options) for event in ([{}] if file is None else _read(file))]
    if event_id is not None and len(events) > 1:
        raise click.BadParameter("several events cannot have one id: leave it out", param_hint="--id")
    client = client_of(**connection)
    for part in _parts(events):
        client.call("SendEvents", part)
    for event in events:
        click.echo(_text(event) if as_json else printable(str(event["id"])))


def _loaded(text: str, where: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=where) from None


def _text(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()


def _read(file: Path) -> list[Mapping[str, Any]]:
    read = _loaded(read_document(file).decode("utf-8", "surrogateescape"), "FILE")
    events = read if isinstance(read, list) else [read]
    for at, event in enumerate(events):
        if not isinstance(event, dict):
            raise click.BadParameter(f"event {at} is no JSON object", param_hint="FILE")
    return events


def _complete(event: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": _SOURCE, "time": rfc3339(wall_ms())}
    own = {name: value for name, value in event.items() if value is not None or name == "data"}
    if "data_base64" in own:
        options = {name: value for name, value in options.items() if name != "data"}
    return {**made, **options, **own}


def _parts(events: list[dict[str, Any]]) -> Iterator[Any]:
    """Requests, each within its bounds."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import events_pb2

    part, size_bytes = events_pb2.SendEventsRequest(), 0
    for at, event in enumerate(events):
        message = _message(event, at)
        size_bytes += message.ByteSize()
        if part.events and (
            len(part.events) >= limits.EVENTS_BATCH_COUNT_MAX or size_bytes > limits.EVENTS_REQUEST_SIZE_BYTES_MAX
        ):
            yield part
            part, size_bytes = events_pb2.SendEventsRequest(), message.ByteSize()
        part.events.append(message)
    yield part


def _message(event: Mapping[str, Any], at: int) -> Any:
    """The event in CloudEvents' protobuf format."""
    from fastrunner._pb.ai.stigmer.workflow.runner.v1 import events_pb2

    fields = {"specversion": "spec_version", "id": "id", "source": "source", "type": "type"}
    message = events_pb2.CloudEvent()
    for name, value in event.items():
        if name == "data":
            is_text = isinstance(value, str) and event.get("datacontenttype") is not None
            message.text_data = value if is_text and not _says_json(event) else _text(value)
        elif name == "data_base64":
            try:
                message.binary_data = base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise click.BadParameter(f"data_base64 of event {at} is no base64", param_hint="FILE") from None
        elif name in fields and isinstance(value, str):
            setattr(message, fields[name], value)
        elif name in fields or not isinstance(value, str | bool | int):
            raise click.BadParameter(f"{name} of event {at} is no text, integer or boolean", param_hint="FILE")
        else:
            kind = "ce_boolean" if isinstance(value, bool) else "ce_integer" if isinstance(value, int) else "ce_string"
            try:
                setattr(message.attributes[name], kind, value)
            except ValueError:
                raise click.BadParameter(f"{name} of event {at} has more than 32 bits", param_hint="FILE") from None
    return message


def _says_json(event: Mapping[str, Any]) -> bool:
    from fastrunner.events.attributes import is_json

    return is_json(event["datacontenttype"])
