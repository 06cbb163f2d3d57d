// JSON values as trees: exact numbers, jq paths, sizes.

/** A number that JavaScript does not have exactly: as it was written. */
export class ExactNumber {
  constructor(readonly text: string) {}
}

type Reviver = (this: unknown, key: string, value: unknown, context?: { source?: string }) => unknown;

/** A JSON text, numbers as written. Raises SyntaxError. */
export function parseExact(text: string): unknown {
  const keep: Reviver = (_key, value, context) => {
    if (typeof value !== "number" || context?.source === undefined) return value;
    return Number.isSafeInteger(value) || String(value) === context.source ? value : new ExactNumber(context.source);
  };
  return JSON.parse(text, keep as (this: unknown, key: string, value: unknown) => unknown);
}

export type Kind = "object" | "array" | "string" | "number" | "boolean" | "null";

export function kindOf(value: unknown): Kind {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (value instanceof ExactNumber) return "number";
  const kind = typeof value;
  return kind === "object" ? "object" : (kind as Kind);
}

/** A path of keys and indices as jq has it: `.items[3]."first name"`. */
export function jqPath(steps: readonly (string | number)[]): string {
  let path = "";
  for (const step of steps) {
    if (typeof step === "number") path += path ? `[${step}]` : `.[${step}]`;
    else if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(step)) path += `.${step}`;
    else path += `${path.startsWith(".") ? "" : "."}[${JSON.stringify(step)}]`;
  }
  return path || ".";
}

/** "object of 3", "array of 1,204", "text of 40 characters". */
export function summaryOf(value: unknown): string {
  switch (kindOf(value)) {
    case "object":
      return `object of ${Object.keys(value as object).length.toLocaleString("en-US")}`;
    case "array":
      return `array of ${(value as unknown[]).length.toLocaleString("en-US")}`;
    case "string":
      return `text of ${(value as string).length.toLocaleString("en-US")} characters`;
    default:
      return kindOf(value);
  }
}

export function scalarText(value: unknown): string {
  return value instanceof ExactNumber ? value.text : JSON.stringify(value);
}

/** What was hidden before it was stored. */
export const isHidden = (value: unknown): boolean => typeof value === "string" && value.includes("***");

/** Where a text stops being JSON: a sentence with line and column, or null. */
export function jsonProblem(text: string): string | null {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const position = /position (\d+)/.exec(message)?.[1];
    if (position === undefined) return message;
    const before = text.slice(0, Number(position)).split("\n");
    const short = message.replace(/ in JSON at position.*$/, "").replace(/ \(line.*$/, "");
    return `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}: ${short}`;
  }
}

/** Random, also where the page is not of a secure origin, which `crypto.randomUUID` needs. */
export function newId(): string {
  const parts = [...crypto.getRandomValues(new Uint8Array(16))];
  return parts.map((part) => part.toString(16).padStart(2, "0")).join("");
}
