import { describe, expect, it } from "vitest";
import type { Event, Graph } from "../api";
import { TimelineFold, timelineOf } from "./model";
import { placed, ticksOf, warpOf, zoomed } from "./scale";

/** Events from lines such as "started /do/0/a 5 2 0,1": type, task, milliseconds, attempt, iteration. */
function events(...lines: string[]): Event[] {
  return lines.map((line, place) => {
    const [type = "", reference = "", time = "0", attempt = "1", iteration = ""] = line.split(" ");
    const isWhole = !reference.startsWith("/");
    return {
      workflow_execution_id: "x",
      sequence_number: place + 1,
      event_type: isWhole ? `workflow_${type}` : `task_${type}`,
      timestamp_ms: 1000 + Number(isWhole ? reference : time),
      ...(isWhole ? {} : { task_reference: reference, task_name: reference.split("/").pop() ?? "", attempt: Number(attempt) }),
      ...(iteration ? { iteration: iteration.split(",").map(Number) } : {}),
    };
  });
}

const graph = (kinds: Record<string, string>): Graph => ({
  nodes: Object.entries(kinds).map(([reference, kind]) => ({ reference, kind, name: "", parent: "", label: "" })),
  edges: [],
});

describe("a timeline", () => {
  it("has a row for each task, below what holds it, in the order in which they began", () => {
    const { rows, start_ms, end_ms } = timelineOf(
      events(
        "started 0",
        "started /do/0/f 1",
        "started /do/0/f/fork/branches/0/x 2",
        "started /do/0/f/fork/branches/1/y 3",
        "started /do/0/f/fork/branches/0/x/do/0/z 4",
        "completed /do/0/f/fork/branches/0/x/do/0/z 5",
        "completed /do/0/f/fork/branches/1/y 6",
        "completed /do/0/f/fork/branches/0/x 7",
        "completed /do/0/f 8",
        "completed 9",
      ),
      null,
      5000,
    );
    expect(rows.map((row) => `${row.depth}${row.name}`)).toEqual(["0f", "1x", "2z", "1y"]);
    expect(rows[0]?.spans[0]).toMatchObject({ from_ms: 1001, to_ms: 1008, state: "completed", first: 2, last: 9 });
    expect([start_ms, end_ms]).toEqual([1000, 1009]);
  });

  it("folds iterations into a row, and tells attempts apart", () => {
    const { rows, placeOf } = timelineOf(
      events(
        "started /do/0/t 0",
        "started /do/0/t/try/0/x 1 1 0",
        "failed /do/0/t/try/0/x 2 1 0",
        "retry /do/0/t 2 2",
        "started /do/0/t/try/0/x 12 2 0",
        "completed /do/0/t/try/0/x 13 2 0",
        "started /do/0/t/try/0/x 13 2 1",
      ),
      graph({ "/do/0/t": "try", "/do/0/t/try/0/x": "call" }),
      1020,
    );
    expect(rows[1]?.attempts).toBe(2);
    expect(rows[1]?.spans.map((span) => [span.state, span.attempt])).toEqual([
      ["failed", 1],
      ["completed", 2],
      ["running", 2],
    ]);
    expect(rows[0]?.spans[0]?.waits).toEqual([{ from_ms: 1002, to_ms: 1012 }]);
    expect(rows[0]?.attempts).toBe(1);
    expect(rows[0]?.spans[0]?.retrying_ms).toBeNull();
    expect(placeOf(6)).toEqual({ row: 1, span: 1 });
  });

  it("cuts off what an end leaves open", () => {
    const { rows } = timelineOf(
      events("started /do/0/f 0", "started /do/0/f/fork/branches/0/x 1", "completed /do/0/f 2", "started /do/1/w 2", "cancelled 7"),
      null,
      9000,
    );
    expect(rows.map((row) => [row.name, row.spans[0]?.state, row.spans[0]?.to_ms])).toEqual([
      ["f", "completed", 1002],
      ["x", "cut", 1002],
      ["w", "cut", 1007],
    ]);
  });

  it("knows when it was paused, and when nothing ran", () => {
    const kinds = graph({ "/do/0/a": "set", "/do/1/w": "wait", "/do/2/b": "call" });
    const timeline = timelineOf(
      events(
        "started /do/0/a 0",
        "completed /do/0/a 100",
        "started /do/1/w 100",
        "completed /do/1/w 60100",
        "started /do/2/b 60100",
        "paused 60200",
        "resumed 60300",
      ),
      kinds,
      62_000,
    );
    expect(timeline.idle).toEqual([{ from_ms: 1100, to_ms: 61_100 }]);
    expect(timeline.paused).toEqual([{ from_ms: 61_200, to_ms: 61_300 }]);
    expect(timeline.end_ms).toBeNull();
    // A call that takes long runs: that is no idle time.
    const long = timelineOf(events("started /do/2/b 0", "completed /do/2/b 60000"), kinds, 0);
    expect(long.idle).toEqual([]);
  });

  it("goes on with a list that grows, as if it had come at once", () => {
    const lines = [
      "started 0",
      "started /do/0/t 0",
      "started /do/0/t/try/0/x 1",
      "failed /do/0/t/try/0/x 2",
      "retry /do/0/t 2 2",
      "started /do/0/t/try/0/x 700 2",
      "paused 710",
      "completed /do/0/t/try/0/x 720 2",
      "resumed 730",
      "started /do/0/t/try/1/y 740",
      "completed /do/0/t 750",
      "completed 760",
    ];
    const all = events(...lines);
    const fold = new TimelineFold(null);
    for (let length = 0; length <= all.length; length++) {
      const grown = all.slice(0, length);
      expect(fold.isPartOf(grown)).toBe(true);
      fold.takeAll(grown);
      const { placeOf, ...rest } = fold.model(5000);
      const { placeOf: placeOfAll, ...restOfAll } = timelineOf(grown, null, 5000);
      expect(rest).toEqual(restOfAll);
      for (const event of grown) expect(placeOf(event.sequence_number)).toEqual(placeOfAll(event.sequence_number));
    }
    expect(fold.isPartOf(events(...lines))).toBe(false);
  });

  it("takes many events at once", () => {
    const lines = ["started /do/0/l 0"];
    for (let i = 0; i < 10_000; i++) lines.push(`started /do/0/l/do/0/x ${i} 1 ${i}`, `completed /do/0/l/do/0/x ${i + 1} 1 ${i}`);
    const { rows } = timelineOf(events(...lines), null, 20_000);
    expect(rows[1]?.spans.length).toBe(10_000);
  });
});

