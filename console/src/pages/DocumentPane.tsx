// The accepted document with what its tasks do: state, hits and time in the gutter, the running line lit, errors at the
// end of their line. A click on a task chooses it.
import { useMemo } from "preact/hooks";
import type { AcceptedDocument, DocumentTask } from "../api";
import type { TaskState } from "../fold";
import { count, counted, duration } from "../format";
import { now } from "../state";
import { CopyButton } from "../ui/Copy";
import { Shape } from "../ui/State";
import { Virtual } from "../ui/Virtual";
import { Line } from "../ui/Yaml";

const LINE_PX = 21;

interface Properties {
  document: AcceptedDocument;
  states: ReadonlyMap<string, TaskState>;
  /** References of the innermost tasks under way. */
  lit: ReadonlySet<string>;
  selected: string;
  version: number;
  /** When what is under way is shown as of; 0: now. */
  at_ms: number;
  onSelect: (reference: string) => void;
}

function hint(task: DocumentTask, state: TaskState | undefined): string {
  if (!state) return `${task.name}: not begun`;
  const parts = [`${task.name}: ${state.status}`, counted(state.hits, "time"), duration(state.duration_ms)];
  if (state.retries) parts.push(counted(state.retries, "retry").replace("retrys", "retries"));
  if (state.failures) parts.push(counted(state.failures, "failure"));
  return parts.join(", ");
}

function Gutter({ task, state, at_ms }: { task: DocumentTask | undefined; state: TaskState | undefined; at_ms: number }) {
  if (!task) return <span class="gutter" />;
  const running_ms = state?.since_ms ? Math.max(0, (at_ms || now.value) - state.since_ms) : 0;
  const total_ms = (state?.duration_ms ?? 0) + running_ms;
  return (
    <span class="gutter num" title={hint(task, state)}>
      <span class="gutter-time">{total_ms >= 1 ? duration(total_ms) : ""}</span>
      <span class="gutter-hits">{state && state.hits > 1 ? `${count(state.hits)}×` : ""}</span>
      <Shape status={state?.status ?? "idle"} />
    </span>
  );
}

export function DocumentPane({ document, states, lit, selected, version, at_ms, onSelect }: Properties) {
  const lines = useMemo(() => document.document.replace(/\n$/, "").split("\n"), [document]);
  const byLine = useMemo(() => {
    const found = new Map<number, DocumentTask>();
    for (const task of document.tasks) if (!found.has(task.line)) found.set(task.line, task);
    return found;
  }, [document]);
  const ofLine = useMemo(() => {
    // The innermost task that holds each line: later ones lie within earlier ones.
    const found = new Array<DocumentTask | undefined>(lines.length + 1);
    for (const task of document.tasks) for (let at = task.line; at <= task.end_line; at += 1) found[at] = task;
    return found;
  }, [document, lines.length]);
  const target = document.tasks.find((each) => each.reference === selected);
  const litTasks = document.tasks.filter((each) => lit.has(each.reference));
  const litLines = new Set(litTasks.map((each) => each.line));
  const glowOf = (at: number): string => {
    const around = litTasks.find((each) => at >= each.line && at <= each.end_line);
    return around ? (states.get(around.reference)?.status === "waiting" ? "glow waits" : "glow") : "";
  };
  const firstLit = litTasks[0];
  const keep = target ? target.line - 1 : firstLit ? firstLit.line - 1 : null;
  const width = Math.max(...lines.map((line) => line.length));

  const move = (step: number): void => {
    const at = document.tasks.findIndex((each) => each.reference === selected);
    const next = document.tasks[Math.max(0, Math.min(document.tasks.length - 1, at + step))];
    if (next) onSelect(next.reference);
  };

  return (
    <div class="pane document-pane">
      <div class="source-bar"><CopyButton text={document.document} what="the document" /></div>
      <Virtual
        class="source lines"
        role="region"
        aria-label={`Document ${document.namespace}/${document.name} ${document.version}`}
        tabIndex={0}
        count={lines.length}
        row_px={LINE_PX}
        keep={keep}
        stir={selected}
        align="middle"
        overscan={40}
        data-version={version}
        onKeyDown={(event) => {
          if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
          event.preventDefault();
          move(event.key === "ArrowDown" ? 1 : -1);
        }}
        render={(at) => {
          const number = at + 1;
          const task = byLine.get(number);
          const owner = ofLine[number];
          const state = task ? states.get(task.reference) : undefined;
          const classes = ["line"];
          if (litLines.has(number)) classes.push(state?.status === "waiting" ? "lit waits" : "lit");
          else classes.push(glowOf(number));
          if (target && number >= target.line && number <= target.end_line) classes.push("chosen");
          if (state?.status === "failed") classes.push("failed");
          const error = state?.status === "failed" ? state.error : state?.retry?.error;
          return (
            <div
              key={number}
              class={classes.join(" ")}
              style={{ height: `${LINE_PX}px`, minWidth: `calc(${width}ch + 200px)` }}
              onClick={() => owner && onSelect(owner.reference)}
            >
              <Gutter task={task} state={state} at_ms={at_ms} />
              <span class="number num">{number}</span>
              <Line text={lines[at] ?? ""} />
              {task && error ? <span class="line-error" title={error}>{error}</span> : null}
              {litLines.has(number) ? <span class="hidden">runs now</span> : null}
            </div>
          );
        }}
      />
    </div>
  );
}
