// Starts an execution: which workflow, its input as JSON text that is sent as it is written, env, labels, timeout.
import { useState } from "preact/hooks";
import { startExecutionText, type StartRequest } from "../api";
import { executionPath, go } from "../router";
import { dialog, say } from "../state";
import { startSame } from "../terminal";
import { ActionDialog } from "../ui/ActionDialog";
import { NoWorkflow, requestText, useGiven, useWorkflowChoice, type Chosen } from "../ui/Fields";

function Body({ chosen }: { chosen: Chosen }) {
  const choice = useWorkflowChoice(chosen);
  const given = useGiven(7);
  const [timeout, setTimeoutText] = useState("");
  const [id, setId] = useState("");
  const { namespace, name, version } = choice;
  const request: StartRequest = {
    ...(id.trim() ? { id: id.trim() } : {}),
    workflow: { namespace, name, ...(version ? { version } : {}) },
    ...given.given,
    ...(timeout ? { timeout_s: Number(timeout) } : {}),
  };
  const body = requestText(request, given.input);
  const act = async (): Promise<void> => {
    const execution = await startExecutionText(body);
    if (!execution) return;
    say(execution.launch === "recorded" ? `${execution.id} is recorded; the runner has yet to answer.` : `${execution.id} has been started.`);
    go(executionPath(execution.id));
  };
  if (choice.isEmpty) return <NoWorkflow title="Start an execution" />;
  return (
    <ActionDialog
      title="Start an execution"
      button="Start"
      isWrong={given.isWrong || !name}
      fault={choice.fault}
      same={startSame(location.origin, request, given.input, body)}
      act={act}
    >
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
    </ActionDialog>
  );
}

export function openStart(chosen: Chosen): void {
  dialog.value = () => <Body chosen={chosen} />;
}