describe("its scale", () => {
  const idle = [{ from_ms: 1100, to_ms: 61_100 }];
  const warp = warpOf(1000, 61_200, idle);

  it("draws idle times short, and everything else as long as it is", () => {
    expect(warp.at(1000)).toBe(0);
    expect(warp.at(1100)).toBe(100);
    expect(warp.at(61_100)).toBe(107);
    expect(warp.length).toBe(207);
    for (const ms of [1000, 1050, 1100, 31_100, 61_100, 61_200]) expect(warp.back(warp.at(ms))).toBeCloseTo(ms, 6);
  });

  it("goes on beyond its end", () => {
    expect(warp.at(61_300)).toBe(307);
    expect(warp.back(307)).toBe(61_300);
  });

  it("zooms around a place and stays within the whole", () => {
    const view = zoomed({ from: 0, to: 200 }, 2, 50, 200);
    expect(view).toEqual({ from: 25, to: 125 });
    expect(zoomed(view, 0.1, 50, 200)).toEqual({ from: 0, to: 200 });
    expect(placed(180, 100, 200)).toEqual({ from: 100, to: 200 });
  });

  it("has round times on its axis, none in idle times", () => {
    const ticks = ticksOf(warp, { from: 0, to: 207 }, 800, 1000, idle);
    expect(ticks.length).toBeGreaterThan(4);
    for (const tick of ticks) {
      expect((tick - 1000) % 20).toBe(0);
      expect(tick > 1100 && tick < 61_100).toBe(false);
    }
  });

  it("has an axis however long it is: senders may give numbers that are no times", () => {
    const until_ms = 2 ** 62;
    const endless = warpOf(1000, until_ms, []);
    const ticks = ticksOf(endless, { from: 0, to: endless.length }, 800, 1000, []);
    expect(ticks.length).toBeGreaterThan(4);
    expect(ticks.length).toBeLessThan(12);
  });
});
