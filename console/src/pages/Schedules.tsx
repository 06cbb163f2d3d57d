// Schedules: when each starts something next, what it has started, and what can be done with it.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { listSchedules, type Schedule, type ScheduleVerb } from "../api";
import { addressOf, executionPath, go, place, workflowPath } from "../router";
import { momentsText, scheduleCount, scheduleSays, triggerText } from "../schedule";
import { dialog, may, viewActions } from "../state";
import { schedulesSame } from "../terminal";
import { DialogFrame } from "../ui/Dialog";
import { onKeys } from "../ui/Keys";
import { State } from "../ui/State";
import { Terminal } from "../ui/Terminal";
import { Time } from "../ui/Time";
import { Waiting } from "../ui/Waiting";
import { allowedFor, openAddSchedule, openVerb } from "./ScheduleDialogs";

const PAGE = 200;
/** Nobody tells of schedules that change: they are asked for again, while somebody looks. */
const AGAIN_MS = 3000;
const VERBS: readonly (readonly [ScheduleVerb, string])[] = [["fire", "Fire now"], ["pause", "Pause"], ["resume", "Resume"], ["delete", "Delete"]];
const HINTS: Partial<Record<ScheduleVerb, string>> = { fire: "f", pause: "p", resume: "r", delete: "d" };

