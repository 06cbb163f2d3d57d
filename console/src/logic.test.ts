import { describe, expect, it, vi } from "vitest";
import type { AcceptedDocument, Event, Execution, Schedule, Trigger } from "./api";
import { bytes, clockTime, duration, exactTime, isoTime, offset, relativeTime, sizeBytes } from "./format";
import { Fold } from "./fold";
import { merged } from "./pages/Executions";
import { pairsOf, requestText } from "./ui/Fields";
import { MessageParser, Tail } from "./stream";
import { addScheduleSame, commandSame, quoted } from "./terminal";
import { pretty } from "./ui/ValueView";
import { ExactNumber, jqPath, jsonProblem, parseExact, scalarText } from "./values";
import { isoMs, momentsText, scheduleSays, triggerText } from "./schedule";
import { eventTypesOf, retriesOf, waitOf, whyWaiting } from "./why";

const execution = (changes: Partial<Execution>): Execution => ({
  id: "e", namespace: "n", name: "w", version: "1.0.0", labels: {}, launch: "accepted", status: "running", last_sequence: 1,
  created_ms: 1, started_ms: 1, updated_ms: 1, ended_ms: 0, gap_since_ms: 0, message: "", error: null, output_json: "", waiting: "",
  ...changes,
});

describe("numbers and times", () => {
  it("shows what is no time as the number that it is", () => {
    const nanoseconds = 1_796_004_150_730_000_000;
    for (const text of [isoTime(nanoseconds), exactTime(nanoseconds), clockTime(nanoseconds, 1)]) {
      expect(text).toBe("1796004150730000000 ms, which is no time");
    }
    expect([isoTime(0), exactTime(0), isoTime(-1)]).toEqual(["1970-01-01T00:00:00.000Z", "not yet", "1969-12-31T23:59:59.999Z"]);
  });

  it("are said with two units at most", () => {
    expect([12, 3210, 45_000, 245_000, 7_800_000, 200_000_000].map(duration)).toEqual([
      "12 ms", "3.21 s", "45.0 s", "4 min 5 s", "2 h 10 min", "2 d 7 h",
    ]);
    expect([relativeTime(0, 9), relativeTime(1000, 1200), relativeTime(1000, 62_000), relativeTime(9000, 1000)]).toEqual([
      "–", "now", "1 min ago", "in 8 s",
    ]);
    expect([offset(12), offset(62_500), offset(3_661_000)]).toEqual(["+0.012", "+1:02.500", "+1:01:01"]);
  });

  it("count bytes as UTF-8 has them", () => {
    for (const text of ["a", "ü", "€", "😀", "a😀ü€"]) expect(sizeBytes(text)).toBe(new TextEncoder().encode(text).length);
    expect([bytes(1), bytes(2048), bytes(3 * 1024 * 1024)]).toEqual(["1 byte", "2.0 KB", "3.0 MB"]);
  });
});

describe("values", () => {
  it("have paths as jq has them", () => {
    expect(jqPath([])).toBe(".");
    expect(jqPath(["items", 3, "name"])).toBe(".items[3].name");
    expect(jqPath([0])).toBe(".[0]");
    expect(jqPath(["first name", "a-b"])).toBe('.["first name"]["a-b"]');
    expect(jqPath(["a", "b c"])).toBe('.a["b c"]');
  });

  it("keep numbers as they were written, where the browser tells", () => {
    const value = parseExact('{"a":12345678901234567890,"b":1.50,"c":7}') as Record<string, unknown>;
    expect(value["c"]).toBe(7);
    if (value["a"] instanceof ExactNumber) expect(scalarText(value["a"])).toBe("12345678901234567890");
  });

  it("are indented without any change to them", () => {
    const json = '{"a":12345678901234567890,"t":"x{,:\\"]","e":[],"o":{ },"l":[1,{"b":null}]}';
    expect(pretty(json).replace(/\n */g, "").replaceAll('": ', '":').replace(/,\s/g, ",")).toBe(json.replace("{ }", "{}"));
    expect(JSON.parse(pretty(json))).toEqual(JSON.parse(json));
  });

  it("that are no JSON are told where", () => {
    expect(jsonProblem('{"a": 1}')).toBeNull();
    expect(jsonProblem('{"a": 1,\n  b}')).toMatch(/^line 2, column 3: /);
  });
});

