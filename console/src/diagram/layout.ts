// Where the boxes and ways of one list of tasks are drawn: in layers, from top to bottom.
//
// Theory of operation, after Sugiyama: ways back, by the order of the list, are set aside; a box lies in the layer below
// the lowest one that leads to it; ways over some layers take a place in each; within layers boxes are put near those
// that they are linked with, first in order, then in distance. Ways back, and over many layers, run beside it all, so
// the work is linear in boxes and ways, but for sorting. (The usual library recurses along the longest way: a list of
// 2,000 tasks ends its stack.)
//
// Rules: equal lists give equal pictures; `fastrunner graph --format svg` draws the same.

export interface Size {
  width: number;
  height: number;
}

export interface Point {
  x: number;
  y: number;
}

export interface Way {
  source: string;
  target: string;
  kind: string;
  label: string;
}

export interface Line {
  way: Way;
  points: Point[];
  /** Of all boxes, in a lane: it leads back, or far. */
  isBeside: boolean;
}

export interface Picture extends Size {
  /** Top left corners. */
  places: Map<string, Point>;
  lines: Line[];
}

const GAP_X = 28;
const GAP_Y = 26;
const LABEL_Y = 20;
const LANE = 16;
const SWEEPS = 4;
const STRAIGHT = 8;
const SPAN_MAX = 8;
export const WAY_LABEL_CHARS_MAX = 34;

interface Layers {
  rows: number[][];
  /** By number: first the boxes, then places of ways. */
  extents: Size[];
  above: number[][];
  below: number[][];
  paths: Map<Way, number[]>;
}

/** Places of boxes, in the list's order: first the start, last the end. */
export function layOut(sizes: Map<string, Size>, ways: readonly Way[]): Picture {
  const names = [...sizes.keys()];
  const number = new Map(names.map((name, place) => [name, place]));
  const at = (name: string): number => number.get(name) ?? 0;
  const forth = ways.filter((way) => at(way.target) > at(way.source));
  const layer = layerNumbers(names.length, forth, at);
  const near = forth.filter((way) => (layer[at(way.target)] ?? 0) - (layer[at(way.source)] ?? 0) <= SPAN_MAX);
  const layers = layered([...sizes.values()], layer, near, at);
  order(layers);
  return drawn(sizes, ways, layers, middles(layers), at);
}

function labelWidth(label: string): number {
  return label ? 6.2 * Math.min(label.length, WAY_LABEL_CHARS_MAX) + 8 : 0;
}

function push(lists: number[][], at: number, value: number): void {
  const list = lists[at];
  if (list) list.push(value);
  else lists[at] = [value];
}

/** Longest ways from where nothing leads; the last box, the end, is the lowest. */
function layerNumbers(count: number, forth: readonly Way[], at: (name: string) => number): number[] {
  const following: number[][] = [];
  const open = new Array<number>(count).fill(0);
  const layer = new Array<number>(count).fill(0);
  for (const way of forth) {
    push(following, at(way.source), at(way.target));
    open[at(way.target)] = (open[at(way.target)] ?? 0) + 1;
  }
  const ready = layer.map((_, box) => box).filter((box) => open[box] === 0);
  for (const box of ready) {
    for (const target of following[box] ?? []) {
      layer[target] = Math.max(layer[target] ?? 0, (layer[box] ?? 0) + 1);
      open[target] = (open[target] ?? 0) - 1;
      if (open[target] === 0) ready.push(target);
    }
  }
  layer[count - 1] = layer.reduce((most, each) => Math.max(most, each), 1);
  return layer;
}

