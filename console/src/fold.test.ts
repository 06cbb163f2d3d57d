import { describe, expect, it } from "vitest";
import type { Event } from "./api";
import { wordOf } from "./diagram/states";
import { Fold } from "./fold";

const KINDS = new Map([["/do/1/w", "wait"]]);

/** Events from lines such as "started /do/0/a 5 2,1": type, task, milliseconds, iteration. */
function events(...lines: string[]): Event[] {
  return lines.map((line, place) => {
    const [type = "", reference = "", time = "0", iteration = ""] = line.split(" ");
    const isWhole = !reference.startsWith("/");
    return {
      workflow_execution_id: "x",
      sequence_number: place + 1,
      event_type: isWhole ? `workflow_${type}` : `task_${type}`,
      timestamp_ms: Number(time),
      ...(isWhole ? {} : { task_reference: reference, task_name: reference.slice(reference.lastIndexOf("/") + 1) }),
      ...(iteration ? { iteration: iteration.split(",").map(Number) } : {}),
      ...(type === "failed" ? { error: { message: "no luck" } } : {}),
      ...(type === "retry" ? { error: { message: "no luck" }, attempt: 2, message: "Task t is retried in 1.5 s after no luck" } : {}),
    };
  });
}

function folded(...lines: string[]): Fold {
  const fold = new Fold(KINDS);
  fold.takeAll(events(...lines));
  return fold;
}

describe("states of tasks", () => {
  it("follow what begins and ends", () => {
    const { states } = folded("started /do/0/a 10", "completed /do/0/a 15", "started /do/1/w 15");
    expect(states.get("/do/0/a")).toMatchObject({ status: "completed", hits: 1, duration_ms: 5, first: 1, last: 2 });
    expect(states.get("/do/1/w")).toMatchObject({ status: "waiting", hits: 1, duration_ms: 0, since_ms: 15 });
  });

  it("count iterations and add up their times", () => {
    const reference = "/do/0/f/do/0/x";
    const lines = [0, 1, 2].flatMap((i) => [`started ${reference} ${i * 10} ${i}`, `completed ${reference} ${i * 10 + 4} ${i}`]);
    expect(folded("started /do/0/f 0", ...lines).states.get(reference)).toMatchObject({ status: "completed", hits: 3, duration_ms: 12 });
  });

  it("run while any of several at once runs", () => {
    const reference = "/do/0/f/do/0/x";
    const { states } = folded(`started ${reference} 0 0`, `started ${reference} 1 1`, `completed ${reference} 2 0`);
    expect(states.get(reference)?.status).toBe("running");
  });

  it("wait between attempts, and run in the next one", () => {
    const [whole, inner] = ["/do/2/t", "/do/2/t/try/0/x"];
    const lines = [`started ${whole} 0`, `started ${inner} 1`, `failed ${inner} 2`, `retry ${whole} 2`];
    const waiting = folded(...lines);
    expect(waiting.states.get(whole)).toMatchObject({ status: "waiting", retry: { attempt: 2, due_ms: 1502, error: "no luck" } });
    expect(waiting.states.get(inner)).toMatchObject({ status: "failed", error: "no luck" });
    const again = folded(...lines, `started ${inner} 9`);
    expect(again.states.get(whole)?.status).toBe("running");
    expect(again.states.get(whole)?.retry).toBeUndefined();
    expect(again.states.get(inner)).toMatchObject({ status: "running", hits: 2 });
  });

  it("tell what was cut off by what it lay in, and by the end", () => {
    const [fork, loser] = ["/do/0/f", "/do/0/f/fork/branches/1/b"];
    expect(folded(`started ${fork} 0`, `started ${loser} 1`, `completed ${fork} 2`).states.get(loser)?.status).toBe("skipped");
    const ended = folded("started /do/0/a 0", "cancelled");
    expect(ended.states.get("/do/0/a")?.status).toBe("skipped");
    expect(wordOf(ended.states.get("/do/0/a"))).toBe("cut off");
    expect(ended.leaves()).toEqual([]);
  });

  it("take each event once, however often the list is given", () => {
    const fold = new Fold();
    const all = events("started /do/0/a 0");
    fold.takeAll(all);
    all.push(...events("", "completed /do/0/a 1").slice(1));
    fold.takeAll(all);
    fold.takeAll(all);
    expect(fold.states.get("/do/0/a")).toMatchObject({ hits: 1, status: "completed" });
  });

  it("know the innermost that are under way", () => {
    const fold = folded("started /do/0/f 0", "started /do/0/f/do/0/x 1 0", "started /do/0/f/do/0/x 2 1", "paused");
    expect(fold.leaves().map((each) => [each.reference, each.iteration])).toEqual([
      ["/do/0/f/do/0/x", [0]],
      ["/do/0/f/do/0/x", [1]],
    ]);
    expect(fold.isPaused).toBe(true);
  });

  it("end with what lies in them alone", () => {
    const { states } = folded(
      "started /do/0/f 0",
      "started /do/0/f/do/0/g 1 0",
      "started /do/0/f/do/0/g/do/0/x 1 0,0",
      "started /do/0/f/do/0/g 1 1",
      "started /do/0/f/do/0/g/do/0/x 1 1,0",
      "failed /do/0/f/do/0/g 2 0",
    );
    expect(states.get("/do/0/f/do/0/g/do/0/x")).toMatchObject({ status: "running", since_ms: 1 });
    expect(states.get("/do/0/f")?.status).toBe("running");
  });

  // Looking at all that is open at each end would take longer than a test may.
  it("are quick for 20,000 events, also where 5,000 branches run at once", () => {
    const branch = (i: number): string => `/do/0/f/fork/branches/${i}/b`;
    const all = [...Array(5_000).keys()];
    const wide = ["started /do/0/f 0", ...all.flatMap((i) => [`started ${branch(i)} 1`, `started ${branch(i)}/do/0/x 1`])];
    const fold = folded(...wide);
    expect(fold.leaves().length).toBe(5_000);
    fold.takeAll([...events(...wide, ...all.flatMap((i) => [`completed ${branch(i)}/do/0/x 2`, `completed ${branch(i)} 3`]))]);
    expect(fold.states.get(branch(4_999))).toMatchObject({ status: "completed", duration_ms: 2 });
    expect(fold.leaves().map((each) => each.reference)).toEqual(["/do/0/f"]);
  });

  it("are quick for 20,000 events one after the other", () => {
    const lines: string[] = [];
    for (let i = 0; i < 10_000; i += 1) lines.push(`started /do/0/f/do/0/x ${i} ${i}`, `completed /do/0/f/do/0/x ${i + 1} ${i}`);
    expect(folded(...lines).states.get("/do/0/f/do/0/x")).toMatchObject({ hits: 10_000, duration_ms: 10_000 });
  });
});
