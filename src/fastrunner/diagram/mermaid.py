"""Support: a graph as a Mermaid flowchart.

    flowchart TD
    subgraph n1 ["fork pack"]
    n2["set label"]
    s1(("·")) --> n2
    end

Rules: ids are numbers of our own, never text of the document; every character that could end a label or mean something
to Mermaid, Markdown or HTML is a character code. What holds tasks is a subgraph with a start and an end of its own.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from fastrunner.base.printable import printable
from fastrunner.diagram.graph import Edge, Graph, Node

__all__ = ["mermaid_of"]

_ARROWS: Final = {"next": "-->", "then": "-->", "case": "-->", "branch": "-->", "catch": "-.->"}
_SHAPES: Final = {"switch": '{"%s"}', "raise": '[/"%s"/]', "wait": '(["%s"])', "listen": '(["%s"])'}
_MEANT: Final = re.compile(r"[^\w .,:?!…·×→-]|_|^[-\d]")
"""What is written as a character code; a number or a dash at the beginning would make a list."""


def mermaid_of(graph: Graph) -> str:
    """The text of a flowchart, with a line break at its end."""
    inside: dict[str, list[Node]] = {}
    for node in graph.nodes:
        inside.setdefault(node.parent, []).append(node)
    linked = {edge.source for edge in graph.edges} | {edge.target for edge in graph.edges}
    holders = {"", *(end.removeprefix("start:") for end in linked if end.startswith("start:"))}
    ids = {node.reference: f"n{number}" for number, node in enumerate(graph.nodes, 1)}
    for number, parent in enumerate(["", *(node.reference for node in graph.nodes if node.reference in holders)]):
        ids[f"start:{parent}"], ids[f"end:{parent}"] = f"s{number}", f"e{number}"
    lines = ["flowchart TD", *_list_lines("", inside, holders, ids)]
    lines += [_edge_line(edge, ids) for edge in graph.edges]
    return "\n".join(lines) + "\n"


def _list_lines(
    parent: str, inside: Mapping[str, list[Node]], holders: set[str], ids: Mapping[str, str]
) -> Iterator[str]:
    yield f'{ids[f"start:{parent}"]}(("{"start" if not parent else "·"}"))'
    for node in inside.get(parent, ()):
        text = _text(node)
        if node.reference in holders:
            yield f'subgraph {ids[node.reference]} ["{text}"]'
            yield from _list_lines(node.reference, inside, holders, ids)
            yield "end"
        else:
            yield ids[node.reference] + _SHAPES.get(node.kind, '["%s"]') % text
    yield f'{ids[f"end:{parent}"]}((("{"end" if not parent else "·"}")))'


def _text(node: Node) -> str:
    title = _coded(f"{node.kind} {node.name}" if len(node.name) <= 60 else f"{node.kind} {node.name[:59]}…")
    return f"{title}<br/>{_coded(node.label)}" if node.label else title


def _edge_line(edge: Edge, ids: Mapping[str, str]) -> str:
    label = f'|"{_coded(edge.label)}"|' if edge.label else ""
    return f"{ids[edge.source]} {_ARROWS[edge.kind]}{label} {ids[edge.target]}"


def _coded(text: str) -> str:
    # Two of them would make a formula, also as codes.
    line = printable(" ".join(text.split())).replace("$$", "$\u200b$")
    return _MEANT.sub(lambda found: f"#{ord(found[0])};", line)
