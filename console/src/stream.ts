// Server-sent events read with fetch: unlike EventSource it tells why it was refused, and keeps our own cursor.
//
// A `Tail` holds the events of one execution: contiguous from 1, each once, whatever the connection does. It goes on
// after the last one it has; an event out of turn makes it ask again, a `reset` makes it begin anew.
import { signal } from "@preact/signals";
import { ApiError, PREFIX, getExecution, query, refusalOf, type Event, type Execution } from "./api";

export interface Message {
  event: string;
  data: string;
}

/** Cuts a stream's text into messages; what is incomplete waits for the next part. */
export class MessageParser {
  private rest = "";

  take(text: string): Message[] {
    const blocks = (this.rest + text).split("\n\n");
    this.rest = blocks.pop() ?? "";
    const messages: Message[] = [];
    for (const block of blocks) {
      let event = "message";
      const data: string[] = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      }
      if (data.length) messages.push({ event, data: data.join("\n") });
    }
    return messages;
  }
}

/** The service sends a line every 15 seconds; after this long without one the connection is not there any more. */
const SILENCE_MS_MAX = 40_000;
const PAUSE_MS_MIN = 250;
const PAUSE_MS_MAX = 5_000;
const FRAME_MS = 16;
const PAINT_MS_MAX = 500;
const MANY = 1_000;
const MANY_PAUSE_MS = 120;

/** Reads one connection to its end. Gives whether there is nothing to come (204). Raises ApiError and AbortError. */
async function readStream(
  path: string,
  abort: AbortController,
  begun: () => void,
  take: (messages: Message[]) => void,
): Promise<boolean> {
  let reply: Response;
  try {
    reply = await fetch(PREFIX + path, { signal: abort.signal, headers: { Accept: "text/event-stream" } });
  } catch {
    throw new ApiError(0, "The service does not answer.");
  }
  if (reply.status === 204) return true;
  if (!reply.ok) throw await refusalOf(reply);
  if (!reply.body) return false;
  begun();
  const parser = new MessageParser();
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let silence = setTimeout(() => abort.abort(), SILENCE_MS_MAX);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS_MAX);
      take(parser.take(value));
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    return false;
  } finally {
    clearTimeout(silence);
  }
}

export type Connection = "connecting" | "live" | "away" | "ended" | "refused";

/** Comes again after each end of a connection, later and later while nothing is served. */
abstract class Follower {
  readonly connection = signal<Connection>("connecting");
  readonly refusal = signal<ApiError | null>(null);
  private abort = new AbortController();
  private stopped = false;
  private pause_ms = PAUSE_MS_MIN;
  private wake: () => void = () => undefined;

  protected abstract path(): string;
  protected abstract take(messages: Message[]): void;
  protected abstract isOver(): boolean;

  start(): void {
    void this.run();
  }

  stop(): void {
    this.stopped = true;
    this.abort.abort();
    this.wake();
  }

  /** Leaves the connection, to come again at once. */
  protected again(): void {
    this.pause_ms = PAUSE_MS_MIN;
    this.abort.abort();
  }

  private async run(): Promise<void> {
    // Who was stopped before it began stays so.
    while (!this.stopped) {
      this.abort = new AbortController();
      try {
        const nothing = await readStream(
          this.path(),
          this.abort,
          () => {
            this.connection.value = "live";
            this.pause_ms = PAUSE_MS_MIN;
          },
          (messages) => this.take(messages),
        );
        if (nothing || this.isOver()) {
          this.connection.value = "ended";
          return;
        }
      } catch (error) {
        if (this.stopped) return;
        const status = error instanceof ApiError ? error.status : 0;
        if (error instanceof ApiError && status >= 400 && status < 500 && status !== 429) {
          this.refusal.value = error;
          this.connection.value = "refused";
          return;
        }
      }
      if (this.stopped) return;
      this.connection.value = "away";
      await new Promise<void>((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, this.pause_ms);
      });
      this.pause_ms = Math.min(this.pause_ms * 2, PAUSE_MS_MAX);
    }
  }
}

