// A time relative to now, with the exact one on hover.
import { exactTime, relativeTime } from "../format";
import { now } from "../state";

export function Time({ at_ms }: { at_ms: number }) {
  if (!at_ms) return <span class="soft">–</span>;
  return (
    <time dateTime={new Date(at_ms).toISOString()} title={exactTime(at_ms)}>
      {relativeTime(at_ms, now.value)}
    </time>
  );
}
