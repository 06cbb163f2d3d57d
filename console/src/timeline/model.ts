// What the events of an execution say of time: a row for each task, with a span for each time that it ran.
//
// Rules: pure, one pass over the events. Rows are in the order of a tree: what a task holds comes below it, in the order in
// which it began. A time in which nothing runs, all that is open waits, is idle; the scale can leave it out.

import type { Event, Graph } from "../api";

export type SpanState = "running" | "completed" | "failed" | "cut";

export interface Interval {
  from_ms: number;
  to_ms: number;
}

export interface Span {
  state: SpanState;
  from_ms: number;
  /** Null while it runs. */
  to_ms: number | null;
  attempt: number;
  iteration: readonly number[];
  /** Number of the event that it began with. */
  first: number;
  /** Number of the latest event of it. */
  last: number;
  /** Between attempts. */
  waits: Interval[];
  /** Whether it waits for its next attempt now. */
  isRetrying: boolean;
  error: string;
}

export interface Row {
  reference: string;
  name: string;
  /** Empty where no graph is known. */
  kind: string;
  depth: number;
  /** In the order in which they began. */
  spans: Span[];
  /** The highest attempt. */
  attempts: number;
  /** Whether its spans are nothing but waiting. */
  isWaiting: boolean;
  hasChildren: boolean;
}

export interface TimelineModel {
  rows: Row[];
  start_ms: number;
  /** When the execution ended; null while it goes on. */
  end_ms: number | null;
  /** The latest event. */
  last_ms: number;
  paused: Interval[];
  idle: Interval[];
  /** Where the span of an event is, by its number: row and span. */
  places: Map<number, { row: number; span: number }>;
}

interface Open {
  row: Row;
  span: Span;
  reference: string;
  iteration: readonly number[];
  /** Since when it waits for its next attempt. */
  retry_ms: number | null;
}

const WAITING_KINDS: ReadonlySet<string> = new Set(["wait", "listen"]);
const ENDS: ReadonlySet<string> = new Set(["workflow_completed", "workflow_failed", "workflow_cancelled"]);
/** Shorter idle times are no trouble. */
const IDLE_MS_MIN = 500;
const IDLE_SHARE_MIN = 0.04;

/** Without a graph, only what lies between attempts is known to wait. `now_ms` is what open spans reach to. */
export function timelineOf(events: readonly Event[], graph: Graph | null, now_ms: number): TimelineModel {
  const kinds = new Map((graph?.nodes ?? []).map((node) => [node.reference, node.kind]));
  const rows = new Map<string, Row>();
  const open = new Map<string, Open>();
  const retrying = new Set<Open>();
  const paused: Interval[] = [];
  let pause_ms: number | null = null;
  let start_ms = 0;
  let end_ms: number | null = null;
  let last_ms = 0;

  for (const event of events) {
    const at = event.timestamp_ms ?? last_ms;
    start_ms ||= at;
    last_ms = Math.max(last_ms, at);
    if (event.event_type === "workflow_paused") pause_ms ??= at;
    else if (event.event_type === "workflow_resumed" || ENDS.has(event.event_type)) {
      if (pause_ms !== null) paused.push({ from_ms: pause_ms, to_ms: at });
      pause_ms = null;
    }
    if (ENDS.has(event.event_type)) {
      end_ms = at;
      for (const each of open.values()) cut(each, at);
      open.clear();
    } else if (event.task_reference) takeTask(event, event.task_reference, at, rows, open, retrying, kinds);
  }
  const until_ms = end_ms ?? Math.max(now_ms, last_ms);
  for (const each of open.values()) {
    if (each.retry_ms === null) continue;
    each.span.waits.push({ from_ms: each.retry_ms, to_ms: until_ms });
    each.span.isRetrying = true;
  }
  if (pause_ms !== null) paused.push({ from_ms: pause_ms, to_ms: until_ms });
  const ordered = inTreeOrder(rows);
  return {
    rows: ordered,
    start_ms,
    end_ms,
    last_ms,
    paused,
    idle: idleOf(ordered, start_ms, until_ms),
    places: placesOf(ordered),
  };
}

