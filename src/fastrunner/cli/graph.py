"""Support: `fastrunner graph`: a document as a picture."""

import sys
from pathlib import Path

import click

from fastrunner.cli.arguments import document_path, read_document


@click.command()
@click.argument("file", type=document_path)
@click.option(
    "--format",
    "form",
    type=click.Choice(("mermaid", "svg", "json")),
    default="mermaid",
    show_default=True,
    help="What to print: a Mermaid flowchart, an SVG picture, or nodes and edges.",
)
def graph(file: Path, form: str) -> None:
    """Draw a workflow document: its tasks and the ways between them.

    \b
    fastrunner graph order.yaml                      paste it into Markdown, as ```mermaid
    fastrunner graph order.yaml --format svg > order.svg
    fastrunner graph order.yaml --format json        the same nodes and edges as the HTTP API has them

    The picture goes to stdout; FILE may be - for stdin. Exits with 1, and shows every problem, if the document does not
    validate. Nothing is fetched: functions that are called by their URLs are drawn as one task.
    """
    from fastrunner._core import load
    from fastrunner._core import validate as problems_of
    from fastrunner.cli.problems import refuses, show_problems
    from fastrunner.diagram.graph import graph_of, json_of
    from fastrunner.diagram.mermaid import mermaid_of
    from fastrunner.diagram.svg import svg_of

    text = read_document(file)
    problems = problems_of(text)
    if any(refuses(problem, strict=False) for problem in problems):
        show_problems(file, problems, text)
        sys.exit(1)
    document = load(text)
    drawn = graph_of(document)
    if form == "mermaid":
        picture = mermaid_of(drawn)
    elif form == "svg":
        picture = svg_of(drawn, document["document"]["name"])
    else:
        picture = json_of(drawn).decode() + "\n"
    # Bytes: a terminal's encoding has no say in a file.
    sys.stdout.buffer.write(picture.encode())