describe("a start", () => {
  it("sends the input as it is written", () => {
    const request = { workflow: { namespace: "n", name: "w" } };
    expect(requestText(request, ' {"a": 12345678901234567890} ')).toBe(
      '{"workflow":{"namespace":"n","name":"w"},"input":{"a": 12345678901234567890}}',
    );
    expect(requestText(request, "")).toBe('{"workflow":{"namespace":"n","name":"w"}}');
  });

  it("reads a pair a line", () => {
    expect(pairsOf("a=1\n\nb=x=y")).toEqual({ pairs: { a: "1", b: "x=y" }, problem: "" });
    expect(pairsOf("a=1\nb").problem).toMatch(/line 2/);
  });
});

describe("the same from a terminal", () => {
  it("is quoted for a shell", () => {
    expect(quoted("plain-1.0")).toBe("plain-1.0");
    expect(quoted("it's $HOME")).toBe("'it'\\''s $HOME'");
    const [cli, grpc, curl] = commandSame("http://here", "a b", "cancel", "too late", true);
    expect(cli?.text).toBe("fastrunner cancel 'a b' --reason 'too late' --force");
    expect(grpc?.text).toContain("CancelExecution");
    expect(curl?.text).toContain("http://here/api/v1/executions/a%20b/cancel");
  });
});

describe("the list", () => {
  const which = { status: "running", namespace: "", name: "", version: "" };
  const rows = [execution({ id: "b", created_ms: 20 }), execution({ id: "a", created_ms: 10 })];

  const take = (changes: Partial<Execution>, takesNew = true, isAll = false): string[] =>
    merged(rows, execution(changes), which, takesNew, isAll).map((each) => `${each.id} ${each.status}`);

  it("takes changes in their place, and what is new where it belongs", () => {
    expect(take({ id: "a", status: "failed" })).toEqual(["b running", "a failed"]);
    expect(take({ id: "c", created_ms: 30 })).toEqual(["c running", "b running", "a running"]);
    expect(take({ id: "c", created_ms: 15 })).toEqual(["b running", "c running", "a running"]);
    expect(take({ id: "c", created_ms: 5 }, true, true)).toEqual(["b running", "a running", "c running"]);
  });

  it("leaves out what does not belong to it, and what is older than what it has", () => {
    const same = ["b running", "a running"];
    expect(take({ id: "c", created_ms: 30, status: "failed" })).toEqual(same);
    expect(take({ id: "c", created_ms: 30 }, false)).toEqual(same);
    expect(take({ id: "c", created_ms: 5 })).toEqual(same);
    expect(take({ id: "a", status: "failed", last_sequence: 0 })).toEqual(same);
  });
});

describe("a stream", () => {
  it("is read however it is cut", () => {
    const text = ': nothing new\n\nid: 1\nevent: progress\ndata: {"a":1}\n\nevent: end\ndata: {}\n\n';
    for (let size = 1; size < text.length; size += 7) {
      const parser = new MessageParser();
      const found = [];
      for (let at = 0; at < text.length; at += size) found.push(...parser.take(text.slice(at, at + size)));
      expect(found).toEqual([{ event: "progress", data: '{"a":1}' }, { event: "end", data: "{}" }]);
    }
  });

  it("keeps each event once and in order, and asks again where one is missing", () => {
    const tail = new Tail("e");
    const event = (sequence_number: number): Event => ({ workflow_execution_id: "e", sequence_number, event_type: "task_started" });
    expect([1, 2, 2, 1, 3].map((number) => tail.add(event(number)))).toEqual([true, true, true, true, true]);
    expect(tail.add(event(5))).toBe(false);
    expect(tail.events.map((each) => each.sequence_number)).toEqual([1, 2, 3]);
  });
});

