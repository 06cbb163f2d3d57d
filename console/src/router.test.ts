import { describe, expect, it } from "vitest";
import { addressOf, executionPath, placeOf, routeOf, workflowPath } from "./router";

describe("addresses", () => {
  it.each(["plain", "a@7", "a/b", "100%", "ü ?#&", "@", "x@"])("lead to the execution %s and its event", (id) => {
    expect(routeOf(executionPath(id))).toEqual({ page: "execution", id, sequence: null });
    expect(routeOf(executionPath(id, 42))).toEqual({ page: "execution", id, sequence: 42 });
  });

  it("lead to a workflow whose names have slashes", () => {
    expect(routeOf(workflowPath("a/b", "new"))).toEqual({ page: "workflow", namespace: "a/b", name: "new" });
    expect(routeOf("/workflows/new")).toEqual({ page: "new-workflow" });
  });

  it("say that they are unknown", () => {
    for (const path of ["/y", "/x", "/x/a/b", "/workflows/a", "/workflows/a/b/c"]) {
      expect(routeOf(path)).toEqual({ page: "unknown" });
    }
  });

  it("keep what is asked for, and leave out what is empty", () => {
    const address = addressOf("/", { status: "failed", name: "", version: "1.0 &" });
    const url = new URL(address, "http://here");
    expect(placeOf(url).query).toEqual({ status: "failed", version: "1.0 &" });
  });
});