function useSchedules(namespace: string) {
  const [schedules, setSchedules] = useState<Schedule[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [fault, setFault] = useState("");
  const shown = useRef(PAGE);
  const load = useRef<() => Promise<void>>(async () => undefined);
  useEffect(() => {
    const abort = new AbortController();
    load.current = async () => {
      try {
        const found: Schedule[] = [];
        let after: string | null = "";
        while (after !== null && found.length < shown.current) {
          const page = await listSchedules(namespace, after, PAGE, abort.signal);
          found.push(...page.schedules);
          after = page.next;
        }
        setSchedules(found);
        setNext(after);
        setFault("");
      } catch (error) {
        if (!abort.signal.aborted) setFault(error instanceof Error ? error.message : String(error));
      }
    };
    shown.current = PAGE;
    void load.current();
    const timer = setInterval(() => {
      if (!document.hidden) void load.current();
    }, AGAIN_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [namespace]);
  const more = (): void => {
    shown.current += PAGE;
    void load.current();
  };
  return { schedules, next, fault, more, again: () => void load.current() };
}

function Row({ schedule, isSelected }: { schedule: Schedule; isSelected: boolean }) {
  const says = scheduleSays(schedule);
  const fails = !schedule.paused && schedule.last_error !== "";
  return (
    <tr aria-selected={isSelected} data-id={schedule.id}>
      <td><State status={schedule.paused ? "paused" : fails ? "failed" : "scheduled"} word={schedule.paused ? "paused" : fails ? "failing" : "active"} /></td>
      <td class="id"><div><span class="schedule-id">{schedule.id}</span></div></td>
      <td class="workflow">
        <a href={addressOf(workflowPath(schedule.namespace, schedule.name), { version: schedule.version })}>
          <span class="soft">{schedule.namespace}/</span>
          {schedule.name} <span class="soft num">{schedule.version || "latest"}</span>
        </a>
      </td>
      <td>{triggerText(schedule.trigger, schedule.options.timezone)}</td>
      <td class="num">{schedule.paused ? <span class="soft">–</span> : <Time at_ms={schedule.next_ms} />}</td>
      <td class="num">
        {schedule.last_execution_id ? <a href={executionPath(schedule.last_execution_id)}><Time at_ms={schedule.last_ms} /></a> : <span class="soft">–</span>}
      </td>
      <td class="num soft" title={momentsText(schedule)}>{momentsText(schedule)}</td>
      <td class={fails ? "message bad" : "message"} title={says}>{says}</td>
    </tr>
  );
}

export function Schedules() {
  const namespace = place.value.query["namespace"] ?? "";
  const [selected, setSelected] = useState("");
  const { schedules, next, fault, more, again } = useSchedules(namespace);
  const chosen = schedules?.find((each) => each.id === selected);
  const verbs = chosen ? allowedFor(chosen) : [];
  const add = (): void => openAddSchedule({ namespace: "", name: "", version: "" }, again);
  const same = (): void => {
    dialog.value = () => (
      <DialogFrame title="This list from a terminal">
        <Terminal same={schedulesSame(location.origin, namespace)} open />
      </DialogFrame>
    );
  };
  const state = useRef({ schedules, selected, chosen });
  state.current = { schedules, selected, chosen };

  useLayoutEffect(() => {
    const move = (step: number): void => {
      const all = state.current.schedules ?? [];
      const at = all.findIndex((each) => each.id === state.current.selected);
      const target = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + step))];
      if (!target) return;
      setSelected(target.id);
      document.querySelector(`tr[data-id="${CSS.escape(target.id)}"]`)?.scrollIntoView({ block: "nearest" });
    };
    const tell = (verb: ScheduleVerb) => (): void => {
      const target = state.current.chosen;
      if (target && allowedFor(target).includes(verb)) openVerb(target.id, verb, again);
    };
    const open = (): void => {
      const last = state.current.chosen?.last_execution_id;
      if (last) go(executionPath(last));
    };
    const mayAdd = may("submit");
    viewActions.value = [
      ...(mayAdd ? [{ name: "Add a schedule", hint: "a", run: add }] : []),
      { name: "Show this list as a command", run: same },
    ];
    const off = onKeys({
      "/": () => document.querySelector<HTMLInputElement>('[data-filter="namespace"]')?.select(),
      j: () => move(1),
      ArrowDown: () => move(1),
      k: () => move(-1),
      ArrowUp: () => move(-1),
      o: open,
      Enter: open,
      f: tell("fire"),
      p: tell("pause"),
      r: tell("resume"),
      d: tell("delete"),
      ...(mayAdd ? { a: add } : {}),
      Escape: () => setSelected(""),
    });
    return () => {
      off();
      viewActions.value = [];
    };
  }, [namespace]);

  return (
    <main class="list-page">
      <div class="page-head">
        <h1>Schedules</h1>
        <span class="grow" />
        {VERBS.map(([verb, word]) => (
          <button
            key={verb}
            type="button"
            disabled={!verbs.includes(verb)}
            title={chosen ? `${word} ${chosen.id} (${HINTS[verb] ?? ""})` : "Choose a row: j, k, or a click"}
            onClick={() => chosen && openVerb(chosen.id, verb, again)}
          >
            {word}
          </button>
        ))}
        <button type="button" onClick={same} title="This list from a terminal" aria-label="This list from a terminal">›_</button>
        {may("submit") ? <button type="button" class="primary" onClick={add}>Add…</button> : null}
      </div>
      <div class="toolbar">
        <div class="filters" role="search" aria-label="Schedules">
          <label class="filter">
            <span class="hidden">Namespace</span>
            <input type="search" data-filter="namespace" placeholder="Namespace" value={namespace} spellcheck={false} onChange={(event) => go(addressOf("/schedules", { namespace: event.currentTarget.value.trim() }))} />
          </label>
        </div>
      </div>
      {fault ? <p class="refusal" role="alert">{fault}</p> : null}
      <div class="table-box" tabIndex={0} role="region" aria-label="Schedules, by id">
        <table class="schedules">
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">Schedule</th>
              <th scope="col">Workflow</th>
              <th scope="col">Starts</th>
              <th scope="col">Next</th>
              <th scope="col">Last</th>
              <th scope="col">Moments</th>
              <th scope="col">Says</th>
            </tr>
          </thead>
          <tbody
            onClick={(event) => {
              const row = (event.target as Element).closest("tr");
              if (row && !(event.target as Element).closest("a")) setSelected(row.dataset["id"] ?? "");
            }}
          >
            {schedules?.map((each) => <Row key={each.id} schedule={each} isSelected={each.id === selected} />)}
          </tbody>
        </table>
        {schedules === null && !fault ? <Waiting /> : null}
        {schedules?.length === 0 ? (
          <div class="empty">
            <p>
              {namespace ? "There is no schedule of this namespace." : "Nothing is started by itself yet."}
              {may("submit") ? <> Press <kbd>a</kbd> to add a schedule. From a terminal:</> : null}
            </p>
            <pre tabIndex={0} aria-label="Command">fastrunner schedule add workflow.yaml --every PT15M</pre>
          </div>
        ) : null}
      </div>
      <nav class="pages" aria-label="Pages">
        {next !== null ? <button type="button" class="link" onClick={more}>More</button> : null}
        <span class="grow" />
        <span class="soft">{schedules?.length ? `${scheduleCount(schedules.length)}${next === null ? "" : " of more"}` : ""}</span>
      </nav>
    </main>
  );
}