describe("a tail", () => {
  it("has each event once, in order, over a hundred connections that break anywhere", async () => {
    const encoder = new TextEncoder();
    const all = [...Array(1_000).keys()].map((at) => ({ workflow_execution_id: "e", sequence_number: at + 1, event_type: "task_started" }));
    let asked = 0;
    const stub = (url: string): Response => {
      if (!url.includes("/stream")) return new Response(JSON.stringify(execution({ last_sequence: 1_000 })));
      asked += 1;
      const after = Number(new URL(url, "http://h").searchParams.get("after"));
      // Some send again what was sent, some skip what was not, and all end within an event.
      const from = asked % 7 === 0 ? Math.max(0, after - 3) : asked % 11 === 0 ? after + 2 : after;
      const sent = all.slice(from, after >= 985 ? undefined : from + 12);
      const text = sent.map((each) => `id: ${each.sequence_number}\nevent: progress\ndata: ${JSON.stringify(each)}\n\n`).join("");
      const whole = from <= after && after >= 985 ? `${text}event: end\ndata: {}\n\n` : text.slice(0, text.length - 9);
      return new Response(new ReadableStream({
        start(controller) {
          controller.enqueue(encoder.encode(whole));
          controller.close();
        },
      }));
    };
    vi.stubGlobal("fetch", (url: string) => Promise.resolve(stub(url)));
    vi.useFakeTimers();
    const tail = new Tail("e");
    tail.start();
    for (let turns = 0; turns < 2_000 && tail.connection.value !== "ended"; turns += 1) await vi.advanceTimersByTimeAsync(250);
    vi.useRealTimers();
    vi.unstubAllGlobals();
    tail.stop();
    expect(tail.events.map((each) => each.sequence_number)).toEqual(all.map((each) => each.sequence_number));
    expect(asked).toBeGreaterThan(80);
  });
});

describe("why it is waiting", () => {
  const text = "do:\n- rest:\n    wait: {hours: 1}\n- hear:\n    listen: {to: {one: {with: {type: order.paid}}}}\n";
  const document: AcceptedDocument = {
    namespace: "n", name: "w", version: "1.0.0", document: text,
    tasks: [
      { reference: "/do/0/rest", name: "rest", kind: "wait", line: 2, column: 3, end_line: 3 },
      { reference: "/do/1/hear", name: "hear", kind: "listen", line: 4, column: 3, end_line: 5 },
    ],
  };
  const started = (reference: string): Fold => {
    const fold = new Fold();
    const task_name = reference.slice(reference.lastIndexOf("/") + 1);
    fold.take({ workflow_execution_id: "e", sequence_number: 1, event_type: "task_started", task_reference: reference, task_name, timestamp_ms: 1000 });
    return fold;
  };

  it("reads durations and types of events", () => {
    expect(waitOf("wait: PT1H30M")).toBe(5_400_000);
    expect(waitOf("  wait:\n    minutes: 2\n    seconds: 3")).toBe(123_000);
    expect(waitOf("wait: ${ .pause }")).toBe(0);
    expect(eventTypesOf("any: [{with: {type: a.b}}, {with: {type: 'c'}}]")).toEqual(["a.b", "c"]);
  });

  it("is one sentence", () => {
    expect(whyWaiting(execution({}), started("/do/0/rest"), document, 601_000)).toMatch(/^Waits at rest until .*, for 50 min more\.$/);
    expect(whyWaiting(execution({}), started("/do/1/hear"), document, 3000)).toBe("Listens at hear for an event of type order.paid, since 2.00 s.");
    expect(whyWaiting(execution({ status: "paused", message: "stock" }), new Fold(), document, 0)).toMatch(/^Paused: stock\./);
    expect(whyWaiting(execution({ launch: "recorded", status: "pending" }), new Fold(), null, 0)).toMatch(/^Recorded/);
    expect(whyWaiting(execution({ gap_since_ms: 1000, last_sequence: 4 }), new Fold(), null, 4000)).toMatch(/^Event 5 has been missing for 3/);
    expect(whyWaiting(execution({ status: "completed" }), new Fold(), null, 0)).toBe("");
  });

  it("tells how many retries there are, by the lines of the task alone", () => {
    const lines = [
      "do:", "- outer:", "    try:", "    - inner:", "        try: [{ask: {call: http}}]",
      "        catch: {retry: {limit: {attempt: {count: 9}}}}", "    catch:", "      retry:", "        delay: PT1S", "        limit:",
      "          attempt:", "            count: 5",
    ];
    const outer = { reference: "/do/0/outer", name: "outer", kind: "try", line: 2, column: 3, end_line: 12 };
    const inner = { reference: "/do/0/outer/try/0/inner", name: "inner", kind: "try", line: 4, column: 7, end_line: 6 };
    const retried = { ...document, document: lines.join("\n"), tasks: [outer, inner] };
    expect([retriesOf(retried, outer), retriesOf(retried, inner)]).toEqual([5, 9]);
    const fold = started("/do/0/outer");
    fold.take({
      workflow_execution_id: "e", sequence_number: 2, event_type: "task_retry", task_reference: "/do/0/outer", attempt: 4, timestamp_ms: 1000,
      message: "Task outer is retried in 2 s after no luck", error: { message: "no luck" },
    });
    expect(whyWaiting(execution({}), fold, retried, 1000)).toBe("Retry 3 of 5 of outer begins in 2.00 s: the attempt before failed with no luck.");
  });

  it("is what a runner says, unless events came after it", () => {
    const waiting = "retry 3 of 5 at 1970-01-01T00:00:09Z in task 'ask' (/do/0/ask)";
    const fold = started("/do/1/hear");
    expect(whyWaiting(execution({ waiting }), fold, document, 1000)).toMatch(/^Retry 3 of 5 at .* \(in 8.00 s\) in task 'ask'\.$/);
    expect(whyWaiting(execution({ waiting, last_sequence: 0 }), fold, document, 3000)).toMatch(/^Listens at hear/);
    const held = "has ended; its receiver has still to take 3 events";
    expect(whyWaiting(execution({ status: "completed", waiting: held }), fold, document, 0)).toBe("Has ended; its receiver has still to take 3 events.");
  });
});

