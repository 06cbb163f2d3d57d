// Starts an execution: which workflow, its input as JSON text that is sent as it is written, env, labels, timeout.
import { useState } from "preact/hooks";
import { startExecutionText, type StartRequest } from "../api";
import { executionPath, go } from "../router";
import { closeDialog, dialog, say } from "../state";
import { startSame } from "../terminal";
import { DialogFrame } from "../ui/Dialog";
import { requestText, useGiven, useWorkflowChoice, type Chosen } from "../ui/Fields";
import { Terminal } from "../ui/Terminal";

function Body({ chosen }: { chosen: Chosen }) {
  const choice = useWorkflowChoice(chosen);
  const given = useGiven(7);
  const [timeout, setTimeoutText] = useState("");
  const [id, setId] = useState("");
  const [refusal, setRefusal] = useState("");
  const [busy, setBusy] = useState(false);
  const { namespace, name, version } = choice;
  const request: StartRequest = {
    ...(id.trim() ? { id: id.trim() } : {}),
    workflow: { namespace, name, ...(version ? { version } : {}) },
    ...given.given,
    ...(timeout ? { timeout_s: Number(timeout) } : {}),
  };
  const body = requestText(request, given.input);
  const start = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      const execution = await startExecutionText(body);
      closeDialog();
      if (execution) {
        say(execution.launch === "recorded" ? `${execution.id} is recorded; the runner has yet to answer.` : `${execution.id} has been started.`);
        go(executionPath(execution.id));
      }
    } catch (error) {
      setRefusal(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  if (choice.isEmpty) {
    return (
      <DialogFrame title="Start an execution">
        <p class="empty">
          There is no workflow yet. <a href="/workflows/new" onClick={closeDialog}>Create one</a> from its document.
        </p>
      </DialogFrame>
    );
  }
  return (
    <DialogFrame title="Start an execution">
      <form onSubmit={(event) => void start(event)}>
        {choice.fields}
        {given.fields}
        <div class="fields">
          <label class="field">
            <span>Id</span>
            <input type="text" name="id" value={id} placeholder="one is made" spellcheck={false} onInput={(event) => setId(event.currentTarget.value)} />
          </label>
          <label class="field">
            <span>Timeout (s)</span>
            <input type="number" name="timeout" min={0} max={2147483647} step={1} value={timeout} placeholder="none" onInput={(event) => setTimeoutText(event.currentTarget.value)} />
          </label>
        </div>
        {refusal || choice.fault ? <p class="refusal" role="alert">{refusal || choice.fault}</p> : null}
        <footer>
          <button type="button" onClick={closeDialog}>Leave it</button>
          <button type="submit" class="primary" disabled={busy || given.isWrong || !name}>Start</button>
        </footer>
      </form>
      <Terminal same={startSame(location.origin, request, given.input, body)} />
    </DialogFrame>
  );
}

export function openStart(chosen: Chosen): void {
  dialog.value = () => <Body chosen={chosen} />;
}
