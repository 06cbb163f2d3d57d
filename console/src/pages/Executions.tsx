// The list: filters in the address, exact counts, live rows, pages by key.
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { countExecutions, listExecutions, STATUSES, type Counts, type Execution, type Which } from "../api";
import { errorText } from "../fold";
import { count, counted, duration } from "../format";
import { addressOf, executionPath, go, place, workflowPath } from "../router";
import { dialog, may, now, viewActions } from "../state";
import { Feed } from "../stream";
import { listSame } from "../terminal";
import { allowed, openCommand } from "../ui/CommandDialog";
import { DialogFrame } from "../ui/Dialog";
import { onKeys } from "../ui/Keys";
import { openSendEvent } from "../ui/SendEventDialog";
import { Shape, State } from "../ui/State";
import { Terminal } from "../ui/Terminal";
import { Time } from "../ui/Time";
import { Waiting } from "../ui/Waiting";
import { openStart } from "./StartDialog";

const ROWS = 50;
const ROWS_MAX = 200;
const COUNTS_PAUSE_MS = 500;
const AGAIN_MS = 5000;

function matches(execution: Execution, which: Which): boolean {
  return (
    (!which.status || execution.status === which.status) &&
    (!which.namespace || execution.namespace === which.namespace) &&
    (!which.name || execution.name === which.name) &&
    (!which.version || execution.version === which.version)
  );
}

/**
 * Takes a change into the rows: in its place, else where it belongs by its creation, the newest first. What is older than
 * the last row is of a later page, unless the rows are all there are. What is older than what is known is passed over.
 */
export function merged(rows: Execution[], changed: Execution, which: Which, takesNew: boolean, isAll: boolean): Execution[] {
  const at = rows.findIndex((each) => each.id === changed.id);
  if (at >= 0) {
    if (changed.last_sequence < (rows[at]?.last_sequence ?? 0)) return rows;
    const next = rows.slice();
    next[at] = changed;
    return next;
  }
  if (!takesNew || !matches(changed, which)) return rows;
  const below = rows.findIndex((each) => each.created_ms <= changed.created_ms);
  if (below < 0 && !isAll) return rows;
  const place = below < 0 ? rows.length : below;
  return [...rows.slice(0, place), changed, ...rows.slice(place)].slice(0, ROWS_MAX);
}

function tookOf(execution: Execution, now_ms: number): string {
  if (!execution.started_ms) return "";
  return duration((execution.ended_ms || now_ms) - execution.started_ms);
}

function Filters({ which, set }: { which: Which; set: (changes: Partial<Which>) => void }) {
  const field = (name: "namespace" | "name" | "version", label: string) => (
    <label class="filter">
      <span class="hidden">{label}</span>
      <input
        type="search"
        placeholder={label}
        data-filter={name}
        value={which[name]}
        spellcheck={false}
        onChange={(event) => set({ [name]: event.currentTarget.value.trim() })}
      />
    </label>
  );
  return (
    <div class="filters" role="search" aria-label="Executions">
      {field("name", "Workflow")}
      {field("namespace", "Namespace")}
      {field("version", "Version")}
    </div>
  );
}

function StatusTabs({ which, counts, set }: { which: Which; counts: Counts | null; set: (status: string) => void }) {
  const tab = (status: string, number: number | undefined) => (
    <button type="button" key={status} aria-pressed={which.status === status} onClick={() => set(status)}>
      {status ? <Shape status={status} /> : null}
      <span>{status || "all"}</span>
      <span class="num count">{counts === null ? "·" : count(number ?? 0)}</span>
    </button>
  );
  return (
    <div class="tabs" role="group" aria-label="Status">
      {tab("", counts?.total)}
      {STATUSES.map((status) => tab(status, counts?.by_status[status]))}
    </div>
  );
}

function Row({ execution, isSelected, isOutside }: { execution: Execution; isSelected: boolean; isOutside: boolean }) {
  const labels = Object.entries(execution.labels);
  const live = execution.started_ms && !execution.ended_ms;
  const says = execution.message || errorText(execution.error);
  return (
    <tr class={isOutside ? "outside" : ""} aria-selected={isSelected} data-id={execution.id}>
      <td><State status={execution.status} /></td>
      <td class="id">
        <div>
          <a href={executionPath(execution.id)}>{execution.id}</a>
          <span class="labels" title={labels.map(([name, value]) => `${name}=${value}`).join("\n")}>
            {labels.map(([name, value]) => (
              <span class="label" key={name}>{name}={value}</span>
            ))}
          </span>
        </div>
      </td>
      <td class="workflow">
        {execution.namespace ? (
          <a href={`${workflowPath(execution.namespace, execution.name)}?version=${encodeURIComponent(execution.version)}`}>
            <span class="soft">{execution.namespace}/</span>
            {execution.name} <span class="soft num">{execution.version}</span>
          </a>
        ) : (
          execution.name
        )}
      </td>
      <td class="num"><Time at_ms={execution.created_ms} /></td>
      <td class="num right">{live ? tookOf(execution, now.value) : tookOf(execution, 0)}</td>
      <td class="num right">{count(execution.last_sequence)}</td>
      <td class="message" title={says}>{says}</td>
    </tr>
  );
}

