// The timeline of an execution: a row for each task, its spans over time, idle times drawn short.
//
// Rules: only rows in sight are in the page, each kind of span as one path, so that tens of thousands of events stay
// quick. A range of time is chosen by dragging, by the wheel, by two fingers and by keys.

import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Event, Graph } from "../api";
import { StateMark } from "../diagram/Diagram";
import type { NodeStatus } from "../diagram/states";
import { count as grouped, duration } from "../format";
import { barsOf, geometryOf, rowAt, spanAt, type Geometry } from "./geometry";
import { TimelineFold, type Interval, type Row, type Span, type TimelineModel } from "./model";
import { placed, ticksOf, warpOf, zoomed, type View, type Warp } from "./scale";
import "./timeline.css";

export interface TimelineProps {
  /** In sequence. */
  events: readonly Event[];
  now_ms: number;
  /** Number of an event. */
  selected: number | null;
  onSelect: (sequence: number | null) => void;
  /** Tells which tasks wait while they run. */
  graph?: Graph | null;
  /** What is shown of the time, as "from-to" in milliseconds since the start; empty: all of it. */
  range: string;
  onRange: (range: string) => void;
  /** Whether all events and the graph are there, so that times have their places. */
  isWhole: boolean;
}

const RANGE_PAUSE_MS = 250;
const AXIS_PX = 26;
const LABEL_PX = 236;
const LABEL_NARROW_PX = 132;
const NARROW_PX = 560;
const DRAG_PX = 4;
const IDLE_LABEL_PX = 52;
const ENDS = /^workflow_(completed|failed|cancelled)$/;

