// The diagram of an execution: its document's tasks as boxes within boxes, each with how it stands.
//
// Rules: a state is told by colour, by shape and by a word. The picture is moved by the mouse, by fingers and by keys; only
// what is in sight, and a margin around it, is in the page, so that thousands of tasks stay quick.

import type { JSX } from "preact";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Graph } from "../api";
import { count, duration } from "../format";
import "./diagram.css";
import { WAY_LABEL_CHARS_MAX, type Line } from "./layout";
import { cut, LABEL_CHARS_MAX, NAME_CHARS_MAX, sceneOf, type Box, type Dot, type Scene } from "./scene";
import { wordOf, type NodeState, type NodeStatus, type States } from "./states";
import { usePanZoom, type Range } from "./view";

export interface DiagramProps {
  graph: Graph;
  states: States;
  /** A task's reference. */
  selected: string | null;
  onSelect: (reference: string | null) => void;
}

const ACTIVE: ReadonlySet<NodeStatus> = new Set(["running", "waiting"]);

export function Diagram({ graph, states, selected, onSelect }: DiagramProps): JSX.Element {
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const scene = useMemo(() => sceneOf(graph, folded), [graph, folded]);
  const view = usePanZoom(scene, graph);
  const [focused, setFocused] = useState("");
  const root = useRef<HTMLDivElement>(null);
  const isFocusing = useRef(false);
  const places = useMemo(() => new Map(scene.boxes.map((box, place) => [box.reference, place])), [scene]);
  const at = places.has(focused) ? focused : selected && places.has(selected) ? selected : (scene.boxes[0]?.reference ?? "");

  const { reveal } = view;
  useEffect(() => {
    const box = selected === null ? undefined : scene.boxes[places.get(selected) ?? -1];
    if (box) reveal(box);
  }, [selected, scene, places, reveal]);

  // What runs when the states are first known is in sight; after that nothing moves by itself.
  const seen = useRef<Graph | null>(null);
  useEffect(() => {
    if (seen.current === graph || Object.keys(states).length === 0) return;
    seen.current = graph;
    const active = scene.boxes.findLast((box) => !box.isList && ACTIVE.has(states[box.reference]?.status ?? "idle"));
    if (active && selected === null) reveal(active);
  });

  useLayoutEffect(() => {
    if (!isFocusing.current) return;
    isFocusing.current = false;
    root.current?.querySelector<SVGGElement>(`[data-reference="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
  });

  const go = (reference: string | undefined): void => {
    const box = scene.boxes[places.get(reference ?? "") ?? -1];
    if (!box) return;
    isFocusing.current = true;
    view.reveal(box);
    setFocused(box.reference);
  };

  const fold = useCallback((reference: string, isFolded: boolean): void => {
    setFolded((before) => {
      const after = new Set(before);
      if (isFolded) after.add(reference);
      else after.delete(reference);
      return after;
    });
  }, []);

  const latest = useRef({ selected, onSelect });
  latest.current = { selected, onSelect };
  const { hasMoved } = view;
  const pick = useCallback(
    (reference: string): void => {
      if (hasMoved()) return;
      setFocused(reference);
      latest.current.onSelect(reference === latest.current.selected ? null : reference);
    },
    [hasMoved],
  );
  const boxes = scene.boxes.filter(
    (box) => box.reference === at || isIn(view.range, box.x, box.y, box.width, box.height),
  );
  const lists = useMemo(() => scene.boxes.filter((box) => box.isList), [scene]);

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const place = places.get(at) ?? 0;
    const box = scene.boxes[place];
    const actions: Record<string, () => void> = {
      ArrowDown: () => go(scene.boxes[place + 1]?.reference),
      ArrowUp: () => go(scene.boxes[place - 1]?.reference),
      Home: () => go(scene.boxes[0]?.reference),
      End: () => go(scene.boxes[scene.boxes.length - 1]?.reference),
      ArrowRight: () => {
        if (box?.isFolded) fold(box.reference, false);
        else if (box?.isList) go(scene.boxes[place + 1]?.reference);
      },
      ArrowLeft: () => {
        if (box?.isList && !box.isFolded) {
          isFocusing.current = true;
          setFocused(box.reference);
          fold(box.reference, true);
        } else go(box?.node.parent);
      },
      Enter: () => onSelect(at === selected ? null : at),
      " ": () => onSelect(at === selected ? null : at),
      "+": () => view.zoom(1.25),
      "=": () => view.zoom(1.25),
      "-": () => view.zoom(0.8),
      "0": () => view.fit(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  };

  return (
    <div class="diagram" ref={root}>
      <svg
        ref={view.svg}
        role="tree"
        aria-label="Tasks of the workflow"
        onKeyDown={onKeyDown}
        onFocusIn={(event) => {
          const box = event.target instanceof Element ? event.target.closest("[data-reference]") : null;
          if (box) setFocused(box.getAttribute("data-reference") ?? "");
        }}
        onClick={(event) => {
          if (event.target === event.currentTarget && !view.hasMoved()) onSelect(null);
        }}
      >
        <Marker />
        <g ref={view.content}>
          {boxes
            .filter((box) => box.isList)
            .map((box) => (
              <rect
                key={box.reference}
                class={`diagram-back is-${states[box.reference]?.status ?? "idle"}`}
                x={px(box.x)}
                y={px(box.y)}
                width={px(box.width)}
                height={px(box.height)}
                rx={7}
              />
            ))}
          <Lines scene={scene} range={view.range} />
          {scene.dots.filter((dot) => isIn(view.range, dot.x, dot.y, 0, 0)).map(dotPart)}
          {boxes.map((box) => (
              <BoxPart
                key={box.reference}
                box={box}
                state={states[box.reference]}
                isSelected={box.reference === selected}
                isFocused={box.reference === at}
                onFold={fold}
                onPick={pick}
              />
            ))}
          <Labels scene={scene} range={view.range} />
        </g>
      </svg>
      <div class="diagram-tools">
        <button type="button" title="Larger (+)" aria-label="Larger" onClick={() => view.zoom(1.25)}>+</button>
        <button type="button" title="Smaller (-)" aria-label="Smaller" onClick={() => view.zoom(0.8)}>−</button>
        <button type="button" title="Show all (0)" onClick={() => view.fit()}>fit</button>
        {lists.length > 0 && (
          <button
            type="button"
            title="Fold or unfold all lists of tasks"
            onClick={() => setFolded(folded.size ? new Set() : new Set(lists.map((box) => box.reference)))}
          >
            {folded.size ? "unfold" : "fold"}
          </button>
        )}
      </div>
    </div>
  );
}

function isIn(range: Range, x: number, y: number, width: number, height: number): boolean {
  return x + width >= range.left && x <= range.right && y + height >= range.top && y <= range.bottom;
}

function Marker(): JSX.Element {
  return (
    <defs>
      <marker id="diagram-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
        <path class="diagram-arrow" d="M0 0L8 4L0 8z" />
      </marker>
    </defs>
  );
}

function visibleLines(scene: Scene, range: Range): Line[] {
  return scene.lines.filter(({ points }) => {
    let top = Infinity;
    let bottom = -Infinity;
    let left = Infinity;
    let right = -Infinity;
    for (const { x, y } of points) {
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    return isIn(range, left, top, right - left, bottom - top);
  });
}

function Lines({ scene, range }: { scene: Scene; range: Range }): JSX.Element {
  return (
    <g aria-hidden="true">
      {visibleLines(scene, range).map((line) => (
        <path
          key={`${line.way.source} ${line.way.target}`}
          class={`diagram-way is-${line.way.kind}`}
          d={pathOf(line)}
          marker-end="url(#diagram-arrow)"
        />
      ))}
    </g>
  );
}

function Labels({ scene, range }: { scene: Scene; range: Range }): JSX.Element {
  return (
    <g class="diagram-labels" aria-hidden="true">
      {visibleLines(scene, range)
        .filter((line) => line.way.label)
        .map((line) => {
          const { x, y } = labelPlace(line);
          return (
            <text key={`${line.way.source} ${line.way.target}`} x={x} y={y} text-anchor={line.isBeside ? "start" : "middle"}>
              {cut(line.way.label, WAY_LABEL_CHARS_MAX)}
              <title>{line.way.label}</title>
            </text>
          );
        })}
    </g>
  );
}

function pathOf({ points, isBeside }: Line): string {
  const first = points[0] ?? { x: 0, y: 0 };
  let path = `M${px(first.x)} ${px(first.y)}`;
  for (let index = 1; index < points.length; index++) {
    const from = points[index - 1] ?? first;
    const to = points[index] ?? first;
    if (isBeside || Math.abs(from.x - to.x) < 0.5) path += `L${px(to.x)} ${px(to.y)}`;
    else {
      const middle = px((from.y + to.y) / 2);
      path += `C${px(from.x)} ${middle} ${px(to.x)} ${middle} ${px(to.x)} ${px(to.y)}`;
    }
  }
  return path;
}

const px = (value: number): number => Math.round(value * 10) / 10;

/** Nearer to where a way leads, so that labels of one box lie apart. */
function labelPlace({ points, isBeside }: Line): { x: number; y: number } {
  const [one, two, three] = points;
  if (!one || !two) return { x: 0, y: 0 };
  if (isBeside) return { x: two.x + 4, y: (two.y + (three ?? two).y) / 2 };
  const [from, to] = three && one.x === two.x ? [two, three] : [one, two];
  return { x: from.x + (to.x - from.x) * 0.95, y: from.y + (to.y - from.y) * 0.72 };
}

function dotPart(dot: Dot): JSX.Element {
  return (
    <g key={`${dot.kind} ${dot.parent}`} aria-hidden="true">
      {dot.kind === "start" ? (
        <circle class="diagram-dot" cx={dot.x} cy={dot.y} r={4} />
      ) : (
        <circle class="diagram-ring" cx={dot.x} cy={dot.y} r={5} />
      )}
      {dot.kind === "stop" && (
        <circle class="diagram-dot" cx={dot.x} cy={dot.y} r={2.5}>
          <title>the workflow ends</title>
        </circle>
      )}
    </g>
  );
}

interface BoxProps {
  box: Box;
  state: NodeState | undefined;
  isSelected: boolean;
  isFocused: boolean;
  onFold: (reference: string, isFolded: boolean) => void;
  onPick: (reference: string) => void;
}

/** Made anew only when what it shows is another: a thousand others stay when an event comes. */
function BoxPart(props: BoxProps): JSX.Element {
  const { box, state, isSelected, isFocused, onFold, onPick } = props;
  return useMemo(
    () => boxPart(props),
    [box, state?.status, state?.hits, state?.duration_ms, state?.error, isSelected, isFocused, onFold, onPick],
  );
}

function boxPart({ box, state, isSelected, isFocused, onFold, onPick }: BoxProps): JSX.Element {
  const { node } = box;
  const status = state?.status ?? "idle";
  const hits = state?.hits ?? 0;
  // What an extension adds is tasks; it does not begin or end by itself.
  const isTask = node.kind !== "extension";
  const took = state && state.duration_ms > 0 ? duration(state.duration_ms) : "";
  const word = wordOf(state);
  const name = cut(node.name, NAME_CHARS_MAX);
  const stands = `${status === "idle" ? "" : word}${hits > 1 ? ` ×${count(hits)}` : ""}`;
  const label = cut(node.label, LABEL_CHARS_MAX);
  const end = box.isFolded ? `${box.count} tasks` : took;
  // What is seen, in its order, and then what is not.
  const says = [name, stands, node.kind, label, end, isTask && status === "idle" ? word : "", state?.error ?? ""];
  const classes = ["diagram-box", `is-${status}`, box.isList ? "is-list" : "", isTask ? "" : "is-extension", isSelected ? "is-selected" : ""];
  const right = box.width - 12 - (box.isList ? 16 : 0);
  return (
    <g
      class={classes.join(" ")}
      transform={`translate(${px(box.x)} ${px(box.y)})`}
      role="treeitem"
      tabindex={isFocused ? 0 : -1}
      aria-level={box.depth + 1}
      aria-selected={isSelected}
      aria-expanded={box.isList ? !box.isFolded : undefined}
      aria-label={says.filter(Boolean).join(" ")}
      data-reference={box.reference}
      onClick={(event) => {
        event.stopPropagation();
        onPick(box.reference);
      }}
    >
      <title>{[node.reference, state?.error ?? "", node.label].filter(Boolean).join("\n")}</title>
      <rect class="frame" width={px(box.width)} height={px(box.height)} rx={7} />
      {isTask && (
        <g transform="translate(17 18)">
          <StateMark status={status} />
        </g>
      )}
      <text class="name" x={isTask ? 31 : 12} y={22}>
        {name}
      </text>{" "}
      <text class="word" x={right} y={22} text-anchor="end">
        {stands}
      </text>{" "}
      <text class="label" x={12} y={39}>
        <tspan class="kind">{node.kind}</tspan> {label}
      </text>{" "}
      <text class="duration" x={box.width - 12} y={39} text-anchor="end">
        {end}
      </text>
      {box.isList && (
        <g
          class="fold"
          transform={`translate(${px(box.width - 26)} 8)`}
          onClick={(event) => {
            event.stopPropagation();
            onFold(box.reference, !box.isFolded);
          }}
        >
          <rect width={20} height={20} rx={4} />
          <path d={box.isFolded ? "M8 6l4 4l-4 4" : "M6 8l4 4l4 -4"} />
          <title>{box.isFolded ? "Show its tasks (right arrow)" : "Hide its tasks (left arrow)"}</title>
        </g>
      )}
    </g>
  );
}

/** A shape of its own for each state, around the origin. */
export function StateMark({ status }: { status: NodeStatus }): JSX.Element {
  const shapes: Record<NodeStatus, JSX.Element> = {
    idle: <circle class="mark-line" r={4.5} />,
    running: (
      <>
        <circle class="mark-pulse" r={6.5} />
        <circle class="mark-fill" r={4} />
      </>
    ),
    completed: <path class="mark-line" d="M-5 0.5l3.5 3.5l6.5 -8" />,
    failed: <path class="mark-line" d="M-4.5 -4.5l9 9M4.5 -4.5l-9 9" />,
    waiting: (
      <>
        <circle class="mark-line" r={5.5} />
        <path class="mark-line" d="M0 -3v3h2.5" />
      </>
    ),
    skipped: <path class="mark-line" d="M-5 0h10" />,
  };
  return <g class={`state-mark is-${status}`}>{shapes[status]}</g>;
}