function Nothing({ which }: { which: Which }) {
  if (Object.values(which).some(Boolean)) {
    return (
      <p class="empty">
        Nothing is like this. <a href="/">Show all executions</a>, or press <kbd>/</kbd> and type the whole name of a workflow.
      </p>
    );
  }
  return (
    <div class="empty">
      <p>Nothing has been started yet.</p>
      <p>
        <a href="/workflows/new">Create a workflow</a>, then press <kbd>s</kbd> to start it. From a terminal:
      </p>
      <pre tabIndex={0} aria-label="Command">fastrunner submit workflow.yaml --follow</pre>
    </div>
  );
}

/** Executions of one filter and place, kept current. */
function useExecutions(which: Which, before: string) {
  const rows = useSignal<Execution[] | null>(null);
  const next = useSignal<string | null>(null);
  const counts = useSignal<Counts | null>(null);
  const fault = useSignal("");
  const fresh = useSignal<Execution[]>([]);
  const key = JSON.stringify([which, before]);

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const recount = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        countExecutions(which, abort.signal)
          .then((found) => { counts.value = found; })
          .catch(() => undefined);
      }, counts.value ? COUNTS_PAUSE_MS : 0);
    };
    const take = (changed: Execution, takesNew: boolean) => {
      rows.value = merged(rows.value ?? [], changed, which, takesNew, next.value === null);
    };
    let loads = 0;
    let meanwhile: Execution[] = [];
    const load = async () => {
      const mine = ++loads;
      meanwhile = [];
      try {
        const page = await listExecutions(which, before, ROWS, abort.signal);
        // A later one is on its way; until it is there this one is better than nothing.
        if (mine !== loads && rows.value) return;
        rows.value = page.executions;
        next.value = page.next;
        fresh.value = [];
        fault.value = "";
        // What was told while the page was on its way may not be in it.
        for (const each of meanwhile) take(each, before === "");
      } catch (error) {
        if (!abort.signal.aborted) fault.value = error instanceof Error ? error.message : String(error);
      }
      recount();
    };
    const feed = new Feed(
      (changed) => {
        recount();
        meanwhile.push(changed);
        if (meanwhile.length > ROWS_MAX) meanwhile.shift();
        const isKnown = rows.value?.some((each) => each.id === changed.id);
        const atTop = before === "" && (document.querySelector(".table-box")?.scrollTop ?? 0) < 40;
        if (isKnown || atTop) take(changed, atTop);
        else if (before === "" && matches(changed, which) && changed.created_ms >= (rows.value?.[0]?.created_ms ?? 0)) {
          fresh.value = [changed, ...fresh.value.filter((each) => each.id !== changed.id)];
        }
      },
      () => void load(),
    );
    let again: ReturnType<typeof setInterval> | undefined;
    const unsubscribe = feed.connection.subscribe((connection) => {
      if (connection !== "refused") return;
      void load();
      // Where nobody tells what changes it is asked for.
      if (feed.refusal.value?.status === 404) {
        again ??= setInterval(() => {
          if (!document.hidden) void load();
        }, AGAIN_MS);
      }
    });
    void load();
    feed.start();
    return () => {
      abort.abort();
      clearTimeout(timer);
      clearInterval(again);
      unsubscribe();
      feed.stop();
    };
  }, [key]);

  const showFresh = () => {
    rows.value = fresh.value.reduceRight((all, each) => merged(all, each, which, true, false), rows.value ?? []);
    fresh.value = [];
    document.querySelector(".table-box")?.scrollTo({ top: 0 });
  };
  return { rows, next, counts, fault, fresh, showFresh };
}

function openSame(which: Which): void {
  dialog.value = () => (
    <DialogFrame title="This list from a terminal">
      <Terminal same={listSame(location.origin, which)} open />
    </DialogFrame>
  );
}

