// Numbers and times for people. Times are milliseconds since the epoch; 0 is "not yet".

const LONG = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const COUNT = new Intl.NumberFormat("en-US");

export const count = (value: number): string => COUNT.format(value);

/** "1 event", "1,200 events". */
export const counted = (value: number, noun: string): string => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** What a clock can show; senders may give numbers beyond that, such as nanoseconds. */
const TIME_MS_MAX = 8.64e15;
const isTime = (time_ms: number): boolean => Math.abs(time_ms) <= TIME_MS_MAX;

/** ISO 8601; what is no time, as the number that it is. */
export const isoTime = (time_ms: number): string =>
  isTime(time_ms) ? new Date(time_ms).toISOString() : `${time_ms} ms, which is no time`;

export function exactTime(time_ms: number): string {
  if (!time_ms) return "not yet";
  return isTime(time_ms) ? `${LONG.format(time_ms)} (${isoTime(time_ms)})` : isoTime(time_ms);
}

/** The time of day, with the date where it is another day. */
export function clockTime(time_ms: number, now_ms: number): string {
  if (!isTime(time_ms)) return isoTime(time_ms);
  const same = new Date(time_ms).toDateString() === new Date(now_ms).toDateString();
  return same ? CLOCK.format(time_ms) : `${DAY.format(time_ms)} ${CLOCK.format(time_ms)}`;
}

/** "3 s ago", "in 2 min", "5 d ago". */
export function relativeTime(time_ms: number, now_ms: number): string {
  if (!time_ms) return "–";
  const ago_s = Math.round((now_ms - time_ms) / 1000);
  if (Math.abs(ago_s) < 1) return "now";
  const text = coarse(Math.abs(ago_s));
  return ago_s > 0 ? `${text} ago` : `in ${text}`;
}

function coarse(duration_s: number): string {
  if (duration_s < 60) return `${duration_s} s`;
  if (duration_s < 3600) return `${Math.floor(duration_s / 60)} min`;
  if (duration_s < 86400) return `${Math.floor(duration_s / 3600)} h`;
  return `${Math.floor(duration_s / 86400)} d`;
}

/** Two units at most: "412 ms", "3.21 s", "4 min 5 s", "2 h 10 min". */
export function duration(value_ms: number): string {
  if (value_ms < 1000) return `${Math.max(0, Math.round(value_ms))} ms`;
  if (value_ms < 10_000) return `${(value_ms / 1000).toFixed(2)} s`;
  if (value_ms < 60_000) return `${(value_ms / 1000).toFixed(1)} s`;
  const seconds = Math.floor(value_ms / 1000);
  if (seconds < 3600) return two(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86400) return two(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
  return two(Math.floor(seconds / 86400), "d", Math.floor((seconds % 86400) / 3600), "h");
}

const two = (first: number, unit: string, second: number, smaller: string): string =>
  second ? `${first} ${unit} ${second} ${smaller}` : `${first} ${unit}`;

/** Since the start, for lists of events: "+0.012", "+1:02.500". */
export function offset(value_ms: number): string {
  const sign = value_ms < 0 ? "−" : "+";
  const total = Math.abs(value_ms);
  const seconds = Math.floor(total / 1000);
  const rest = String(Math.floor(total % 1000)).padStart(3, "0");
  if (seconds < 60) return `${sign}${seconds}.${rest}`;
  const minutes = Math.floor(seconds / 60);
  const pad = (part: number): string => String(part).padStart(2, "0");
  if (minutes < 60) return `${sign}${minutes}:${pad(seconds % 60)}.${rest}`;
  return `${sign}${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(seconds % 60)}`;
}

/** Size of a text in UTF-8. */
export function sizeBytes(text: string): number {
  let size = text.length;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code > 0x7f) size += 1;
    // A surrogate is half of a character of four bytes.
    if (code > 0x7ff && (code < 0xd800 || code > 0xdfff)) size += 1;
  }
  return size;
}

export function bytes(size: number): string {
  if (size < 1024) return counted(size, "byte");
  if (size < 1024 * 1024) return `${(size / 1024).toFixed(size < 10240 ? 1 : 0)} KB`;
  return `${(size / 1024 / 1024).toFixed(1)} MB`;
}
