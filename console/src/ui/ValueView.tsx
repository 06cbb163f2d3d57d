// A value as a tree or raw: its size first; a click on a key copies the jq path.
import { useMemo, useState } from "preact/hooks";
import { bytes, sizeBytes } from "../format";
import { isHidden, jqPath, kindOf, parseExact, scalarText, summaryOf } from "../values";
import { copy, CopyButton } from "./Copy";

/** What is larger is shown only when asked for. */
const ASK_BYTES = 256 * 1024;
const GROUP = 100;

type Steps = readonly (string | number)[];

function Scalar({ value }: { value: unknown }) {
  const [whole, setWhole] = useState(false);
  const kind = kindOf(value);
  if (isHidden(value)) {
    return (
      <span class="hidden-value" title="Hidden before it was stored">
        {scalarText(value)} <em>hidden</em>
      </span>
    );
  }
  const text = scalarText(value);
  const isCut = text.length > 400 && !whole;
  return (
    <span class={`json-${kind}`}>
      {isCut ? `${text.slice(0, 400)}… ` : text}
      {isCut ? (
        <button type="button" class="link" onClick={() => setWhole(true)}>
          all {text.length.toLocaleString("en-US")} characters
        </button>
      ) : null}
    </span>
  );
}

function Node({ value, steps, depth }: { value: unknown; steps: Steps; depth: number }) {
  const kind = kindOf(value);
  const isTree = kind === "object" || kind === "array";
  const entries = useMemo(
    () => (isTree ? (kind === "array" ? [...(value as unknown[]).entries()] : Object.entries(value as object)) : []),
    [value],
  );
  const [isOpen, setOpen] = useState(depth < 2 && entries.length <= 40);
  const [shown, setShown] = useState(GROUP);
  const path = jqPath(steps);
  const name = steps.at(-1);
  const key =
    name === undefined ? null : (
      <button type="button" class="json-key" title={`Copy ${path}`} aria-label={`Copy the jq path ${path}`} onClick={() => void copy(path, path)}>
        {name}
      </button>
    );
  if (!isTree || entries.length === 0) {
    return (
      <li>
        <span class="json-mark" />
        {key}
        {isTree ? <span class="soft">{kind === "array" ? "[]" : "{}"}</span> : <Scalar value={value} />}
      </li>
    );
  }
  return (
    <li>
      <button type="button" class="json-mark" aria-expanded={isOpen} aria-label={`${isOpen ? "Fold" : "Unfold"} ${path}`} onClick={() => setOpen(!isOpen)}>
        {isOpen ? "▾" : "▸"}
      </button>
      {key}
      <span class="soft">{summaryOf(value)}</span>
      {isOpen ? (
        <ul>
          {entries.slice(0, shown).map(([each, child]) => (
            <Node key={each} value={child} steps={[...steps, each]} depth={depth + 1} />
          ))}
          {entries.length > shown ? (
            <li>
              <button type="button" class="link" onClick={() => setShown(shown + 10 * GROUP)}>
                show more: {(entries.length - shown).toLocaleString("en-US")} are left
              </button>
            </li>
          ) : null}
        </ul>
      ) : null}
    </li>
  );
}

function Tree({ json }: { json: string }) {
  const value = useMemo(() => {
    try {
      return { parsed: parseExact(json) };
    } catch {
      return null;
    }
  }, [json]);
  if (!value) return <pre class="raw">{json}</pre>;
  return (
    <ul class="json">
      <Node value={value.parsed} steps={[]} depth={0} />
    </ul>
  );
}

/** Indents a JSON text without changing any number or text in it. */
export function pretty(json: string): string {
  let out = "";
  let depth = 0;
  let inText = false;
  for (let at = 0; at < json.length; at += 1) {
    const char = json[at] as string;
    if (inText) {
      out += char;
      if (char === "\\") out += json[++at] ?? "";
      else if (char === '"') inText = false;
    } else if (char === '"') {
      inText = true;
      out += char;
    } else if (char === "{" || char === "[") {
      const close = char === "{" ? "}" : "]";
      const next = /\S/.exec(json.slice(at + 1, at + 64))?.[0];
      if (next === close) {
        out += char + close;
        at = json.indexOf(close, at);
      } else out += `${char}\n${"  ".repeat(++depth)}`;
    } else if (char === "}" || char === "]") out += `\n${"  ".repeat(--depth)}${char}`;
    else if (char === ",") out += `,\n${"  ".repeat(depth)}`;
    else if (char === ":") out += ": ";
    else if (!/\s/.test(char)) out += char;
  }
  return out;
}

export function ValueView({ json, name, isRaw, onRaw }: { json: string; name: string; isRaw: boolean; onRaw: (isRaw: boolean) => void }) {
  const size = useMemo(() => sizeBytes(json), [json]);
  const [asked, setAsked] = useState("");
  const isLarge = size > ASK_BYTES && asked !== json;
  return (
    <section class="value" aria-label={name}>
      <div class="value-bar">
        <strong>{name}</strong>
        <span class="soft num">{bytes(size)}</span>
        <span class="grow" />
        <div role="group" aria-label="View" class="segments">
          <button type="button" aria-pressed={!isRaw} onClick={() => onRaw(false)}>tree</button>
          <button type="button" aria-pressed={isRaw} onClick={() => onRaw(true)}>raw</button>
        </div>
        <CopyButton text={json} what={name} />
      </div>
      {isLarge ? (
        <p class="soft">
          It is large. <button type="button" class="link" onClick={() => setAsked(json)}>Show all {bytes(size)}</button>
        </p>
      ) : isRaw ? (
        <pre class="raw" tabIndex={0} aria-label={`${name}, raw`}>{pretty(json)}</pre>
      ) : (
        <Tree json={json} />
      )}
    </section>
  );
}
