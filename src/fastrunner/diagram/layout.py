"""Support: where the boxes and ways of one list of tasks are drawn: in layers, from top to bottom.

Theory of operation, after Sugiyama: ways back, by the order of the list, are set aside; a box lies in the layer below
the lowest one that leads to it; ways over some layers take a place in each; within layers boxes are put near those that
they are linked with, first in order, then in distance. Ways back, and over many layers, run beside it all.

Rules: equal lists give equal pictures, and nothing depends on the order of a set. Linear in boxes and places, but for
sorting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

__all__ = ["WAY_LABEL_CHARS_MAX", "Line", "Picture", "Way", "laid_out"]

WAY_LABEL_CHARS_MAX: Final = 34
"""As much of a way's label is drawn."""
_GAP_X: Final = 28.0
_GAP_Y: Final = 26.0
_LABEL_Y: Final = 20.0
_LANE: Final = 16.0
_SWEEPS: Final = 4
_STRAIGHT: Final = 8
_SPAN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Way:
    """From one box to another; labels of several between the same two are one."""

    source: str
    """A box."""
    target: str
    """Another one, or the same."""
    kind: str
    """As the edge's."""
    label: str
    """As the edges'."""


@dataclass(frozen=True, slots=True)
class Line:
    """A way as it is drawn, through points."""

    way: Way
    """Which."""
    points: tuple[tuple[float, float], ...]
    """From its source to its target."""
    is_beside: bool
    """Of all boxes, in a lane: it leads back, or far."""


@dataclass(slots=True)
class Picture:
    """A list, laid out; distances in pixels from its top left corner."""

    width: float = 0.0
    """Of everything, lanes and their labels included."""
    height: float = 0.0
    """Of everything."""
    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Top left corners of boxes."""
    lines: list[Line] = field(default_factory=list)
    """Ways in their order."""


@dataclass(slots=True)
class _Layers:
    """Boxes and places of long ways, by layer; a place is named by its way and layer."""

    rows: list[list[str]]
    extents: dict[str, tuple[float, float]]
    above: dict[str, list[str]]
    below: dict[str, list[str]]
    paths: dict[Way, list[str]]


def laid_out(sizes: Mapping[str, tuple[float, float]], ways: Sequence[Way]) -> Picture:
    """Places of boxes, first of all the start, last the end; `sizes` are widths and heights in the list's order."""
    number = {box: place for place, box in enumerate(sizes)}
    forth = [way for way in ways if number[way.target] > number[way.source]]
    layer = _layer_numbers(list(sizes), forth)
    near = [way for way in forth if layer[way.target] - layer[way.source] <= _SPAN_MAX]
    layers = _layered(sizes, layer, near)
    _order(layers)
    return _drawn(sizes, ways, layers, _middles(layers))


def _label_width(label: str) -> float:
    return 6.2 * min(len(label), WAY_LABEL_CHARS_MAX) + 8 if label else 0.0


def _layered(sizes: Mapping[str, tuple[float, float]], layer: Mapping[str, int], near: Sequence[Way]) -> _Layers:
    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    layers = _Layers(rows, dict(sizes), {}, {}, {})
    for box in sizes:
        rows[layer[box]].append(box)
    for number, way in enumerate(near):
        path = [way.source]
        for between in range(layer[way.source] + 1, layer[way.target]):
            place = f"{number}@{between}"
            # The label stands beside the way's first place.
            layers.extents[place] = (max(8.0, _label_width(way.label)) if len(path) == 1 else 8.0, 0.0)
            rows[between].append(place)
            path.append(place)
        path.append(way.target)
        layers.paths[way] = path
        for upper, lower in pairwise(path):
            layers.below.setdefault(upper, []).append(lower)
            layers.above.setdefault(lower, []).append(upper)
    return layers


