// All events of an execution, however many; the latest stays in sight while it is followed.
import { useMemo } from "preact/hooks";
import type { Event } from "../api";
import { count, isoTime, offset } from "../format";
import { Shape } from "../ui/State";
import { Virtual } from "../ui/Virtual";

const ROW_PX = 26;

const SHAPES: Record<string, string> = {
  task_started: "begun",
  task_completed: "completed",
  task_failed: "failed",
  task_retry: "waiting",
  workflow_started: "begun",
  workflow_validating: "idle",
  workflow_validated: "idle",
  workflow_paused: "paused",
  workflow_resumed: "begun",
  workflow_completed: "completed",
  workflow_failed: "failed",
  workflow_cancelled: "cancelled",
};

const words = (type: string): string => type.replace(/^(task|workflow)_/, "").replace("_", " ");

/** How many tasks are around it. */
const depthOf = (reference: string): number => (reference.match(/\/\d+\//g) ?? []).length - 1;

interface Properties {
  events: readonly Event[];
  version: number;
  /** Only events of this task, and of what is within it; empty: all. */
  only: string;
  selected: number | null;
  isFollowing: boolean;
  onSelect: (sequence: number) => void;
  onFollow: (isFollowing: boolean) => void;
}

export function withinTask(event: Event, reference: string): boolean {
  const own = event.task_reference ?? "";
  return own === reference || own.startsWith(`${reference}/`);
}

export function EventList({ events, version, only, selected, isFollowing, onSelect, onFollow }: Properties) {
  const rows = useMemo(() => (only ? events.filter((each) => withinTask(each, only)) : events), [events, version, only]);
  const start_ms = events[0]?.timestamp_ms ?? 0;
  const at = useMemo(() => {
    if (selected === null) return null;
    const found = only ? rows.findIndex((each) => each.sequence_number === selected) : selected - 1;
    return found >= 0 && found < rows.length ? found : null;
  }, [selected, only, rows, version]);
  const keep = isFollowing ? rows.length - 1 : at;
  return (
    <Virtual
      class="event-list"
      role="listbox"
      aria-label={`${count(rows.length)} events`}
      aria-activedescendant={selected === null ? undefined : `event-${selected}`}
      tabIndex={0}
      count={rows.length}
      row_px={ROW_PX}
      keep={keep !== null && keep >= 0 ? keep : null}
      stir={`${rows.length} ${isFollowing}`}
      align={isFollowing ? "end" : "near"}
      onMoved={(isAtEnd) => {
        if (isAtEnd !== isFollowing && selected === null) onFollow(isAtEnd);
      }}
      render={(index) => {
        const event = rows[index] as Event;
        const isTask = event.task_reference !== undefined;
        const depth = isTask ? Math.max(0, depthOf(event.task_reference ?? "")) : 0;
        return (
          <div
            key={event.sequence_number}
            id={`event-${event.sequence_number}`}
            role="option"
            aria-selected={event.sequence_number === selected}
            aria-posinset={index + 1}
            aria-setsize={rows.length}
            class={event.error ? "event has-error" : "event"}
            style={{ height: `${ROW_PX}px` }}
            onClick={() => onSelect(event.sequence_number)}
          >
            <span class="num event-number">{event.sequence_number}</span>
            <span class="num event-time" title={event.timestamp_ms ? isoTime(event.timestamp_ms) : ""}>
              {offset((event.timestamp_ms ?? 0) - start_ms)}
            </span>
            <Shape status={SHAPES[event.event_type] ?? "idle"} />
            <span class="event-name" style={{ paddingLeft: `${Math.min(depth, 8) * 10}px` }}>
              {isTask ? event.task_name : <em>workflow</em>}
              {event.iteration?.length ? <span class="soft num"> {event.iteration.map((each) => each + 1).join(".")}</span> : null}
            </span>
            <span class="event-type">{words(event.event_type)}</span>
            {(event.attempt ?? 1) > 1 ? <span class="soft num event-attempt">attempt {event.attempt}</span> : null}
            <span class="event-message">{event.error?.message ?? (isTask ? (event.output_json ?? "").slice(0, 120) : event.message)}</span>
          </div>
        );
      }}
    />
  );
}