function takeTask(
  event: Event,
  reference: string,
  at: number,
  rows: Map<string, Row>,
  open: Map<string, Open>,
  retrying: Set<Open>,
  kinds: ReadonlyMap<string, string>,
): void {
  const iteration = event.iteration ?? [];
  const key = `${iteration.join(",")} ${reference}`;
  if (event.event_type === "task_started") {
    const row = rowOf(rows, event, reference, kinds);
    const span: Span = {
      state: "running",
      from_ms: at,
      to_ms: null,
      attempt: event.attempt ?? 1,
      iteration,
      first: event.sequence_number,
      last: event.sequence_number,
      waits: [],
      isRetrying: false,
      error: "",
    };
    // A `try` counts its own attempts: it is one span with waits in it.
    if (row.kind !== "try") row.attempts = Math.max(row.attempts, span.attempt);
    row.spans.push(span);
    for (const each of retrying) {
      if (each.retry_ms !== null && isInside(reference, iteration, each)) {
        each.span.waits.push({ from_ms: each.retry_ms, to_ms: at });
        each.retry_ms = null;
        retrying.delete(each);
      }
    }
    open.set(key, { row, span, reference, iteration, retry_ms: null });
    return;
  }
  const found = open.get(key);
  if (!found) return;
  found.span.last = event.sequence_number;
  cutInside(found, at, open);
  if (event.event_type === "task_retry") {
    found.retry_ms = at;
    retrying.add(found);
    return;
  }
  if (found.retry_ms !== null) found.span.waits.push({ from_ms: found.retry_ms, to_ms: at });
  found.span.to_ms = at;
  found.span.state = event.event_type === "task_failed" ? "failed" : "completed";
  if (found.span.state === "failed") found.span.error = event.error?.message ?? event.message ?? "";
  open.delete(key);
  retrying.delete(found);
}

function rowOf(rows: Map<string, Row>, event: Event, reference: string, kinds: ReadonlyMap<string, string>): Row {
  let row = rows.get(reference);
  if (!row) {
    const kind = kinds.get(reference) ?? "";
    row = {
      reference,
      name: event.task_name ?? reference,
      kind,
      depth: 0,
      spans: [],
      attempts: 1,
      isWaiting: WAITING_KINDS.has(kind),
      hasChildren: false,
    };
    rows.set(reference, row);
    const holder = rows.get(parentOf(reference, rows));
    if (holder) holder.hasChildren = true;
  }
  return row;
}

function isInside(reference: string, iteration: readonly number[], outer: Open): boolean {
  return (
    reference.startsWith(`${outer.reference}/`) && outer.iteration.every((index, depth) => iteration[depth] === index)
  );
}

function cut(each: Open, at: number): void {
  if (each.retry_ms !== null) each.span.waits.push({ from_ms: each.retry_ms, to_ms: at });
  each.span.to_ms = at;
  each.span.state = "cut";
}

function cutInside(outer: Open, at: number, open: Map<string, Open>): void {
  // Most tasks hold no others; to look for some each time would be quadratic in wide forks.
  if (!outer.row.hasChildren) return;
  for (const [key, each] of open) {
    if (each !== outer && isInside(each.reference, each.iteration, outer)) {
      cut(each, at);
      open.delete(key);
    }
  }
}

/** What holds others comes before them. */
function inTreeOrder(rows: Map<string, Row>): Row[] {
  const children = new Map<string, Row[]>();
  for (const row of rows.values()) {
    const parent = parentOf(row.reference, rows);
    const siblings = children.get(parent);
    if (siblings) siblings.push(row);
    else children.set(parent, [row]);
  }
  const ordered: Row[] = [];
  const pending = [...(children.get("") ?? [])].reverse();
  for (let row = pending.pop(); row; row = pending.pop()) {
    ordered.push(row);
    for (const child of [...(children.get(row.reference) ?? [])].reverse()) {
      child.depth = row.depth + 1;
      pending.push(child);
    }
  }
  return ordered;
}

function parentOf(reference: string, rows: ReadonlyMap<string, Row>): string {
  for (let at = reference.lastIndexOf("/"); at > 0; at = reference.lastIndexOf("/", at - 1)) {
    const outer = reference.slice(0, at);
    if (rows.has(outer)) return outer;
  }
  return "";
}

/** Times in which nothing runs, and that are long beside the whole. */
function idleOf(rows: readonly Row[], start_ms: number, until_ms: number): Interval[] {
  const active: Interval[] = [];
  for (const row of rows) {
    if (row.hasChildren || row.isWaiting) continue;
    for (const span of row.spans) active.push({ from_ms: span.from_ms, to_ms: span.to_ms ?? until_ms });
  }
  active.sort((one, other) => one.from_ms - other.from_ms);
  const least = Math.max(IDLE_MS_MIN, (until_ms - start_ms) * IDLE_SHARE_MIN);
  const idle: Interval[] = [];
  let reached = start_ms;
  for (const { from_ms, to_ms } of [...active, { from_ms: until_ms, to_ms: until_ms }]) {
    if (from_ms - reached >= least) idle.push({ from_ms: reached, to_ms: from_ms });
    reached = Math.max(reached, to_ms);
  }
  return idle;
}

function placesOf(rows: readonly Row[]): Map<number, { row: number; span: number }> {
  const places = new Map<number, { row: number; span: number }>();
  for (const [row, { spans }] of rows.entries()) {
    for (const [span, { first, last }] of spans.entries()) {
      places.set(first, { row, span });
      places.set(last, { row, span });
    }
  }
  return places;
}
