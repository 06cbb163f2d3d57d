// Cancel, pause, resume: with a reason, and what does the same from a terminal.
import { useState } from "preact/hooks";
import { tell, type Command } from "../api";
import { closeDialog, dialog, may, say } from "../state";
import { commandSame } from "../terminal";
import { DialogFrame } from "./Dialog";
import { Terminal } from "./Terminal";

const WORDS: Record<Command, { title: string; says: string; button: string; done: string }> = {
  cancel: { title: "Cancel", says: "Ends it early. That cannot be undone.", button: "Cancel execution", done: "is told to end." },
  pause: { title: "Pause", says: "Stops it before its next task. What is under way goes on.", button: "Pause", done: "is told to pause." },
  resume: { title: "Resume", says: "Lets it go on where it stopped.", button: "Resume", done: "is told to go on." },
};

function Body({ id, command, done }: { id: string; command: Command; done: () => void }) {
  const [reason, setReason] = useState("");
  const [force, setForce] = useState(false);
  const [refusal, setRefusal] = useState("");
  const [busy, setBusy] = useState(false);
  const words = WORDS[command];
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      await tell(id, command, reason, force);
      closeDialog();
      say(`${id} ${words.done}`);
      done();
    } catch (error) {
      setRefusal(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <DialogFrame title={`${words.title} ${id}`}>
      <form onSubmit={(event) => void send(event)}>
        <p class="soft">{words.says}</p>
        <label class="field">
          <span>Reason</span>
          <input type="text" value={reason} maxLength={1024} autoFocus placeholder="Carried in the event" onInput={(event) => setReason(event.currentTarget.value)} />
        </label>
        {command === "cancel" ? (
          <label class="check">
            <input type="checkbox" checked={force} onChange={(event) => setForce(event.currentTarget.checked)} />
            <span>Interrupt what is under way now, instead of letting it end</span>
          </label>
        ) : null}
        {refusal ? <p class="refusal" role="alert">{refusal}</p> : null}
        <footer>
          <button type="button" onClick={closeDialog}>Leave it</button>
          <button type="submit" class={command === "cancel" ? "bad" : "primary"} disabled={busy}>{words.button}</button>
        </footer>
      </form>
      <Terminal same={commandSame(location.origin, id, command, reason, force)} />
    </DialogFrame>
  );
}

export function openCommand(id: string, command: Command, done: () => void = () => undefined): void {
  dialog.value = () => <Body key={`${command} ${id}`} id={id} command={command} done={done} />;
}

/** What the caller may tell an execution in this state. */
export function allowed(status: string): Command[] {
  if (!may("control")) return [];
  if (status === "running") return ["pause", "cancel"];
  if (status === "paused") return ["resume", "cancel"];
  if (status === "pending") return ["cancel"];
  return [];
}
