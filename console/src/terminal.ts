// The same from a terminal: what each button does as a command line, a call with grpcurl, and one with curl.
import { PREFIX, query, type Command, type ScheduleRequest, type ScheduleVerb, type StartRequest, type Which } from "./api";

export interface Same {
  label: "fastrunner" | "grpcurl" | "curl";
  text: string;
}

const COMMANDS = "ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController";
const QUERIES = "ai.stigmer.workflow.runner.v1.WorkflowRunnerQueryController";
const REGISTRY = "ai.stigmer.workflow.runner.v1.WorkflowRegistryController";
const TARGET = "localhost:9090";

/** A word for a POSIX shell. */
export function quoted(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function grpcurl(service: string, method: string, body: unknown): Same {
  return {
    label: "grpcurl",
    text: `grpcurl -plaintext -d ${quoted(JSON.stringify(body))} \\\n  ${TARGET} ${service}/${method}`,
  };
}

function curlPost(origin: string, path: string, body: string): Same {
  const text =
    `curl ${quoted(origin + PREFIX + path)} -H 'X-Requested-By: me' \\\n` +
    `  -H 'Content-Type: application/json' -d ${quoted(body)}`;
  return { label: "curl", text };
}

const words = (...parts: string[]): string => parts.filter(Boolean).join(" ");
const flag = (name: string, value: string | undefined): string => (value ? `--${name} ${quoted(value)}` : "");

export function commandSame(origin: string, id: string, command: Command, reason: string, force: boolean): Same[] {
  const method = `${command[0]?.toUpperCase() ?? ""}${command.slice(1)}Execution`;
  const body = { execution_id: id, ...(reason ? { reason } : {}), ...(force ? { force } : {}) };
  const sent = command === "cancel" ? { reason, force } : { reason };
  return [
    { label: "fastrunner", text: words("fastrunner", command, quoted(id), flag("reason", reason), force ? "--force" : "") },
    grpcurl(COMMANDS, method, body),
    curlPost(origin, `/executions/${encodeURIComponent(id)}/${command}`, JSON.stringify(sent)),
  ];
}

/** `body` is the request as it is sent. */
export function startSame(origin: string, request: StartRequest, inputText: string, body: string): Same[] {
  const { namespace, name, version } = request.workflow;
  const env = Object.entries(request.env ?? {}).map(([key, value]) => flag("env", `${key}=${value}`));
  const labels = Object.entries(request.labels ?? {}).map(([key, value]) => flag("label", `${key}=${value}`));
  const file = `${name}.yaml`;
  const fetched =
    `curl -s ${quoted(`${origin}${PREFIX}/workflows/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}` + query({ version }))}` +
    ` | jq -r .document > ${quoted(file)}\n`;
  const submit = words(
    "fastrunner submit", quoted(file), flag("id", request.id), flag("input", inputText), ...env, ...labels,
    request.timeout_s ? `--timeout-s ${request.timeout_s}` : "", "--follow",
  );
  const message = {
    ...(request.id ? { workflow_execution_id: request.id } : {}),
    workflow_yaml: "$DOCUMENT",
    ...(inputText ? { input_json: inputText } : {}),
    ...(env.length ? { env_vars: request.env } : {}),
    ...(labels.length ? { labels: request.labels } : {}),
    ...(request.timeout_s ? { config: { max_timeout_seconds: request.timeout_s } } : {}),
  };
  const read = `jq --rawfile document ${quoted(file)} '.workflow_yaml = $document' <<< ${quoted(JSON.stringify(message))}`;
  return [
    { label: "curl", text: curlPost(origin, "/executions", body).text },
    { label: "fastrunner", text: fetched + submit },
    { label: "grpcurl", text: `${fetched}${read} \\\n  | grpcurl -plaintext -d @ ${TARGET} ${COMMANDS}/ExecuteAsync` },
  ];
}

export function createSame(origin: string, isRunner: boolean): Same[] {
  const body = "jq -Rs '{document: .}' workflow.yaml";
  const text =
    `${body} | curl ${quoted(`${origin}${PREFIX}/workflows`)} -H 'X-Requested-By: me' \\\n` +
    "  -H 'Content-Type: application/json' --data-binary @-";
  // What a runner by itself keeps, its own commands add; a Stigmer Service's workflows only it has.
  const ofRunner = [
    { label: "fastrunner" as const, text: "fastrunner workflow register workflow.yaml" },
    {
      label: "grpcurl" as const,
      text: `jq -Rs '{workflow_yaml: .}' workflow.yaml \\\n  | grpcurl -plaintext -d @ ${TARGET} ${REGISTRY}/RegisterWorkflow`,
    },
  ];
  return [
    { label: "curl", text },
    ...(isRunner ? ofRunner : [{ label: "fastrunner" as const, text: "fastrunner validate workflow.yaml" }]),
  ];
}

export function schedulesSame(origin: string, namespace: string): Same[] {
  return [
    { label: "curl", text: `curl ${quoted(`${origin}${PREFIX}/schedules${query({ namespace })}`)}` },
    { label: "fastrunner", text: words("fastrunner schedule list", flag("namespace", namespace)) },
    grpcurl(REGISTRY, "ListSchedules", namespace ? { namespace } : {}),
  ];
}

