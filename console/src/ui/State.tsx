// A state by colour, shape and word.
import type { JSX } from "preact";

const TONES: Record<string, string> = {
  completed: "ok",
  failed: "bad",
  running: "busy",
  paused: "wait",
  waiting: "wait",
  scheduled: "ok",
  pending: "idle",
  cancelled: "idle",
  skipped: "idle",
  begun: "idle",
  idle: "idle",
};

export const toneOf = (status: string): string => TONES[status] ?? "idle";

const SHAPES: Record<string, JSX.Element> = {
  completed: <path d="M2.5 6.4 5 8.9l4.6-5.6" fill="none" stroke-width="1.9" />,
  failed: <path d="m3 3 6 6M9 3 3 9" fill="none" stroke-width="1.9" />,
  running: (
    <g>
      <circle class="pulse" cx="6" cy="6" r="3" stroke="none" />
      <circle cx="6" cy="6" r="3" stroke="none" />
    </g>
  ),
  paused: <path d="M4 2.8v6.4M8 2.8v6.4" fill="none" stroke-width="2.1" />,
  waiting: <path d="M6 1.8a4.2 4.2 0 1 0 0 8.4 4.2 4.2 0 0 0 0-8.4Zm0 1.9V6l1.7 1.2" fill="none" stroke-width="1.4" />,
  scheduled: <path d="M6 1.8a4.2 4.2 0 1 0 0 8.4 4.2 4.2 0 0 0 0-8.4Zm0 1.9V6l1.7 1.2" fill="none" stroke-width="1.4" />,
  pending: <circle cx="6" cy="6" r="3.6" fill="none" stroke-width="1.4" stroke-dasharray="2 1.8" />,
  cancelled: <path d="M6 1.9a4.1 4.1 0 1 0 0 8.2 4.1 4.1 0 0 0 0-8.2ZM3.2 8.8l5.6-5.6" fill="none" stroke-width="1.4" />,
  begun: <path d="M4 3.2 8.6 6 4 8.8Z" stroke="none" />,
  skipped: <path d="M3 6h6" fill="none" stroke-width="1.8" />,
  idle: <circle cx="6" cy="6" r="2" fill="none" stroke-width="1.3" />,
};

export function Shape({ status }: { status: string }) {
  return (
    <svg class={`shape tone-${toneOf(status)}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {SHAPES[status] ?? SHAPES["idle"]}
    </svg>
  );
}

/** `word`: what is said in the place of the state's own name. */
export function State({ status, word = status }: { status: string; word?: string }) {
  return (
    <span class={`state tone-${toneOf(status)}`}>
      <Shape status={status} />
      <span>{word}</span>
    </span>
  );
}
