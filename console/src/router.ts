// Every state of the console is an address. Names in paths are percent-encoded, `@` too, so that `/x/{id}@{n}` has one
// meaning.
import { signal } from "@preact/signals";

export type Route =
  | { page: "executions" }
  | { page: "workflows" }
  | { page: "workflow"; namespace: string; name: string }
  | { page: "new-workflow" }
  | { page: "schedules" }
  | { page: "execution"; id: string; sequence: number | null }
  | { page: "unknown" };

export interface Place {
  path: string;
  query: Record<string, string>;
  route: Route;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function routeOf(path: string): Route {
  const parts = path.split("/").filter(Boolean);
  const [first, second, third] = parts;
  if (first === undefined) return { page: "executions" };
  if (first === "x" && second !== undefined && parts.length === 2) {
    const found = /^(.*?)(?:@(\d{1,15}))?$/.exec(second);
    const [, id, number] = found ?? [];
    if (id) return { page: "execution", id: decoded(id), sequence: number === undefined ? null : Number(number) };
  }
  if (first === "schedules" && second === undefined) return { page: "schedules" };
  if (first === "workflows") {
    if (second === undefined) return { page: "workflows" };
    if (second === "new" && third === undefined) return { page: "new-workflow" };
    if (third !== undefined && parts.length === 3) {
      return { page: "workflow", namespace: decoded(second), name: decoded(third) };
    }
  }
  return { page: "unknown" };
}

export function placeOf(url: { pathname: string; search: string }): Place {
  const query: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(url.search)) query[name] = value;
  return { path: url.pathname, query, route: routeOf(url.pathname) };
}

export function addressOf(path: string, query: Record<string, string | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const executionPath = (id: string, sequence?: number | null): string =>
  `/x/${encodeURIComponent(id)}${sequence ? `@${sequence}` : ""}`;

export const workflowPath = (namespace: string, name: string): string =>
  `/workflows/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

const here = (): Place =>
  placeOf(typeof window === "undefined" ? { pathname: "/", search: "" } : window.location);

export const place = signal<Place>(here());

/** Goes somewhere. `replace`: within a view, so that "back" leaves it. */
export function go(address: string, replace = false): void {
  if (replace) window.history.replaceState(null, "", address);
  else window.history.pushState(null, "", address);
  place.value = here();
}

/** Follows "back" and links within the console. */
export function listenToAddress(): void {
  window.addEventListener("popstate", () => {
    place.value = here();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.hasAttribute("download") || link.origin !== window.location.origin) return;
    if (link.pathname.startsWith("/api/") || link.pathname === "/openapi.json") return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
