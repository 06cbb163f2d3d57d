// Why an execution is waiting, in one sentence, by what its events and its document say.
import type { AcceptedDocument, DocumentTask, Execution } from "./api";
import type { Fold, Open } from "./fold";
import { clockTime, duration } from "./format";

const UNITS_MS: Record<string, number> = {
  days: 86_400_000,
  hours: 3_600_000,
  minutes: 60_000,
  seconds: 1000,
  milliseconds: 1,
};

/** How long a `wait` lasts, by its lines of the document; 0 where an expression decides. */
export function waitOf(text: string): number {
  const said = /\bwait["']?:([\s\S]*)/.exec(text)?.[1] ?? "";
  const iso = /^\s*["']?P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?["']?/.exec(said);
  if (iso) {
    const [, days = 0, hours = 0, minutes = 0, seconds = 0] = iso.map(Number).map((each) => each || 0);
    return ((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000;
  }
  let total_ms = 0;
  for (const [, unit, amount] of said.matchAll(/\b(days|hours|minutes|seconds|milliseconds)["']?:\s*(\d+)\b/g)) {
    total_ms += Number(amount) * (UNITS_MS[unit ?? ""] ?? 0);
  }
  return total_ms;
}

/** Types of events that a `listen` wants, by its lines of the document. */
export function eventTypesOf(text: string): string[] {
  const found = [...text.matchAll(/\btype["']?:\s*["']?([^\s"',}]+)/g)].map((each) => each[1] ?? "");
  return [...new Set(found.filter(Boolean))];
}

export function linesOf(document: AcceptedDocument, task: DocumentTask): string {
  return document.document
    .split("\n")
    .slice(task.line - 1, task.end_line)
    .join("\n");
}

function placeOf(open: Open): string {
  return open.iteration.length ? `${open.name} (iteration ${open.iteration.map((at) => at + 1).join(".")})` : open.name;
}

function leafSays(open: Open, document: AcceptedDocument | null, now_ms: number): string {
  const task = document?.tasks.find((each) => each.reference === open.reference);
  const since = duration(Math.max(0, now_ms - open.since_ms));
  const text = task && document ? linesOf(document, task) : "";
  if (task?.kind === "wait") {
    const until_ms = open.since_ms + waitOf(text);
    if (until_ms > now_ms) {
      return `Waits at ${placeOf(open)} until ${clockTime(until_ms, now_ms)}, for ${duration(until_ms - now_ms)} more.`;
    }
    return `Waits at ${placeOf(open)}, since ${since}.`;
  }
  if (task?.kind === "listen") {
    const types = eventTypesOf(text);
    const what = types.length ? `an event of type ${types.join(" or ")}` : "an event";
    return `Listens at ${placeOf(open)} for ${what}, since ${since}.`;
  }
  const what = task && ["call", "run"].includes(task.kind) ? `the ${task.kind} of ${placeOf(open)}` : placeOf(open);
  return `Waits for ${what} to answer, since ${since}.`;
}

/** How many retries a `try` allows, by its lines without those of the tasks in it; 0 where they do not say. */
export function retriesOf(document: AcceptedDocument, task: DocumentTask): number {
  const lines = document.document.split("\n");
  for (const each of document.tasks) {
    if (!each.reference.startsWith(`${task.reference}/`)) continue;
    for (let line = each.line; line <= each.end_line; line += 1) lines[line - 1] = "";
  }
  const text = lines.slice(task.line - 1, task.end_line).join("\n");
  return Number(/\blimit["']?:[\s\S]*?\battempt["']?:[\s\S]*?\bcount["']?:\s*(\d+)/.exec(text)?.[1] ?? 0);
}

function retrySays(fold: Fold, document: AcceptedDocument | null, now_ms: number): string {
  for (const [reference, { retry }] of fold.states) {
    if (!retry) continue;
    const name = reference.slice(reference.lastIndexOf("/") + 1);
    const when = retry.due_ms > now_ms ? ` in ${duration(retry.due_ms - now_ms)}` : "";
    const task = document?.tasks.find((each) => each.reference === reference);
    const most = task && document ? retriesOf(document, task) : 0;
    const of = most ? ` of ${most}` : "";
    return `Retry ${retry.attempt - 1}${of} of ${name} begins${when || " now"}: the attempt before failed with ${retry.error}.`;
  }
  return "";
}

/** What a runner says, with times as this page shows them. */
function runnerSays(said: string, now_ms: number): string {
  // Where a task stands is shown beside; its name says enough.
  const text = said.replace(/ \(\/[^\s;]*\)/g, "").replace(/\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)/g, (moment) => {
    const at_ms = Date.parse(moment);
    if (!at_ms) return moment;
    return at_ms > now_ms ? `${clockTime(at_ms, now_ms)} (in ${duration(at_ms - now_ms)})` : clockTime(at_ms, now_ms);
  });
  return `${text[0]?.toUpperCase() ?? ""}${text.slice(1)}.`;
}

/** One sentence; empty where it is not waiting. */
export function whyWaiting(
  execution: Execution,
  fold: Fold,
  document: AcceptedDocument | null,
  now_ms: number,
): string {
  if (["completed", "failed", "cancelled"].includes(execution.status)) {
    return execution.waiting ? runnerSays(execution.waiting, now_ms) : "";
  }
  if (execution.launch === "recorded") return "Recorded: the runner has not answered yet, and is asked again until it does.";
  if (execution.gap_since_ms) {
    const next = execution.last_sequence + 1;
    const since = duration(now_ms - execution.gap_since_ms);
    return `Event ${next} has been missing for ${since}; later ones are here, and shown once it comes.`;
  }
  if (execution.status === "paused" || fold.isPaused) {
    const reason = fold.pausedReason || execution.message;
    return `Paused${reason ? `: ${reason.replace(/\.$/, "")}` : ""}. Nothing begins until it is resumed.`;
  }
  // It knows more than its events tell, but may have said so before the latest of them.
  if (execution.waiting && execution.last_sequence >= fold.taken) return runnerSays(execution.waiting, now_ms);
  const retry = retrySays(fold, document, now_ms);
  if (retry) return retry;
  const leaves = fold.leaves();
  const [first] = leaves;
  if (!first) return "";
  const says = leafSays(first, document, now_ms);
  return leaves.length > 1 ? `${says.slice(0, -1)}; ${leaves.length - 1} more under way.` : says;
}
