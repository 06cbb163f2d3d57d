// What one event says; where none is chosen, what has become of the execution.
import type { ErrorDetails, Event, Execution } from "../api";
import { counted, duration, isoTime } from "../format";
import { addressOf, executionPath } from "../router";
import { CopyButton } from "../ui/Copy";
import { State } from "../ui/State";
import { Time } from "../ui/Time";
import { ValueView } from "../ui/ValueView";

function ErrorView({ error }: { error: ErrorDetails }) {
  const more = Object.entries(error).filter(([name, value]) => name !== "message" && name !== "detail" && value !== "" && value !== null);
  return (
    <section class="error-view" aria-label="Error">
      <p><strong>{error.message ?? error.title ?? error.code}</strong></p>
      <dl>
        {more.map(([name, value]) => (
          <div key={name}><dt>{name}</dt><dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd></div>
        ))}
      </dl>
    </section>
  );
}

interface Properties {
  execution: Execution;
  event: Event | undefined;
  startedAt_ms: number;
  isRaw: boolean;
  onRaw: (isRaw: boolean) => void;
}

export function Detail({ execution, event, startedAt_ms, isRaw, onRaw }: Properties) {
  if (event) {
    const address = location.origin + executionPath(execution.id, event.sequence_number);
    return (
      <div class="detail" tabIndex={0} role="region" aria-label={`Event ${event.sequence_number}`}>
        <div class="value-bar">
          <strong class="num">Event {event.sequence_number}</strong>
          <span class="soft">{event.event_type}</span>
          <span class="grow" />
          <CopyButton text={address} what="the link to this event" label="Copy link" />
        </div>
        <dl class="facts">
          <div><dt>at</dt><dd class="num"><Time at_ms={event.timestamp_ms ?? 0} /> <span class="soft">{event.timestamp_ms ? isoTime(event.timestamp_ms) : ""}</span></dd></div>
          {event.task_reference ? <div><dt>task</dt><dd><code>{event.task_reference}</code></dd></div> : null}
          {startedAt_ms && event.timestamp_ms && startedAt_ms < event.timestamp_ms ? (
            <div><dt>took</dt><dd class="num">{duration(event.timestamp_ms - startedAt_ms)}</dd></div>
          ) : null}
          {event.iteration?.length ? <div><dt>iteration</dt><dd class="num">{event.iteration.map((each) => each + 1).join(" · ")}</dd></div> : null}
          {event.attempt && event.attempt > 1 ? <div><dt>attempt</dt><dd class="num">{event.attempt}</dd></div> : null}
          {event.message && !event.error ? <div><dt>says</dt><dd>{event.message}</dd></div> : null}
        </dl>
        {event.error ? <ErrorView error={event.error} /> : null}
        {event.output_json !== undefined ? (
          <ValueView json={event.output_json} name="Output" isRaw={isRaw} onRaw={onRaw} />
        ) : event.event_type === "task_completed" ? (
          <p class="soft">Its output is larger than events carry. It stays queryable at the runner.</p>
        ) : null}
      </div>
    );
  }
  const labels = Object.entries(execution.labels);
  return (
    <div class="detail" tabIndex={0} role="region" aria-label="Execution">
      <div class="value-bar">
        <strong>Execution</strong>
        <State status={execution.status} />
        <span class="grow" />
        <CopyButton text={execution.id} what="the id" label="Copy id" />
      </div>
      <dl class="facts">
        <div><dt>created</dt><dd class="num"><Time at_ms={execution.created_ms} /></dd></div>
        <div><dt>started</dt><dd class="num"><Time at_ms={execution.started_ms} /></dd></div>
        <div><dt>ended</dt><dd class="num"><Time at_ms={execution.ended_ms} /></dd></div>
        <div><dt>events</dt><dd class="num">{counted(execution.last_sequence, "event")}</dd></div>
        {execution.launch !== "accepted" ? <div><dt>launch</dt><dd>{execution.launch}</dd></div> : null}
        {labels.length ? (
          <div>
            <dt>labels</dt>
            <dd>{labels.map(([name, value]) => <span class="label" key={name}>{name}={value}</span>)}</dd>
          </div>
        ) : null}
        {execution.message && !execution.error ? <div><dt>says</dt><dd>{execution.message}</dd></div> : null}
      </dl>
      {execution.error ? <ErrorView error={execution.error} /> : null}
      {execution.output_json ? (
        <ValueView json={execution.output_json} name="Output" isRaw={isRaw} onRaw={onRaw} />
      ) : (
        <p class="soft hint">
          Choose an event or a task to see what it gave: <kbd>j</kbd> <kbd>k</kbd>, or a click.{" "}
          <a href={addressOf(executionPath(execution.id, 1))}>The first event</a>
        </p>
      )}
    </div>
  );
}