function layered(
  sizes: Size[],
  layer: readonly number[],
  near: readonly Way[],
  at: (name: string) => number,
): Layers {
  const rows: number[][] = [];
  for (const [box, number] of layer.entries()) push(rows, number, box);
  const layers: Layers = { rows, extents: sizes, above: [], below: [], paths: new Map() };
  for (const way of near) {
    const source = at(way.source);
    const target = at(way.target);
    const path = [source];
    for (let between = (layer[source] ?? 0) + 1; between < (layer[target] ?? 0); between++) {
      // The label stands beside the way's first place.
      const width = path.length === 1 ? Math.max(8, labelWidth(way.label)) : 8;
      path.push(layers.extents.push({ width, height: 0 }) - 1);
      push(rows, between, layers.extents.length - 1);
    }
    path.push(target);
    layers.paths.set(way, path);
    for (let step = 1; step < path.length; step++) {
      push(layers.below, path[step - 1] ?? 0, path[step] ?? 0);
      push(layers.above, path[step] ?? 0, path[step - 1] ?? 0);
    }
  }
  for (let row = 0; row < rows.length; row++) rows[row] ??= [];
  return layers;
}

function sweeps(layers: Layers, count: number, visit: (row: number[], isDown: boolean) => void): void {
  for (let sweep = 0; sweep < count; sweep++) {
    const isDown = sweep % 2 === 0;
    for (let step = 0; step < layers.rows.length; step++) {
      visit(layers.rows[isDown ? step : layers.rows.length - 1 - step] ?? [], isDown);
    }
  }
}

function mean(names: readonly number[], places: readonly number[], otherwise: number): number {
  if (names.length === 0) return otherwise;
  let sum = 0;
  for (const name of names) sum += places[name] ?? 0;
  return sum / names.length;
}

/** Within each layer: by the mean place of what it is linked with, down and up. */
function order(layers: Layers): void {
  const place: number[] = [];
  for (const row of layers.rows) for (const [index, name] of row.entries()) place[name] = index;
  sweeps(layers, SWEEPS, (row, isDown) => {
    if (row.length > 1) {
      const neighbours = isDown ? layers.above : layers.below;
      const key = new Map(row.map((name) => [name, mean(neighbours[name] ?? [], place, place[name] ?? 0)]));
      row.sort((one, other) => (key.get(one) ?? 0) - (key.get(other) ?? 0) || (place[one] ?? 0) - (place[other] ?? 0));
    }
    for (let index = 0; index < row.length; index++) place[row[index] ?? 0] = index - (row.length - 1) / 2;
  });
}

/** Horizontal middles: as near as the order and the gaps allow to the mean of what is linked. */
function middles(layers: Layers): number[] {
  const middle: number[] = [];
  const put = (row: number[], wanted: (name: number) => number): void => {
    const [only] = row;
    if (only === undefined) return;
    if (row.length === 1) {
      middle[only] = wanted(only);
      return;
    }
    const places = spread(row, row.map(wanted), layers.extents);
    for (let index = 0; index < row.length; index++) middle[row[index] ?? 0] = places[index] ?? 0;
  };
  for (const row of layers.rows) put(row, () => 0);
  const links = layers.extents.map((_, name) => linksOf(name, layers));
  sweeps(layers, 4 * SWEEPS, (row) => {
    put(row, (name) => mean(links[name] ?? [], middle, middle[name] ?? 0));
  });
  for (const row of layers.rows) {
    put(row, (name) => middle[isChained(name, layers) ? (layers.above[name]?.[0] ?? name) : name] ?? 0);
  }
  return middle;
}

/** Whether one box leads to it, and that to no other. */
function isChained(name: number, layers: Layers): boolean {
  const above = layers.above[name] ?? [];
  return above.length === 1 && layers.below[above[0] ?? 0]?.length === 1;
}

/** What a box is linked with, and several times if nothing else leads there or back: chains are to be straight. */
function linksOf(name: number, layers: Layers): number[] {
  const above = layers.above[name] ?? [];
  const below = layers.below[name] ?? [];
  const links = [...above, ...below];
  const follows = isChained(name, layers);
  const leadsOn = below.length === 1 && isChained(below[0] ?? 0, layers);
  for (let time = 1; time < STRAIGHT; time++) {
    if (follows) links.push(above[0] ?? 0);
    if (leadsOn) links.push(below[0] ?? 0);
  }
  return links;
}

