// One execution, live: its document, its events, its values; what it waits for; what can be done with it.
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { ApiError, getDocument, getGraph, type AcceptedDocument, type Event, type Execution as Standing, type Graph } from "../api";
import { Diagram } from "../diagram/Diagram";
import type { States } from "../diagram/states";
import { Fold } from "../fold";
import { count, counted, duration } from "../format";
import { Timeline } from "../timeline/Timeline";
import { addressOf, executionPath, go, place, workflowPath } from "../router";
import { dialog, may, now, viewActions } from "../state";
import { Tail } from "../stream";
import { followSame } from "../terminal";
import { allowed, openCommand } from "../ui/CommandDialog";
import { DialogFrame } from "../ui/Dialog";
import { onKeys } from "../ui/Keys";
import { openSendEvent } from "../ui/SendEventDialog";
import { State } from "../ui/State";
import { Waiting } from "../ui/Waiting";
import { Terminal } from "../ui/Terminal";
import { eventTypesOf, linesOf, whyWaiting } from "../why";
import { Detail } from "./Detail";
import { DocumentPane } from "./DocumentPane";
import { EventList, withinTask } from "./EventList";

const PANES = ["document", "diagram", "timeline", "events", "value"] as const;
type Pane = (typeof PANES)[number];

/** Those in the place of the document, where there is room for all. */
const isMain = (pane: Pane): boolean => pane !== "events" && pane !== "value";

const REST_MS = 400;
const AGAIN_MS = 5000;

/** Follows an execution while it is looked at. */
function useTail(id: string) {
  const tail = useMemo(() => new Tail(id), [id]);
  const document = useSignal<AcceptedDocument | null>(null);
  const noDocument = useSignal("");
  // Before anything is painted: what the page shows is asked for at once, and mostly on its way already.
  useLayoutEffect(() => {
    const abort = new AbortController();
    document.value = null;
    noDocument.value = "";
    getDocument(id, abort.signal).then(
      (found) => { document.value = found; },
      (error: unknown) => {
        if (!abort.signal.aborted) noDocument.value = error instanceof Error ? error.message : String(error);
      },
    );
    tail.start();
    return () => {
      abort.abort();
      tail.stop();
    };
  }, [tail]);
  const epoch = tail.epoch.value;
  const fold = useMemo(
    () => new Fold(new Map((document.value?.tasks ?? []).map((each) => [each.reference, each.kind]))),
    [tail, epoch, document.value],
  );
  const version = tail.version.value;
  fold.takeAll(tail.events);
  useWaiting(tail, version);
  return { tail, version, fold, document: document.value, noDocument: noDocument.value };
}

/** Has the runner say what the execution waits for: once its events rest, and again while it says something. */
function useWaiting(tail: Tail, version: number): void {
  const waiting = tail.execution.value?.waiting ?? "";
  const rests = tail.connection.value === "live" || waiting !== "";
  useEffect(() => {
    if (!rests) return undefined;
    const first = setTimeout(() => void tail.look(), REST_MS);
    const again = setInterval(() => {
      if (!globalThis.document.hidden) void tail.look();
    }, AGAIN_MS);
    return () => {
      clearTimeout(first);
      clearInterval(again);
    };
  }, [tail, version, rests]);
}

/** When the task of an event that ended it began; 0 where that is not said. */
function beganAt(events: readonly Event[], event: Event | undefined): number {
  if (!event || (event.event_type !== "task_completed" && event.event_type !== "task_failed")) return 0;
  const iteration = String(event.iteration ?? "");
  for (let at = event.sequence_number - 2; at >= 0; at -= 1) {
    const earlier = events[at];
    if (
      earlier?.event_type === "task_started" &&
      earlier.task_reference === event.task_reference &&
      String(earlier.iteration ?? "") === iteration
    ) {
      return earlier.timestamp_ms ?? 0;
    }
  }
  return 0;
}

interface PictureProps {
  id: string;
  kind: "diagram" | "timeline";
  tail: Tail;
  fold: Fold;
  version: number;
  task: string;
  sequence: number | null;
  range: string;
  onTask: (reference: string | null) => void;
  onEvent: (sequence: number | null) => void;
  onRange: (range: string) => void;
}

/** The diagram or the timeline; both need the graph, which is asked for once. */
function Picture({ id, kind, tail, fold, version, task, sequence, range, onTask, onEvent, onRange }: PictureProps) {
  const graph = useSignal<Graph | null>(null);
  const fault = useSignal("");
  useEffect(() => {
    const abort = new AbortController();
    getGraph(id, abort.signal).then(
      (found) => { graph.value = found; },
      (error: unknown) => {
        if (!abort.signal.aborted) fault.value = error instanceof Error ? error.message : String(error);
      },
    );
    return () => abort.abort();
  }, [id]);
  // Whoever draws tells by identity whether there is anything new.
  const states = useMemo<States>(() => Object.fromEntries(fold.states), [fold, version]);
  const events = useMemo(() => tail.events.slice(), [tail, version]);
  if (kind === "timeline") {
    const at_ms = fold.hasEnded ? 0 : now.value;
    return (
      <div class="pane">
        <Timeline
          events={events}
          graph={graph.value}
          now_ms={at_ms}
          selected={sequence}
          range={range}
          isWhole={events.length > 0 && tail.behind === 0 && (graph.value !== null || fault.value !== "")}
          onSelect={onEvent}
          onRange={onRange}
        />
      </div>
    );
  }
  if (fault.value) return <p class="empty">{fault.value}</p>;
  if (!graph.value) return <Waiting />;
  return (
    <div class="pane">
      <Diagram graph={graph.value} states={states} selected={task || null} onSelect={onTask} />
    </div>
  );
}

