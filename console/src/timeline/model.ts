// What the events of an execution say of time: a row for each task, with a span for each time that it ran.
//
// Rules: a fold that goes forward, so that what came before is never looked at again. Rows are in the order of a tree: what
// a task holds comes below it, in the order in which it began. A time in which nothing runs, all that is open waits, is
// idle; the scale can leave it out.

import type { Event, Graph } from "../api";
import { OpenTasks } from "../open";

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
  /** Since when it waits for its next attempt; null: it does not. */
  retrying_ms: number | null;
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
  /** Its place among all. */
  index: number;
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
  /** Where the span of an event is, by its number. */
  placeOf: (sequence: number) => { row: number; span: number } | null;
}

interface Open {
  reference: string;
  row: Row;
  span: Span;
  iteration: readonly number[];
}

const WAITING_KINDS: ReadonlySet<string> = new Set(["wait", "listen"]);
const ENDS: ReadonlySet<string> = new Set(["workflow_completed", "workflow_failed", "workflow_cancelled"]);
/** Shorter idle times are no trouble. */
const IDLE_MS_MIN = 500;
const IDLE_SHARE_MIN = 0.04;

/** Without a graph, only what lies between attempts is known to wait. `now_ms` is what open spans reach to. */
export function timelineOf(events: readonly Event[], graph: Graph | null, now_ms: number): TimelineModel {
  const fold = new TimelineFold(graph);
  fold.takeAll(events);
  return fold.model(now_ms);
}

export class TimelineFold {
  private readonly kinds: ReadonlyMap<string, string>;
  private readonly rows = new Map<string, Row>();
  private readonly open = new OpenTasks<Open>();
  private readonly retrying = new Set<Open>();
  private readonly places = new Map<number, { row: Row; span: number }>();
  private readonly paused: Interval[] = [];
  private ordered: Row[] = [];
  private pause_ms: number | null = null;
  private start_ms = 0;
  private end_ms: number | null = null;
  private last_ms = 0;
  private taken = 0;
  private first: Event | undefined;
  private latest: Event | undefined;

  constructor(readonly graph: Graph | null) {
    this.kinds = new Map((graph?.nodes ?? []).map((node) => [node.reference, node.kind]));
  }

  /** Whether a list goes on from what was taken. */
  isPartOf(events: readonly Event[]): boolean {
    return this.taken <= events.length && (this.taken === 0 || (events[0] === this.first && events[this.taken - 1] === this.latest));
  }

  /** Takes what is new of a list that only grows. */
  takeAll(events: readonly Event[]): void {
    this.first ??= events[0];
    for (; this.taken < events.length; this.taken++) {
      this.latest = events[this.taken];
      if (this.latest) this.take(this.latest);
    }
  }

  model(now_ms: number): TimelineModel {
    const { start_ms, end_ms, last_ms, pause_ms } = this;
    const until_ms = end_ms ?? Math.max(now_ms, last_ms);
    if (this.ordered.length !== this.rows.size) this.ordered = inTreeOrder(this.rows);
    return {
      rows: this.ordered,
      start_ms,
      end_ms,
      last_ms,
      paused: pause_ms === null ? this.paused : [...this.paused, { from_ms: pause_ms, to_ms: until_ms }],
      idle: idleOf(this.ordered, start_ms, until_ms),
      placeOf: (sequence) => {
        const place = this.places.get(sequence);
        return place ? { row: place.row.index, span: place.span } : null;
      },
    };
  }

  private take(event: Event): void {
    const at = event.timestamp_ms ?? this.last_ms;
    this.start_ms ||= at;
    this.last_ms = Math.max(this.last_ms, at);
    if (event.event_type === "workflow_paused") this.pause_ms ??= at;
    else if (event.event_type === "workflow_resumed" || ENDS.has(event.event_type)) {
      if (this.pause_ms !== null) this.paused.push({ from_ms: this.pause_ms, to_ms: at });
      this.pause_ms = null;
    }
    if (ENDS.has(event.event_type)) {
      this.end_ms = at;
      for (const each of this.open.values()) cut(each.span, at);
      this.open.clear();
    } else if (event.task_reference) this.takeTask(event, event.task_reference, at);
  }

  private takeTask(event: Event, reference: string, at: number): void {
    const iteration = event.iteration ?? [];
    if (event.event_type === "task_started") {
      this.begin(event, reference, iteration, at);
      return;
    }
    const isRetry = event.event_type === "task_retry";
    const inside = isRetry ? this.open.endInside(reference, iteration) : this.open.end(reference, iteration);
    const found = isRetry ? this.open.get(reference, iteration) : inside.shift();
    if (!found) return;
    const { row, span } = found;
    span.last = event.sequence_number;
    this.places.set(event.sequence_number, this.places.get(span.first) ?? { row, span: 0 });
    for (const each of inside) this.cutOff(each, at);
    if (isRetry) {
      span.retrying_ms = at;
      this.retrying.add(found);
      return;
    }
    endRetry(span, at);
    span.to_ms = at;
    span.state = event.event_type === "task_failed" ? "failed" : "completed";
    if (span.state === "failed") span.error = event.error?.message ?? event.message ?? "";
    this.retrying.delete(found);
  }

  private begin(event: Event, reference: string, iteration: readonly number[], at: number): void {
    const row = this.rowOf(event, reference);
    const span: Span = {
      state: "running",
      from_ms: at,
      to_ms: null,
      attempt: event.attempt ?? 1,
      iteration,
      first: event.sequence_number,
      last: event.sequence_number,
      waits: [],
      retrying_ms: null,
      error: "",
    };
    // A `try` counts its own attempts: it is one span with waits in it.
    if (row.kind !== "try") row.attempts = Math.max(row.attempts, span.attempt);
    this.places.set(span.first, { row, span: row.spans.push(span) - 1 });
    for (const each of this.retrying) {
      if (!isInside(reference, iteration, each)) continue;
      endRetry(each.span, at);
      this.retrying.delete(each);
    }
    for (const each of this.open.begin({ reference, row, span, iteration })) this.cutOff(each, at);
  }

  private rowOf(event: Event, reference: string): Row {
    let row = this.rows.get(reference);
    if (!row) {
      const kind = this.kinds.get(reference) ?? "";
      row = {
        reference,
        name: event.task_name ?? reference,
        kind,
        depth: 0,
        spans: [],
        attempts: 1,
        isWaiting: WAITING_KINDS.has(kind),
        hasChildren: false,
        index: 0,
      };
      this.rows.set(reference, row);
      const holder = this.rows.get(parentOf(reference, this.rows));
      if (holder) holder.hasChildren = true;
    }
    return row;
  }

  private cutOff(each: Open, at: number): void {
    cut(each.span, at);
    this.retrying.delete(each);
  }
}

function isInside(reference: string, iteration: readonly number[], outer: Open): boolean {
  return (
    reference.startsWith(`${outer.reference}/`) && outer.iteration.every((index, depth) => iteration[depth] === index)
  );
}

function endRetry(span: Span, at: number): void {
  if (span.retrying_ms !== null) span.waits.push({ from_ms: span.retrying_ms, to_ms: at });
  span.retrying_ms = null;
}

function cut(span: Span, at: number): void {
  endRetry(span, at);
  span.to_ms = at;
  span.state = "cut";
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
    row.index = ordered.push(row) - 1;
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
