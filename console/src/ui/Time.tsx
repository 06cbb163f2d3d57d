// A time relative to now, with the exact one on hover.
import { exactTime, isoTime, relativeTime } from "../format";
import { now } from "../state";

export function Time({ at_ms }: { at_ms: number }) {
  if (!at_ms) return <span class="soft">–</span>;
  return (
    <time dateTime={isoTime(at_ms)} title={exactTime(at_ms)}>
      {relativeTime(at_ms, now.value)}
    </time>
  );
}
