// What the events of an execution say of each task: how it stands, how often it began, how long it took.
//
// Rules: a fold over events in their order, so that what came before is never looked at again. Of loops the counts add
// up; the status is the latest one. A task that is cut off sends nothing: the end of what it lies in says so.

import type { Event, Graph } from "../api";

export type NodeStatus = "idle" | "running" | "completed" | "failed" | "waiting" | "skipped";

export interface NodeState {
  status: NodeStatus;
  /** How often it began. */
  hits: number;
  /** How long it took, of all times that have ended. */
  duration_ms: number;
  /** What it failed with the last time. */
  error?: string;
}

export type States = Record<string, NodeState>;

interface Open {
  reference: string;
  iteration: readonly number[];
  since_ms: number;
}

export interface Fold {
  states: States;
  /** What has begun and not ended. */
  open: Map<string, Open>;
  /** Kinds of tasks that wait while they run. */
  kinds: ReadonlyMap<string, string>;
  last_sequence: number;
}

const WAITING_KINDS: ReadonlySet<string> = new Set(["wait", "listen"]);
const ENDS: ReadonlySet<string> = new Set(["workflow_completed", "workflow_failed", "workflow_cancelled"]);

/** Before the first event. Without a graph nothing is known to wait but for its next attempt. */
export function emptyFold(graph: Graph | null): Fold {
  const kinds = new Map((graph?.nodes ?? []).map((node) => [node.reference, node.kind]));
  return { states: {}, open: new Map(), kinds, last_sequence: 0 };
}

export function statesOf(events: readonly Event[], graph: Graph | null): States {
  const fold = emptyFold(graph);
  foldEvents(fold, events);
  return fold.states;
}

/** Takes further events; those that it has taken are passed over. Whether any state is another one. */
export function foldEvents(fold: Fold, events: readonly Event[]): boolean {
  let hasChanged = false;
  for (const event of events) {
    if (event.sequence_number <= fold.last_sequence) continue;
    fold.last_sequence = event.sequence_number;
    if (ENDS.has(event.event_type)) {
      hasChanged = endAll(fold) || hasChanged;
    } else if (event.task_reference) {
      take(fold, event, event.task_reference);
      hasChanged = true;
    }
  }
  return hasChanged;
}

function take(fold: Fold, event: Event, reference: string): void {
  const state = (fold.states[reference] ??= { status: "idle", hits: 0, duration_ms: 0 });
  const iteration = event.iteration ?? [];
  const key = keyOf(reference, iteration);
  switch (event.event_type) {
    case "task_started":
      fold.open.set(key, { reference, iteration, since_ms: event.timestamp_ms ?? 0 });
      state.hits += 1;
      state.status = statusOfOpen(fold, reference);
      resumeRetried(fold, reference, iteration);
      break;
    case "task_retry":
      cutOff(fold, reference, iteration);
      state.status = "waiting";
      break;
    case "task_completed":
    case "task_failed":
      close(fold, key, state, event.timestamp_ms ?? 0);
      cutOff(fold, reference, iteration);
      if (event.event_type === "task_failed") {
        state.status = "failed";
        state.error = event.error?.message ?? event.message ?? "failed";
      } else {
        state.status = isOpen(fold, reference) ? statusOfOpen(fold, reference) : "completed";
      }
  }
}

function keyOf(reference: string, iteration: readonly number[]): string {
  return `${iteration.join(",")} ${reference}`;
}

function statusOfOpen(fold: Fold, reference: string): NodeStatus {
  return WAITING_KINDS.has(fold.kinds.get(reference) ?? "") ? "waiting" : "running";
}

function isOpen(fold: Fold, reference: string): boolean {
  for (const open of fold.open.values()) if (open.reference === reference) return true;
  return false;
}

function close(fold: Fold, key: string, state: NodeState, now_ms: number): void {
  const open = fold.open.get(key);
  if (!open) return;
  state.duration_ms += Math.max(0, now_ms - open.since_ms);
  fold.open.delete(key);
}

/** A `try` that waited for its next attempt runs once a task of it begins. */
function resumeRetried(fold: Fold, reference: string, iteration: readonly number[]): void {
  for (const open of fold.open.values()) {
    const state = fold.states[open.reference];
    if (
      state?.status === "waiting" &&
      reference.startsWith(`${open.reference}/`) &&
      isWithin(iteration, open.iteration) &&
      !WAITING_KINDS.has(fold.kinds.get(open.reference) ?? "")
    ) {
      state.status = "running";
    }
  }
}

/** Whatever still ran within a task that has ended, or begins anew. */
function cutOff(fold: Fold, reference: string, iteration: readonly number[]): void {
  for (const [key, open] of fold.open) {
    if (!open.reference.startsWith(`${reference}/`) || !isWithin(open.iteration, iteration)) continue;
    fold.open.delete(key);
    const state = fold.states[open.reference];
    if (state && !isOpen(fold, open.reference)) state.status = "skipped";
  }
}

function isWithin(iteration: readonly number[], outer: readonly number[]): boolean {
  return outer.every((index, depth) => iteration[depth] === index);
}

function endAll(fold: Fold): boolean {
  const hadOpen = fold.open.size > 0;
  for (const open of fold.open.values()) {
    const state = fold.states[open.reference];
    if (state) state.status = "skipped";
  }
  fold.open.clear();
  return hadOpen;
}

const WORDS: Record<NodeStatus, string> = {
  idle: "not begun",
  running: "running",
  completed: "done",
  failed: "failed",
  waiting: "waiting",
  skipped: "cut off",
};

/** What a state is called. */
export function wordOf(state: NodeState | undefined): string {
  return WORDS[state?.status ?? "idle"];
}
