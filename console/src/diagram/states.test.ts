import { describe, expect, it } from "vitest";
import type { Event, Graph } from "../api";
import { emptyFold, foldEvents, statesOf, wordOf } from "./states";

const KINDS: Record<string, string> = { "/do/0/a": "set", "/do/1/w": "wait", "/do/2/t": "try", "/do/2/t/try/0/x": "call" };
const GRAPH: Graph = {
  nodes: Object.entries(KINDS).map(([reference, kind]) => ({ reference, kind, name: reference, parent: "", label: "" })),
  edges: [],
};

/** Events from lines such as "started /do/0/a 5 2,1": type, task, milliseconds, iteration. */
function events(...lines: string[]): Event[] {
  return lines.map((line, place) => {
    const [type = "", reference = "", time = "0", iteration = ""] = line.split(" ");
    const isWhole = reference === "";
    return {
      workflow_execution_id: "x",
      sequence_number: place + 1,
      event_type: isWhole ? `workflow_${type}` : `task_${type}`,
      timestamp_ms: Number(time),
      ...(isWhole ? {} : { task_reference: reference }),
      ...(iteration ? { iteration: iteration.split(",").map(Number) } : {}),
      ...(type === "failed" ? { error: { message: "no luck" } } : {}),
    };
  });
}

describe("states of tasks", () => {
  it("follow what begins and ends", () => {
    const all = events("started /do/0/a 10", "completed /do/0/a 15", "started /do/1/w 15");
    expect(statesOf(all, GRAPH)).toEqual({
      "/do/0/a": { status: "completed", hits: 1, duration_ms: 5 },
      "/do/1/w": { status: "waiting", hits: 1, duration_ms: 0 },
    });
    expect(statesOf(all, null)["/do/1/w"]?.status).toBe("running");
  });

  it("count iterations and add up their times", () => {
    const reference = "/do/0/f/do/0/x";
    const lines = [0, 1, 2].flatMap((i) => [`started ${reference} ${i * 10} ${i}`, `completed ${reference} ${i * 10 + 4} ${i}`]);
    expect(statesOf(events("started /do/0/f 0", ...lines), GRAPH)[reference]).toEqual({
      status: "completed",
      hits: 3,
      duration_ms: 12,
    });
  });

  it("run while any of several at once runs", () => {
    const reference = "/do/0/f/do/0/x";
    const states = statesOf(events(`started ${reference} 0 0`, `started ${reference} 1 1`, `completed ${reference} 2 0`), GRAPH);
    expect(states[reference]?.status).toBe("running");
  });

  it("wait between attempts, and run in the next one", () => {
    const [whole, inner] = ["/do/2/t", "/do/2/t/try/0/x"];
    const lines = [`started ${whole} 0`, `started ${inner} 1`, `failed ${inner} 2`, `retry ${whole} 2`];
    const fold = emptyFold(GRAPH);
    foldEvents(fold, events(...lines));
    expect(fold.states[whole]?.status).toBe("waiting");
    expect(fold.states[inner]).toMatchObject({ status: "failed", error: "no luck" });
    foldEvents(fold, events(...lines, `started ${inner} 9`));
    expect(fold.states[whole]?.status).toBe("running");
    expect(fold.states[inner]).toMatchObject({ status: "running", hits: 2 });
  });

  it("tell what was cut off by what it lay in, and by the end", () => {
    const [fork, loser] = ["/do/0/f", "/do/0/f/fork/branches/1/b"];
    const race = events(`started ${fork} 0`, `started ${loser} 1`, `completed ${fork} 2`);
    expect(statesOf(race, GRAPH)[loser]?.status).toBe("skipped");
    const ended = statesOf(events("started /do/0/a 0", "cancelled"), GRAPH);
    expect(ended["/do/0/a"]?.status).toBe("skipped");
    expect(wordOf(ended["/do/0/a"])).toBe("cut off");
  });

  it("take each event once, and say whether anything is new", () => {
    const all = events("started /do/0/a 0", "completed /do/0/a 1");
    const fold = emptyFold(GRAPH);
    expect(foldEvents(fold, all)).toBe(true);
    expect(foldEvents(fold, all)).toBe(false);
    expect(fold.states["/do/0/a"]?.hits).toBe(1);
  });
});