export function scheduleSame(origin: string, id: string, verb: ScheduleVerb, sent: { reason?: string; key?: string }): Same[] {
  const method = `${verb[0]?.toUpperCase() ?? ""}${verb.slice(1)}Schedule`;
  return [
    { label: "fastrunner", text: words(`fastrunner schedule ${verb}`, quoted(id), flag("reason", sent.reason), flag("key", sent.key)) },
    grpcurl(REGISTRY, method, { schedule_id: id, ...sent }),
    curlPost(origin, `/schedules/${encodeURIComponent(id)}/${verb}`, verb === "delete" ? "" : JSON.stringify(sent)),
  ];
}

/** `body` is the request as it is sent. What a runner has registered is not what a Stigmer Service keeps: the document goes along. */
export function addScheduleSame(origin: string, request: ScheduleRequest, inputText: string, body: string): Same[] {
  const { namespace, name, version } = request.workflow;
  const { trigger = {}, options = {} } = request;
  const file = `${name}.yaml`;
  const path = `/workflows/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${query({ version })}`;
  const fetched = `curl -s ${quoted(origin + PREFIX + path)} | jq -r .document > ${quoted(file)}\n`;
  const pairs = (flagName: string, given: Record<string, string> = {}): string[] =>
    Object.entries(given).map(([key, value]) => flag(flagName, `${key}=${value}`));
  const cli = words(
    "fastrunner schedule add", quoted(file), flag("id", request.id), flag("every", trigger.every), flag("cron", trigger.cron),
    flag("after", trigger.after), flag("timezone", options.timezone), flag("misfire", options.misfire), flag("overlap", options.overlap),
    flag("input", inputText), ...pairs("env", request.env), ...pairs("label", request.labels),
    request.timeout_s ? `--timeout-s ${request.timeout_s}` : "",
  );
  const message = {
    ...(request.id ? { schedule_id: request.id } : {}),
    execution: {
      workflow_yaml: "$DOCUMENT",
      ...(inputText ? { input_json: inputText } : {}),
      ...(request.env ? { env_vars: request.env } : {}),
      ...(request.labels ? { labels: request.labels } : {}),
      ...(request.timeout_s ? { config: { max_timeout_seconds: request.timeout_s } } : {}),
    },
    ...(request.trigger ? { trigger } : {}),
    options: {
      ...(options.timezone ? { timezone: options.timezone } : {}),
      ...(options.misfire ? { misfire: `MISFIRE_POLICY_${options.misfire.toUpperCase()}` } : {}),
      ...(options.overlap ? { overlap: `OVERLAP_POLICY_${options.overlap.toUpperCase()}` } : {}),
    },
  };
  const read = `jq --rawfile document ${quoted(file)} '.execution.workflow_yaml = $document' <<< ${quoted(JSON.stringify(message))}`;
  return [
    curlPost(origin, "/schedules", body),
    { label: "fastrunner", text: fetched + cli },
    { label: "grpcurl", text: `${fetched}${read} \\\n  | grpcurl -plaintext -d @ ${TARGET} ${REGISTRY}/AddSchedule` },
  ];
}

export function sendEventSame(origin: string, event: Record<string, unknown>): Same[] {
  const { type, source, subject, data, id } = event;
  const cli = words(
    "fastrunner send-event", flag("type", String(type ?? "")), flag("source", source as string | undefined),
    flag("subject", subject as string | undefined), flag("id", id as string | undefined),
    data === undefined ? "" : flag("data", JSON.stringify(data)),
  );
  const attributes: Record<string, unknown> = { datacontenttype: { ce_string: "application/json" } };
  if (subject) attributes["subject"] = { ce_string: subject };
  const message = {
    events: [
      { id, source, spec_version: "1.0", type, attributes, ...(data === undefined ? {} : { text_data: JSON.stringify(data) }) },
    ],
  };
  return [
    { label: "fastrunner", text: cli },
    grpcurl(COMMANDS, "SendEvents", message),
    curlPost(origin, "/events", JSON.stringify(event)),
  ];
}

export function listSame(origin: string, which: Which): Same[] {
  const body = {
    ...(which.status ? { statuses: [which.status] } : {}),
    ...(which.namespace ? { workflow_namespace: which.namespace } : {}),
    ...(which.name ? { workflow_name: which.name } : {}),
    ...(which.version ? { workflow_version: which.version } : {}),
  };
  const cli = words(
    "fastrunner list", flag("status", which.status), flag("namespace", which.namespace), flag("name", which.name),
    flag("version", which.version),
  );
  return [
    { label: "curl", text: `curl ${quoted(`${origin}${PREFIX}/executions${query({ ...which })}`)}` },
    { label: "fastrunner", text: cli },
    grpcurl(QUERIES, "ListExecutions", body),
  ];
}

export function followSame(origin: string, id: string): Same[] {
  const path = `${origin}${PREFIX}/executions/${encodeURIComponent(id)}/events/stream`;
  return [
    { label: "fastrunner", text: `fastrunner events ${quoted(id)} --follow` },
    grpcurl(QUERIES, "Subscribe", { execution_id: id }),
    { label: "curl", text: `curl -N ${quoted(path)}` },
  ];
}
