// Cancel, pause, resume: with a reason, and what does the same from a terminal.
import { useState } from "preact/hooks";
import { tell, type Command } from "../api";
import { dialog, may, say } from "../state";
import { commandSame } from "../terminal";
import { ActionDialog } from "./ActionDialog";

const WORDS: Record<Command, { title: string; says: string; button: string; done: string }> = {
  cancel: { title: "Cancel", says: "Ends it early. That cannot be undone.", button: "Cancel execution", done: "is told to end." },
  pause: { title: "Pause", says: "Stops it before its next task. What is under way goes on.", button: "Pause", done: "is told to pause." },
  resume: { title: "Resume", says: "Lets it go on where it stopped.", button: "Resume", done: "is told to go on." },
};

function Body({ id, command, done }: { id: string; command: Command; done: () => void }) {
  const [reason, setReason] = useState("");
  const [force, setForce] = useState(false);
  const words = WORDS[command];
  const act = async (): Promise<void> => {
    await tell(id, command, reason, force);
    say(`${id} ${words.done}`);
    done();
  };
  return (
    <ActionDialog
      title={`${words.title} ${id}`}
      button={words.button}
      isBad={command === "cancel"}
      same={commandSame(location.origin, id, command, reason, force)}
      act={act}
    >
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
    </ActionDialog>
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