/** Once what has changed is painted; without delay where nothing is, as in a tab that is not looked at. */
function afterPaint(then: () => void): void {
  if (typeof document === "undefined" || document.hidden) {
    then();
    return;
  }
  let isDone = false;
  const go = (): void => {
    if (!isDone) then();
    isDone = true;
  };
  requestAnimationFrame(() => setTimeout(go, 0));
  // Who stops looking has no more frames.
  setTimeout(go, PAINT_MS_MAX);
}

export class Tail extends Follower {
  /** In their order, from number 1 on, each once. */
  readonly events: Event[] = [];
  /** Moves whenever there are more events. */
  readonly version = signal(0);
  readonly execution = signal<Execution | null>(null);
  /** Begins anew each time the events do. */
  readonly epoch = signal(0);
  private ended = false;
  private telling = false;
  private looking = false;
  private lookAgain = false;

  constructor(private readonly id: string) {
    super();
  }

  /** How it stands comes first, and is painted: a long stream would keep both waiting. */
  override start(): void {
    void this.look().finally(() => afterPaint(() => super.start()));
  }

  /** How many events the service is known to have that are not here. */
  get behind(): number {
    return Math.max(0, (this.execution.value?.last_sequence ?? 0) - this.events.length);
  }

  /** Asks how the execution stands; what is asked for meanwhile is asked once more. */
  async look(): Promise<void> {
    if (this.looking) {
      this.lookAgain = true;
      return;
    }
    this.looking = true;
    try {
      do {
        this.lookAgain = false;
        this.execution.value = await getExecution(this.id);
      } while (this.lookAgain);
    } catch {
      // The stream tells why, and comes again.
    } finally {
      this.looking = false;
    }
  }

  protected path(): string {
    return `/executions/${encodeURIComponent(this.id)}/events/stream${query({ after: this.events.length })}`;
  }

  protected isOver(): boolean {
    return this.ended;
  }

  protected take(messages: Message[]): void {
    for (const message of messages) {
      if (message.event === "progress") {
        if (!this.add(JSON.parse(message.data) as Event)) return;
      } else if (message.event === "reset") {
        this.events.length = 0;
        this.epoch.value += 1;
        this.execution.value = JSON.parse(message.data) as Execution;
      } else if (message.event === "end") {
        this.ended = true;
        if (!this.execution.value?.ended_ms) void this.look();
      }
    }
    this.tell();
  }

  /** False where an event is missing before this one. */
  add(event: Event): boolean {
    const next = this.events.length + 1;
    if (event.sequence_number > next) {
      this.again();
      return false;
    }
    if (event.sequence_number < next) return true;
    this.events.push(event);
    // What was there when somebody looked is in what was seen.
    const isNews = event.sequence_number > (this.execution.value?.last_sequence ?? 0);
    if (isNews && event.event_type.startsWith("workflow_")) void this.look();
    return true;
  }

  /** Once for all that comes within a moment. */
  private tell(): void {
    if (this.telling) return;
    this.telling = true;
    // What comes first is shown at once; of many that are to come, fewer pictures are made.
    const pause_ms = this.version.value > 0 && this.behind > MANY ? MANY_PAUSE_MS : FRAME_MS;
    setTimeout(() => {
      this.telling = false;
      this.version.value += 1;
    }, pause_ms);
  }
}

/**
 * Changes of all executions, from now on. What changed before a connection stood is in what is listed after it: `begun`
 * asks for that, unless the connection goes on where the one before ended.
 */
export class Feed extends Follower {
  private cursor = "";

  constructor(
    private readonly changed: (execution: Execution) => void,
    private readonly begun: () => void,
  ) {
    super();
  }

  protected path(): string {
    return `/feed${query({ after: this.cursor })}`;
  }

  protected isOver(): boolean {
    return false;
  }

  protected take(messages: Message[]): void {
    for (const message of messages) {
      const change = JSON.parse(message.data) as { cursor: string; execution?: Execution };
      const goesOn = this.cursor !== "" && message.event === "begin";
      this.cursor = change.cursor;
      if (change.execution) this.changed(change.execution);
      else if (!goesOn) this.begun();
    }
  }
}
