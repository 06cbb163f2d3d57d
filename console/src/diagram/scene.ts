// A graph as boxes within boxes, laid out: from the lists within outwards, then in absolute places.

import type { Graph, GraphNode } from "../api";
import { layOut, type Line, type Picture, type Point, type Size, type Way } from "./layout";

export interface Box extends Size, Point {
  reference: string;
  node: GraphNode;
  depth: number;
  /** Whether tasks lie in it. */
  isList: boolean;
  isFolded: boolean;
  /** How many tasks lie in it, at any depth. */
  count: number;
}

export interface Dot extends Point {
  kind: "start" | "end" | "stop";
  /** What it belongs to: the box whose list it begins or ends. */
  parent: string;
}

export interface Scene extends Size {
  /** What holds others comes before them; in the order of the document. */
  boxes: Box[];
  dots: Dot[];
  lines: Line[];
}

export const TITLE = 52;
const PAD = 14;
const DOT = 12;
const HEIGHT = 50;
const NAME_PX = 7.9;
const LABEL_PX = 6.2;
/** Room for the mark of a state, its word, and how often; and, a line lower, for how long. */
const STATE_PX = 124;
const FOLD_PX = 16;
const DURATION_PX = 76;
export const NAME_CHARS_MAX = 30;
export const LABEL_CHARS_MAX = 40;

interface Inner {
  picture: Picture;
  sizes: Map<string, Size>;
}

/** Lays a graph out; what is `folded` shows none of its tasks. */
export function sceneOf(graph: Graph, folded: ReadonlySet<string>): Scene {
  const inside = new Map<string, GraphNode[]>();
  const parents = new Map<string, string>();
  for (const node of graph.nodes) {
    const siblings = inside.get(node.parent);
    if (siblings) siblings.push(node);
    else inside.set(node.parent, [node]);
    parents.set(node.reference, node.parent);
  }
  const ways = waysByList(graph, parents);
  const counts = new Map<string, number>();
  for (const node of [...graph.nodes].reverse()) {
    counts.set(node.parent, (counts.get(node.parent) ?? 0) + 1 + (counts.get(node.reference) ?? 0));
  }
  const laid = new Map<string, Inner>();
  const sizes = new Map<string, Size>();
  // What lies within comes after what holds it, so backwards every size is known in time.
  for (const node of [...graph.nodes].reverse()) {
    const size = sizeOf(node, ways.has(node.reference));
    if (ways.has(node.reference) && !folded.has(node.reference)) {
      const inner = laidOut(node.reference, inside, ways, sizes);
      laid.set(node.reference, inner);
      size.width = Math.max(size.width, inner.picture.width + 2 * PAD);
      size.height = TITLE + inner.picture.height + PAD;
    }
    sizes.set(node.reference, size);
  }
  const whole = laidOut("", inside, ways, sizes);
  const scene: Scene = { width: whole.picture.width, height: whole.picture.height, boxes: [], dots: [], lines: [] };
  const nodes = new Map(graph.nodes.map((node) => [node.reference, node]));
  const pending: { parent: string; inner: Inner; left: number; top: number; depth: number }[] = [
    { parent: "", inner: whole, left: 0, top: 0, depth: 0 },
  ];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { parent, inner, left, top, depth } = next;
    for (const line of inner.picture.lines) {
      scene.lines.push({ ...line, points: line.points.map(({ x, y }) => ({ x: x + left, y: y + top })) });
    }
    for (const [name, place] of inner.picture.places) {
      const size = inner.sizes.get(name) ?? { width: 0, height: 0 };
      const node = nodes.get(name);
      const x = place.x + left;
      const y = place.y + top;
      if (!node) {
        const kind = name === "stop" ? "stop" : name.startsWith("start:") ? "start" : name === "end:" ? "stop" : "end";
        scene.dots.push({ kind, parent, x: x + DOT / 2, y: y + DOT / 2 });
        continue;
      }
      const content = laid.get(name);
      scene.boxes.push({
        ...size,
        x,
        y,
        reference: name,
        node,
        depth,
        isList: ways.has(name),
        isFolded: folded.has(name),
        count: counts.get(name) ?? 0,
      });
      if (content) {
        const middle = x + (size.width - content.picture.width) / 2;
        pending.push({ parent: name, inner: content, left: middle, top: y + TITLE, depth: depth + 1 });
      }
    }
  }
  const order = new Map(graph.nodes.map((node, place) => [node.reference, place]));
  scene.boxes.sort((one, other) => (order.get(one.reference) ?? 0) - (order.get(other.reference) ?? 0));
  return scene;
}

/** Ways by the list they are in; several between the same two boxes are one. The workflow's end is drawn where it is reached. */
function waysByList(graph: Graph, parents: Map<string, string>): Map<string, Way[]> {
  const ways = new Map<string, Map<string, Way>>();
  for (const edge of graph.edges) {
    const list = edge.source.startsWith("start:") ? edge.source.slice(6) : (parents.get(edge.source) ?? "");
    const target = edge.target === "end:" && list ? "stop" : edge.target;
    const key = JSON.stringify([edge.source, target]);
    const merged = ways.get(list) ?? new Map<string, Way>();
    ways.set(list, merged);
    const before = merged.get(key);
    if (!before) merged.set(key, { source: edge.source, target, kind: edge.kind, label: edge.label });
    else if (edge.label) before.label = before.label ? `${before.label} | ${edge.label}` : edge.label;
  }
  return new Map([...ways].map(([list, merged]) => [list, [...merged.values()]]));
}

function laidOut(
  parent: string,
  inside: Map<string, GraphNode[]>,
  ways: Map<string, Way[]>,
  known: Map<string, Size>,
): Inner {
  const own = ways.get(parent) ?? [];
  const sizes = new Map<string, Size>([[`start:${parent}`, { width: DOT, height: DOT }]]);
  for (const { reference } of inside.get(parent) ?? []) sizes.set(reference, known.get(reference) ?? { width: 0, height: 0 });
  if (own.some((way) => way.target === "stop")) sizes.set("stop", { width: DOT, height: DOT });
  sizes.set(`end:${parent}`, { width: DOT, height: DOT });
  return { picture: layOut(sizes, own), sizes };
}

function sizeOf(node: GraphNode, isList: boolean): Size {
  const name = cells(cut(node.name, NAME_CHARS_MAX)) * NAME_PX + STATE_PX + (isList ? FOLD_PX : 0);
  const label = (cells(cut(node.label, LABEL_CHARS_MAX)) + node.kind.length + 1) * LABEL_PX + DURATION_PX;
  return { width: Math.ceil(Math.max(160, name, label)), height: HEIGHT };
}

export function cut(text: string, sizeCharsMax: number): string {
  return text.length <= sizeCharsMax ? text : `${text.slice(0, sizeCharsMax - 1).trimEnd()}…`;
}

/** Widths of characters: those of East Asia take two. */
function cells(text: string): number {
  let sum = 0;
  for (const character of text) sum += (character.codePointAt(0) ?? 0) >= 0x1100 ? 2 : 1;
  return sum;
}