function Connection({ tail, total }: { tail: Tail; total: number }) {
  const state = tail.connection.value;
  // Read, so that more events are told here, too.
  void tail.version.value;
  const behind = Math.max(0, total - tail.events.length);
  const says =
    state === "ended"
      ? `all ${counted(tail.events.length, "event")}`
      : state === "live"
        ? behind > 0 ? `live, behind by ${count(behind)}` : "live"
        : state === "refused"
          ? "not followed"
          : behind > 0 ? `reconnecting, behind by ${count(behind)}` : "reconnecting";
  return <span class={`connection is-${state}`} role="status"><i aria-hidden="true" />{says}</span>;
}

function Head({ execution, tail, why, types }: { execution: Standing; tail: Tail; why: string; types: string[] }) {
  const commands = allowed(execution.status);
  const end_ms = execution.ended_ms || now.value;
  const same = (): void => {
    dialog.value = () => (
      <DialogFrame title="Follow from a terminal">
        <Terminal same={followSame(location.origin, execution.id)} open />
      </DialogFrame>
    );
  };
  return (
    <header class="execution-head">
      <div class="page-head">
        <State status={execution.status} />
        <h1>{execution.id}</h1>
        <span class="grow" />
        {(["pause", "resume", "cancel"] as const).map((name) =>
          commands.includes(name) ? (
            <button key={name} type="button" onClick={() => openCommand(execution.id, name, () => void tail.look())}>
              {name[0]?.toUpperCase() + name.slice(1)}…
            </button>
          ) : null,
        )}
        {may("submit") ? <button type="button" onClick={() => openSendEvent(types)}>Send event…</button> : null}
        <button type="button" title="Follow from a terminal" aria-label="Follow from a terminal" onClick={same}>›_</button>
      </div>
      <p class="execution-facts">
        {execution.namespace ? (
          <a href={addressOf(workflowPath(execution.namespace, execution.name), { version: execution.version })}>
            {execution.namespace}/{execution.name} <span class="num">{execution.version}</span>
          </a>
        ) : (
          <span>{execution.name}</span>
        )}
        {execution.started_ms ? <span class="num">{duration(end_ms - execution.started_ms)}</span> : null}
        <Connection tail={tail} total={execution.last_sequence} />
        {why ? <span class="why">{why}</span> : null}
      </p>
    </header>
  );
}

