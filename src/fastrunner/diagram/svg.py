"""Support: a graph as an SVG picture that stands alone: no scripts, no links, no fonts of its own; light and dark.

Rules: text of the document is escaped, what cannot be seen in it is told, and what XML cannot hold is replaced; all
else is ours. Widths are estimated by the number of characters, so the same document gives the same bytes everywhere.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from fastrunner.base.printable import printable
from fastrunner.diagram.graph import Graph, Node
from fastrunner.diagram.layout import WAY_LABEL_CHARS_MAX, Line, Picture, Way, laid_out

__all__ = ["svg_of"]

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARGIN: Final = 20.0
_PAD: Final = 14.0
_TITLE: Final = 40.0
_DOT: Final = 12.0
_BOX: Final = (36.0, 50.0)
"""Heights without and with a label."""
_NAME_PX: Final = 7.3
_LABEL_PX: Final = 6.2
_NAME_CHARS_MAX: Final = 34
_LABEL_CHARS_MAX: Final = 44

_STYLE: Final = """
:root{--paper:#fff;--box:#fbfbfa;--list:#f4f4f2;--line:#c9c8c3;--ink:#22211f;--soft:#6b6964;--accent:#3b5bdb;--bad:#c0392b}
@media(prefers-color-scheme:dark){:root{--paper:#181817;--box:#222220;--list:#1d1d1c;--line:#45443f;--ink:#e8e6e1;
--soft:#9a978f;--accent:#91a7ff;--bad:#ff8a7a}}
svg{background:var(--paper);font:13px system-ui,-apple-system,"Segoe UI",sans-serif}
.b{fill:var(--box);stroke:var(--line)}.l{fill:var(--list);stroke:var(--line)}.x{stroke-dasharray:4 3}
.n{fill:var(--ink);font-weight:600}.d{fill:var(--soft);font-size:11px}.k{fill:var(--accent);font-size:11px;font-weight:400}
.w{fill:none;stroke:var(--soft)}.catch{stroke:var(--bad);stroke-dasharray:5 3}.case,.branch{stroke:var(--accent)}
.t{fill:var(--soft);font-size:11px;paint-order:stroke;stroke:var(--paper);stroke-width:5px;stroke-linejoin:round}
.o{fill:var(--soft)}.e{fill:none;stroke:var(--soft);stroke-width:2}
"""


@dataclass(slots=True)
class _Box:
    """A node with what lies in it."""

    node: Node | None
    width: float = _DOT
    height: float = _DOT
    boxes: dict[str, "_Box"] = field(default_factory=dict)
    picture: Picture | None = None


def svg_of(graph: Graph, title: str = "") -> str:
    """The text of a picture, with a line break at its end. `title` is what it is of."""
    inside: dict[str, list[Node]] = {}
    for node in graph.nodes:
        inside.setdefault(node.parent, []).append(node)
    parents = {node.reference: node.parent for node in graph.nodes}
    ways: dict[str, list[Way]] = {}
    for edge in graph.edges:
        holder = edge.source.removeprefix("start:") if edge.source.startswith("start:") else parents[edge.source]
        # The workflow's end is drawn where it is reached.
        target = "stop" if edge.target == "end:" and holder else edge.target
        ways.setdefault(holder, []).append(Way(edge.source, target, edge.kind, edge.label))
    whole = _sized("", None, inside, ways)
    assert whole.picture is not None, "a document has a list of tasks"
    width, height = whole.picture.width + 2 * _MARGIN, whole.picture.height + 2 * _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_px(width)} {_px(height)}" width="{_px(width)}" '
        f'height="{_px(height)}" role="img" aria-label={quoteattr(_clean(title) or "workflow")}>',
        f"<title>{_xml(title or 'workflow')}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="o" d="M0 0L8 4L0 8z"/></marker></defs>',
        *_list_parts(whole, _MARGIN, _MARGIN),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _sized(parent: str, node: Node | None, inside: dict[str, list[Node]], ways: dict[str, list[Way]]) -> _Box:
    """A box with its size, and everything in it laid out."""
    box = _Box(node)
    if node is not None:
        box.width, box.height = _size(node)
    if parent not in ways:
        return box
    merged = _merged(ways[parent])
    start, end = f"start:{parent}", f"end:{parent}"
    box.boxes[start] = _Box(None)
    for child in inside.get(parent, ()):
        box.boxes[child.reference] = _sized(child.reference, child, inside, ways)
    if any(way.target == "stop" for way in merged):
        box.boxes["stop"] = _Box(None)
    box.boxes[end] = _Box(None)
    box.picture = laid_out({name: (each.width, each.height) for name, each in box.boxes.items()}, merged)
    if node is not None:
        box.width = max(box.width, box.picture.width + 2 * _PAD)
        box.height = _TITLE + box.picture.height + _PAD
    return box


def _merged(ways: Sequence[Way]) -> list[Way]:
    """Ways between the same two boxes as one."""
    merged: dict[tuple[str, str], Way] = {}
    for way in ways:
        pair = way.source, way.target
        before = merged.get(pair)
        label = way.label if before is None else " | ".join(each for each in (before.label, way.label) if each)
        merged[pair] = Way(*pair, way.kind if before is None else before.kind, label)
    return list(merged.values())


def _size(node: Node) -> tuple[float, float]:
    name = _cells(_cut(node.name, _NAME_CHARS_MAX)) + len(node.kind) + 2
    label = _cells(_cut(node.label, _LABEL_CHARS_MAX))
    return max(80.0, name * _NAME_PX, label * _LABEL_PX) + 2 * _PAD, _BOX[bool(node.label)]


def _list_parts(box: _Box, x: float, y: float) -> Iterator[str]:
    """The ways and boxes of a list whose top left corner is there."""
    picture = box.picture
    assert picture is not None, "it is laid out"
    for line in picture.lines:
        yield _line_part(line, x, y)
    for name, each in box.boxes.items():
        left, top = picture.places[name]
        if each.node is None:
            yield from _dot_parts(name, x + left, y + top)
        else:
            yield from _box_parts(each, each.node, x + left, y + top)
    for line in picture.lines:
        if line.way.label:
            yield _label_part(line, x, y)


def _dot_parts(name: str, x: float, y: float) -> Iterator[str]:
    middle = f'cx="{_px(x + _DOT / 2)}" cy="{_px(y + _DOT / 2)}"'
    if name.startswith("start:"):
        yield f'<circle class="o" {middle} r="4"/>'
        return
    yield f'<circle class="e" {middle} r="5"/>'
    if name in ("stop", "end:"):
        yield f'<circle class="o" {middle} r="2.5"><title>the workflow ends</title></circle>'


def _box_parts(box: _Box, node: Node, x: float, y: float) -> Iterator[str]:
    shape = "l" if box.picture is not None else "b"
    dashed = " x" if node.kind == "extension" else ""
    yield f"<g><title>{_xml(f'{node.kind} {node.name} {node.reference}')}</title>"
    yield (
        f'<rect class="{shape}{dashed}" x="{_px(x)}" y="{_px(y)}" width="{_px(box.width)}" '
        f'height="{_px(box.height)}" rx="{18 if node.kind in ("wait", "listen") and box.picture is None else 6}"/>'
    )
    yield (
        f'<text class="n" x="{_px(x + _PAD)}" y="{_px(y + 22)}"><tspan class="k">{_xml(node.kind)}</tspan> '
        f"{_xml(_cut(node.name, _NAME_CHARS_MAX))}</text>"
    )
    if node.label:
        label = _xml(_cut(node.label, _LABEL_CHARS_MAX))
        yield f'<text class="d" x="{_px(x + _PAD)}" y="{_px(y + (36 if box.picture else 39))}">{label}</text>'
    if box.picture is not None:
        yield from _list_parts(box, x + (box.width - box.picture.width) / 2, y + _TITLE + 4)
    yield "</g>"


def _line_part(line: Line, x: float, y: float) -> str:
    points = [(x + px, y + py) for px, py in line.points]
    if line.is_beside:
        path = "M" + "L".join(f"{_px(px)} {_px(py)}" for px, py in points)
    else:
        path = f"M{_px(points[0][0])} {_px(points[0][1])}"
        for number in range(1, len(points)):
            (x1, y1), (x2, y2) = points[number - 1], points[number]
            middle = (y1 + y2) / 2
            straight = abs(x1 - x2) < 0.5
            path += (
                f"L{_px(x2)} {_px(y2)}"
                if straight
                else f"C{_px(x1)} {_px(middle)} {_px(x2)} {_px(middle)} {_px(x2)} {_px(y2)}"
            )
    return f'<path class="w {line.way.kind}" d="{path}" marker-end="url(#a)"/>'


def _label_part(line: Line, x: float, y: float) -> str:
    text = _xml(_cut(line.way.label, WAY_LABEL_CHARS_MAX))
    whole = f"<title>{_xml(line.way.label)}</title>"
    if line.is_beside:
        (lane, y1), (_, y2) = line.points[1], line.points[2]
        return f'<text class="t" x="{_px(x + lane + 4)}" y="{_px(y + (y1 + y2) / 2)}">{text}{whole}</text>'
    # Where the way leaves the boxes beside its first one, and nearer to where it leads: labels of one box lie apart.
    bend = 1 if line.points[0][0] == line.points[1][0] and len(line.points) > 2 else 0
    (x1, y1), (x2, y2) = line.points[bend], line.points[bend + 1]
    at = x + x1 + (x2 - x1) * 0.95, y + y1 + (y2 - y1) * 0.72
    return f'<text class="t" text-anchor="middle" x="{_px(at[0])}" y="{_px(at[1])}">{text}{whole}</text>'


def _cut(text: str, size_chars_max: int) -> str:
    return text if len(text) <= size_chars_max else f"{text[: size_chars_max - 1].rstrip()}…"


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", printable(" ".join(text.split())))


def _xml(text: str) -> str:
    return escape(_clean(text))


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
