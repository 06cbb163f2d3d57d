// What tasks are doing, by their events: a fold that goes forward, one event at a time.
import type { ErrorDetails, Event } from "./api";
import type { NodeState, NodeStatus } from "./diagram/states";
import { OpenTasks } from "./open";

/** Kinds of tasks that wait while they are under way. */
const WAITING_KINDS: ReadonlySet<string> = new Set(["wait", "listen"]);

export interface TaskState extends NodeState {
  failures: number;
  retries: number;
  attempt: number;
  /** Numbers of its first and its latest event. */
  first: number;
  last: number;
  /** When the latest that is under way began; 0: none is. */
  since_ms: number;
  retry?: Retry;
}

export interface Retry {
  attempt: number;
  /** When it is due, as far as the event tells. */
  due_ms: number;
  error: string;
}

/** One that has begun and not ended. */
export interface Open {
  reference: string;
  name: string;
  iteration: number[];
  since_ms: number;
  sequence: number;
}

const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** When a retry is due: its event says "is retried in 200 ms after ...". */
function dueOf(event: Event): number {
  const said = /is retried in (.+?) after /.exec(event.message ?? "")?.[1] ?? "";
  let delay_ms = 0;
  for (const [, amount, unit] of said.matchAll(/([\d.]+) ?(ms|s|min|h|d)\b/g)) {
    delay_ms += Number(amount) * (UNITS_MS[unit ?? ""] ?? 0);
  }
  return delay_ms ? (event.timestamp_ms ?? 0) + delay_ms : 0;
}

export const errorText = (error: ErrorDetails | null | undefined): string =>
  error?.message ?? error?.title ?? error?.code ?? "";

export class Fold {
  readonly states = new Map<string, TaskState>();
  private readonly open = new OpenTasks<Open>();
  taken = 0;
  start_ms = 0;
  isPaused = false;
  pausedReason = "";
  hasEnded = false;

  /** `kinds`: of tasks, by their references, as far as they are known. */
  constructor(private readonly kinds: ReadonlyMap<string, string> = new Map()) {}

  /** Takes what is new of a list that only grows. */
  takeAll(events: readonly Event[]): void {
    for (; this.taken < events.length; ) this.take(events[this.taken] as Event);
  }

  take(event: Event): void {
    this.taken += 1;
    const at_ms = event.timestamp_ms ?? 0;
    if (!this.start_ms) this.start_ms = at_ms;
    if (event.event_type.startsWith("workflow_")) this.workflow(event);
    const reference = event.task_reference;
    if (!reference || !event.event_type.startsWith("task_")) return;
    const state = this.stateOf(reference, event.sequence_number);
    state.last = event.sequence_number;
    state.attempt = event.attempt ?? 1;
    const iteration = event.iteration ?? [];
    if (event.event_type === "task_started") {
      state.hits += 1;
      state.status = this.underWay(reference);
      state.since_ms = at_ms;
      const open = { reference, name: event.task_name ?? "", iteration, since_ms: at_ms, sequence: event.sequence_number };
      this.interrupt(this.open.begin(open));
      this.endRetries(reference);
      return;
    }
    if (event.event_type === "task_retry") {
      this.interrupt(this.open.endInside(reference, iteration));
      state.retries += 1;
      state.status = "waiting";
      state.retry = { attempt: event.attempt ?? 1, due_ms: dueOf(event), error: errorText(event.error) };
      return;
    }
    const [begun, ...inside] = this.open.end(reference, iteration);
    if (begun) state.duration_ms += at_ms - begun.since_ms;
    this.interrupt(inside);
    delete state.retry;
    if (event.event_type === "task_failed") {
      state.failures += 1;
      state.error = errorText(event.error) || (event.message ?? "");
    }
    this.settle(reference, state, event.event_type === "task_failed" ? "failed" : "completed");
  }

  private stateOf(reference: string, sequence: number): TaskState {
    let state = this.states.get(reference);
    if (!state) {
      state = {
        status: "idle", hits: 0, duration_ms: 0, failures: 0, retries: 0, attempt: 1, first: sequence, last: sequence,
        since_ms: 0,
      };
      this.states.set(reference, state);
    }
    return state;
  }

  /** A task that has ended is still running where another iteration of it is. */
  private settle(reference: string, state: TaskState, status: NodeStatus): void {
    const other = this.open.first(reference);
    state.status = other ? this.underWay(reference) : status;
    state.since_ms = other?.since_ms ?? 0;
  }

  private underWay(reference: string): NodeStatus {
    return WAITING_KINDS.has(this.kinds.get(reference) ?? "") ? "waiting" : "running";
  }

  /** What runs within a task that ends sends nothing more. */
  private interrupt(inside: Open[]): void {
    for (const each of inside) {
      const state = this.states.get(each.reference);
      if (state) this.settle(each.reference, state, "skipped");
    }
  }

  /** A `try` waits no longer once something within it begins. */
  private endRetries(reference: string): void {
    for (let end = reference.lastIndexOf("/"); end > 0; end = reference.lastIndexOf("/", end - 1)) {
      const around = this.states.get(reference.slice(0, end));
      if (around?.retry) {
        delete around.retry;
        around.status = "running";
      }
    }
  }

  private workflow(event: Event): void {
    if (event.event_type === "workflow_paused") {
      this.isPaused = true;
      this.pausedReason = event.message ?? "";
    } else if (event.event_type === "workflow_resumed") {
      this.isPaused = false;
    } else if (/_(completed|failed|cancelled)$/.test(event.event_type)) {
      this.hasEnded = true;
      this.isPaused = false;
      for (const each of this.open.values()) {
        const state = this.states.get(each.reference);
        if (state) {
          state.status = "skipped";
          state.since_ms = 0;
          delete state.retry;
        }
      }
      this.open.clear();
    }
  }

  /** The innermost tasks under way, the earliest first. */
  leaves(): Open[] {
    return this.open.leaves();
  }
}
