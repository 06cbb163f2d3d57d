// What the HTTP API takes and gives, and how it is asked. Names, units and meanings are those of /openapi.json.

export type Status = "pending" | "running" | "completed" | "failed" | "cancelled" | "paused";
export const STATUSES: readonly Status[] = ["running", "paused", "pending", "completed", "failed", "cancelled"];

export interface ErrorDetails {
  code?: string;
  message?: string;
  type?: string;
  title?: string;
  detail?: string;
  instance?: string;
  status?: number;
  [name: string]: unknown;
}

/** A progress event: fields of the proto that have a value. */
export interface Event {
  workflow_execution_id: string;
  sequence_number: number;
  event_type: string;
  workflow_name?: string;
  status?: string;
  message?: string;
  timestamp_ms?: number;
  task_name?: string;
  task_reference?: string;
  task_progress?: number;
  attempt?: number;
  iteration?: number[];
  output_json?: string;
  error?: ErrorDetails;
}

export interface Execution {
  id: string;
  namespace: string;
  name: string;
  version: string;
  labels: Record<string, string>;
  launch: "recorded" | "accepted" | "refused" | "reported";
  status: Status;
  last_sequence: number;
  created_ms: number;
  started_ms: number;
  updated_ms: number;
  ended_ms: number;
  gap_since_ms: number;
  message: string;
  error: ErrorDetails | null;
  output_json: string;
  /** What it waits for, as the runner says it; empty where it cannot be asked, and in lists. */
  waiting: string;
}

export interface ExecutionPage {
  executions: Execution[];
  next: string | null;
}

export interface Counts {
  by_status: Partial<Record<Status, number>>;
  total: number;
}

export interface EventPage {
  events: Event[];
  last_sequence: number;
  has_ended: boolean;
}

export interface Workflow {
  namespace: string;
  name: string;
  version: string;
  created_ms: number;
  is_latest: boolean;
  document: string | null;
}

export interface WorkflowPage {
  workflows: Workflow[];
  next: string | null;
}

/** A task of an accepted document: where it stands. Lines and columns are from 1. */
export interface DocumentTask {
  reference: string;
  name: string;
  kind: string;
  line: number;
  column: number;
  end_line: number;
}

export interface AcceptedDocument {
  namespace: string;
  name: string;
  version: string;
  document: string;
  tasks: DocumentTask[];
}

export interface GraphNode {
  reference: string;
  name: string;
  kind: string;
  parent: string;
  label: string;
}

/** Ends of an edge are references, `start:<parent>` or `end:<parent>`. */
export interface GraphEdge {
  source: string;
  target: string;
  kind: "next" | "then" | "case" | "branch" | "catch";
  label: string;
}

export interface Graph {
  nodes: GraphNode[];
  edges: GraphEdge[];
}

export interface Info {
  product: "stigmer" | "runner";
  version: string;
  features: string[];
  /** Who asks; null where callers are not told apart. */
  caller: string | null;
  /** What the caller may do. */
  roles: string[];
}

export interface StartRequest {
  id?: string;
  workflow: { namespace: string; name: string; version?: string };
  input?: unknown;
  env?: Record<string, string>;
  labels?: Record<string, string>;
  timeout_s?: number;
}

/** What starts executions; what does not is empty. */
export interface Trigger {
  every: string;
  cron: string;
  after: string;
  on_json: string;
  read: string;
}

export interface ScheduleOptions {
  timezone: string;
  misfire: "" | "skip" | "once" | "all";
  misfire_count_max: number;
  overlap: "" | "allow" | "skip" | "queue";
  queue_count_max: number;
  jitter_ms: number;
}

export interface Schedule {
  id: string;
  namespace: string;
  name: string;
  version: string;
  trigger: Trigger;
  options: ScheduleOptions;
  paused: boolean;
  reason: string;
  added_ms: number;
  added_by: string;
  next_ms: number;
  last_ms: number;
  last_execution_id: string;
  last_error: string;
  queued_count: number;
  started_count: number;
  failed_count: number;
  missed_count: number;
  overlapped_count: number;
}

export interface SchedulePage {
  schedules: Schedule[];
  next: string | null;
}

export interface ScheduleRequest extends StartRequest {
  trigger?: Partial<Trigger>;
  options?: Partial<ScheduleOptions>;
}

export interface FieldProblem {
  field: string;
  message: string;
  code?: string;
  line?: number;
  column?: number;
}

/** Which executions are meant; empty: all. */
export interface Which {
  status: string;
  namespace: string;
  name: string;
  version: string;
}

export const PREFIX = "/api/v1";

