// Fields that starting an execution and adding a schedule have in common: which workflow, its input, labels, env.
import { useEffect, useState } from "preact/hooks";
import { listWorkflows, type Workflow } from "../api";
import { closeDialog } from "../state";
import { jsonProblem } from "../values";
import { DialogFrame } from "./Dialog";

export interface Chosen {
  namespace: string;
  name: string;
  version: string;
}

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

/** A request's text; the input goes into it as it is written, so that no number changes. */
export function requestText(request: object, input: string): string {
  const head = JSON.stringify(request);
  return input.trim() ? `${head.slice(0, -1)},"input":${input.trim()}}` : head;
}

/** Which workflow and version; `isEmpty` where there is none to choose from. */
export function useWorkflowChoice(chosen: Chosen) {
  const [workflows, setWorkflows] = useState<Workflow[] | null>(null);
  const [workflow, setWorkflow] = useState(chosen.name ? `${chosen.namespace}/${chosen.name}` : "");
  const [version, setVersion] = useState(chosen.version);
  const [fault, setFault] = useState("");
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
      .catch((error: unknown) => setFault(error instanceof Error ? error.message : String(error)));
  }, []);
  const [namespace = "", name = ""] = workflow.split("/");
  const names = [...new Set((workflows ?? []).map((each) => `${each.namespace}/${each.name}`))];
  const versions = (workflows ?? []).filter((each) => each.namespace === namespace && each.name === name);
  const fields = (
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
  );
  return { namespace, name, version, fields, fault, isEmpty: workflows?.length === 0 };
}

/** In the place of the fields, where there is none to choose from. */
export function NoWorkflow({ title }: { title: string }) {
  return (
    <DialogFrame title={title}>
      <p class="empty">
        There is no workflow yet. <a href="/workflows/new" onClick={closeDialog}>Create one</a> from its document.
      </p>
    </DialogFrame>
  );
}

/** What an execution is given. `problem`: what of it cannot be sent. */
export function useGiven(rows: number) {
  const [input, setInput] = useState("");
  const [env, setEnv] = useState("");
  const [labels, setLabels] = useState("");
  const problem = input.trim() ? jsonProblem(input) : null;
  const envPairs = pairsOf(env);
  const labelPairs = pairsOf(labels);
  const fields = (
    <>
      <label class="field">
        <span>Input (JSON)</span>
        <textarea rows={rows} name="input" spellcheck={false} value={input} placeholder='{"orderId": "A-7", "amount": 12.5}' aria-invalid={problem !== null} onInput={(event) => setInput(event.currentTarget.value)} />
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
    </>
  );
  return {
    /** As it is written; empty while it is no JSON. */
    input: problem ? "" : input.trim(),
    given: {
      ...(env.trim() ? { env: envPairs.pairs } : {}),
      ...(labels.trim() ? { labels: labelPairs.pairs } : {}),
    },
    isWrong: problem !== null || envPairs.problem !== "" || labelPairs.problem !== "",
    fields,
  };
}