def _layer_numbers(boxes: Sequence[str], forth: Sequence[Way]) -> dict[str, int]:
    """Longest ways from where nothing leads; the last box, the end, is the lowest."""
    following: dict[str, list[str]] = {box: [] for box in boxes}
    open_ways = dict.fromkeys(boxes, 0)
    for way in forth:
        following[way.source].append(way.target)
        open_ways[way.target] += 1
    layer = dict.fromkeys(boxes, 0)
    ready = [box for box in boxes if not open_ways[box]]
    for box in ready:
        for target in following[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            open_ways[target] -= 1
            if not open_ways[target]:
                ready.append(target)
    layer[boxes[-1]] = max(layer[boxes[-1]], *layer.values(), 1)
    return layer


def _order(layers: _Layers) -> None:
    """Within each layer: by the mean place of what it is linked with, down and up."""
    place = {name: float(number) for row in layers.rows for number, name in enumerate(row)}
    for sweep in range(_SWEEPS):
        is_down = sweep % 2 == 0
        neighbours = layers.above if is_down else layers.below
        for row in layers.rows if is_down else reversed(layers.rows):
            row.sort(key=lambda name: _mean([place[each] for each in neighbours.get(name, ())], place[name]))
            for number, name in enumerate(row):
                place[name] = float(number) - (len(row) - 1) / 2


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _middles(layers: _Layers) -> dict[str, float]:
    """Horizontal middles: as near as the order and the gaps allow to the mean of what is linked."""
    middle: dict[str, float] = {}
    gaps = [_gaps(row, layers.extents) for row in layers.rows]
    for row, gap in zip(layers.rows, gaps, strict=True):
        middle.update(zip(row, _spread([0.0] * len(row), gap), strict=True))
    links = {name: _links(name, layers) for row in layers.rows for name in row}
    numbers = range(len(layers.rows))
    for sweep in range(4 * _SWEEPS):
        for number in numbers if sweep % 2 == 0 else reversed(numbers):
            row = layers.rows[number]
            wanted = [_mean([middle[each] for each in links[name]], middle[name]) for name in row]
            middle.update(zip(row, _spread(wanted, gaps[number]), strict=True))
    for row, gap in zip(layers.rows, gaps, strict=True):
        wanted = [middle[layers.above[name][0] if _is_chained(name, layers) else name] for name in row]
        middle.update(zip(row, _spread(wanted, gap), strict=True))
    return middle


def _is_chained(name: str, layers: _Layers) -> bool:
    """Whether one box leads to it, and that to no other."""
    above = layers.above.get(name, ())
    return len(above) == 1 and len(layers.below[above[0]]) == 1


def _links(name: str, layers: _Layers) -> list[str]:
    """What a box is linked with, and several times if nothing else leads there or back: chains are to be straight."""
    above, below = layers.above.get(name, []), layers.below.get(name, [])
    leads_on = len(below) == 1 and _is_chained(below[0], layers)
    return above * (_STRAIGHT if _is_chained(name, layers) else 1) + below * (_STRAIGHT if leads_on else 1)


def _gaps(row: Sequence[str], extents: Mapping[str, tuple[float, float]]) -> list[float]:
    """How far each is from the one before it, at least."""
    return [
        0.0 if number == 0 else (extents[row[number - 1]][0] + extents[name][0]) / 2 + _GAP_X
        for number, name in enumerate(row)
    ]


def _spread(wanted: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Nearest places to those that are wanted, in order and with the gaps: by merging neighbours that are too close."""
    offset, offsets = 0.0, []
    groups: list[list[float]] = []
    for want, gap in zip(wanted, gaps, strict=True):
        offset += gap
        offsets.append(offset)
        groups.append([want - offset, 1.0])
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            mean, weight = groups.pop()
            before = groups[-1]
            before[0] = (before[0] * before[1] + mean * weight) / (before[1] + weight)
            before[1] += weight
    spread = [mean for mean, weight in groups for _ in range(int(weight))]
    return [each + offset for each, offset in zip(spread, offsets, strict=True)]


def _drawn(
    sizes: Mapping[str, tuple[float, float]],
    ways: Sequence[Way],
    layers: _Layers,
    middle: Mapping[str, float],
) -> Picture:
    left = min(middle[name] - layers.extents[name][0] / 2 for name in middle)
    right = max(middle[name] + layers.extents[name][0] / 2 for name in middle)
    labelled = {layers.paths[way][1] for way in ways if way.label and way in layers.paths}
    picture = Picture()
    tops: dict[str, tuple[float, float]] = {}
    floors: dict[str, float] = {}
    y = 0.0
    for number, row in enumerate(layers.rows):
        if number:
            y += _GAP_Y + (_LABEL_Y if labelled.intersection(row) else 0.0)
        height = max((layers.extents[name][1] for name in row), default=0.0)
        for name in row:
            own = layers.extents[name][1] if name in sizes else height
            tops[name], floors[name] = (y, own), y + height
        y += height
    picture.height = y
    for name, (width, _) in sizes.items():
        picture.places[name] = (middle[name] - width / 2 - left, tops[name][0])
    lanes: dict[str, float] = {}
    picture.width = right - left
    for way in ways:
        path = layers.paths.get(way)
        if path is None:
            # Whatever leads to the same box goes the same lane.
            if way.target not in lanes:
                lanes[way.target] = picture.width = picture.width + _LANE
                picture.width += _label_width(way.label)
            points = _points_beside(way, picture, sizes, lanes[way.target])
            picture.lines.append(Line(way, points, is_beside=True))
            continue
        points = ()
        for number, name in enumerate(path):
            x = middle[name] - left
            top, own = tops[name]
            if number:
                points += ((x, top),)
            if number < len(path) - 1:
                points += ((x, top + own),)
                if floors[name] > top + own:
                    points += ((x, floors[name]),)
        picture.lines.append(Line(way, points, is_beside=False))
    return picture


def _points_beside(
    way: Way, picture: Picture, sizes: Mapping[str, tuple[float, float]], lane: float
) -> tuple[tuple[float, float], ...]:
    """Out of the right side, along the lane and into the right side."""
    points = []
    for name, share in ((way.source, 0.5), (way.target, 0.3)):
        x, y = picture.places[name]
        width, height = sizes[name]
        points.append((x + width, y + min(height, 40.0) * share))
    (x1, y1), (x2, y2) = points
    return ((x1, y1), (lane, y1), (lane, y2), (x2, y2))