describe("schedules", () => {
  const trigger: Trigger = { every: "", cron: "", after: "", on_json: "", read: "" };
  const schedule: Schedule = {
    id: "s", namespace: "n", name: "w", version: "", trigger, paused: false, reason: "", added_ms: 1, added_by: "", next_ms: 9, last_ms: 1,
    options: { timezone: "", misfire: "once", misfire_count_max: 100, overlap: "skip", queue_count_max: 100, jitter_ms: 0 },
    last_execution_id: "e", last_error: "", queued_count: 0, started_count: 1200, failed_count: 0, missed_count: 2, overlapped_count: 0,
  };

  it("are said in words", () => {
    expect([isoMs("PT15M"), isoMs("P1DT2H"), isoMs("PT0.5S"), isoMs("P1M")]).toEqual([900_000, 93_600_000, 500, 0]);
    expect(triggerText({ ...trigger, every: "PT10S" }, "UTC")).toBe("every 10 s");
    expect(triggerText({ ...trigger, cron: "30 2 * * *", after: "P1M" }, "Europe/Berlin")).toBe("cron 30 2 * * * (Europe/Berlin), P1M after the end");
    expect(triggerText({ ...trigger, on_json: '{"one":{"with":{"type":"order.paid"}}}' }, "")).toBe("on order.paid");
    expect(momentsText(schedule)).toBe("1,200 started, 2 missed");
    expect(scheduleSays(schedule)).toBe("One at a time");
    expect(scheduleSays({ ...schedule, paused: true, reason: "stock" })).toBe("Paused: stock");
    expect(scheduleSays({ ...schedule, last_error: "no such workflow" })).toBe("no such workflow");
  });

  it("are added with the same from a terminal", () => {
    const request = { workflow: { namespace: "n", name: "w" }, trigger: { cron: "0 3 * * *" }, options: { overlap: "skip" as const } };
    const same = addScheduleSame("http://h", request, "[1]", "{}").map((each) => each.text);
    expect(same[1]).toContain("fastrunner schedule add w.yaml --cron '0 3 * * *' --overlap skip --input '[1]'");
    expect(same[2]).toContain("OVERLAP_POLICY_SKIP");
    expect(same[2]).toContain("WorkflowRegistryController/AddSchedule");
  });
});