export function Execution({ id, sequence }: { id: string; sequence: number | null }) {
  const { tail, version, fold, document, noDocument } = useTail(id);
  const query = place.value.query;
  const isFollowing = useSignal(sequence === null);
  const execution = tail.execution.value;
  const events = tail.events;
  const event = sequence === null ? undefined : events[sequence - 1];
  const task = query["task"] ?? event?.task_reference ?? "";
  const only = query["only"] ? task : "";
  const pane: Pane = PANES.find((each) => each === query["pane"]) ?? "document";
  const isRaw = query["raw"] === "1";

  const at = (number: number | null, changes: Record<string, string | undefined> = {}): void =>
    go(addressOf(executionPath(id, number), { ...query, ...changes }), true);
  const select = (number: number | null): void => {
    isFollowing.value = false;
    const found = number === null ? undefined : events[number - 1];
    const keepsTask = only && found && withinTask(found, only);
    at(number, keepsTask ? {} : { task: undefined, only: undefined });
  };
  const selectTask = (reference: string): void => {
    isFollowing.value = false;
    const latest = fold.states.get(reference)?.last ?? null;
    // Where the document names a task its events do not, the innermost around them counts.
    at(latest, { task: reference, only: only ? "1" : undefined });
  };

  const state = useRef({ select, at, sequence, execution, events, query });
  state.current = { select, at, sequence, execution, events, query };
  const types = useMemo(() => {
    const listening = document?.tasks.filter((each) => each.kind === "listen") ?? [];
    return document ? listening.flatMap((each) => eventTypesOf(linesOf(document, each))) : [];
  }, [document]);

  useLayoutEffect(() => {
    const step = (by: number): void => {
      const { sequence: current, events: all } = state.current;
      const next = current === null ? (by > 0 ? 1 : all.length) : Math.max(1, Math.min(all.length, current + by));
      if (all.length) state.current.select(next);
    };
    const command = (name: "cancel" | "pause" | "resume") => (): void => {
      const standing = state.current.execution;
      if (standing && allowed(standing.status).includes(name)) openCommand(id, name, () => void tail.look());
    };
    const show = (name: Pane) => (): void => state.current.at(state.current.sequence, { pane: name });
    return onKeys({
      j: () => step(1),
      k: () => step(-1),
      c: command("cancel"),
      p: command("pause"),
      r: command("resume"),
      f: () => {
        state.current.at(null, { task: undefined, only: undefined });
        isFollowing.value = true;
      },
      "1": show("document"),
      "2": show("diagram"),
      "3": show("timeline"),
      "4": show("events"),
      "5": show("value"),
      Escape: () => state.current.at(null, { task: undefined, only: undefined }),
    });
  }, [tail]);

  const status = execution?.status ?? "";
  useEffect(() => {
    viewActions.value = [
      ...allowed(status).map((name) => ({
        name: `${name[0]?.toUpperCase() ?? ""}${name.slice(1)} this execution`,
        hint: name[0] ?? "",
        run: () => openCommand(id, name, () => void tail.look()),
      })),
      { name: "Follow the latest event", hint: "f", run: () => { state.current.at(null); isFollowing.value = true; } },
      ...(may("submit") ? [{ name: "Send an event", run: () => openSendEvent(types) }] : []),
    ];
    return () => { viewActions.value = []; };
  }, [status, types, tail]);

  const refusal = tail.refusal.value;
  if (refusal) return <Refused id={id} refusal={refusal} />;
  if (!execution) return <main class="execution-page"><Waiting /></main>;
  const lit = new Set(fold.leaves().map((each) => each.reference));
  for (const [reference, each] of fold.states) if (each.retry) lit.add(reference);
  const why = whyWaiting(execution, fold, document, now.value);
  // Of one that has ended and whose events are still on their way, what runs is what ran when the latest of them happened.
  const at_ms = execution.ended_ms && !fold.hasEnded ? (events.at(-1)?.timestamp_ms ?? 0) : 0;
  const known = Math.max(execution.last_sequence, events.length);
  const unseen = isFollowing.value || sequence === null ? 0 : Math.max(0, known - sequence);
  return (
    <main class={`execution-page shows-${isMain(pane) ? "main" : pane}`}>
      <Head execution={execution} tail={tail} why={why} types={types} />
      <div class="pane-tabs" role="group" aria-label="Panes">
        {PANES.map((each) => (
          <button key={each} type="button" data-pane={each} class={each === "document" && !isMain(pane) ? "stands" : ""} aria-pressed={pane === each} onClick={() => at(sequence, { pane: each })}>
            {each}
          </button>
        ))}
      </div>
      <div class="panes">
        <section class="main-pane" aria-label="Workflow">
          {pane === "diagram" || pane === "timeline" ? (
            <Picture
              id={id}
              kind={pane}
              tail={tail}
              fold={fold}
              version={version}
              task={task}
              sequence={sequence}
              onTask={(reference) => {
                if (reference) selectTask(reference);
                else at(null, { task: undefined, only: undefined });
              }}
              onEvent={select}
              range={query["range"] ?? ""}
              onRange={(range) => state.current.at(state.current.sequence, { range: range || undefined })}
            />
          ) : document ? (
            <DocumentPane document={document} states={fold.states} lit={lit} selected={task} version={version} at_ms={at_ms} onSelect={selectTask} />
          ) : noDocument ? (
            <p class="empty">{noDocument}</p>
          ) : (
            <Waiting />
          )}
        </section>
        <section class="events-pane" aria-label="Events">
          <div class="value-bar">
            <strong>Events</strong>
            <span class="soft num">{count(events.length)}</span>
            {task ? (
              <button type="button" class="small" aria-pressed={only !== ""} onClick={() => at(sequence, { task, only: only ? undefined : "1" })}>
                only {task.slice(task.lastIndexOf("/") + 1)}
              </button>
            ) : null}
            <span class="grow" />
            {unseen > 0 && !execution.ended_ms ? <span class="soft num">behind by {count(unseen)}</span> : null}
            <button
              type="button"
              class="small"
              aria-pressed={isFollowing.value}
              onClick={() => {
                const follows = !isFollowing.value;
                if (follows) at(null, { task: undefined, only: undefined });
                isFollowing.value = follows;
              }}
            >
              {execution.ended_ms ? "to the end" : "follow"}
            </button>
          </div>
          <EventList
            events={events}
            version={version}
            only={only}
            selected={sequence}
            isFollowing={isFollowing.value}
            onSelect={select}
            onFollow={(follows) => { isFollowing.value = follows; }}
          />
        </section>
        <section class="value-pane" aria-label="Values">
          <Detail
            execution={execution}
            event={event}
            startedAt_ms={beganAt(events, event)}
            isRaw={isRaw}
            onRaw={(raw) => at(sequence, { raw: raw ? "1" : undefined })}
          />
        </section>
      </div>
    </main>
  );
}

function Refused({ id, refusal }: { id: string; refusal: ApiError }) {
  return (
    <main class="list-page">
      <div class="empty" role="alert">
        <h1>{id}</h1>
        <p>{refusal.status === 404 ? "There is no such execution; it may have been forgotten after its retention." : refusal.message}</p>
        <p><a href="/">Executions</a></p>
      </div>
    </main>
  );
}
