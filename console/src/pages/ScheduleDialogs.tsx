// What can be done with schedules: pause, resume, delete, fire, add; with what does the same from a terminal.
import { useState } from "preact/hooks";
import { addScheduleText, tellSchedule, type Schedule, type ScheduleRequest, type ScheduleVerb } from "../api";
import { executionPath, go } from "../router";
import { dialog, may, say } from "../state";
import { addScheduleSame, scheduleSame } from "../terminal";
import { ActionDialog } from "../ui/ActionDialog";
import { NoWorkflow, requestText, useGiven, useWorkflowChoice, type Chosen } from "../ui/Fields";
import { newId } from "../values";

const WORDS: Record<ScheduleVerb, { title: string; says: string; button: string; done: string }> = {
  pause: { title: "Pause", says: "It starts nothing until it is resumed. What it has started goes on.", button: "Pause", done: "starts nothing until it is resumed." },
  resume: { title: "Resume", says: "It starts executions again. Moments that have passed meanwhile start none.", button: "Resume", done: "starts executions again." },
  delete: { title: "Delete", says: "It is removed. What it has started goes on.", button: "Delete schedule", done: "is removed." },
  fire: { title: "Fire", says: "Starts an execution now, whatever its moments and policies, and also while it is paused.", button: "Fire now", done: "has started an execution." },
};

/** What the caller may do with a schedule. */
export function allowedFor(schedule: Schedule): ScheduleVerb[] {
  return [
    ...(may("submit") ? ["fire" as const] : []),
    ...(may("control") ? [schedule.paused ? ("resume" as const) : ("pause" as const), "delete" as const] : []),
  ];
}

function VerbBody({ id, verb, done }: { id: string; verb: ScheduleVerb; done: () => void }) {
  const [reason, setReason] = useState("");
  // One for the dialog: who presses twice starts one.
  const [key] = useState(newId);
  const words = WORDS[verb];
  const sent = verb === "fire" ? { key } : verb === "delete" ? {} : { reason };
  const act = async (): Promise<void> => {
    const fired = await tellSchedule(id, verb, sent);
    say(`${id} ${words.done}`);
    done();
    if (verb === "fire" && fired) go(executionPath(fired.execution_id));
  };
  return (
    <ActionDialog
      title={`${words.title} ${id}`}
      button={words.button}
      isBad={verb === "delete"}
      same={scheduleSame(location.origin, id, verb, sent)}
      act={act}
    >
      <p class="soft">{words.says}</p>
      {verb === "pause" || verb === "resume" ? (
        <label class="field">
          <span>Reason</span>
          <input type="text" value={reason} maxLength={1024} autoFocus placeholder={verb === "pause" ? "Shown in the list" : "Kept in the audit log"} onInput={(event) => setReason(event.currentTarget.value)} />
        </label>
      ) : null}
    </ActionDialog>
  );
}

export function openVerb(id: string, verb: ScheduleVerb, done: () => void): void {
  dialog.value = () => <VerbBody key={`${verb} ${id}`} id={id} verb={verb} done={done} />;
}

const KINDS = ["every", "cron", "after", "document"] as const;
type Kind = (typeof KINDS)[number];
const KIND_WORDS: Record<Kind, { option: string; label: string; example: string; says: string }> = {
  every: { option: "at intervals", label: "Every", example: "PT15M", says: "ISO 8601: PT30S, PT15M, PT6H, P1D." },
  cron: { option: "by cron", label: "Cron", example: "30 2 * * mon-fri", says: "Minute, hour, day of month, month, day of week." },
  after: { option: "after the end of the one before", label: "After", example: "PT10S", says: "ISO 8601; the first one starts at once." },
  document: { option: "as its document says", label: "", example: "", says: "The document's own schedule: every, cron, after, or events." },
};

function AddBody({ chosen, done }: { chosen: Chosen; done: () => void }) {
  const choice = useWorkflowChoice(chosen);
  const given = useGiven(3);
  const [kind, setKind] = useState<Kind>("every");
  const [moment, setMoment] = useState("");
  const [timezone, setTimezone] = useState("");
  const [overlap, setOverlap] = useState<"" | "skip" | "queue">("");
  const [misfire, setMisfire] = useState<"" | "skip" | "all">("");
  const [id, setId] = useState("");
  const { namespace, name, version } = choice;
  const options = {
    ...(kind === "cron" && timezone.trim() ? { timezone: timezone.trim() } : {}),
    ...(overlap ? { overlap } : {}),
    ...(misfire ? { misfire } : {}),
  };
  const request: ScheduleRequest = {
    ...(id.trim() ? { id: id.trim() } : {}),
    workflow: { namespace, name, ...(version ? { version } : {}) },
    ...given.given,
    ...(kind === "document" ? {} : { trigger: { [kind]: moment.trim() } }),
    ...(Object.keys(options).length ? { options } : {}),
  };
  const body = requestText(request, given.input);
  const words = KIND_WORDS[kind];
  const act = async (): Promise<void> => {
    const schedule = await addScheduleText(body);
    if (schedule) say(`${schedule.id} starts executions from now on.`);
    done();
  };
  if (choice.isEmpty) return <NoWorkflow title="Add a schedule" />;
  return (
    <ActionDialog
      title="Add a schedule"
      button="Add"
      isWrong={given.isWrong || !name}
      fault={choice.fault}
      same={addScheduleSame(location.origin, request, given.input, body)}
      act={act}
    >
      {choice.fields}
      <div class="fields">
        <label class="field">
          <span>Starts executions</span>
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value as Kind)}>
            {KINDS.map((each) => <option key={each} value={each}>{KIND_WORDS[each].option}</option>)}
          </select>
        </label>
        {kind === "document" ? null : (
          <label class="field">
            <span>{words.label}</span>
            <input type="text" required spellcheck={false} value={moment} placeholder={words.example} onInput={(event) => setMoment(event.currentTarget.value)} />
          </label>
        )}
        {kind === "cron" ? (
          <label class="field">
            <span>Time zone</span>
            <input type="text" spellcheck={false} value={timezone} placeholder="UTC" onInput={(event) => setTimezone(event.currentTarget.value)} />
          </label>
        ) : null}
      </div>
      <p class="soft small-print">{words.says}</p>
      <div class="fields">
        <label class="field">
          <span>While one is going on</span>
          <select value={overlap} onChange={(event) => setOverlap(event.currentTarget.value as typeof overlap)}>
            <option value="">start another one</option>
            <option value="skip">leave it out</option>
            <option value="queue">wait for its end</option>
          </select>
        </label>
        <label class="field">
          <span>Moments missed</span>
          <select value={misfire} onChange={(event) => setMisfire(event.currentTarget.value as typeof misfire)}>
            <option value="">start one for the latest</option>
            <option value="skip">start none</option>
            <option value="all">start each</option>
          </select>
        </label>
        <label class="field">
          <span>Id</span>
          <input type="text" value={id} placeholder={name ? `${namespace}.${name}` : ""} spellcheck={false} onInput={(event) => setId(event.currentTarget.value)} />
        </label>
      </div>
      {given.fields}
    </ActionDialog>
  );
}

export function openAddSchedule(chosen: Chosen, done: () => void): void {
  dialog.value = () => <AddBody chosen={chosen} done={done} />;
}
