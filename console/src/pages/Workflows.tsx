// Workflows: what there is, its versions, a new one from its document's text.
import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { ApiError, createWorkflow, getWorkflow, listWorkflows, type FieldProblem, type Workflow } from "../api";
import { count } from "../format";
import { addressOf, go, place, workflowPath } from "../router";
import { info, may, say, viewActions } from "../state";
import { createSame } from "../terminal";
import { CopyButton } from "../ui/Copy";
import { onKeys } from "../ui/Keys";
import { Terminal } from "../ui/Terminal";
import { Time } from "../ui/Time";
import { Waiting } from "../ui/Waiting";
import { Line } from "../ui/Yaml";
import { openStart } from "./StartDialog";

const PAGE = 200;

export function Workflows() {
  const query = place.value.query;
  const [pages, setPages] = useState<{ workflows: Workflow[]; next: string | null } | null>(null);
  const [fault, setFault] = useState("");
  const namespace = query["namespace"] ?? "";
  const load = async (after: string): Promise<void> => {
    try {
      const page = await listWorkflows({ namespace }, after, PAGE);
      setPages((now) => ({ workflows: after && now ? [...now.workflows, ...page.workflows] : page.workflows, next: page.next }));
    } catch (error) {
      setFault(error instanceof Error ? error.message : String(error));
    }
  };
  useEffect(() => {
    void load("");
    return onKeys({
      "/": () => document.querySelector<HTMLInputElement>('[data-filter="namespace"]')?.select(),
      s: () => openStart({ namespace: "", name: "", version: "" }),
    });
  }, [namespace]);
  const groups = new Map<string, Workflow[]>();
  for (const each of pages?.workflows ?? []) {
    const key = `${each.namespace}/${each.name}`;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  return (
    <main class="list-page">
      <div class="page-head">
        <h1>Workflows</h1>
        <span class="grow" />
        {may("admin") ? <a class="button primary" href="/workflows/new">Create…</a> : null}
      </div>
      <div class="toolbar">
        <div class="filters" role="search" aria-label="Workflows">
          <label class="filter">
            <span class="hidden">Namespace</span>
            <input type="search" data-filter="namespace" placeholder="Namespace" value={namespace} onChange={(event) => go(addressOf("/workflows", { namespace: event.currentTarget.value.trim() }))} />
          </label>
        </div>
      </div>
      {fault ? <p class="refusal" role="alert">{fault}</p> : null}
      <div class="table-box" tabIndex={0} role="region" aria-label="Workflows">
        <table class="workflows">
          <thead>
            <tr>
              <th scope="col">Workflow</th>
              <th scope="col">Versions</th>
              <th scope="col">Created</th>
              <th scope="col"><span class="hidden">Actions</span></th>
            </tr>
          </thead>
          <tbody>
            {[...groups.values()].map((versions) => {
              const [latest] = versions;
              if (!latest) return null;
              const path = workflowPath(latest.namespace, latest.name);
              return (
                <tr key={path}>
                  <td><a href={path}><span class="soft">{latest.namespace}/</span>{latest.name}</a></td>
                  <td class="versions">
                    {versions.slice(0, 6).map((each) => (
                      <a key={each.version} class="label num" href={addressOf(path, { version: each.version })}>{each.version}</a>
                    ))}
                    {versions.length > 6 ? <span class="soft">and {count(versions.length - 6)} more</span> : null}
                  </td>
                  <td class="num"><Time at_ms={latest.created_ms} /></td>
                  <td class="right nowrap">
                    <a href={addressOf("/", { namespace: latest.namespace, name: latest.name })}>executions</a>{" "}
                    {may("submit") ? <button type="button" class="small" onClick={() => openStart({ namespace: latest.namespace, name: latest.name, version: "" })}>Start…</button> : null}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
        {pages === null && !fault ? <Waiting /> : null}
        {pages?.workflows.length === 0 ? (
          <div class="empty">
            <p>There is no workflow here. <a href="/workflows/new">Create one</a> from its document.</p>
          </div>
        ) : null}
      </div>
      <nav class="pages" aria-label="Pages">
        {pages?.next ? <button type="button" class="link" onClick={() => void load(pages.next ?? "")}>More</button> : null}
      </nav>
    </main>
  );
}

export function WorkflowPage({ namespace, name }: { namespace: string; name: string }) {
  const wanted = place.value.query["version"] ?? "";
  const [workflow, setWorkflow] = useState<Workflow | null>(null);
  const [versions, setVersions] = useState<Workflow[]>([]);
  const [fault, setFault] = useState("");
  useEffect(() => {
    setFault("");
    getWorkflow(namespace, name, wanted).then(setWorkflow, (error: unknown) => setFault(error instanceof Error ? error.message : String(error)));
    listWorkflows({ namespace, name }, "", 500).then((page) => setVersions(page.workflows), () => undefined);
  }, [namespace, name, wanted]);
  useLayoutEffect(() => {
    const start = (): void => openStart({ namespace, name, version: wanted });
    viewActions.value = [{ name: `Start ${name}`, hint: "s", run: start }];
    const off = onKeys({ s: start });
    return () => {
      off();
      viewActions.value = [];
    };
  }, [namespace, name, wanted]);
  const text = workflow?.document ?? "";
  return (
    <main class="list-page">
      <div class="page-head">
        <h1><span class="soft">{namespace}/</span>{name}</h1>
        {workflow ? <span class="soft num">{workflow.version}{workflow.is_latest ? ", the latest" : ""}</span> : null}
        <span class="grow" />
        <a class="button" href={addressOf("/", { namespace, name, version: wanted })}>Executions</a>
        {may("admin") ? <a class="button" href={addressOf("/workflows/new", { from: `${namespace}/${name}` })}>New version…</a> : null}
        {may("submit") ? <button type="button" class="primary" onClick={() => openStart({ namespace, name, version: wanted })}>Start…</button> : null}
      </div>
      {fault ? <p class="refusal" role="alert">{fault}</p> : null}
      <div class="workflow-body">
        <nav class="version-list" aria-label="Versions">
          {versions.map((each) => (
            <a key={each.version} href={addressOf(workflowPath(namespace, name), { version: each.version })} aria-current={each.version === workflow?.version ? "page" : undefined}>
              <span class="num">{each.version}</span> <span class="soft"><Time at_ms={each.created_ms} /></span>
            </a>
          ))}
        </nav>
        <div class="source" tabIndex={0} role="region" aria-label="Document">
          <div class="source-bar"><CopyButton text={text} what="the document" /></div>
          <pre>
            {text.split("\n").map((line, at) => (
              <div class="line" key={at}><span class="number num">{at + 1}</span><Line text={line} /></div>
            ))}
          </pre>
        </div>
      </div>
    </main>
  );
}

const FIRST = `document:
  dsl: '1.0.3'
  namespace: try
  name: hello
  version: '1.0.0'
do:
  - greet:
      set:
        text: \${ "hello, \\(.name // "world")" }
  - rest:
      wait: { seconds: 2 }
`;

export function NewWorkflow() {
  const from = place.value.query["from"] ?? "";
  const [text, setText] = useState(from ? "" : FIRST);
  const [problems, setProblems] = useState<FieldProblem[]>([]);
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const [namespace = "", name = ""] = from.split("/");
    if (!name) return;
    getWorkflow(namespace, name, "").then((found) => setText(found.document ?? ""), () => setText(FIRST));
  }, [from]);
  const create = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setProblems([]);
    setFault("");
    try {
      const made = await createWorkflow(text);
      if (made) {
        say(`${made.namespace}/${made.name} ${made.version} is kept.`);
        go(addressOf(workflowPath(made.namespace, made.name), { version: made.version }));
      }
    } catch (error) {
      if (error instanceof ApiError) setProblems(error.problems);
      setFault(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  const lines = text.split("\n");
  const marked = new Set(problems.map((each) => each.line));
  const show = (problem: FieldProblem): void => {
    const area = document.querySelector<HTMLTextAreaElement>("textarea[name=document]");
    if (!area || !problem.line) return;
    const at = lines.slice(0, problem.line - 1).reduce((sum, line) => sum + line.length + 1, 0) + (problem.column ?? 1) - 1;
    area.focus();
    area.setSelectionRange(at, at);
  };
  return (
    <main class="list-page">
      <form class="editor" onSubmit={(event) => void create(event)}>
        <div class="page-head">
          <h1>{from ? `A new version of ${from}` : "A new workflow"}</h1>
          <span class="grow" />
          <a class="button" href="/workflows">Leave it</a>
          <button type="submit" class="primary" disabled={busy || !text.trim()}>Create</button>
        </div>
        <p class="soft">Its document says its namespace, name and version. A version never changes: raise it to change something.</p>
        {fault ? (
          <div class="problems" role="alert">
            <p>{problems.length ? `${count(problems.length)} ${problems.length === 1 ? "problem" : "problems"}:` : fault}</p>
            <ul>
              {problems.map((each, at) => (
                <li key={at}>
                  <button type="button" class="link num" onClick={() => show(each)}>{each.line ? `${each.line}:${each.column ?? 1}` : each.field || "document"}</button>{" "}
                  {each.message} {each.code ? <span class="soft">{each.code}</span> : null}
                </li>
              ))}
            </ul>
          </div>
        ) : null}
        <div class="edit-box">
          <div class="numbers num" aria-hidden="true">
            {lines.map((_, at) => <div key={at} class={marked.has(at + 1) ? "bad" : ""}>{at + 1}</div>)}
          </div>
          <textarea
            name="document"
            aria-label="Document, YAML or JSON"
            spellcheck={false}
            wrap="off"
            rows={Math.max(18, lines.length + 1)}
            value={text}
            aria-invalid={problems.length > 0}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </div>
        <Terminal same={createSame(location.origin, info.value?.product === "runner")} />
      </form>
    </main>
  );
}