/** Has the part of the time that is shown come from the address, once, and go into it. */
function useRange(
  { range, onRange, isWhole }: TimelineProps, start_ms: number, warp: Warp, chosen: View | null, choose: (view: View) => void,
): void {
  const waits = useRef(range !== "");
  useEffect(() => {
    if (!waits.current || !isWhole) return;
    waits.current = false;
    const [from = 0, to = 0] = range.split("-").map(Number);
    const [begins, ends] = [warp.at(start_ms + from), warp.at(start_ms + to)];
    if (ends > begins) choose(placed(begins, ends - begins, warp.length));
  }, [isWhole]);
  useEffect(() => {
    if (waits.current) return undefined;
    const told = chosen ? [chosen.from, chosen.to].map((each) => Math.round(10 * (warp.back(each) - start_ms)) / 10).join("-") : "";
    if (told === range) return undefined;
    const timer = setTimeout(() => onRange(told), RANGE_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [chosen]);
}

export function Timeline(props: TimelineProps): JSX.Element {
  const { events, now_ms, selected, onSelect, graph = null } = props;
  const last = events[events.length - 1];
  const now = last && ENDS.test(last.event_type) ? 0 : now_ms;
  const kept = useRef(new TimelineFold(null));
  const model = useMemo(() => {
    if (kept.current.graph !== graph || !kept.current.isPartOf(events)) kept.current = new TimelineFold(graph);
    kept.current.takeAll(events);
    return kept.current.model(now);
  }, [events, events.length, graph, now]);
  const [isShort, setShort] = useState(true);
  const until = model.end_ms ?? Math.max(now, model.last_ms);
  const idle = isShort ? model.idle : NONE;
  const warp = useMemo(() => warpOf(model.start_ms, until, idle), [model.start_ms, until, idle]);
  const [chosen, setChosen] = useState<View | null>(null);
  useRange(props, model.start_ms, warp, chosen, setChosen);
  const view = chosen ?? { from: 0, to: warp.length };
  const geometry = useMemo(() => geometryOf(model.rows), [model]);

  const body = useRef<HTMLDivElement>(null);
  const [sight, setSight] = useState({ top: 0, width: 0, height: 0 });
  const isNarrow = sight.width > 0 && sight.width < NARROW_PX;
  const labels = isNarrow ? LABEL_NARROW_PX : LABEL_PX;
  const width = Math.max(40, sight.width - labels - 12);
  const [focused, setFocused] = useState("");
  const [pointed, setPointed] = useState<{ row: number; span: number } | null>(null);
  const [drag, setDrag] = useState<{ from: number; to: number } | null>(null);
  const isFocusing = useRef(false);

  const place = selected === null ? null : model.placeOf(selected);
  const at = Math.max(0, model.rows.findIndex((row) => row.reference === focused));
  const current = focused ? at : (place?.row ?? 0);

  useLayoutEffect(() => {
    const element = body.current;
    if (!element) return undefined;
    const measure = (): void =>
      setSight({ top: element.scrollTop, width: element.clientWidth, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const reveal = (row: number): void => {
    const element = body.current;
    if (!element) return;
    const top = geometry.tops[row] ?? 0;
    const bottom = geometry.tops[row + 1] ?? geometry.height;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (bottom > element.scrollTop + element.clientHeight) element.scrollTop = bottom - element.clientHeight;
  };

  // An event that was chosen elsewhere comes into sight, in both directions.
  useEffect(() => {
    if (!place) return;
    reveal(place.row);
    const span = model.rows[place.row]?.spans[place.span];
    if (!span || !chosen) return;
    const where = warp.at(span.from_ms);
    if (where < chosen.from || where > chosen.to) {
      setChosen(placed(where - (chosen.to - chosen.from) / 2, chosen.to - chosen.from, warp.length));
    }
  }, [selected]);

  useLayoutEffect(() => {
    if (!isFocusing.current) return;
    isFocusing.current = false;
    body.current?.querySelector<HTMLElement>('[role="treeitem"][tabindex="0"]')?.focus({ preventScroll: true });
  });

  const perPx = (view.to - view.from) / width;
  const zoom = (factor: number, around: number): void => {
    const next = zoomed(view, factor, around, warp.length);
    setChosen(next.to - next.from >= warp.length * 0.9999 ? null : next);
  };
  const pan = (px: number): void => {
    if (chosen) setChosen(placed(chosen.from + px * perPx, chosen.to - chosen.from, warp.length));
  };

  const gestures = useRef<Gestures>({} as Gestures);
  gestures.current = {
    zoomAt: (factor, x) => zoom(factor, view.from + x * perPx),
    pan,
    drag: setDrag,
    choose: (from, to) => setChosen(placed(view.from + from * perPx, Math.max((to - from) * perPx, 0.05), warp.length)),
    left: labels,
  };
  useLayoutEffect(() => (body.current ? listenToWheel(body.current, gestures) : undefined), []);

  const pick = (row: number, span: number): void => {
    const found = model.rows[row]?.spans[span];
    if (!found) return;
    setFocused(model.rows[row]?.reference ?? "");
    // A second click on a span goes from its first event to its last one.
    onSelect(selected === found.first && found.last !== found.first ? found.last : found.first);
  };

  const step = (row: number): void => {
    const found = model.rows[row];
    if (!found) return;
    isFocusing.current = true;
    setFocused(found.reference);
    reveal(row);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const spans = model.rows[current]?.spans ?? [];
    const inRow = place?.row === current ? place.span : -1;
    const middle = place ? warp.at(model.rows[place.row]?.spans[place.span]?.from_ms ?? 0) : (view.from + view.to) / 2;
    const along = (span: number): void => {
      const found = spans[Math.min(spans.length - 1, Math.max(0, span))];
      if (!found) return;
      setPointed(null);
      onSelect(found.first);
    };
    const actions: Record<string, () => void> = {
      ArrowDown: () => step(current + 1),
      ArrowUp: () => step(current - 1),
      Home: () => step(0),
      End: () => step(model.rows.length - 1),
      PageDown: () => step(Math.min(model.rows.length - 1, current + 20)),
      PageUp: () => step(Math.max(0, current - 20)),
      ArrowRight: () => (event.shiftKey ? pan(width / 5) : along(inRow + 1)),
      ArrowLeft: () => (event.shiftKey ? pan(-width / 5) : along(inRow < 0 ? spans.length - 1 : inRow - 1)),
      Enter: () => along(Math.max(0, inRow)),
      "+": () => zoom(1.6, middle),
      "=": () => zoom(1.6, middle),
      "-": () => zoom(1 / 1.6, middle),
      "0": () => setChosen(null),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  };

  // Nothing is drawn before the room for it is known.
  const first = Math.max(0, rowAt(geometry, sight.top) - 4);
  const end = Math.min(model.rows.length, rowAt(geometry, sight.top + (sight.height || 600)) + 5);
  const shown = model.rows.slice(first, end);
  const ticks = ticksOf(warp, view, width, model.start_ms, idle);
  const told = pointed ?? place;

  return (
    <div class={`timeline${isNarrow ? " is-narrow" : ""}`} style={{ "--labels": `${labels}px` }}>
      <div class="timeline-head">
        <div class="timeline-tools">
          <button type="button" title="Closer (+)" aria-label="Closer" onClick={() => zoom(1.6, (view.from + view.to) / 2)}>+</button>
          <button type="button" title="Further (-)" aria-label="Further" onClick={() => zoom(1 / 1.6, (view.from + view.to) / 2)}>−</button>
          <button type="button" title="The whole time (0)" disabled={!chosen} onClick={() => setChosen(null)}>fit</button>
          {model.idle.length > 0 && (
            <button
              type="button"
              aria-pressed={isShort}
              title="Draw times short in which nothing runs"
              onClick={() => {
                setShort(!isShort);
                setChosen(null);
              }}
            >
              short idle
            </button>
          )}
        </div>
        <Axis {...{ model, warp, view, width, ticks, idle }} />
      </div>
      <div
        class="timeline-body"
        ref={body}
        role="tree"
        aria-label="Tasks over time"
        onKeyDown={onKeyDown}
        onFocusIn={(event) => {
          const row = event.target instanceof HTMLElement ? event.target.dataset["reference"] : undefined;
          if (row) setFocused(row);
        }}
        onScroll={(event) => setSight({ ...sight, top: event.currentTarget.scrollTop })}
      >
        <div class="timeline-rows" style={{ height: `${geometry.height}px` }}>
          {sight.width > 0 && <Plot
            {...{ model, warp, view, width, geometry, first, end, ticks, idle, place, pointed, drag, until }}
            gestures={gestures}
            onPick={pick}
            onPoint={setPointed}
          />}
          {shown.map((row, index) => (
            <Label
              key={row.reference}
              row={row}
              top={geometry.tops[first + index] ?? 0}
              height={(geometry.tops[first + index + 1] ?? geometry.height) - (geometry.tops[first + index] ?? 0)}
              until={until}
              position={first + index + 1}
              count={model.rows.length}
              isFocused={first + index === current}
              isSelected={place?.row === first + index}
              onPick={() => pick(first + index, place?.row === first + index ? place.span : 0)}
            />
          ))}
        </div>
        {model.rows.length === 0 && <p class="timeline-empty">No task has begun yet.</p>}
      </div>
      <div class="timeline-told" aria-live="polite">
        {told ? tell(model.rows[told.row], told.span, model, until) : LEGEND}
      </div>
    </div>
  );
}

const NONE: never[] = [];

const LEGEND = (
  <span class="timeline-legend">
    <span class="timeline-key is-completed">done</span>
    <span class="timeline-key is-running">running</span>
    <span class="timeline-key is-waiting">waiting</span>
    <span class="timeline-key is-failed">failed</span>
    <span class="timeline-key is-cut">cut off</span>
    <span class="timeline-hint">drag to choose a range</span>
  </span>
);

function tell(row: Row | undefined, index: number, model: TimelineModel, until: number): JSX.Element | null {
  const span = row?.spans[index];
  if (!row || !span) return null;
  const waited = span.waits.reduce((sum, each) => sum + each.to_ms - each.from_ms, 0);
  const parts = [
    span.iteration.length ? `iteration ${span.iteration.join(".")}` : "",
    row.attempts > 1 ? `attempt ${span.attempt}` : "",
    wordOf(row, span),
    `at ${duration(span.from_ms - model.start_ms)}`,
    `took ${duration((span.to_ms ?? until) - span.from_ms)}`,
    waited ? `waited ${duration(waited)} of it` : "",
    span.first === span.last ? `event ${span.first}` : `events ${span.first} to ${span.last}`,
    span.error,
  ];
  return (
    <>
      <b>{row.name}</b> {parts.filter(Boolean).join(" · ")}
    </>
  );
}

function wordOf(row: Row, span: Span): string {
  if (span.state === "running") return row.isWaiting || span.retrying_ms !== null ? "waiting" : "running";
  return span.state === "cut" ? "cut off" : span.state === "completed" ? "done" : "failed";
}

interface AxisProps {
  model: TimelineModel;
  warp: Warp;
  view: View;
  width: number;
  ticks: number[];
  idle: readonly Interval[];
}

function Axis({ model, warp, view, width, ticks, idle }: AxisProps): JSX.Element {
  const x = (ms: number): number => ((warp.at(ms) - view.from) / (view.to - view.from)) * width;
  const told = toldIdle(idle, (each) => (x(each.from_ms) + x(each.to_ms)) / 2, width);
  const isFree = (place: number): boolean => told.every((gap) => Math.abs(gap.place - place) > IDLE_LABEL_PX);
  return (
    <svg class="timeline-axis" width={width + 12} height={AXIS_PX} aria-hidden="true">
      {ticks.filter((tick) => isFree(x(tick))).map((tick) => (
        <text key={tick} x={x(tick)} y={17} text-anchor={x(tick) < 14 ? "start" : x(tick) > width - 14 ? "end" : "middle"}>
          {tickText(tick - model.start_ms)}
        </text>
      ))}
      {told.map(({ place, length_ms }) => (
        <text key={place} class="idle" x={Math.min(place, width - 20)} y={17} text-anchor="middle">
          {duration(length_ms)}
          <title>idle for {duration(length_ms)}</title>
        </text>
      ))}
    </svg>
  );
}

/** Idle times that are told on the axis: the longest ones that have room. */
function toldIdle(
  idle: readonly Interval[],
  placeOf: (each: Interval) => number,
  width: number,
): { place: number; length_ms: number }[] {
  const told: { place: number; length_ms: number }[] = [];
  const longest = [...idle].sort((one, other) => other.to_ms - other.from_ms - (one.to_ms - one.from_ms));
  for (const each of longest) {
    const place = placeOf(each);
    if (place < 0 || place > width || told.some((other) => Math.abs(other.place - place) < IDLE_LABEL_PX * 1.2)) continue;
    told.push({ place, length_ms: each.to_ms - each.from_ms });
  }
  return told;
}

function tickText(ms: number): string {
  if (ms === 0) return "0";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${ms / 1000} s`;
  const [hours, minutes, seconds] = [Math.floor(ms / 3_600_000), Math.floor(ms / 60_000) % 60, Math.round(ms / 1000) % 60];
  const two = (value: number): string => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

interface PlotProps extends AxisProps {
  geometry: Geometry;
  first: number;
  end: number;
  until: number;
  place: { row: number; span: number } | null;
  pointed: { row: number; span: number } | null;
  drag: { from: number; to: number } | null;
  gestures: { current: Gestures };
  onPick: (row: number, span: number) => void;
  onPoint: (place: { row: number; span: number } | null) => void;
}

function Plot(props: PlotProps): JSX.Element {
  const { model, warp, view, width, geometry, first, end, until, ticks, idle, place, drag } = props;
  const svg = useRef<SVGSVGElement>(null);
  const top = geometry.tops[first] ?? 0;
  const height = (geometry.tops[end] ?? geometry.height) - top;
  const x = (ms: number): number => ((warp.at(ms) - view.from) / (view.to - view.from)) * width;
  const latest = useRef(props);
  latest.current = props;

  useLayoutEffect(() => {
    if (!svg.current) return undefined;
    return listenToPointers(svg.current, props.gestures, {
      click: (at, y) => {
        const { geometry: now, model: whole, warp: scale, view: range, width: wide, until: open } = latest.current;
        const found = spanAt(whole, now, { warp: scale, view: range, width: wide, until: open }, at, y);
        if (found) latest.current.onPick(found.row, found.span);
      },
      point: (at, y) => {
        const { geometry: now, model: whole, warp: scale, view: range, width: wide, until: open, pointed } = latest.current;
        const found = at < 0 ? null : spanAt(whole, now, { warp: scale, view: range, width: wide, until: open }, at, y);
        if (found?.row !== pointed?.row || found?.span !== pointed?.span) latest.current.onPoint(found);
      },
      top: () => latest.current.geometry.tops[latest.current.first] ?? 0,
    });
  }, []);

  const bars = barsOf(model.rows, geometry, { warp, view, width, until }, first, end);
  const chosen = place ? model.rows[place.row]?.spans[place.span] : undefined;
  const lane = place && chosen ? geometry.lane(place.row, chosen.attempt) : null;
  return (
    <svg ref={svg} class="timeline-plot" style={{ top: `${top}px` }} width={width + 12} height={height} aria-hidden="true">
      {idle.map(({ from_ms, to_ms }) => (
        <rect key={`i${from_ms}`} class="idle" x={x(from_ms)} width={Math.max(0, x(to_ms) - x(from_ms))} height={height} />
      ))}
      {model.paused.map(({ from_ms, to_ms }) => (
        <rect key={`p${from_ms}`} class="paused" x={x(from_ms)} width={Math.max(1, x(to_ms) - x(from_ms))} height={height}>
          <title>paused</title>
        </rect>
      ))}
      <path class="grid" d={ticks.map((tick) => `M${Math.round(x(tick)) + 0.5} 0v${height}`).join("")} />
      <path class="grid" d={geometry.lines(first, end).map((line) => `M0 ${line - top + 0.5}h${width + 12}`).join("")} />
      <g transform={`translate(0 ${-top})`}>
        {Object.entries(bars).map(([kind, path]) => (
          <path key={kind} class={`bar is-${kind}`} d={path} />
        ))}
        {chosen && lane && (
          <>
            <path class="cursor" d={`M${x(chosen.from_ms)} ${top}v${height}`} />
            <rect
              class="chosen"
              x={x(chosen.from_ms) - 2}
              y={lane.y - 2}
              width={Math.max(2, x(chosen.to_ms ?? until) - x(chosen.from_ms)) + 4}
              height={lane.height + 4}
              rx={3}
            />
          </>
        )}
      </g>
      {model.end_ms === null && model.rows.length > 0 && <path class="now" d={`M${x(until)} 0v${height}`} />}
      {drag && <rect class="drag" x={Math.min(drag.from, drag.to)} width={Math.abs(drag.to - drag.from)} height={height} />}
    </svg>
  );
}

interface LabelProps {
  row: Row;
  top: number;
  height: number;
  until: number;
  position: number;
  count: number;
  isFocused: boolean;
  isSelected: boolean;
  onPick: () => void;
}

function Label({ row, top, height, until, position, count, isFocused, isSelected, onPick }: LabelProps): JSX.Element {
  const last = row.spans[row.spans.length - 1];
  const took = row.spans.reduce((sum, span) => sum + (span.to_ms ?? until) - span.from_ms, 0);
  const word = last ? wordOf(row, last) : "";
  const times = row.spans.length;
  const status: NodeStatus =
    word === "running" || word === "waiting" || word === "failed" ? word : word === "done" ? "completed" : "skipped";
  return (
    <div
      class={`timeline-label${isSelected ? " is-selected" : ""}`}
      style={{ top: `${top}px`, height: `${height}px`, paddingLeft: `${8 + 14 * Math.min(row.depth, 8)}px` }}
      role="treeitem"
      tabIndex={isFocused ? 0 : -1}
      aria-level={row.depth + 1}
      aria-posinset={position}
      aria-setsize={count}
      aria-selected={isSelected}
      title={row.reference}
      data-reference={row.reference}
      onClick={onPick}
    >
      <svg width={16} height={16} viewBox="-8 -8 16 16" aria-hidden="true">
        <StateMark status={status} />
      </svg>
      <span class="name">{row.name}</span> {times > 1 && <span class="times">×{grouped(times)}</span>}{" "}
      <span class="took">{duration(took)}</span> <span class="timeline-unseen">{word}</span>
    </div>
  );
}

// --- pointers and the wheel ---

interface Gestures {
  zoomAt: (factor: number, x: number) => void;
  pan: (px: number) => void;
  drag: (range: { from: number; to: number } | null) => void;
  choose: (from: number, to: number) => void;
  left: number;
}

function listenToWheel(element: HTMLElement, gestures: { current: Gestures }): () => void {
  const wheel = (event: WheelEvent): void => {
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const x = event.clientX - element.getBoundingClientRect().left - gestures.current.left;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      gestures.current.zoomAt(Math.exp(-event.deltaY * unit * 0.004), x);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      gestures.current.pan((event.deltaX || event.deltaY) * unit);
    }
  };
  element.addEventListener("wheel", wheel, { passive: false });
  return () => element.removeEventListener("wheel", wheel);
}

interface Hits {
  click: (x: number, y: number) => void;
  point: (x: number, y: number) => void;
  top: () => number;
}

/** The mouse chooses a range; a finger moves along, two zoom. */
function listenToPointers(element: SVGSVGElement, gestures: { current: Gestures }, hits: Hits): () => void {
  const pointers = new Map<number, number>();
  let start = 0;
  let isDragging = false;
  const at = (event: PointerEvent): { x: number; y: number } => {
    const { left, top } = element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top + hits.top() };
  };
  const down = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    if (pointers.size === 0) {
      start = at(event).x;
      isDragging = false;
    }
    pointers.set(event.pointerId, at(event).x);
  };
  const move = (event: PointerEvent): void => {
    const { x, y } = at(event);
    const before = pointers.get(event.pointerId);
    if (before === undefined) {
      hits.point(x, y);
      return;
    }
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, x);
    if (!isDragging && Math.abs(x - start) < DRAG_PX) return;
    if (!isDragging) {
      isDragging = true;
      element.setPointerCapture(event.pointerId);
    }
    if (other !== undefined) {
      const [gap, wider] = [Math.abs(before - other), Math.abs(x - other)];
      if (gap > 8 && wider > 8) gestures.current.zoomAt(wider / gap, (x + other) / 2);
    } else if (event.pointerType === "touch") gestures.current.pan(before - x);
    else gestures.current.drag({ from: start, to: x });
  };
  const up = (event: PointerEvent): void => {
    if (!pointers.delete(event.pointerId)) return;
    const { x, y } = at(event);
    if (!isDragging) hits.click(x, y);
    else if (event.pointerType !== "touch" && event.type === "pointerup") {
      gestures.current.choose(Math.min(start, x), Math.max(start, x));
    }
    gestures.current.drag(null);
  };
  const leave = (): void => hits.point(-1, 0);
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("pointerleave", leave);
  return () => {
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", up);
    element.removeEventListener("pointercancel", up);
    element.removeEventListener("pointerleave", leave);
  };
}