/** A request that was refused, or had no answer (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly problems: FieldProblem[] = [],
  ) {
    super(detail);
  }
}

let onUnauthorized: () => void = () => undefined;

/** Has somebody told of each request that is refused for lack of credentials. */
export function whenUnauthorized(tell: () => void): void {
  onUnauthorized = tell;
}

export function query(values: Record<string, string | number | undefined>): string {
  const parts = Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
  return parts.length ? `?${parts.join("&")}` : "";
}

/** The problem an answer tells of. */
export async function refusalOf(reply: Response): Promise<ApiError> {
  if (reply.status === 401) onUnauthorized();
  try {
    const body = (await reply.json()) as { detail?: string; title?: string; problems?: FieldProblem[] };
    return new ApiError(reply.status, body.detail ?? body.title ?? `HTTP ${reply.status}`, body.problems ?? []);
  } catch {
    return new ApiError(reply.status, `HTTP ${reply.status} ${reply.statusText}`);
  }
}

export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let reply: Response;
  try {
    reply = await fetch(PREFIX + path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The service does not answer.");
  }
  if (!reply.ok) throw await refusalOf(reply);
  return reply;
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const reply = await ask(path, signal ? { signal } : {});
  return (await reply.json()) as T;
}

async function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T | null> {
  const reply = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Requested-By": "console", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await reply.text();
  return text ? (JSON.parse(text) as T) : null;
}

const at = (id: string): string => `/executions/${encodeURIComponent(id)}`;

export const getInfo = (): Promise<Info> => get("/info");

export const listExecutions = (which: Which, before = "", count = 50, signal?: AbortSignal): Promise<ExecutionPage> =>
  get(`/executions${query({ ...which, before, count })}`, signal);

export const countExecutions = (which: Omit<Which, "status">, signal?: AbortSignal): Promise<Counts> =>
  get(`/counts${query({ namespace: which.namespace, name: which.name, version: which.version })}`, signal);

export const getExecution = (id: string, signal?: AbortSignal): Promise<Execution> => get(at(id), signal);

export const getEvents = (id: string, after: number, count = 500, signal?: AbortSignal): Promise<EventPage> =>
  get(`${at(id)}/events${query({ after, count })}`, signal);

export const getDocument = (id: string, signal?: AbortSignal): Promise<AcceptedDocument> =>
  get(`${at(id)}/document`, signal);

export const getGraph = (id: string, signal?: AbortSignal): Promise<Graph> => get(`${at(id)}/graph`, signal);

export const listWorkflows = (
  which: { namespace?: string; name?: string },
  after = "",
  count = 200,
  signal?: AbortSignal,
): Promise<WorkflowPage> => get(`/workflows${query({ ...which, after, count })}`, signal);

export const getWorkflow = (
  namespace: string,
  name: string,
  version: string,
  signal?: AbortSignal,
): Promise<Workflow> =>
  get(`/workflows/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${query({ version })}`, signal);

export const createWorkflow = (document: string): Promise<Workflow | null> => post("/workflows", { document });

/** `request`: StartRequest as text. */
export const startExecutionText = (request: string): Promise<Execution | null> => post("/executions", request);

export type Command = "cancel" | "pause" | "resume";

export const tell = (id: string, command: Command, reason: string, force = false): Promise<null> =>
  post(`${at(id)}/${command}`, command === "cancel" ? { reason, force } : { reason });

const ofSchedule = (id: string): string => `/schedules/${encodeURIComponent(id)}`;

export const listSchedules = (namespace: string, after = "", count = 200, signal?: AbortSignal): Promise<SchedulePage> =>
  get(`/schedules${query({ namespace, after, count })}`, signal);

/** `request`: ScheduleRequest as text. */
export const addScheduleText = (request: string): Promise<Schedule | null> => post("/schedules", request);

export type ScheduleVerb = "pause" | "resume" | "delete" | "fire";

/** Fired, it gives the id of the execution. The same key again starts nothing again. */
export const tellSchedule = (
  id: string,
  verb: ScheduleVerb,
  body: { reason?: string; key?: string },
): Promise<{ execution_id: string } | null> => post(`${ofSchedule(id)}/${verb}`, verb === "delete" ? "" : body);

export const sendEvent = (event: unknown): Promise<unknown> => post("/events", event);

export async function signOut(): Promise<void> {
  await ask("/session", { method: "DELETE", headers: { "X-Requested-By": "console" } });
}

export const signIn = (token: string): Promise<unknown> => post("/session", "", { Authorization: `Bearer ${token}` });

/** Has the cookie last longer. */
export const renewSession = (): Promise<unknown> => post("/session", "");
