// Sends a CloudEvent to workflows that listen.
import { useState } from "preact/hooks";
import { sendEvent } from "../api";
import { dialog, say } from "../state";
import { sendEventSame } from "../terminal";
import { jsonProblem, newId } from "../values";
import { ActionDialog } from "./ActionDialog";

function Body({ types }: { types: string[] }) {
  const [type, setType] = useState(types[0] ?? "");
  const [source, setSource] = useState("/console");
  const [subject, setSubject] = useState("");
  const [data, setData] = useState("");
  const [id] = useState(() => newId());
  const problem = data.trim() ? jsonProblem(data) : null;
  const event: Record<string, unknown> = { specversion: "1.0", id, type, source };
  if (subject) event["subject"] = subject;
  if (data.trim() && !problem) {
    event["datacontenttype"] = "application/json";
    event["data"] = JSON.parse(data) as unknown;
  }
  const act = async (): Promise<void> => {
    await sendEvent(event);
    say(`Event ${type} is on its way to all who listen for it.`);
  };
  return (
    <ActionDialog title="Send an event" button="Send" isWrong={problem !== null} same={sendEventSame(location.origin, event)} act={act}>
      <div class="fields">
        <label class="field">
          <span>Type</span>
          <input type="text" list="event-types" required value={type} autoFocus placeholder="order.approved" onInput={(input) => setType(input.currentTarget.value)} />
          <datalist id="event-types">{types.map((each) => <option key={each} value={each} />)}</datalist>
        </label>
        <label class="field">
          <span>Source</span>
          <input type="text" required value={source} onInput={(input) => setSource(input.currentTarget.value)} />
        </label>
        <label class="field">
          <span>Subject</span>
          <input type="text" value={subject} onInput={(input) => setSubject(input.currentTarget.value)} />
        </label>
      </div>
      <label class="field">
        <span>Data (JSON)</span>
        <textarea rows={6} spellcheck={false} value={data} placeholder='{"order": 7}' aria-invalid={problem !== null} onInput={(input) => setData(input.currentTarget.value)} />
        <small class={problem ? "refusal" : "soft"}>{problem ?? "Empty: none."}</small>
      </label>
    </ActionDialog>
  );
}

export const openSendEvent = (types: string[]): void => {
  dialog.value = () => <Body types={types} />;
};
