// Starts an execution: which workflow, its input as JSON text that is sent as it is written, env, labels, timeout.
import { useEffect, useState } from "preact/hooks";
import { listWorkflows, startExecutionText, type StartRequest, type Workflow } from "../api";
import { executionPath, go } from "../router";
import { closeDialog, dialog, say } from "../state";
import { startSame } from "../terminal";
import { DialogFrame } from "../ui/Dialog";
import { Terminal } from "../ui/Terminal";
import { jsonProblem } from "../values";

/** "A=1" a line; the lines that are not so, and what is. */
export function pairsOf(text: string): { pairs: Record<string, string>; problem: string } {
  const pairs: Record<string, string> = {};
  for (const [at, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    const cut = line.indexOf("=");
    if (cut < 1) return { pairs, problem: `line ${at + 1}: write NAME=value` };
    pairs[line.slice(0, cut).trim()] = line.slice(cut + 1);
  }
  return { pairs, problem: "" };
}

/** The request's text; the input goes into it as it is written, so that no number changes. */
export function requestText(request: StartRequest, input: string): string {
  const head = JSON.stringify(request);
  return input.trim() ? `${head.slice(0, -1)},"input":${input.trim()}}` : head;
}

interface Chosen {
  namespace: string;
  name: string;
  version: string;
}

function Body({ chosen }: { chosen: Chosen }) {
  const [workflows, setWorkflows] = useState<Workflow[] | null>(null);
  const [workflow, setWorkflow] = useState(chosen.name ? `${chosen.namespace}/${chosen.name}` : "");
  const [version, setVersion] = useState(chosen.version);
  const [input, setInput] = useState("");
  const [env, setEnv] = useState("");
  const [labels, setLabels] = useState("");
  const [timeout, setTimeoutText] = useState("");
  const [id, setId] = useState("");
  const [refusal, setRefusal] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    listWorkflows({}, "", 500)
      .then((page) => {
        setWorkflows(page.workflows);
        const [first] = page.workflows;
        if (first && !chosen.namespace) {
          const named = page.workflows.find((each) => each.name === chosen.name) ?? first;
          setWorkflow((now) => (now && !now.startsWith("/") ? now : `${named.namespace}/${named.name}`));
        }
      })
      .catch((error: unknown) => setRefusal(String(error instanceof Error ? error.message : error)));
  }, []);
  const names = [...new Set((workflows ?? []).map((each) => `${each.namespace}/${each.name}`))];
  const [namespace = "", name = ""] = workflow.split("/");
  const versions = (workflows ?? []).filter((each) => each.namespace === namespace && each.name === name);
  const problem = input.trim() ? jsonProblem(input) : null;
  const envPairs = pairsOf(env);
  const labelPairs = pairsOf(labels);
  const request: StartRequest = {
    ...(id.trim() ? { id: id.trim() } : {}),
    workflow: { namespace, name, ...(version ? { version } : {}) },
    ...(env.trim() ? { env: envPairs.pairs } : {}),
    ...(labels.trim() ? { labels: labelPairs.pairs } : {}),
    ...(timeout ? { timeout_s: Number(timeout) } : {}),
  };
  const body = requestText(request, problem ? "" : input);
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
  if (workflows?.length === 0) {
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
        <div class="fields">
          <label class="field wide">
            <span>Workflow</span>
            <select value={workflow} required autoFocus onChange={(event) => { setWorkflow(event.currentTarget.value); setVersion(""); }}>
              {names.map((each) => <option key={each} value={each}>{each}</option>)}
            </select>
          </label>
          <label class="field">
            <span>Version</span>
            <select value={version} onChange={(event) => setVersion(event.currentTarget.value)}>
              <option value="">latest</option>
              {versions.map((each) => <option key={each.version} value={each.version}>{each.version}</option>)}
            </select>
          </label>
        </div>
        <label class="field">
          <span>Input (JSON)</span>
          <textarea rows={7} name="input" spellcheck={false} value={input} placeholder='{"orderId": "A-7", "amount": 12.5}' aria-invalid={problem !== null} onInput={(event) => setInput(event.currentTarget.value)} />
          <small class={problem ? "refusal" : "soft"} role={problem ? "alert" : undefined}>
            {problem ?? "Sent exactly as it is written. Empty: null."}
          </small>
        </label>
        <div class="fields">
          <label class="field">
            <span>Labels</span>
            <textarea rows={2} name="labels" spellcheck={false} value={labels} placeholder="tenant=acme" onInput={(event) => setLabels(event.currentTarget.value)} />
            {labelPairs.problem ? <small class="refusal">{labelPairs.problem}</small> : null}
          </label>
          <label class="field">
            <span>Env</span>
            <textarea rows={2} name="env" spellcheck={false} value={env} placeholder="REGION=eu" onInput={(event) => setEnv(event.currentTarget.value)} />
            {envPairs.problem ? <small class="refusal">{envPairs.problem}</small> : null}
          </label>
        </div>
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
        {refusal ? <p class="refusal" role="alert">{refusal}</p> : null}
        <footer>
          <button type="button" onClick={closeDialog}>Leave it</button>
          <button type="submit" class="primary" disabled={busy || problem !== null || !name || envPairs.problem !== "" || labelPairs.problem !== ""}>Start</button>
        </footer>
      </form>
      <Terminal same={startSame(location.origin, request, problem ? "" : input.trim(), body)} />
    </DialogFrame>
  );
}

export function openStart(chosen: Chosen): void {
  dialog.value = () => <Body chosen={chosen} />;
}
