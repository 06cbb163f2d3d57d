// How a task stands, as the diagram shows it; `fold.ts` makes it of events.

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