export function Executions() {
  const query = place.value.query;
  const which = useMemo<Which>(
    () => ({
      status: query["status"] ?? "",
      namespace: query["namespace"] ?? "",
      name: query["name"] ?? "",
      version: query["version"] ?? "",
    }),
    [query["status"], query["namespace"], query["name"], query["version"]],
  );
  const before = query["before"] ?? "";
  const { rows, next, counts, fault, fresh, showFresh } = useExecutions(which, before);
  const [selected, setSelected] = useState("");
  const chosen = useComputed(() => rows.value?.find((each) => each.id === selected));
  const set = (changes: Partial<Which>): void => go(addressOf("/", { ...which, ...changes }));
  const state = useRef({ rows, selected });
  state.current = { rows, selected };

  useLayoutEffect(() => {
    const move = (step: number): void => {
      const all = state.current.rows.value ?? [];
      const at = all.findIndex((each) => each.id === state.current.selected);
      const target = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + step))];
      if (!target) return;
      setSelected(target.id);
      document.querySelector(`tr[data-id="${CSS.escape(target.id)}"]`)?.scrollIntoView({ block: "nearest" });
    };
    const current = (): Execution | undefined =>
      state.current.rows.value?.find((each) => each.id === state.current.selected);
    const open = (): void => {
      const execution = current();
      if (execution) go(executionPath(execution.id));
    };
    const command = (name: "cancel" | "pause" | "resume") => (): void => {
      const execution = current();
      if (execution && allowed(execution.status).includes(name)) openCommand(execution.id, name);
    };
    const start = (): void => openStart(which);
    viewActions.value = [
      { name: "Start an execution", hint: "s", run: start },
      ...(may("submit") ? [{ name: "Send an event", run: () => openSendEvent([]) }] : []),
      { name: "Show this list as a command", run: () => openSame(which) },
    ];
    const off = onKeys({
      "/": () => document.querySelector<HTMLInputElement>('[data-filter="name"]')?.select(),
      j: () => move(1),
      ArrowDown: () => move(1),
      k: () => move(-1),
      ArrowUp: () => move(-1),
      o: open,
      Enter: open,
      c: command("cancel"),
      p: command("pause"),
      r: command("resume"),
      s: start,
      Escape: () => setSelected(""),
    });
    return () => {
      off();
      viewActions.value = [];
    };
  }, [which]);

  const all = rows.value;
  const target = chosen.value;
  const commands = target ? allowed(target.status) : [];
  return (
    <main class="list-page">
      <div class="page-head">
        <h1>Executions</h1>
        <span class="grow" />
        {(["pause", "resume", "cancel"] as const).map((name) => (
          <button
            key={name}
            type="button"
            disabled={!commands.includes(name)}
            title={target ? `${name} ${target.id}` : "Choose a row: j, k, or a click"}
            onClick={() => target && openCommand(target.id, name)}
          >
            {name[0]?.toUpperCase() + name.slice(1)}
          </button>
        ))}
        <button type="button" onClick={() => openSame(which)} title="This list from a terminal">›_</button>
        {may("submit") ? <button type="button" onClick={() => openSendEvent([])}>Send event…</button> : null}
        {may("submit") ? <button type="button" class="primary" onClick={() => openStart(which)}>Start…</button> : null}
      </div>
      <div class="toolbar">
        <StatusTabs which={which} counts={counts.value} set={(status) => set({ status })} />
        <Filters which={which} set={set} />
      </div>
      {fault.value ? <p class="refusal" role="alert">{fault.value}</p> : null}
      <div class="table-box" tabIndex={0} role="region" aria-label="Executions, the newest first">
        {fresh.value.length ? (
          <button type="button" class="fresh" onClick={showFresh}>{counted(fresh.value.length, "new execution")} above</button>
        ) : null}
        <table class="executions">
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">Execution</th>
              <th scope="col">Workflow</th>
              <th scope="col">Created</th>
              <th scope="col" class="right">Took</th>
              <th scope="col" class="right">Events</th>
              <th scope="col">Says</th>
            </tr>
          </thead>
          <tbody
            onClick={(event) => {
              const row = (event.target as Element).closest("tr");
              if (row && !(event.target as Element).closest("a")) setSelected(row.dataset["id"] ?? "");
            }}
            onDblClick={(event) => {
              const row = (event.target as Element).closest("tr");
              if (row) go(executionPath(row.dataset["id"] ?? ""));
            }}
          >
            {all?.map((execution) => (
              <Row
                key={execution.id}
                execution={execution}
                isSelected={execution.id === selected}
                isOutside={!matches(execution, which)}
              />
            ))}
          </tbody>
        </table>
        {all === null && !fault.value ? <Waiting /> : null}
        {all?.length === 0 ? <Nothing which={which} /> : null}
      </div>
      <nav class="pages" aria-label="Pages">
        {before ? <a href={addressOf("/", { ...which })}>Newest</a> : null}
        {before ? <button type="button" class="link" onClick={() => history.back()}>Newer</button> : null}
        {next.value ? <a href={addressOf("/", { ...which, before: next.value })}>Older</a> : null}
        <span class="grow" />
        <span class="soft">{all ? `${count(all.length)} shown` : ""}</span>
      </nav>
    </main>
  );
}
