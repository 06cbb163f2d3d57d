import { describe, expect, it } from "vitest";
import type { Graph, GraphEdge, GraphNode } from "../api";
import { sceneOf, type Box } from "./scene";

const node = (reference: string, parent = "", kind = "set"): GraphNode => ({
  reference,
  kind,
  parent,
  name: reference.split("/").pop() ?? "",
  label: "",
});
const edge = (source: string, target: string, kind: GraphEdge["kind"] = "next", label = ""): GraphEdge => ({
  source,
  target,
  kind,
  label,
});

const NESTED: Graph = {
  nodes: [
    node("/do/0/a", "", "switch"),
    node("/do/1/f", "", "fork"),
    node("/do/1/f/fork/branches/0/x", "/do/1/f"),
    node("/do/1/f/fork/branches/1/y", "/do/1/f"),
    node("/do/2/z"),
  ],
  edges: [
    edge("start:", "/do/0/a"),
    edge("/do/0/a", "/do/1/f", "case", "one"),
    edge("/do/0/a", "/do/1/f", "case", "two"),
    edge("/do/0/a", "end:", "case", "three"),
    edge("start:/do/1/f", "/do/1/f/fork/branches/0/x", "branch"),
    edge("start:/do/1/f", "/do/1/f/fork/branches/1/y", "branch"),
    edge("/do/1/f/fork/branches/0/x", "end:/do/1/f"),
    edge("/do/1/f/fork/branches/1/y", "end:", "then", "end"),
    edge("/do/1/f", "/do/2/z"),
    edge("/do/2/z", "/do/0/a", "then"),
  ],
};

function chain(count: number): Graph {
  const nodes = Array.from({ length: count }, (_, i) => node(`/do/${i}/t${i}`));
  const edges = [edge("start:", "/do/0/t0"), edge(`/do/${count - 1}/t${count - 1}`, "end:")];
  for (let i = 1; i < count; i++) edges.push(edge(`/do/${i - 1}/t${i - 1}`, `/do/${i}/t${i}`));
  for (let i = 0; i + 40 < count; i += 3) edges.push(edge(`/do/${i}/t${i}`, `/do/${i + 40}/t${i + 40}`, "case", "far"));
  for (let i = 0; i + 4 < count; i += 5) edges.push(edge(`/do/${i}/t${i}`, `/do/${i + 4}/t${i + 4}`, "case", "near"));
  return { nodes, edges };
}

const overlap = (one: Box, other: Box): boolean =>
  one.x < other.x + other.width && other.x < one.x + one.width && one.y < other.y + other.height && other.y < one.y + one.height;

const within = (inner: Box, outer: Box): boolean =>
  inner.x >= outer.x && inner.y >= outer.y && inner.x + inner.width <= outer.x + outer.width && inner.y + inner.height <= outer.y + outer.height;

describe("a scene", () => {
  it("has every task within its parent and on no other", () => {
    const { boxes, width, height } = sceneOf(NESTED, new Set());
    expect(boxes.map((box) => box.reference)).toEqual(NESTED.nodes.map((each) => each.reference));
    for (const box of boxes) {
      const parent = boxes.find((each) => each.reference === box.node.parent);
      if (parent) expect(within(box, parent)).toBe(true);
      expect(box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height).toBe(true);
      for (const other of boxes) {
        if (other !== box && other.node.parent === box.node.parent) expect(overlap(box, other)).toBe(false);
      }
    }
    const [x, y] = [boxes[2], boxes[3]];
    expect(x?.y).toBe(y?.y);
  });

  it("draws ways between the same boxes once, and the end of the workflow where it is reached", () => {
    const { lines, dots } = sceneOf(NESTED, new Set());
    expect(lines.filter((line) => line.way.target === "/do/1/f").map((line) => line.way.label)).toEqual(["one | two"]);
    expect(dots.filter((dot) => dot.kind === "stop").map((dot) => dot.parent).sort()).toEqual(["", "/do/1/f"]);
    expect(lines.filter((line) => line.isBeside).map((line) => line.way.target)).toEqual(["/do/0/a"]);
  });

  it("leaves out what is folded", () => {
    const { boxes, dots } = sceneOf(NESTED, new Set(["/do/1/f"]));
    expect(boxes.map((box) => box.node.name)).toEqual(["a", "f", "z"]);
    expect(boxes[1]).toMatchObject({ isList: true, isFolded: true, count: 2 });
    expect(dots.every((dot) => dot.parent === "")).toBe(true);
  });

  it("is the same each time", () => {
    expect(sceneOf(chain(200), new Set())).toEqual(sceneOf(chain(200), new Set()));
  });

  it("holds thousands of tasks, one after the other, with ways over many", () => {
    const { boxes, lines } = sceneOf(chain(4_000), new Set());
    expect(boxes.length).toBe(4_000);
    expect(lines.length).toBeGreaterThan(5_500);
    expect(boxes.every((box, place) => place === 0 || box.y > (boxes[place - 1]?.y ?? Infinity))).toBe(true);
  }, 60_000);
});
