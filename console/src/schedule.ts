// Schedules in words: what starts executions, what became of moments, what goes on now.
import type { Schedule, Trigger } from "./api";
import { counted, duration } from "./format";

/** An ISO 8601 duration in milliseconds; 0 where it has months or years, or is none. */
export function isoMs(text: string): number {
  const found = /^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(text);
  if (!found) return 0;
  const [weeks = 0, days = 0, hours = 0, minutes = 0, seconds = 0] = found.slice(1).map((each) => Number(each ?? 0));
  return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000;
}

/** "15 min", without parts of a second that nobody has written. */
function spanOf(text: string): string {
  const span_ms = isoMs(text);
  if (!span_ms) return text;
  return span_ms % 1000 === 0 && span_ms < 60_000 ? `${span_ms / 1000} s` : duration(span_ms);
}

function typesOf(on_json: string): string {
  const found = [...on_json.matchAll(/"type"\s*:\s*"([^"]+)"/g)].map((each) => each[1] ?? "");
  return found.length ? `on ${[...new Set(found)].join(", ")}` : "on events";
}

export function triggerText(trigger: Trigger, timezone: string): string {
  const parts = [
    trigger.every && `every ${spanOf(trigger.every)}`,
    trigger.cron && `cron ${trigger.cron}${timezone && timezone !== "UTC" ? ` (${timezone})` : ""}`,
    trigger.after && `${spanOf(trigger.after)} after the end`,
    trigger.on_json && typesOf(trigger.on_json),
  ];
  return parts.filter(Boolean).join(", ");
}

/** What became of moments, without what there is none of. */
export function momentsText(schedule: Schedule): string {
  const { started_count, failed_count, missed_count, overlapped_count, queued_count } = schedule;
  const parts: [number, string][] = [
    [started_count, "started"], [failed_count, "failed"], [missed_count, "missed"], [overlapped_count, "left out"], [queued_count, "waiting"],
  ];
  return parts.filter(([number]) => number).map(([number, word]) => `${number.toLocaleString("en-US")} ${word}`).join(", ");
}

export function scheduleSays(schedule: Schedule): string {
  if (schedule.paused) return schedule.reason ? `Paused: ${schedule.reason}` : "Paused";
  if (schedule.last_error) return schedule.last_error;
  if (!schedule.next_ms) return schedule.trigger.on_json ? "Waits for events" : "Waits for the end of an execution";
  const { overlap, misfire, jitter_ms } = schedule.options;
  const says = [
    overlap === "skip" && "one at a time",
    overlap === "queue" && "one after the other",
    misfire === "skip" && "missed ones are skipped",
    misfire === "all" && "missed ones are made up for",
    jitter_ms > 0 && `put off by up to ${duration(jitter_ms)}`,
  ].filter(Boolean).join(", ");
  return says && `${says[0]?.toUpperCase() ?? ""}${says.slice(1)}`;
}

export const scheduleCount = (number: number): string => counted(number, "schedule");