/** Nearest places to those that are wanted, in order and with the gaps: neighbours that are too close are merged. */
function spread(row: number[], wanted: number[], extents: Size[]): number[] {
  const offsets: number[] = [];
  const groups: { mean: number; weight: number }[] = [];
  let offset = 0;
  for (const [index, name] of row.entries()) {
    if (index > 0) offset += ((extents[row[index - 1] ?? 0]?.width ?? 0) + (extents[name]?.width ?? 0)) / 2 + GAP_X;
    offsets.push(offset);
    groups.push({ mean: (wanted[index] ?? 0) - offset, weight: 1 });
    for (;;) {
      const last = groups[groups.length - 1];
      const before = groups[groups.length - 2];
      if (!last || !before || before.mean <= last.mean) break;
      before.mean = (before.mean * before.weight + last.mean * last.weight) / (before.weight + last.weight);
      before.weight += last.weight;
      groups.pop();
    }
  }
  const places: number[] = [];
  for (const group of groups) for (let each = 0; each < group.weight; each++) places.push(group.mean + (offsets[places.length] ?? 0));
  return places;
}

function drawn(
  sizes: Map<string, Size>,
  ways: readonly Way[],
  layers: Layers,
  middle: readonly number[],
  at: (name: string) => number,
): Picture {
  let left = Infinity;
  let right = -Infinity;
  const labelled = new Set<number>();
  for (const [way, path] of layers.paths) if (way.label) labelled.add(path[1] ?? 0);
  const tops: number[] = [];
  const floors: number[] = [];
  let y = 0;
  for (const [number, row] of layers.rows.entries()) {
    if (number) y += GAP_Y + (row.some((name) => labelled.has(name)) ? LABEL_Y : 0);
    const height = row.reduce((most, name) => Math.max(most, layers.extents[name]?.height ?? 0), 0);
    for (const name of row) {
      const width = layers.extents[name]?.width ?? 0;
      left = Math.min(left, (middle[name] ?? 0) - width / 2);
      right = Math.max(right, (middle[name] ?? 0) + width / 2);
      tops[name] = y;
      floors[name] = y + height;
    }
    y += height;
  }
  const picture: Picture = { width: right - left, height: y, places: new Map(), lines: [] };
  for (const [name, size] of sizes) {
    picture.places.set(name, { x: (middle[at(name)] ?? 0) - size.width / 2 - left, y: tops[at(name)] ?? 0 });
  }
  const lanes = new Map<string, number>();
  for (const way of ways) {
    const path = layers.paths.get(way);
    if (!path) {
      // Whatever leads to the same box goes the same lane.
      let lane = lanes.get(way.target);
      if (lane === undefined) {
        lane = picture.width += LANE;
        lanes.set(way.target, lane);
        picture.width += labelWidth(way.label);
      }
      picture.lines.push({ way, points: pointsBeside(way, picture, sizes, lane), isBeside: true });
      continue;
    }
    const points: Point[] = [];
    for (const [index, name] of path.entries()) {
      const x = (middle[name] ?? 0) - left;
      const top = tops[name] ?? 0;
      const bottom = name < sizes.size ? top + (layers.extents[name]?.height ?? 0) : (floors[name] ?? 0);
      if (index > 0) points.push({ x, y: top });
      if (index < path.length - 1) {
        if (bottom > top || index === 0) points.push({ x, y: bottom });
        if ((floors[name] ?? 0) > bottom) points.push({ x, y: floors[name] ?? 0 });
      }
    }
    picture.lines.push({ way, points, isBeside: false });
  }
  return picture;
}

/** Out of the right side, along the lane and into the right side. */
function pointsBeside(way: Way, picture: Picture, sizes: Map<string, Size>, lane: number): Point[] {
  const side = (name: string, share: number): Point => {
    const place = picture.places.get(name) ?? { x: 0, y: 0 };
    const size = sizes.get(name) ?? { width: 0, height: 0 };
    return { x: place.x + size.width, y: place.y + Math.min(size.height, 40) * share };
  };
  const from = side(way.source, 0.5);
  const to = side(way.target, 0.3);
  return [from, { x: lane, y: from.y }, { x: lane, y: to.y }, to];
}
